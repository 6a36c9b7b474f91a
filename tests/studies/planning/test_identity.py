"""Run identity: what changes it, what does not, and what it refuses."""

import pytest

from scd.errors import UsageError
from studies.suite.planning import identity
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.identity import (
    EVALUATION,
    PRETRAINING,
    canonical,
    code_fingerprint,
    evaluation_id,
    fresh_fingerprint,
    pretraining_id,
    pretraining_part,
    reachable,
    target_modules,
)
from studies.suite.planning.study import Arm, RunSpec, merge

MOCO = Arm("moco", "MoCo", {}, "", "")
SCD = Arm("scd", "SCD", {"wrapper": "scd"}, "", "")
KNN = {"name": "knn", "_target_": "scd.evaluation.knn.KNN"}
LINEAR = {"name": "linear", "_target_": "scd.evaluation.linear.Linear"}


@pytest.fixture(scope="module")
def config():
    return resolve_settings("multicrop", ["tier=smoke"]).configure(MOCO, 0)


@pytest.fixture
def code_base(tmp_path):
    """A tiny code base: entry -> scd.a -> scd.sub.b (imported inside a function); scd.c is not reached."""
    files = {
        "entry.py": "import scd.a\n",
        "scd/__init__.py": "",
        "scd/a.py": '"""Doc."""\nx = 1  # comment\ndef f():\n    """Doc."""\n'
        "    from scd.sub import b\n    return b.y\n",
        "scd/sub/__init__.py": "",
        "scd/sub/b.py": "y = 2\n",
        "scd/c.py": "z = 3\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


# ---------------------------------------------------------------- pretraining and evaluation


def test_equal_configurations_have_equal_ids(config):
    reordered = {**dict(reversed(config.items())), "seed": 0.0, "views": {**config["views"], "scale": (0.2, 1)}}
    assert pretraining_id(config) == pretraining_id(reordered)
    assert len(pretraining_id(config)) == 16 and int(pretraining_id(config), 16) >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"views": {"scale": [0.2, 0.9]}},
        {"data": {"options": {"rho_train": 0.8}}},
        {"data": {"train_limit": 10}},
        {"seed_of": {"order": 3}},
        {"method": {"temperature": 0.3}},
        {"optimizer": {"lr": 0.5}},
        {"training": {"snapshots": [0]}},
    ],
)
def test_what_can_change_the_weights_changes_the_pretraining(config, change):
    assert pretraining_id(merge(config, change)) != pretraining_id(config)


@pytest.mark.parametrize(
    "change",
    [
        {"evaluation": {"protocols": [KNN]}},
        {"evaluation": {"size": 8}},
        {"evaluation": {"test_limit": 5}},
        {"data": {"test_limit": 5}},
        {"data": {"title": "another name"}},
        {"data": {"options": {"test": 7}}},
        {"data": {"options": {"rho_test": 0.5}}},
        {"seed_of": {"probe": 3}},
    ],
)
def test_what_concerns_the_evaluation_leaves_the_pretraining_alone(config, change):
    assert pretraining_id(merge(config, change)) == pretraining_id(config)


@pytest.mark.parametrize(
    ("change", "protocol", "same"),
    [
        ({}, {**KNN, "name": "another name"}, True),
        ({"data": {"title": "another name"}}, KNN, True),
        ({}, LINEAR, False),
        ({"evaluation": {"size": 8}}, KNN, False),
        ({"data": {"test_limit": 5}}, KNN, False),
        ({"data": {"options": {"test": 7}}}, KNN, False),
        ({"seed_of": {"probe": 3}}, KNN, False),
    ],
)
def test_the_evaluation_has_an_identity_of_its_own(config, change, protocol, same):
    ids = [evaluation_id("f" * 16, c, p) for c, p in ((config, KNN), (merge(config, change), protocol))]
    assert (ids[0] == ids[1]) is same
    assert evaluation_id("0" * 16, config, KNN) != ids[0]


def test_inputs_are_part_of_the_pretraining(config):
    ids = {pretraining_id(config, inputs) for inputs in ({}, {"teacher": "a"}, {"teacher": "b"}, {"other": "a"})}
    assert len(ids) == 4
    earlier = RunSpec(config, {"arm": "moco"})
    later = RunSpec(merge(config, {"seed": 1}), {}, inputs={"teacher": earlier})
    assert later.id == pretraining_id(later.config, {"teacher": earlier.id})


