"""The multi-crop study: its plan, what is shared, and its page in the corner cases."""

from collections import Counter
from dataclasses import replace
from itertools import product

import pandas
import pytest
from synthetic_results import settings_of, study_results

from scd.errors import UsageError
from scd.evaluation.metric import SHARE, Metric
from studies.multicrop import ARMS, AT_EQUAL_EPOCHS, CONTRASTS, FEW, LEARNS, LOCAL_VIEWS, METRIC, SESOI, STUDY, plan
from studies.suite.analysis.results import assemble
from studies.suite.pages.index import write_index
from studies.suite.pages.publish import publish
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.study import Progress

TOP1 = {
    METRIC: Metric("linear top-1 under shift", SHARE, "higher", "accuracy"),
    "linear_top1": Metric("linear top-1", SHARE, "higher", "accuracy"),
    "knn_top1": Metric("kNN top-1", SHARE, "higher", "accuracy"),
}
SHARED = ("moco", "random", "supervised")
EVERY = ("all",)
BY_RULE = ("scd_by_rule", "other_by_rule", "oracle_by_rule")


@pytest.fixture(scope="module")
def settings():
    return resolve_settings("multicrop", ["tier=smoke", "seeds=2"])


def by_labels(specs):
    return {(s.labels["arm"], s.labels["budget"], s.labels.get("rho"), s.labels["seed"]): s for s in specs}


def without_correlation(settings, **changes):
    """Settings whose images do not have the option of a background correlation."""
    options = {key: value for key, value in settings.base["data"]["options"].items() if not key.startswith("rho")}
    base = {**settings.base, "data": {**settings.base["data"], "options": options}}
    return replace(settings, base=base, **changes)


def test_plan_has_every_arm_budget_correlation_and_seed(settings):
    specs = by_labels(plan(replace(settings, arms=EVERY)))
    names = [arm.name for arm in ARMS]
    assert set(specs) == set(product(names, ("epochs", "flops"), (0.8,), (0, 1))) and len(specs) == 52
    both = plan(replace(settings, arms=EVERY, axes={**settings.axes, "rho": [0.0, 0.8]}))
    assert {spec.labels["rho"] for spec in both} == {0.0, 0.8} and len(both) == 104
    for (_, _, rho, seed), spec in specs.items():
        assert spec.config["data"]["options"]["rho_train"] == rho and spec.config["seed"] == seed
        assert spec.config["data"]["options"]["rho_test"] == 0


def test_few_arms_are_run_at_equal_epochs(settings):
    """What a claim needs, unless arms or this budget alone are asked for."""
    found = {(spec.labels["arm"], spec.labels["budget"]) for spec in plan(settings)}
    default = {arm.name for arm in ARMS if arm.default}
    assert found == {*product({*AT_EQUAL_EPOCHS} & default, ("epochs",)), *product(default, ("flops",))}
    needed = {
        (arm, each.conditions["budget"])
        for claim in STUDY.claims
        for each in claim.contrasts
        for other in (each, *claim.controls)
        for arm in (other.treatment, other.control)
    }
    assert needed <= found
    alone = plan(replace(settings, axes={**settings.axes, "budgets": ["epochs"]}))
    assert {spec.labels["arm"] for spec in alone} == default


def test_seeds_go_to_the_arms_of_the_questions(settings):
    """Every contrast of a claim, and its controls, have the seeds of their reading."""
    planned = plan(replace(settings, seeds=tuple(range(20))))
    counts = Counter((spec.labels["arm"], spec.labels["budget"]) for spec in planned)
    assert set(counts.values()) == {FEW, 20} and len(planned) == 164 and len({spec.id for spec in planned}) == 136
    for claim in STUDY.claims:
        budget = claim.contrasts[0].conditions["budget"]
        for each in (*claim.contrasts, *claim.controls):
            assert min(counts[each.treatment, budget], counts[each.control, budget]) >= (each.looks or STUDY.looks)[-1]
    named = plan(replace(settings, seeds=tuple(range(16)), arms=("oracle", "constant_map")))
    assert len(named) == 2 * 2 * 16


