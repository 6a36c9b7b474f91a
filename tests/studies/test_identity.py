"""Run identity: what changes it, what does not, and what it refuses."""

import pytest

from scd.errors import UsageError
from studies.suite.planning import identity
from studies.suite.planning.identity import (
    canonical,
    code_fingerprint,
    fresh_fingerprint,
    reachable,
    run_id,
    target_modules,
)

CONFIG = {"method": {"_target_": "baselines.moco.MoCo", "dim": 64}, "views": {"scale": [0.2, 1.0]}, "seed": 0}


@pytest.fixture
def house(tmp_path):
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


def test_equal_configurations_have_equal_ids():
    reordered = {"seed": 0, "views": {"scale": (0.2, 1)}, "method": {"dim": 64.0, "_target_": "baselines.moco.MoCo"}}
    assert run_id(CONFIG) == run_id(reordered)
    assert len(run_id(CONFIG)) == 16 and int(run_id(CONFIG), 16) >= 0


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"views": {"scale": [0.2, 0.9]}}, {"views": {"scale": [1.0, 0.2]}}, {"extra": None}]
)
def test_other_configurations_have_other_ids(change):
    assert run_id({**CONFIG, **change}) != run_id(CONFIG)


def test_true_is_not_one():
    assert run_id({**CONFIG, "a": True}) != run_id({**CONFIG, "a": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_values_that_json_cannot_hold_name_their_key(value):
    with pytest.raises(UsageError, match=r"config\.optimizer\.betas\[1\] is .*finite numbers, text, lists"):
        canonical({"optimizer": {"betas": [0.9, value]}})


def test_fingerprint_reaches_imports_inside_functions_and_packages(house):
    assert reachable(["entry"], house) == ["entry", "scd", "scd.a", "scd.sub", "scd.sub.b"]


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
def test_only_what_can_change_numbers_changes_the_fingerprint(house, file, old, new, changes):
    before = fresh_fingerprint(["entry"], house)
    path = house / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (fresh_fingerprint(["entry"], house) != before) is changes


def test_fingerprint_is_kept_for_the_life_of_the_process(house):
    before = code_fingerprint(["entry"], house)
    (house / "scd/a.py").write_text("x = 5\n")
    assert code_fingerprint(["entry"], house) == before
    assert code_fingerprint(["entry"], house, fresh=True) != before


def test_relative_imports_are_followed(house):
    (house / "scd/sub/__init__.py").write_text("from ..c import z\nfrom . import b\n")
    assert {"scd.c", "scd.sub.b"} <= set(reachable(["scd.sub"], house))


def test_a_module_that_does_not_exist_is_an_error(house):
    with pytest.raises(UsageError, match=r"'scd\.nope' is not a file.*_target_"):
        code_fingerprint(["scd.nope"], house)


def test_targets_of_our_packages_are_part_of_the_identity():
    config = {"a": [{"_target_": "scd.scd.SCD", "b": {"_target_": "scd.maps.source.SaliencyMLP"}}],
              "c": {"_target_": "elsewhere.Thing"}}  # fmt: skip
    assert sorted(target_modules(config)) == ["scd.scd", "scd.maps.source"]


def test_a_run_reaches_what_computes_its_numbers_and_no_page():
    modules = reachable([identity.ENTRY, "baselines.moco"])
    wanted = {"scd.training.loop", "scd.evaluation.linear", "scd.data.photometric", "baselines.moco", "scd.nn.queue"}
    assert wanted <= set(modules)
    assert not [name for name in modules if name.startswith("studies") and name != identity.ENTRY]
    assert "baselines.byol" not in modules