def test_specs_that_share_a_pretraining_have_equal_keys_only_if_they_are_scored_alike(config):
    one = RunSpec(config, {})
    assert one.with_protocols([KNN]).key == one.with_protocols([LINEAR]).key
    probe = RunSpec(merge(config, {"seed_of": {"probe": 3}}), {})
    assert probe.id == one.id and probe.key != one.key
    assert list(one.with_protocols([KNN]).evaluations.values()) == [KNN]


# ---------------------------------------------------------------- code


def modules(config, entries=PRETRAINING):
    return set(reachable([*entries, *target_modules(config)]))


def test_a_pretraining_reaches_its_method_and_no_evaluation_and_no_page(config):
    reached = modules(pretraining_part(config))
    assert {"scd.training.loop", "scd.data.photometric", "baselines.moco", "scd.nn.queue"} <= reached
    assert not [name for name in reached if name.startswith(("scd.evaluation", "scd.profiling", "studies.suite.pages"))]
    assert "baselines.byol" not in reached and "scd.scd" not in reached


def test_only_scds_runs_depend_on_scds_file():
    settings = resolve_settings("multicrop", ["tier=smoke"])
    scd, moco = (modules(pretraining_part(settings.configure(arm, 0))) for arm in (SCD, MOCO))
    assert "scd.scd" in scd and "scd.scd" not in moco


def test_the_embedded_generator_belongs_to_embedded_data_only(config, tmp_path):
    folder = resolve_settings("multicrop", ["tier=smoke", f"data={tmp_path}"]).configure(MOCO, 0)
    assert "scd.data.sources.shapes" in modules(pretraining_part(config))
    assert "scd.data.sources.shapes" not in modules(pretraining_part(folder))


def test_an_evaluation_reaches_its_own_protocol_only(config):
    reached = modules(identity.evaluation_part(config, KNN), EVALUATION)
    assert "scd.evaluation.knn" in reached
    assert not reached & {"scd.evaluation.finetune", "scd.evaluation.detection", "scd.training.loop", "baselines.moco"}


# ---------------------------------------------------------------- values and files


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_values_that_json_cannot_hold_name_their_key(value):
    with pytest.raises(UsageError, match=r"config\.optimizer\.betas\[1\] is .*finite numbers, text, lists"):
        canonical({"optimizer": {"betas": [0.9, value]}})


def test_fingerprint_reaches_imports_inside_functions_and_packages(code_base):
    assert reachable(["entry"], code_base) == ["entry", "scd", "scd.a", "scd.sub", "scd.sub.b"]


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("scd/a.py", "# comment", "# another comment", False),
        ("scd/a.py", '    """Doc."""', '    """Another\n    docstring."""', False),
        ("scd/a.py", "x = 1", "x = (\n    1\n)", False),
        ("scd/a.py", "x = 1", "x = 2", True),
        ("scd/a.py", "x = 1", "x = 1.0", True),
        ("scd/a.py", "def f():", "def f(n=0):", True),
        ("scd/sub/b.py", "y = 2", "y = 3", True),
        ("scd/c.py", "z = 3", "z = 4", False),
        ("entry.py", "import scd.a", "import scd.a, scd.c", True),
    ],
)
def test_only_what_can_change_numbers_changes_the_fingerprint(code_base, file, old, new, changes):
    before = fresh_fingerprint(["entry"], code_base)
    path = code_base / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (fresh_fingerprint(["entry"], code_base) != before) is changes


def test_fingerprint_is_kept_for_the_life_of_the_process(code_base):
    before = code_fingerprint(["entry"], code_base)
    (code_base / "scd/a.py").write_text("x = 5\n")
    assert code_fingerprint(["entry"], code_base) == before
    assert code_fingerprint(["entry"], code_base, fresh=True) != before


def test_relative_imports_are_followed(code_base):
    (code_base / "scd/sub/__init__.py").write_text("from ..c import z\nfrom . import b\n")
    assert {"scd.c", "scd.sub.b"} <= set(reachable(["scd.sub"], code_base))


def test_a_module_that_does_not_exist_is_an_error(code_base):
    with pytest.raises(UsageError, match=r"'scd\.nope' is not a file.*_target_"):
        code_fingerprint(["scd.nope"], code_base)


def test_targets_of_our_packages_are_part_of_the_identity():
    config = {"a": [{"_target_": "scd.scd.SCD", "b": {"_target_": "scd.maps.source.SaliencyMLP"}}],
              "c": {"_target_": "elsewhere.Thing"}}  # fmt: skip
    assert sorted(target_modules(config)) == ["scd.maps.source", "scd.scd"]
