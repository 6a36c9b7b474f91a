"""R5-e: is the result that of one backbone? MoCo, and SCD on it, on CNNs of three sizes, a wider one, and a ViT.

The networks of a tier are the configuration's (``sizes.networks``). On each of them SCD is compared with MoCo, beside
the true mask in SCD's place, which has to show that a separation can help there. Over the CNNs the page has the trend:
how SCD's gain changes with the cost of the network.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import log2
from typing import Any

import numpy
import pandas

from studies.references import (
    ORACLE,
    RANDOM,
    background_correlation,
    chosen_arms,
    correlation_lines,
    learns,
    separates,
)
from studies.suite.analysis import notation, tables
from studies.suite.analysis.comparison import compare
from studies.suite.analysis.conditions import cross_conditions, fall_back_to_metric, planned_there
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import Estimate, estimate
from studies.suite.pages import sections as standard
from studies.suite.pages import study_figures
from studies.suite.pages.markdown import Blocks
from studies.suite.pages.publish import Report
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, Claim, RunSpec, Study, contrast_factory, merge

METRIC, FALLBACK, SESOI = "knn_top1", "saliency_maxf", 0.01  # one point
MAIN = (METRIC, "linear_top1", "mixed_rand_top1", "bg_gap", "saliency_iou", "map_std")
COST = "flops_per_step"
CNNS = {  # entries of sizes.networks, from the cheapest to the dearest, and their names on the page
    "small": "the small CNN",
    "medium": "the medium CNN",
    "deep": "the deep CNN",
    "wide": "the wide CNN",
}
VIT = "vit"
NETWORKS = {**CNNS, VIT: "the ViT"}

MOCO = Arm("moco", "MoCo", {"method": "moco"}, "two global views, asymmetric loss", "no map")
SCD = Arm("scd", "SCD", {"method": "moco", "wrapper": "scd"}, "all of MoCo", "one saliency map, triplet loss")
ARMS = (RANDOM, MOCO, SCD, replace(ORACLE, overrides={"method": "moco", **ORACLE.overrides}))
NAMES = {arm.name: arm.label for arm in ARMS}

contrast = contrast_factory(METRIC, SESOI, "SCD is better than MoCo")
CONTRASTS = (contrast("scd", "moco"), separates("oracle", "moco", METRIC), learns("moco", "MoCo"))
CONTROL = CONTRASTS[1:]  # a correct separation is seen; the host has learned something
CLAIMS = tuple(
    Claim(
        f"with {name} SCD is better than MoCo",
        (contrast("scd", "moco", f"with {name} SCD is better than MoCo", {"network": name}),),
        f"With {name}?",
    )
    for name in NETWORKS.values()
)


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """All arms on every network, seed by seed, at equal epochs."""
    images, networks = background_correlation(settings), settings.axes["networks"]
    return [
        settings.at_equal_epochs(arm, seed, arm is not RANDOM, merge(images, on), network=NETWORKS[key])
        for seed in settings.seeds
        for key, on in ((key, network(settings, key, networks[key])) for key in NETWORKS if key in networks)
        for arm in chosen_arms(settings, ARMS)
    ]


def network(settings: Settings, key: str, backbone: Mapping[str, Any]) -> dict[str, Any]:
    """What a network changes. A ViT trains by DINO's optimiser and schedule."""
    if key != VIT:
        return {"backbone": dict(backbone)}
    recipe = settings.configure(Arm("", "", {"method": "dino"}, "", ""), settings.seeds[0])
    shared = {part: recipe[part] for part in ("optimizer", "schedule", "training")}
    return {"backbone": dict(backbone), **shared}


# -------------------------------------------------------------------- page


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, out = report.results, report.out
    found = {name: {"network": name} for name in results.levels("network")}
    metric = METRIC if results.has(METRIC) or not results.has(FALLBACK) else FALLBACK
    declared = planned_there(cross_conditions(CONTRASTS, list(found.values())), results)
    declared = fall_back_to_metric(declared, results, FALLBACK)
    report.judge_claims(beside=declared)
    report.say(trend_sentence(results, metric))
    shown = [each for each in declared if (each.treatment, each.control) != ("moco", RANDOM.name)]
    report.show(
        tables.gain_table(results, report.labels, metric, MOCO.name, found),
        f"Paired differences in {results.metric(metric).label}, in points, at equal epochs, with 95 % t intervals, not "
        "corrected.",
        study_figures.differences(results, shown, report.names, out),
    )
    networks(report.section("The networks"), results)
    accuracy = report.section("Accuracy, network by network")
    for name, condition in found.items():
        accuracy.heading(name[0].upper() + name[1:])
        accuracy.table(tables.arm_table(results, report.labels, MAIN, {}, **condition))
    accuracy.figure(study_figures.seeds(results, report.labels, metric, out, ("network",), reference=MOCO.name))
    standard.indicators(
        report.section("Maps against true masks"), results, {SCD.name: SCD.label},
        ("saliency_iou", "saliency_iou_trivial", "saliency_iou_possible", "map_area", "map_std", "map_place_share"),
        "SCD's learned map on each network, beside the best map that looks at no image and the best possible one at "
        "the map's resolution.",
        list(found.values()),
    )  # fmt: skip


