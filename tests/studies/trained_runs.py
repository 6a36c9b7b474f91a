"""Runs of the smoke tier that are really trained, for tests of what reads a store."""

from pathlib import Path

from studies.suite.execution.pretraining import Runtime
from studies.suite.execution.run import Ending, Execution
from studies.suite.execution.store import Store
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.resolve import resolve
from studies.suite.planning.study import Arm

WORDS = ("tier=smoke", "sizes.generated_train=80", "sizes.generated_test=40", "training.budget.value=1")
SCD = Arm("scd", "SCD", {"wrapper": "scd"}, "", "")
ORACLE = Arm("oracle", "oracle", {"wrapper": {"preset": "scd", "saliency": "oracle"},
                                  "annotations": {"masks": "oracle"}}, "", "")  # fmt: skip
MOCO = Arm("moco", "MoCo", {}, "", "")
VIT = Arm("vit", "ViT", {"backbone": "vit"}, "", "")


def train(folder: Path, arm: Arm, seed: int = 0) -> str:
    """Train one run of an arm, without an evaluation, into the store of a folder; its id."""
    spec = resolve_settings("multicrop", WORDS).spec(arm, seed=seed).with_protocols([])
    (planned,) = resolve([spec], check=False)
    outcome = Execution(planned.spec, Store(folder), Runtime()).perform()
    assert outcome.ending is Ending.DONE, outcome.reason
    return planned.spec.id