def test_the_reconstruction_by_rule_is_the_one_that_the_method_records(settings):
    """softmax over positions, no projection, the host's loss on the foregrounds, both anchors, weight 1, margin 1."""
    specs = by_labels(plan(replace(settings, arms=BY_RULE)))
    found = {name: specs[name, "flops", 0.8, 0].config["wrapper"] for name in BY_RULE}
    for wrapper in found.values():
        chosen = {"projection_dim": 0, "foreground_weight": 1.0, "anchors": "both", "weight": 1.0, "margin": 1.0}
        assert chosen.items() <= wrapper.items()
    assert [found[name]["saliency"].get("normalisation") for name in BY_RULE] == ["softmax", "softmax", None]
    sources = [found[name]["saliency"]["_target_"].rpartition(".")[2] for name in BY_RULE]
    assert sources == ["SaliencyMLP", "OtherImage", "OracleMask"]


def test_references_are_one_run_in_both_budgets(settings):
    specs = by_labels(plan(replace(settings, arms=EVERY)))
    for arm in (arm.name for arm in ARMS):
        one, other = (specs[arm, budget, 0.8, 1].config for budget in ("epochs", "flops"))
        assert (one == other) == (arm in SHARED)
    assert specs["random", "flops", 0.8, 0].config["training"]["budget"] == {"unit": "steps", "value": 0}
    flops = specs["scd", "flops", 0.8, 0].config["training"]["budget"]
    assert flops["unit"] == "flops" and flops["reference"]["wrapper"] is None
    assert flops["reference"]["views"]["extra"]["kind"] == "none" and flops["of"] == settings.base["training"]["budget"]


def test_arms_differ_in_what_they_say_and_in_nothing_else(settings):
    specs = by_labels(plan(replace(settings, arms=EVERY)))
    moco = specs["moco", "epochs", 0.8, 0].config
    extra = {"same_rectangle": ("same_rectangle", 2), "random_crops": ("random", 2)}
    extra |= {name: ("local", LOCAL_VIEWS) for name in ("local_crops", "scd_local")}
    wrapped = {"constant_map": "ConstantMap", "oracle": "OracleMask", "scd": "SaliencyMLP", "scd_local": "SaliencyMLP"}
    for arm in ("same_rectangle", "random_crops", "local_crops", "constant_map", "scd", "scd_local", "oracle"):
        config = specs[arm, "epochs", 0.8, 0].config
        differing = {key for key in config if config[key] != moco[key]}
        assert differing - {"annotations"} == {
            *(["views"] if arm in extra else []), *(["wrapper"] if arm in wrapped else [])
        }  # fmt: skip
        assert ("annotations" in differing) == (arm == "oracle")
        if arm in extra:
            assert (config["views"]["extra"]["kind"], config["views"]["extra"]["count"]) == extra[arm]
            others = {key: value for key, value in config["views"].items() if key != "extra"}
            assert others == {key: value for key, value in moco["views"].items() if key != "extra"}
        if arm in wrapped:
            assert config["wrapper"]["_target_"] == "scd.scd.SCD"
            assert config["wrapper"]["saliency"]["_target_"].endswith(wrapped[arm])
    assert specs["supervised", "epochs", 0.8, 0].config["method"]["_target_"].endswith("Supervised")


def test_a_host_brings_its_own_views():
    specs = plan(resolve_settings("multicrop", ["tier=smoke", "seeds=1", "method=byol", "arms=moco,random_crops"]))
    for spec in specs:
        assert spec.config["method"]["_target_"].endswith("BYOL") and spec.config["views"]["recipe"] == "byol"


def test_other_data_have_no_correlation_axis(settings):
    specs = plan(without_correlation(settings))
    assert len(specs) == 20 and all("rho" not in spec.labels for spec in specs)
    assert all("rho_train" not in spec.config["data"]["options"] for spec in specs)


def test_axes_and_arms_are_chosen_by_the_command_line(settings):
    narrow = replace(settings, arms=("moco", "scd"), axes={"rho": [0.8], "budgets": ["epochs"]})
    assert set(by_labels(plan(narrow))) == set(product(("moco", "scd"), ("epochs",), (0.8,), (0, 1)))
    with pytest.raises(UsageError, match="unknown arm 'moko'; did you mean 'moco'"):
        plan(replace(settings, arms=("moko",)))


