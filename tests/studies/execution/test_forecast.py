"""What a plan would run and how long it would take."""

import pytest

from scd.profiling.training_memory import TrainingMemory
from studies.suite.execution.forecast import estimate, memory_lines, table
from studies.suite.execution.store import Store
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.resolve import Planned, resolve, unique
from studies.suite.planning.study import Arm, RunSpec

SCD = Arm("scd", "SCD", {"wrapper": "scd"}, "", "")


def test_the_table_counts_what_is_done_and_the_estimate_the_rest(tmp_path):
    words = ["tier=smoke", "sizes.generated_train=80", "sizes.generated_test=40", "evaluation.protocols=[knn,linear]"]
    settings = resolve_settings("multicrop", words)
    first, second = resolve([settings.spec(SCD, 0), settings.spec(SCD, 1)], check=False)
    store, spec = Store(tmp_path), first.spec
    with store.pretraining.claim(spec.id):
        store.pretraining.begin(spec.id, spec.config)
        record = {"total_flops": 1e9, "flops_per_step": spec.flops_per_step, "seconds_pretrain": 2.0}
        store.pretraining.finish(spec.id, record, {"python": "3"})
    for evaluation in spec.evaluations:
        with store.evaluations.claim(evaluation):
            store.evaluations.finish(evaluation, {"numbers": {}, "seconds": 0.5}, {})
    row = table([first, second], store).splitlines()[-1].replace(" ", "")
    assert row.startswith("|scd|epochs|shapes|5|") and row.endswith("|2|1|1|")
    seconds, basis = estimate(unique([second]), store, workers=2)
    assert seconds == pytest.approx(2 * 0.5 + second.flops / 5e8)
    assert "1 finished runs of such a size" in basis


def test_memory_is_that_of_the_run_that_needs_most(tmp_path):
    config = {"training": {"devices": 8}}
    small = Planned(RunSpec(config, {"arm": "small"}), 1, memory=TrainingMemory(1, 1, 1, 1))
    large = Planned(RunSpec(config, {"arm": "large"}), 1, memory=TrainingMemory(2**30, 2**29, 0, 3 * 2**30))
    assert memory_lines([small, large]) == [
        "estimated memory of a device: 4.5 GiB (parameters and buffers 1, gradients 0.5, activations kept for the "
        "backward pass 3), in arm 'large' on 8 device(s), the most of all arms; counted from shapes, a lower bound: "
        "temporary tensors, workspaces and views are left out"
    ]
    assert memory_lines([Planned(RunSpec(config, {"arm": "measured"}), 0)]) == []
