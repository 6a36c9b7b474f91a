"""The study of known effects: its plan, its claims, and its page where they are reproduced and where not."""

import json
from dataclasses import replace

import pytest
from synthetic_results import settings_of, study_results

from scd.evaluation.background import BackgroundReliance
from scd.evaluation.collapse import FEATURE_METRICS
from studies import multicrop
from studies.calibration import STUDY, plan
from studies.known_effects import ANY, ARMS, CORRELATED, EFFECTS, PHOTOGRAPHS, RHO
from studies.suite.pages.markdown import OPEN_LINES, open_lines
from studies.suite.pages.publish import publish
from studies.suite.planning.command_line import resolve_settings

DEFINITIONS = {**FEATURE_METRICS, "bg_gap": BackgroundReliance().definitions()["bg_gap"]}
KNOWN = {  # arm -> what it gains over 0.4 where all effects are as published; random weights are at 0.2
    "supervised": 0.1, "moco_symmetric": 0.03, "local_crops": -0.03, "byol_no_predictor": -0.2, "oracle": 0.05,
    "random_correlated": -0.2,
}  # fmt: skip


def others(arm, seed):
    """What an arm and a seed have beside accuracies."""
    collapsed, luck = arm == "byol_no_predictor", 0.001 * ((seed * 7) % 5)
    return {
        "bg_gap": (0.4 if arm.endswith("correlated") or arm in ("oracle", "constant_map") else 0.03)
        + luck * (1 + len(arm) % 3),
        "effective_rank": 20.0 + luck,
        "loss_last": (0.01 if collapsed else 0.6) + luck * (1 + len(arm) % 3),
        "seconds_pretrain": 0.0 if arm.startswith("random") else 8.0,
        "seconds_knn": 1.0,
        "seconds_linear": 2.0,
    }


def page_of(tmp_path, gains, settings=None):
    """The text of the page, its first screen, and its JSON file."""
    settings = settings or settings_of("calibration", tmp_path, 5)
    results = study_results(STUDY, {**KNOWN, **gains}, settings, others)
    results = results.with_runs(results.runs, DEFINITIONS)
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    about = json.loads((tmp_path / "records" / f"{results.page}.json").read_text(encoding="utf-8"))
    return text, text.split("<details>")[0], about