def test_each_side_of_the_question_is_a_claim_of_one_contrast_in_one_budget():
    pairs = {
        (each.treatment, each.control, each.conditions["budget"]): [(c.treatment, c.control) for c in claim.controls]
        for claim in STUDY.claims
        for each in claim.contrasts
    }
    learns, separates = ("moco", "random"), ("oracle", "constant_map")
    assert pairs == {
        ("local_crops", "moco", "epochs"): [learns],
        ("local_crops", "moco", "flops"): [learns],
        ("scd", "constant_map", "flops"): [separates, learns],
        ("local_crops", "scd", "flops"): [separates, learns],
        ("scd", "moco", "flops"): [separates, learns],
        ("same_rectangle", "moco", "flops"): [learns],
    }
    assert len(STUDY.claims) == 6 and STUDY.looks == (5, 20)
    assert {each.conditions["rho"] for claim in STUDY.claims for each in claim.contrasts} == {0.8}
    assert {(each.metric, each.sesoi) for each in CONTRASTS if each is not LEARNS} == {(METRIC, SESOI)}
    assert [(each.treatment, each.control) for each in STUDY.control] == [learns]


@pytest.mark.parametrize(
    ("gains", "outcomes"),
    [
        ({"scd": 0.03, "local_crops": -0.03, "oracle": 0.05, "same_rectangle": 0.04}, "--+-++"),
        ({"scd": -0.03, "local_crops": 0.03, "oracle": 0.05}, "++-+--"),
        (
            {"scd": -0.03, "local_crops": -0.035, "same_rectangle": -0.04},
            "------",
        ),  # the true mask does not help; worse is worse
        ({"local_crops": 0.03, "scd": 0.001, "random": 0.21}, "++?+??"),  # nothing was learned
    ],
)
def test_each_side_of_the_question_has_its_answer(gains, outcomes, tmp_path, no_figures):
    results = study_results(STUDY, gains, settings_of("multicrop", tmp_path, 20))
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    lines = text.split("\n\n")[2].splitlines()
    marks = {"Supported:": "+", "Contradicted:": "-", "Uninformative:": "?"}
    assert "".join(marks[line.split("**")[1]] for line in lines) == outcomes
    assert text.split("<details>")[0].count("\n![") == 1
    assert (
        "in linear top1: MoCo " in text and "in shift linear top1: SCD with the true mask" not in text
    )  # the other metric only


def assembled(settings, specs, numbers, progress):
    return assemble(STUDY, settings, specs, numbers, TOP1, {"name": "images"}, progress)


def test_page_of_one_finished_seed_of_a_smoke_tier(settings, tmp_path):
    chosen = replace(settings, arms=("moco", "scd"), axes={"rho": [0.8]}, out=tmp_path, page="multicrop-smoke")
    specs = plan(chosen)
    numbers = {
        spec.id: {METRIC: 0.3 + 0.01 * (spec.labels["arm"] == "scd"), "steps": 10, "total_flops": 1e9}
        for spec in specs
        if spec.labels["seed"] == 0
    }
    results = assembled(chosen, specs, numbers, Progress(planned=6, done=len(numbers)))
    assert results.runs["status"].value_counts().to_dict() == {"done": 4, "missing": 4}
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert "Its numbers and its answer mean nothing." in text
    assert "30.0 (n=1, no interval)" in text and "**Not resolved** whether SCD is better than MoCo" in text
    assert "SCD differs from MoCo by 1.0 points (no interval), which is not judged before 5 seeds" in text
    assert "MoCo vs. random weights is not measured." in text
    assert "**Partial page:** 1 of 2 seeds are complete; 3 of 6 runs have finished (3 not run yet)." in text
    assert "Not measured: no finished run has these numbers." in text
    assert "## Tests of the wiring" in write_index(tmp_path).read_text(encoding="utf-8")


def test_page_without_correlation_axis_and_without_masks(settings, tmp_path):
    chosen = without_correlation(settings, data="photos", page="multicrop-photos", meaningful=True)
    specs = plan(chosen)
    numbers = {
        spec.id: {
            "linear_top1": 0.3 + 0.01 * spec.labels["seed"] + 0.003 * len(spec.labels["arm"]) * spec.labels["seed"],
            "knn_top1": 0.2,
            "steps": 0 if spec.labels["arm"] == "random" else 10,
            "total_flops": 0 if spec.labels["arm"] == "random" else 1e9,
        }
        for spec in specs
    }
    results = assembled(chosen, specs, numbers, Progress(len(numbers), len(numbers)))
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert "ρ" not in text.split("Deviations from")[0] and "### Equal epochs\n" in text
    assert text.count("Not measured: no finished run has these numbers.") == 3
    assert "Complete: 16 of 16 runs" in text and "mean nothing" not in text
    assert pandas.read_csv(tmp_path / "records" / "multicrop-photos.csv")["data"].eq("photos").all()
