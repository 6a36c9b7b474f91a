"""Wrong settings end in one line when the plan is made, before any run."""

from collections.abc import Mapping, Sequence
from typing import Literal

import pytest

from scd.errors import UsageError
from studies.__main__ import main
from studies.suite.planning.checks import check_kind, check_types

SMALL = ["tier=smoke", "seeds=1", "arms=moco", "evaluation.protocols=[collapse]", "sizes.generated_train=48"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        # F22: values of another kind or range
        (["training.batch_size=0"], "training.batch_size=0: it must be a whole number, 1 or more"),
        (["training.batch_size=-8"], "training.batch_size=-8: it must be a whole number, 1 or more"),
        (["training.batch_size=8.5"], "training.batch_size=8.5: it must be a whole number, 1 or more"),
        (["training.batch_size='8'"], "training.batch_size='8': it must be a number"),
        (["training.batch_size=true"], "training.batch_size=true: it must be a number"),
        (["training.batch_size=null"], "training.batch_size=null: it must be a whole number, 1 or more"),
        (["views.size=8.5"], "views.size=8.5: it must be a whole number, 1 or more"),
        (["views.scale=0.5"], "views.scale=0.5: it must be a list: views.scale=[0.5]"),
        (["views.scale=[0.5]"], "views.scale needs two numbers [low, high], not [0.5]"),
        (["views.scale=[a,b]"], "views.scale must be a list, each a number or null, not ['a', 'b']"),
        (["views.extra={kind: local, count: 1.5}"], "views.extra.count=1.5: it must be a whole number, 0 or more"),
        (["data.train_limit=0"], "data.train_limit=0: it must be a whole number, 1 or more, or null"),
        (["evaluation.protocols=knn"], "evaluation.protocols='knn': it must be a list: evaluation.protocols=[knn]"),
        (["axes.rho=0.5"], "axes.rho=0.5: it must be a list: axes.rho=[0.5]"),
        (["method.dim=16.5"], "MoCo: dim must be a whole number, not 16.5"),
        (["method.symmetric=1"], "MoCo: symmetric must be true or false, not 1"),
        (["backbone.widths=8"], "backbone.widths=8: it must be a list"),
        (["training.budget=3"], "training.budget=3: it must be a mapping of several options"),
        (["evaluation.protocols=[{preset: knn, k: many}]"], "KNN: k must be a whole number, not 'many'"),
        # F23: what the method, the schedule or the optimiser refuses
        (["method.queue_size=24"], "the queue holds 24 keys, which 16 keys a step do not divide"),
        (["method.queue_size=0"], "queue_size is at least 1 key, not 0"),
        (["method.queue_size=-64"], "queue_size is at least 1 key, not -64"),
        (["method.bn_groups=3"], "a batch of 16 does not split into 3 batch-norm groups"),
        (["schedule.warmup_epochs=5"], "the warm-up of 5 epochs (15 steps) is not shorter than a run of 3 steps"),
        (["schedule.warmup_epochs=-1"], "schedule.warmup_epochs is 0 or more epochs, not -1"),
        (["schedule.name=linear"], "unknown schedule 'linear'"),
        (["training.budget={unit: seconds, value: 1}", "schedule.per=epoch"], "use schedule.per=step"),
        (["optimizer.lr=0"], "optimizer.lr is a number above 0, not 0"),
        (["optimizer.lr=-0.1"], "optimizer.lr is a number above 0, not -0.1"),
        (["optimizer.lr=fast"], "optimizer.lr='fast': it must be a number"),
        (["optimizer.lr=null"], "optimizer.lr must be a number, not null"),
        (["optimizer.name=adam"], "unknown optimizer 'adam'"),
        (["optimizer.name=adamw"], "adamw has no momentum: set optimizer.momentum=null"),
        (["optimizer.momentum=0", "optimizer.nesterov=true"], "optimizer: Nesterov momentum requires"),
        (["optimizer.clip=0"], "optimizer.clip is a norm above 0, or null, not 0"),
        (["training.snapshots=[2]"], "training.snapshots are shares of the training in [0, 1], not 2"),
        (["method=byol", "training.batch_size=1"], "BYOL cannot train with training.batch_size=1: Expected more than 1"),
    ],
)
def test_a_bad_setting_ends_in_one_line_before_any_run(words, text, tmp_path, capsys):
    assert main(["multicrop", *SMALL, *words, "--dry-run", "--store", str(tmp_path), "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and text in line


def test_good_settings_pass(tmp_path):
    words = ["optimizer.lr=1", "training.budget.value=0.5", "schedule.warmup_epochs=0.25", "method.queue_size=32"]
    words += ["views.scale=[0.5,1]", "data.train_limit=null", "optimizer.clip=2", "views.extra={kind: local, count: 1}"]
    assert main(["multicrop", *SMALL, *words, "--dry-run", "--store", str(tmp_path), "--out", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("value", "usual", "right"),
    [
        (1, 0.5, True),
        (0.5, 1, True),
        (True, 1, False),
        (1, True, False),
        ("a", [], False),
        ({}, [], False),
        ("auto", 3, False),
        (3, "auto", True),
        (None, 3, True),
        ("vit", {"_target_": "a.B"}, True),
        ("x", {"image": None}, False),
    ],
)
def test_kinds_of_words(value, usual, right):
    if right:
        check_kind("a.b", value, usual)
        return
    with pytest.raises(UsageError, match=r"a\.b=.*: it must be"):
        check_kind("a.b", value, usual)


def made(
    whole: int = 1,
    number: float | None = None,
    text: str = "",
    pair: tuple[float, float] = (0, 1),
    names: Sequence[str] = (),
    mapping: Mapping[str, int] | None = None,
    either: Literal["a", "b"] = "a",
    other: object = None,
):
    """A function with annotations."""


@pytest.mark.parametrize(
    ("name", "right", "wrong", "words"),
    [
        ("whole", 3, 3.0, "a whole number"),
        ("whole", 0, True, "a whole number"),
        ("number", 2, "2", "a number or null"),
        ("number", None, False, "a number or null"),
        ("text", "x", 3, "text"),
        ("pair", [1, 2], 1, "a list, each a number"),
        ("names", ["x"], "x", "a list, each text"),
        ("mapping", {"a": 1}, [1], "a mapping or null"),
        ("either", "b", "c", "'a' or 'b'"),
        ("whole", {"_input_": "earlier"}, {"a": 1}, "a whole number"),
    ],
)
def test_arguments_have_the_types_of_their_annotations(name, right, wrong, words):
    check_types(made, {name: right, "other": wrong}, "made: ")
    with pytest.raises(UsageError, match=f"made: {name} must be {words}, not"):
        check_types(made, {name: wrong}, "made: ")
