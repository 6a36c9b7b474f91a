"""Accuracy against cost, from records of studies."""

import pandas
import pytest

from scd.evaluation.metric import SHARE
from studies import accuracy_vs_cost
from studies.suite.analysis.results import Results, save
from studies.suite.pages.markdown import Blocks

METRICS = {"linear_top1": {"label": "linear top-1", "unit": SHARE, "better": "higher", "definition": "accuracy"}}


def results_of(rows, study="multicrop", seeds=2, meaningful=True):
    about = {"study": study, "page": study, "meaningful": meaningful, "data": "shapes", "seeds": list(range(seeds)),
             "metrics": METRICS}  # fmt: skip
    return Results(about, pandas.DataFrame(rows))


def runs(arm, budget, accuracies, flops, **labels):
    return [
        {"arm": arm, "budget": budget, "seed": seed, "data": "shapes", **labels, "run": f"{arm}{budget}{seed}",
         "status": "done", "reason": "", "linear_top1": value, "total_flops": flops}
        for seed, value in enumerate(accuracies)
    ]  # fmt: skip


def test_the_cost_of_reaching_moco_is_read_from_both_budgets():
    rows = [
        *runs("moco", "epochs", (0.40, 0.42), 100.0), *runs("moco", "flops", (0.40, 0.42), 100.0),
        *runs("scd", "epochs", (0.44, 0.45), 110.0), *runs("scd", "flops", (0.43, 0.44), 100.0),
        *runs("local_crops", "epochs", (0.42, 0.43), 180.0), *runs("local_crops", "flops", (0.30, 0.31), 99.0),
        *runs("random_crops", "epochs", (0.20, 0.21), 200.0), *runs("random_crops", "flops", (0.2, 0.2), 100.0),
    ]  # fmt: skip
    table = accuracy_vs_cost.page_table(results_of(rows), {}).frame.set_index("arm")
    reach = table["FLOPs to reach MoCo's mean / MoCo's"]
    assert reach["MoCo"] == "1.00×" and reach["SCD"] == "≤ 1.00×"
    assert reach["MoCo + local crops"] == "≤ 1.80×" and reach["MoCo + random crops"] == "> 2.00×"
    assert table["FLOPs at equal epochs / MoCo's"]["SCD"] == "1.10×"
    assert table["gain per 10 % more FLOPs"]["SCD"].startswith("+3.50 [")  # 3.5 points for 10 % more


@pytest.fixture
def lewel():
    """A study with further axes: a scenario, and the correlation of background and object."""
    return results_of([
        run
        for scenario, base in (("as above", 0.4), ("no clutter", 0.6))
        for rho in (0.0, 0.8)
        for arm in ("moco", "lewel")
        for run in runs(arm, "epochs", (base, base + 0.01), 100.0, scenario=scenario, rho=rho)
    ], "lewel")  # fmt: skip


def test_a_page_of_an_older_version_is_left_out(lewel, tmp_path):
    """Its records lie beside those of today and have no definitions of metrics."""
    older = Results({**lewel.about, "page": "older"}, lewel.runs)
    del older.about["metrics"]
    for results in (lewel, older):
        save(results, tmp_path)
    assert [results.page for results in accuracy_vs_cost.pages_with_costs(tmp_path)] == ["lewel"]


def test_a_study_with_further_axes_is_shown_at_the_first_setting_of_each(lewel, tmp_path):
    save(lewel, tmp_path)
    (found,) = accuracy_vs_cost.pages_with_costs(tmp_path)
    settings = accuracy_vs_cost.settings_found(found)
    assert [axis for _, axis in settings] == [{"scenario": "as above", "rho": rho} for rho in (0.0, 0.8)]
    table = accuracy_vs_cost.page_table(found, settings[1][1]).frame.set_index("arm")
    assert len(table) == 2 and table.iloc[0]["linear top-1 (%), at equal epochs"].startswith("40.5 ±")
    assert [heading for heading in table if "at equal" in heading] == [
        "linear top-1 (%), at equal epochs", "FLOPs at equal epochs / MoCo's",
    ]  # fmt: skip


def test_points_need_both_budgets(lewel):
    assert accuracy_vs_cost.cost_points([lewel]).empty
    both = results_of(pandas.concat([lewel.runs, lewel.runs.assign(budget="flops")]).to_dict("records"), "lewel")
    points = accuracy_vs_cost.cost_points([both])
    assert len(points) == 8 and points["value"].max() == pytest.approx(41.0)


def test_pages_without_meaning_or_costs_are_left_out(lewel, tmp_path):
    save(results_of(lewel.runs.to_dict("records"), "multicrop", meaningful=False), tmp_path)
    save(results_of(lewel.runs.drop(columns=["total_flops"]).to_dict("records"), "lewel"), tmp_path)
    assert accuracy_vs_cost.pages_with_costs(tmp_path) == []
    blocks = Blocks()
    accuracy_vs_cost.section(blocks, tmp_path, "cost-profile")
    assert "No study has records yet" in blocks.markdown


def test_a_section_has_a_table_per_page_and_one_figure(lewel, tmp_path, no_figures):
    both = pandas.concat([lewel.runs, lewel.runs.assign(budget="flops")])
    save(results_of(both.to_dict("records"), "lewel"), tmp_path)
    blocks = Blocks()
    accuracy_vs_cost.section(blocks, tmp_path, "cost-profile")
    text = blocks.markdown
    assert "[lewel](lewel.md): shapes, 2 seeds" in text and "**ρ = 0.8**" in text
    assert text.count("![") == 1 and "figures/cost-profile-accuracy.png" in text
