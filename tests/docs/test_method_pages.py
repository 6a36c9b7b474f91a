"""Pages of methods: every file has one, and what it says is what the code and the configurations say."""

import importlib
import re

import pytest

from docs.generators import costs, method_pages
from docs.generators.declarations import ROOT, TIERS, arms_of_pages, built, modules, of_module, settings_of
from scd.method import Method
from studies.suite.planning.command_line import choices, presets
from studies.suite.planning.study import Arm


def test_every_file_of_baselines_and_scd_has_a_page():
    files = {f"baselines.{path.stem}" for path in (ROOT / "baselines").glob("*.py")} - {"baselines.__init__"}
    assert set(modules()) == files | {"scd.scd"} and len(files) > 30


def test_every_configuration_is_on_a_page():
    parts = [part for group in ("method", "wrapper") for part in presets()[group].values()]
    assert {part["_target_"].rpartition(".")[0] for part in parts} <= set(modules())


def test_a_new_file_is_found(tmp_path):
    (tmp_path / "baselines").mkdir()
    for name in ("__init__", "new_one", "another"):
        (tmp_path / "baselines" / f"{name}.py").write_text('"""New: a method."""\n')
    assert modules(tmp_path) == ["scd.scd", "baselines.another", "baselines.new_one"]


def test_the_page_of_a_method_shows_what_a_run_resolves_to():
    text = method_pages.page("baselines.byol")
    for heading in ("In short", "Classes", "Settings by tier", "Deviations", "Cost", "On committed pages"):
        assert f"\n## {heading}\n" in text
    assert text.startswith("# BYOL\n") and "https://arxiv.org/abs/2006.07733" in text
    cells = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            name, *values = (cell.strip() for cell in line.strip("|").split("|"))
            cells.setdefault(name.strip("`"), values)
    assert cells["optimizer.name"] == ["`sgd`", "`sgd`", "`sgd`", "`lars`"]
    for place, tier in enumerate(TIERS):
        config = settings_of(tier).configure(Arm("", "", {"method": "byol"}, "", ""), 0)
        assert float(cells["optimizer.lr"][place]) == pytest.approx(config["optimizer"]["lr"])
        assert int(cells["method.hidden"][place]) == config["method"]["hidden"]
    assert "*optimiser* (tier smoke, cpu, gpu): SGD with the learning rate of the tier" in text
    assert "*batch norm* (tier paper): BN statistics" in text


def test_the_page_of_a_wrapper_names_host_needs_and_supervision():
    text = method_pages.page("baselines.mask_contrast")
    assert "shown around `moco`. Needs: masks. Supervision: none." in text
    method = built({"method": "moco", "wrapper": "mask_contrast"})
    assert isinstance(method, Method) and method.needs == {"masks"}
    assert "Needs: masks. Supervision: oracle." in method_pages.page("baselines.reverse_attention")


def test_a_second_configuration_shows_what_differs():
    text = method_pages.page("baselines.moco").split("### method/moco_symmetric")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)`", text, re.MULTILINE)
    assert rows == ["method.symmetric"]


@pytest.mark.parametrize("group", ["method", "wrapper"])
def test_every_configuration_names_a_class_of_its_module(group):
    for name in choices(group):
        module, _, made = presets()[group][name]["_target_"].rpartition(".")
        assert hasattr(importlib.import_module(module), made)


def test_costs_are_those_of_the_records():
    rows = costs.rows("baselines.barlow_twins")
    records = (ROOT / "reports" / "records" / "cost-profile.csv").read_text().splitlines()
    head = records[0].split(",")
    place = head.index("training_flops")
    (line,) = [line for line in records if line.startswith('barlow_twins,counted,"ResNet-50')]
    counted = float(line.split(",")[place + 1])  # the setting holds a comma
    assert [row[3] for row in rows if row[1].startswith("ResNet-50")] == [f"{counted / 1e9:.1f}"]
    assert costs.rows("baselines.vader") == [] and "no number is given here" in method_pages.cost("baselines.vader")


def test_arms_are_those_of_the_committed_pages():
    arms = arms_of_pages()
    assert {each.page for each in arms} >= {"multicrop", "related"}
    assert not [each for each in arms if each.page.endswith("-smoke")]
    of_multicrop = {each.arm: each for each in arms if each.page == "multicrop"}
    assert of_multicrop["moco"].own == {"baselines.moco"} and not of_multicrop["moco"].host
    assert "scd.scd" in of_multicrop["scd"].own and of_multicrop["scd"].host == {"baselines.moco"}
    text = method_pages.arms("baselines.vader")
    assert "[related-arms-all](../reports/related-arms-all.md)" in text or "[related](../reports/related.md)" in text
    assert method_pages.arms("baselines.none") == "It is not an arm of a committed page."


def test_the_index_lists_every_method_once():
    text = method_pages.index(["scd.scd", "baselines.supervised"])
    assert "| [SCD](scd.md) |" in text
    assert "| [Supervised pretraining](supervised.md) | `method/supervised` | labels | labels |" in text
    assert text.rstrip().endswith("scd\nsupervised\n```")
    assert [each.name for each in of_module("scd.scd")] == ["scd", "scd_alignment", "scd_by_rule"]