def costs(results: Results) -> dict[str, float]:
    """Training FLOPs of a step of MoCo on each network."""
    done = results.of(MOCO.name)
    return {name: float(done[done["network"] == name][COST].mean()) for name in results.levels("network")}


def slopes(results: Results, metric: str) -> Estimate:
    """By how much SCD's gain over MoCo changes where a CNN costs twice as much: least squares within each seed.

    Returns:
        Mean over the seeds that have all CNNs, in the metric's unit, with a t interval over seeds; of no seed with
        fewer than three networks.
    """
    cost = {name: value for name, value in costs(results).items() if name != NETWORKS[VIT] and value > 0}
    gains: dict[int, dict[str, float]] = {}
    for name in cost:
        result = compare(results, SCD.name, MOCO.name, metric, network=name)
        for seed, difference in zip(result.seeds, result.differences, strict=True):
            gains.setdefault(seed, {})[name] = difference
    whole = [own for own in gains.values() if len(own) == len(cost)] if len(cost) > 2 else []
    x = [log2(value) for value in cost.values()]
    return estimate([float(numpy.polyfit(x, [own[name] for name in cost], 1)[0]) for own in whole])


def trend_sentence(results: Results, metric: str) -> str:
    """How SCD's gain changes with the cost of the CNN, in words."""
    found, definition = slopes(results, metric), results.metric(metric)
    if found.half is None:
        return "**The trend over the CNNs** is not known yet: it needs three networks and two seeds."
    low, high = (notation.number(definition, found.mean + sign * found.half, True) for sign in (-1, 1))
    rises, falls = found.mean - found.half > 0, found.mean + found.half < 0
    words = "grows" if rises else "falls" if falls else "cannot be said to grow or to fall"
    return (
        f"**The trend over the CNNs:** SCD's gain over MoCo {words} with the network: "
        f"{notation.number(definition, found.mean, True)} points for twice the training FLOPs [{low}, {high}] (least "
        f"squares within each of {found.n} seeds, 95 % t interval over them)."
    )


def networks(section: Blocks, results: Results) -> None:
    """What each network is, and what it costs."""
    cost, rows = costs(results), []
    base = next(iter(cost.values()), float("nan"))
    for name in results.levels("network"):
        done = results.of(MOCO.name)
        done = done[done["network"] == name]
        key = next(key for key, label in NETWORKS.items() if label == name)
        config = results.about["axes"]["networks"][key]
        options = ", ".join(f"{option} {value}" for option, value in config.items() if option != "_target_")
        size = done["parameters_backbone"].mean() if "parameters_backbone" in done else float("nan")
        rows.append(
            {
                "network": name.removeprefix("the "),
                "configuration": options,
                "parameters": tables.NONE if pandas.isna(size) else notation.quantity(size),
                "training FLOPs / the first's": tables.NONE if pandas.isna(cost[name]) else f"{cost[name] / base:.2f}",
            }
        )
    section.table(tables.Table(pandas.DataFrame(rows)))


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    return {
        "Settings of the networks": "the same learning rate, batch and epochs on every CNN, tuned for none; the ViT "
        "has the optimiser, schedule, batch and epochs that DINO has here",
        **correlation_lines(results),
    }


DEVIATIONS = (
    "Scale: small networks on small images. The published results are of one ResNet-50.",
    "SCD is a reconstruction (`scd/scd.py`).",
)

STUDY = Study(
    name="backbones",
    question_ids=("R5-e",),
    question="The backbone is not stated. Is the result that of one backbone?",
    title="Does SCD's gain depend on the backbone?",
    arms=ARMS,
    contrasts=CONTRASTS,
    control=CONTROL,
    primary=CONTRASTS[0].name,
    claims=CLAIMS,
    looks=(5,),
    fallback=FALLBACK,
    plan=plan,
    sections=sections,
    deviations=DEVIATIONS,
    notes=notes,
)
