"""Wrong settings end in one line when the plan is made, before any run."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError
from scd.evaluation.protocol import EvaluationData
from studies.__main__ import main
from studies.suite.planning.checks import check_kind, check_lists, check_options_hold, check_types
from studies.suite.planning.command_line import load_study, resolve_settings
from studies.suite.planning.resolve import resolve
from studies.suite.planning.study import Arm

MOCO = Arm("moco", "MoCo", {}, "", "")
SMALL = ["tier=smoke", "seeds=1", "arms=moco", "evaluation.protocols=[collapse]", "sizes.generated_train=48"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["training.batch_size=0"], "training.batch_size=0: it must be a whole number, 1 or more"),
        (["training.batch_size='8'"], "training.batch_size='8': it must be a number"),
        (["views.size=8.5"], "views.size=8.5: it must be a whole number, 1 or more"),
        (["views.scale=0.5"], "views.scale=0.5: it must be a list: views.scale=[0.5]"),
        (["method.dim=16.5"], "MoCo: dim must be a whole number, not 16.5"),
        (["evaluation.protocols=[{preset: knn, k: many}]"], "KNN: k must be a whole number, not 'many'"),
        (["method.queue_size=24"], "the queue holds 24 keys, which 16 keys a step do not divide"),
        (["training.precision=17"], "unknown training.precision '17'; valid: 32-true, bf16-mixed"),
        (["axes.rho=[2]"], "shapes: rho_train is 2.0, a probability lies in [0, 1]"),
        (["data.options.classes=1"], "shapes: classes is 1, it must lie in 2 to 25"),
        (["axes.rho=[a]"], "axes.rho: a level='a': it must be a number"),
        (["axes.rho=[null]"], "axes.rho=[null]: its levels must be single values"),
        (["axes.rho=[0.8,0.8]"], "axes.rho=[0.8, 0.8]: it must list each level once"),
        (
            ["data.options.rho_train=0.5"],
            "data.options.rho_train=0.5 holds for no run: the study sets it itself; give axes.rho=[0.5]",
        ),
        (["evaluation.protocols=[{preset: knn, k: 0}]"], "k"),
        (["schedule.warmup_epochs=5"], "the warm-up of 5 epochs (15 steps) is not shorter than a run of 3 steps"),
        (["optimizer.lr=-0.1"], "optimizer.lr is a number above 0, not -0.1"),
        (
            ["method=byol", "training.batch_size=1"],
            "BYOL cannot train with training.batch_size=1: Expected more",
        ),
    ],
)
def test_a_bad_setting_ends_in_one_line_before_any_run(words, text, tmp_path, capsys):
    """F22 and F23: these appeared in the runs alone, or as tracebacks."""
    assert main(["multicrop", *SMALL, *words, "--dry-run", "--store", str(tmp_path), "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and text in line


@pytest.mark.parametrize(
    ("study", "words", "text"),
    [
        ("significance", ["axes.chance=[foo]"], "unknown source of chance (axes.chance) 'foo'; valid: init, order, pr"),
        ("significance", ["axes.levels=-1"], "axes.levels=-1: it must be a whole number, 0 or more"),
        ("cost_profile", ["axes.kinds=[counted,foo]"], "unknown kind of measurement (axes.kinds) 'foo'"),
        ("cost_profile", ["axes.rounds=0"], "axes.rounds=0: it must be 1 or more"),
        ("dino_vit", ["axes.resnet=null"], "axes.resnet=null: it needs a value"),
        ("scene_coco", ["axes.counts=[0]"], "scenes: objects is (0, 0), it needs 1 <= low"),
        ("scene_coco", ["axes.detection.steps=0"], "detection: steps is 0, it must be above 0"),
        ("scene_coco", ["axes.detection.train_limit=0"], "detection: train_limit is 0, it must be at least 1"),
        ("multicrop", ["+axes.foo=1"], "unknown axis 'foo'; valid: budgets, rho"),
        ("reconstruction", ["axes.choices.margin=[-2]"], "margin is a distance, 0 or more, not -2"),
    ],
)
def test_axes_that_leave_no_right_run_are_refused(study, words, text, tmp_path, capsys):
    """These passed a dry run, and failed or said something wrong later."""
    words = ["tier=smoke", "seeds=1", *words, "--dry-run", "--store", str(tmp_path), "--out", str(tmp_path)]
    assert main([study, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and text in line


def test_an_option_that_an_axis_also_sets_holds_where_both_agree():
    settings = resolve_settings("multicrop", [*SMALL, "data.options.rho_train=0.8"])
    check_options_hold(settings, load_study("multicrop").plan(settings))


@pytest.fixture(scope="module")
def settings():
    return resolve_settings("multicrop", SMALL)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"training": {"batch_size": -8}}, "training.batch_size=-8: it must be a whole number, 1 or more"),
        ({"training": {"batch_size": 8.5}}, "training.batch_size=8.5: it must be a whole number, 1 or more"),
        ({"training": {"batch_size": True}}, "training.batch_size=true: it must be a whole number, 1 or more"),
        ({"training": {"batch_size": None}}, "training.batch_size=null: it must be a whole number, 1 or more"),
        ({"training": {"devices": 0}}, "training.devices=0: it must be a whole number, 1 or more"),
        ({"training": {"snapshots": [2]}}, "training.snapshots are shares of the training in [0, 1], not 2"),
        ({"data": {"train_limit": 0}}, "data.train_limit=0: it must be a whole number, 1 or more, or null"),
        ({"evaluation": {"size": "16"}}, "evaluation.size='16': it must be a whole number, 1 or more"),
        ({"views": {"extra": {"kind": "local", "count": 1.5}}}, "views.extra.count=1.5: it must be a whole number, 0"),
        (
            {"views": {"extra": {"kind": "local", "count": 1, "size": "8"}}},
            "views.extra.size must be a whole",
        ),
        ({"views": {"scale": [0.5]}}, "views.scale needs two numbers [low, high], not [0.5]"),
        ({"views": {"scale": ["a", "b"]}}, "views.scale must be a list of numbers, or null, not ['a', 'b']"),
        ({"method": {"queue_size": 0}}, "queue_size is at least 1 key, not 0"),
        ({"method": {"queue_size": -64}}, "queue_size is at least 1 key, not -64"),
        ({"method": {"bn_groups": 3}}, "a batch of 16 does not split into 3 batch-norm groups"),
        ({"method": {"momentum": 2}}, "momentum is a share in [0, 1], not 2"),
        ({"method": {"temperature": 0}}, "temperature is above 0, not 0"),
        ({"method": {"dim": 0}}, "the widths of an MLP are 1 or more, not"),
        (
            {"backbone": {"widths": [8, -1]}},
            "build_backbone cannot be built: Trying to create tensor",
        ),
        (
            {"backbone": {"_target_": "scd.nn.backbone.build_backbone", "name": 5}},
            "build_backbone: name must be text, not 5",
        ),
        ({"seed_of": {"init": "x"}}, "seed_of.init='x': it must be a whole number, 0 or more, or null"),
        ({"training": {"accelerator": "gpu"}}, "unknown training.accelerator 'gpu'"),
        ({"training": {"precision": "16-mixed"}}, "unknown training.precision '16-mixed'; did you mean 'bf16-mixed'"),
        ({"method": {"symmetric": 1}}, "MoCo: symmetric must be true or false, not 1"),
        ({"schedule": {"warmup_epochs": -1}}, "schedule.warmup_epochs is 0 or more epochs, not -1"),
        ({"schedule": {"name": "linear"}}, "unknown schedule 'linear'"),
        (
            {"schedule": {"per": "epoch"}, "training": {"budget": {"unit": "seconds", "value": 1}}},
            "use schedule.per=step",
        ),
        ({"optimizer": {"lr": 0}}, "optimizer.lr is a number above 0, not 0"),
        ({"optimizer": {"lr": "fast"}}, "optimizer.lr must be a number, not 'fast'"),
        ({"optimizer": {"lr": None}}, "optimizer.lr must be a number, not null"),
        ({"optimizer": {"name": "adam", "lr": 1, "weight_decay": 0}}, "unknown optimizer 'adam'"),
        ({"optimizer": {"betas": [0.9, 0.99]}}, "sgd has no betas: set optimizer.betas=null"),
        ({"optimizer": {"momentum": 0, "nesterov": True}}, "optimizer: Nesterov momentum requires"),
        ({"optimizer": {"clip": 0}}, "optimizer.clip is a norm above 0, or null, not 0"),
    ],
)
def test_what_an_arm_or_an_axis_sets_is_checked_as_well(settings, changes, text):
    with pytest.raises(UsageError, match=re.escape(text)) as raised:
        resolve([settings.spec(MOCO, 0, overrides=changes)], check=False)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["axes.rho=[]"], "there is nothing to run: these arms, seeds and axes leave no run"),
        (["axes.budgets=[epoch]"], "unknown budget (axes.budgets) 'epoch'; did you mean 'epochs'"),
        (["evaluation.protocols=[3]"], "a protocol is a name or a mapping, not 3"),
        (["wrapper=5"], "wrong option: Config group override must be a string or a list"),
    ],
)
def test_words_that_leave_no_run_or_no_configuration(words, text, tmp_path, capsys):
    """These ended in tracebacks."""
    assert main(["multicrop", *SMALL, *words, "--dry-run", "--store", str(tmp_path), "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line


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
        (5, "sgd", False),
        (None, "sgd", True),
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
        ("number", 2, "2", "a number, or null"),
        ("number", None, False, "a number, or null"),
        ("text", "x", 3, "text"),
        ("pair", [1, 2], 1, "a list of numbers"),
        ("names", ["x"], "x", "a list of text"),
        ("mapping", {"a": 1}, [1], "a mapping, or null"),
        ("either", "b", "c", "'a' or 'b'"),
        ("whole", {"_input_": "earlier"}, {"a": 1}, "a whole number"),
    ],
)
def test_arguments_have_the_types_of_their_annotations(name, right, wrong, words):
    check_types(made, {name: right, "other": wrong}, "made: ")
    with pytest.raises(UsageError, match=f"made: {name} must be {words}, not"):
        check_types(made, {name: wrong}, "made: ")


@pytest.mark.parametrize("field", ["category", "bbox"])
def test_objects_that_are_null_are_refused(field):
    """An image without objects had null in the place of empty lists, and the reader of scenes a traceback."""
    rows = [{"category": [0], "bbox": [[0, 0, 4, 4]]}, {"category": [], "bbox": [], field: None}]
    kinds = {"category": List(ClassLabel(names=["cat"])), "bbox": List(List(Value("float64")))}
    image = encode_png(np.zeros((8, 8, 3), np.uint8))
    split = Dataset.from_dict(
        {"image": [image] * 2, "mask": [encode_png(np.ones((8, 8), np.uint8))] * 2, "objects": rows},
        features=Features({"image": Image(), "mask": Image(), "objects": kinds}),
    )
    splits = {"train": split.select([0]), "test": split}
    images = EvaluationData(Source(**read_columns("mine", splits, {name: [name, field] for name in splits})), 8)
    message = f"'mine' test: 1 images have objects whose '{field}' is null; an image without objects has an empty list"
    with pytest.raises(DataError, match=message):
        check_lists(images)
    splits["test"] = split.select([0])
    check_lists(EvaluationData(Source(**read_columns("mine", splits, {name: [name, "no null"] for name in splits})), 8))