def cells(screen, effect):
    """The cells of an effect's row on the first screen."""
    line = next(line for line in screen.splitlines() if line.lower().startswith(f"| {effect.lower()} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def photographs(settings):
    """Settings whose images do not have the option of a background correlation."""
    options = {key: value for key, value in settings.base["data"]["options"].items() if not key.startswith("rho")}
    return replace(settings, base={**settings.base, "data": {**settings.base["data"], "options": options}})


# -------------------------------------------------------------------- plan and claims


def test_plan_has_every_arm_once_a_seed_and_correlated_arms_alone_have_a_predictive_background():
    specs = plan(resolve_settings("calibration", ["tier=smoke"]))
    assert [spec.labels["arm"] for spec in specs] == [arm.name for arm in ARMS] * 2
    correlated = {arm.name for arm in CORRELATED}
    for spec in specs:
        rho = spec.config["data"]["options"]["rho_train"]
        assert rho == (RHO if spec.labels["arm"] in correlated else 0.0)
        untrained = spec.labels["arm"] in ("random", "random_correlated")
        assert (spec.config["training"]["budget"] == {"unit": "steps", "value": 0}) == untrained


def test_arms_differ_in_what_they_are_compared_by_and_in_nothing_else():
    specs = {
        spec.labels["arm"]: spec.config for spec in plan(resolve_settings("calibration", ["tier=smoke", "seeds=1"]))
    }
    differing = {
        effect.contrast.name: {
            key
            for key in specs[effect.contrast.treatment]
            if specs[effect.contrast.treatment][key] != specs[effect.contrast.control][key]
        }
        for effect in EFFECTS
    }
    assert differing["moco_symmetric-moco, knn_top1"] == {"method"}
    assert differing["local_crops-moco, linear_top1"] == {"views"}
    assert differing["oracle-constant_map, knn_top1"] == {"wrapper", "annotations"}
    assert differing["moco-moco_correlated, bg_gap"] == {"data"}
    assert differing["byol-byol_no_predictor, linear_top1"] == {"method"}
    byol, without = specs["byol"]["method"], specs["byol_no_predictor"]["method"]
    assert {key for key in byol if byol[key] != without[key]} == {"has_predictor"} and not without["has_predictor"]


def test_runs_of_equal_arms_are_those_of_other_studies_on_the_same_images():
    own = {spec.labels["arm"]: spec for spec in plan(resolve_settings("calibration", ["tier=smoke", "seeds=1"]))}
    words = ["tier=smoke", "seeds=1", "axes.budgets=[epochs]", "sizes.generated_draw=1"]
    words += ["training.snapshots=[0,0.25,0.5,0.75]"]
    other = {spec.labels["arm"]: spec for spec in multicrop.plan(resolve_settings("multicrop", words))}
    for name, same in (("moco_correlated", "moco"), ("constant_map", "constant_map"), ("oracle", "oracle")):
        mine, theirs = (
            {k: v for k, v in spec.config.items() if k != "evaluation"} for spec in (own[name], other[same])
        )
        assert mine == theirs


def test_another_host_changes_no_arm():
    moco, byol = (
        plan(resolve_settings("calibration", ["tier=smoke", "seeds=1", *words])) for words in ([], ["method=byol"])
    )
    assert [spec.config for spec in moco] == [spec.config for spec in byol]


def test_images_without_a_known_correlation_have_no_arms_that_need_one():
    settings = photographs(resolve_settings("calibration", ["tier=smoke", "seeds=1"]))
    assert [spec.labels["arm"] for spec in plan(settings)] == [arm.name for arm in ARMS if arm not in CORRELATED]


def test_each_effect_is_one_claim_with_its_source():
    assert len({effect.contrast.name for effect in EFFECTS}) == len(EFFECTS) == len(STUDY.claims)
    for effect, claim in zip(EFFECTS, STUDY.claims, strict=True):
        assert claim is effect.claim and len(claim.contrasts) == 1
        assert effect.published and "arXiv" in effect.source or "CIFAR-10 demo" in effect.source
    assert [(each.treatment, each.control, each.metric) for each in STUDY.control] == [
        ("moco", "random", "linear_top1")
    ]
    assert STUDY.looks == (5,) and STUDY.question_ids == ()


# -------------------------------------------------------------------- page


def test_page_where_every_known_effect_is_reproduced(tmp_path):
    text, first, about = page_of(tmp_path, {})
    expected = [effect for effect in EFFECTS if effect.images != PHOTOGRAPHS]
    count = f"{len(expected)} of {len(expected)}"
    assert first.startswith("# Known effects: what this tier can see\n\n> **Question.** Can this tier see effects")
    assert f"**{count} known effects are reproduced.**\n" in first
    assert about["outcome"] == f"{count} known effects" and about["known_effects"]["control"]
    known = about["known_effects"]
    assert known["reproduced"] == known["expected"] == len(expected)
    assert 0 < known["detectable"]["knn_top1"] < 0.02 and set(known["detectable"]) == {"knn_top1", "linear_top1"}
    for effect in expected:
        assert cells(first, effect.claim.text)[-1] == "**yes**"
    row = cells(first, "local crops improve MoCo at equal epochs")  # known of photographs only
    assert row[-1] == "wrong direction<sup>a</sup>" and "65.8" in row[1] and "linear top1: −2.96 points" in row[2]
    assert "not counted here" in first and first.count("\n![") == 1 and open_lines(text) <= OPEN_LINES
    assert (tmp_path / "figures" / "calibration-effects.png").stat().st_size > 5_000
    assert "Known effects at tier" not in text and " nan " not in text
    could = first[first.index("**What this page could have seen.**") :]
    assert " points in linear top1, " in could and " in background gap" in could and "is 1 point and 0.05." in could
    table = text[text.index("<b>Contrasts</b>") :].split("\n\n")[1]
    assert " metric " in table and " detectable " in table and "0.49 points" in table


def test_the_measured_difference_of_a_gap_is_treatment_minus_control(tmp_path, no_figures):
    first = page_of(tmp_path, {})[1]
    row = cells(first, "MoCo relies less on the background where that is not predictive in training")
    assert row[2].startswith("background gap: −36.8") and "points" in row[2]


def test_page_where_the_control_fails(tmp_path, no_figures):
    text, first, about = page_of(tmp_path, {"random": 0.2, "moco_symmetric": 0.0})
    assert "**The control fails:** MoCo is not better than random weights in linear top-1" in first
    assert not about["known_effects"]["control"]
    assert cells(first, "MoCo is better than random weights in linear top-1")[-1] != "**yes**"
    assert cells(first, "supervised training is better than MoCo in kNN top-1")[-1] == "**yes**"
    assert "**Uninformative:** this page does not reproduce its positive control" in text


def test_page_where_an_effect_has_the_wrong_direction(tmp_path, no_figures):
    _, first, about = page_of(tmp_path, {"moco_symmetric": -0.05})
    count = len([effect for effect in EFFECTS if effect.images != PHOTOGRAPHS])
    assert f"**{count - 1} of {count} known effects are reproduced.**" in first
    assert "The others: 1 wrong direction (symmetric MoCo is better than MoCo at equal epochs)." in first
    assert cells(first, "symmetric MoCo is better than MoCo at equal epochs")[-1] == "**no**, wrong direction"
    assert about["known_effects"]["reproduced"] == count - 1


def test_on_photographs_multi_crop_counts_and_drawn_backgrounds_are_left_out(tmp_path, no_figures):
    settings = photographs(settings_of("calibration", tmp_path, 5))
    settings = replace(settings, data="photos", page="calibration-photos")
    text, first, about = page_of(tmp_path, {"local_crops": 0.05}, settings=settings)
    count = len([effect for effect in EFFECTS if effect.images in (ANY, PHOTOGRAPHS)])
    assert about["known_effects"]["expected"] == about["known_effects"]["reproduced"] == count
    assert cells(first, "local crops improve MoCo at equal epochs")[-1] == "**yes**"
    assert "true mask" not in first and "ρ" not in first and "Left out" in text


def test_a_page_of_some_arms_says_what_is_not_measured(tmp_path, no_figures):
    settings = replace(settings_of("calibration", tmp_path, 5), arms=("random", "moco"))
    text, first, about = page_of(tmp_path, {}, settings)
    assert "**2 of 10 known effects are reproduced.** The others: 8 not measured." in first
    assert cells(first, "symmetric MoCo is better than MoCo at equal epochs")[2:] == ["–<sup>a</sup>", "not measured"]
    assert about["known_effects"]["detectable"] == {}


@pytest.mark.parametrize("seeds", [1, 2])
def test_nothing_is_reproduced_before_five_seeds(seeds, tmp_path, no_figures):
    _, first, about = page_of(tmp_path, {}, settings=settings_of("calibration", tmp_path, seeds))
    assert about["known_effects"]["reproduced"] == 0 and "not judged before 5 paired seeds" in first
    assert "The control fails" not in first and "The others: 10 not resolved." in first


def test_signal_is_the_standardised_difference_for_each_minute_of_a_pair(tmp_path, no_figures):
    text, _, _ = page_of(tmp_path, {})
    frame = study_results(STUDY, KNOWN, settings_of("calibration", tmp_path, 5), others).runs
    values = frame[frame["arm"].isin(["moco", "random"])].pivot(index="seed", columns="arm", values="knn_top1")
    difference = values["moco"] - values["random"]
    expected = difference.mean() / difference.std(ddof=1) / ((8.0 + 0.0 + 2 * 1.0) / 60)
    part = text[text.index("<b>Signal per core-minute</b>") :]
    row = [cell.strip() for cell in next(x for x in part.splitlines() if x.startswith("| MoCo vs. random")).split("|")]
    heads = [cell.strip() for cell in next(x for x in part.splitlines() if x.startswith("| pair")).split("|")]
    assert row[heads.index("knn top1")] == f"{expected:+.1f}"
    assert row[heads.index("background gap")].startswith("–<sup>")  # its protocol's seconds are not recorded
