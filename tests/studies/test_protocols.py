"""The study of protocols: one training for all of them, a claim for each, and rankings from known numbers."""

import numpy
import pytest
from synthetic_results import settings_of, study_results

from scd.evaluation.metric import SHARE, Metric
from studies import protocols
from studies.protocols import CLAIMS, PROTOCOLS, RANKED, REFERENCE, STUDY, Order
from studies.suite.pages.publish import publish

METRICS = {name: Metric(text, SHARE, "higher", f"what {name} is") for name, text in PROTOCOLS.items()}


def results_with(values, tmp_path=None, seeds=5, noise=0.0005):
    """Results in which an arm's number by a protocol is ``values(arm, metric)`` and a little more by seed."""
    settings = settings_of("protocols", tmp_path, seeds)

    def numbers(arm, seed):
        draws = numpy.random.default_rng([seed, *arm.encode()]).normal(0, noise, len(PROTOCOLS))
        return {metric: values(arm, metric) + 0.01 * seed + luck for metric, luck in zip(PROTOCOLS, draws, strict=True)}

    results = study_results(STUDY, {}, settings, numbers)
    return results.with_runs(results.runs, METRICS)


def usual(arm, metric):
    """SCD above MoCo by two points, and controls that hold."""
    own = {"random": 0.2, "moco": 0.4, "scd": 0.42, "oracle": 0.5, "byol": 0.45, "scd_byol": 0.47, "lewel": 0.43}
    return own.get(arm, 0.6 + 0.01 * len(arm))


def test_every_arm_is_trained_once_for_all_protocols():
    specs = protocols.plan(settings_of("protocols", seeds=2))
    assert len({spec.id for spec in specs}) == len(specs) == 2 * 11
    names = [item["name"] for item in specs[0].config["evaluation"]["protocols"]]
    assert {"knn", "linear", "finetune", "finetune_10", "finetune_1"} <= set(names)
    assert {"transfer", "scenes", "worst_group", "comus"} <= set(names)
    backbones = {spec.labels["arm"]: spec.config["backbone"]["_target_"] for spec in specs}
    assert {arm for arm, target in backbones.items() if target.endswith("vit")} == {"dino", "scd_dino", "mae"}


def test_the_numbers_of_the_claims_are_those_that_the_protocols_give():
    settings = settings_of("protocols", seeds=1)
    from studies.suite.analysis.results import metrics_of

    (spec, *_) = protocols.plan(settings)
    assert set(PROTOCOLS) <= set(metrics_of(spec.config["evaluation"]["protocols"]))


def test_one_claim_for_each_protocol_with_controls_in_the_same_protocol(tmp_path, no_figures):
    def values(arm, metric):
        changes = {"knn_top1": -0.05, "scene_map": -0.02, "labels1_top1": -0.02}
        change = changes.get(metric, 0.0) if arm == "scd" else 0.0
        return usual(arm, metric) + change - (0.3 if (arm, metric) == ("oracle", "labels1_top1") else 0.0)

    text = publish(STUDY, results_with(values, tmp_path), tmp_path).read_text(encoding="utf-8")
    lines = {line.split("*")[1]: line for line in text.splitlines() if line.startswith("- *By")}
    assert len(lines) == len(CLAIMS) == len(PROTOCOLS)
    assert "**Contradicted:**" in lines["By kNN?"] and "**Supported:**" in lines["By the linear probe?"]
    assert "equivalent" in lines["By the classes of scenes?"]
    assert "**Uninformative:**" in lines["By fine-tuning with 1 % of the labels?"]


def test_places_are_ties_where_no_interval_resolves_the_difference():
    close = {"moco": 0.4, "scd": 0.4001, "lewel": 0.3, "byol": 0.5, "scd_byol": 0.5001, "dino": 0.6, "scd_dino": 0.1}
    results = results_with(lambda arm, metric: close.get(arm, 0.2), noise=0.002)
    places = Order.by(results, REFERENCE).places
    assert places["dino"] == 1 and places["byol"] == places["scd_byol"] == 2
    assert places["moco"] == places["scd"] == 4 and places["lewel"] == 6
    assert places["mae"] == 7 and places["scd_dino"] == 8


def test_agreement_is_kendalls_tau_within_each_seed():
    order = {arm: 0.1 * place for place, arm in enumerate(RANKED)}
    results = results_with(lambda arm, metric: (-1 if metric == "knn_top1" else 1) * order.get(arm, 0.0))
    assert protocols.taus(results, REFERENCE, "finetune_top1") == pytest.approx([1.0] * 5)
    assert protocols.taus(results, REFERENCE, "knn_top1") == pytest.approx([-1.0] * 5)
    pairs = len(RANKED) * (len(RANKED) - 1) // 2
    orders = {metric: Order.by(results, metric) for metric in PROTOCOLS}
    assert orders[REFERENCE].resolved(orders["knn_top1"]) == (0, pairs)
    assert orders[REFERENCE].resolved(orders["finetune_top1"]) == (pairs, 0)
    frame = protocols.agreements(results, list(PROTOCOLS))
    assert frame.loc["linear", "kNN"] == pytest.approx(-1) and frame.loc["linear", "linear"] == 1
    text = protocols.ranking_sentence(orders, frame)
    assert "between -1.00 (kNN) and 1.00" in text and f"{pairs} have the reverse order" in text


def test_nothing_is_said_of_rankings_without_a_second_protocol():
    results = results_with(usual, seeds=1)
    alone = results.with_runs(results.runs.drop(columns=[name for name in PROTOCOLS if name != REFERENCE]))
    orders = {REFERENCE: Order.by(alone, REFERENCE)}
    assert "not known yet" in protocols.ranking_sentence(orders, protocols.agreements(alone, [REFERENCE]))
