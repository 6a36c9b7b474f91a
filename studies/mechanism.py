"""R5-a and R4-e: why can a simple MLP help to find the foreground, and why does it work?

Everything of SCD stays but the map, which goes from none over a constant, a random and a centred one, and another
image's map, to the learned one and the true mask. The page also shows the learned map over training, which side of it
is the object, and which half of the triplet loss has the effect. The background is predictive in training: only there
can a map help, which the true mask has to show.
"""

from dataclasses import replace
from typing import Any

import pandas

from scd.evaluation.metric import SHARE, Metric
from studies.references import (
    MAP_SCORES,
    ORACLE,
    RANDOM,
    SUPERVISED,
    background_correlation,
    chosen_arms,
    correlation_lines,
    learns,
    separates,
)
from studies.suite.analysis import notation, tables
from studies.suite.analysis.conditions import planned
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import Estimate, by_seed, estimate
from studies.suite.pages import map_traces, study_figures
from studies.suite.pages import sections as standard
from studies.suite.pages.publish import Report
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, Claim, Contrast, RunSpec, Study, contrast_factory

METRIC, SESOI = "knn_top1", 0.01  # one point
FOUND = "map_iou"  # of the better side of a map, and of the best map that looks at no image
MAIN = (METRIC, "linear_top1", "bg_gap")
COLLAPSE = ("map_area", "map_std", "map_saturation", "map_entropy", "feature_std", "effective_rank")
PLACE = "map_place_share"
CURVES = ("saliency_iou", "saliency_iou_inverted", "map_area", "map_entropy", "map_saturation", "view_agreement")


def scd(**changes: Any) -> dict[str, Any]:
    """SCD with other settings."""
    return {"wrapper": {"preset": "scd", **changes}}


LOSS = "all of MoCo; SCD's projection and triplet loss"
HOST = Arm("moco", "MoCo", {}, "two global views, MoCo's loss", "no map, no triplet loss")
ARMS = (
    RANDOM,
    HOST,
    Arm("constant_map", "SCD with a constant map", scd(saliency="constant"), LOSS, "the same map value everywhere"),
    Arm("frozen", "SCD with a frozen random map", scd(saliency="frozen"), LOSS, "the map's MLP never learns"),
    Arm("centre", "SCD with a centre prior", scd(saliency="centre"), LOSS, "a bump at the image's centre"),
    Arm("other_image", "SCD with another image's map", scd(saliency="other_image"), LOSS, "the map of the next image"),
    Arm("depth1", "SCD with a linear map", scd(saliency={"depth": 1}), "all of SCD", "one layer in the map's MLP"),
    Arm("scd", "SCD", scd(), "all of MoCo", "learned map (two layers), triplet loss"),
    Arm(
        "depth3", "SCD with three layers", scd(saliency={"depth": 3}), "all of SCD", "three layers in the map's MLP",
        default=False,
    ),
    Arm(
        "no_gradient", "SCD without the map's gradient", scd(map_gradient=False), "all of SCD",
        "the backbone does not learn through the map", default=False,
    ),
    Arm(
        "settled", "SCD with the border prior", scd(saliency="settled"), "all of SCD",
        "a rule about the image's border decides, without a label, which side of the map is the foreground",
    ),
    Arm(
        "anchors_both", "SCD with both anchors", scd(anchors="both"), "all of SCD",
        "backgrounds are anchors too, so the two sides enter the loss in the same way", default=False,
    ),
    Arm("consistency", "SCD with attraction only", scd(terms="consistency"), "all of SCD", "no repulsion in the loss"),
    Arm(
        "discrimination", "SCD with repulsion only", scd(terms="discrimination"), "all of SCD",
        "no attraction in the loss",
    ),
    Arm(
        "rbd", "SCD with training-free saliency", scd(saliency="rbd"), LOSS,
        "the map is the mask of Robust Background Detection, which learns nothing", default=False,
    ),
    ORACLE,
    replace(SUPERVISED, default=False),
)  # fmt: skip
LEARNED = ("depth1", "scd", "depth3", "no_gradient", "settled", "anchors_both", "consistency", "discrimination")
WITH_MAPS = ("frozen", "centre", "other_image", *LEARNED)
PICTURED = (
    ("scd", 0.0), ("scd", 0.25), ("scd", 0.5), ("scd", 1.0),
    ("depth1", 1.0), ("depth3", 1.0), ("settled", 1.0), ("discrimination", 1.0), ("frozen", 1.0),
)  # fmt: skip
TRIVIAL = ("saliency_iou_trivial", "saliency_iou_whole")  # the first that is recorded: the best map without an image
BETTER_SIDE, NO_IMAGE = "scd:better side", "scd:no image"
MAP_NAMES = {BETTER_SIDE: "the better side of SCD's map", NO_IMAGE: "the best map that looks at no image"}

contrast = contrast_factory(METRIC, SESOI, "SCD is better than MoCo")
CONTRASTS = (
    contrast("scd", "constant_map", "the learned map adds to a constant one"),
    contrast("scd", "frozen", "the learned map adds to a frozen random one"),
    contrast("scd", "centre", "the learned map adds to a centre prior"),
    contrast("scd", "other_image", "the learned map adds to another image's map"),
    contrast("scd", "moco"),
    contrast("oracle", "scd", "the true mask is better than the learned map"),
    contrast("scd", "depth1", "a hidden layer in the map's MLP helps"),
    contrast("depth3", "scd", "a third layer helps"),
    contrast("scd", "no_gradient", "the gradient through the map helps the backbone"),
    contrast("settled", "scd", "a fixed polarity helps"),
    contrast("rbd", "constant_map", "training-free saliency as the map adds to a constant one"),
    contrast("scd", "rbd", "the learned map is better than training-free saliency"),
    contrast("scd", "consistency", "repulsion from the background adds to the attraction"),
    contrast("scd", "discrimination", "attraction between foregrounds adds to the repulsion"),
    separates("oracle", "constant_map", METRIC),
    learns("moco", "MoCo"),
)
SEPARATES, LEARNS = CONTROL = CONTRASTS[-2:]  # a correct separation is seen; the host has learned something
BY_NAME = {each.name: each for each in CONTRASTS}
IS_OBJECT = Contrast(
    "scd-no image", BETTER_SIDE, NO_IMAGE, FOUND, SESOI, "the learned map finds the object better than any fixed map"
)


def claim(question: str, name: str, text: str, controls: tuple[Contrast, ...] = CONTROL) -> Claim:
    """One claim about one contrast of the list above."""
    return Claim(text, (BY_NAME[name],), question, controls)


CLAIMS = (
    claim("Can a correct map help here?", SEPARATES.name, "the true mask adds to a constant map", (LEARNS,)),
    claim("Does the learned map help?", "scd-constant_map", "the learned map adds to a constant map"),
    claim("Does learning it matter?", "scd-frozen", "the learned map adds to a frozen random map"),
    claim("Is it more than a centre?", "scd-centre", "the learned map adds to a centre prior"),
    claim("Does it have to fit its image?", "scd-other_image", "the learned map adds to another image's map"),
    Claim(
        "the better side of the learned map overlaps more with the object than the best map that looks at no image",
        (IS_OBJECT,), "Is it a map of the object?", (LEARNS,),
    ),
    claim("Does the MLP need its hidden layer?", "scd-depth1", "the map of two layers is better than a linear one"),
    claim("Does the repulsion act?", "scd-consistency", "repulsion from the background adds to the attraction alone"),
    claim("Does the attraction act?", "scd-discrimination", "attraction of foregrounds adds to the repulsion alone"),
)  # fmt: skip


def plan(settings: Settings) -> list[RunSpec]:
    """All arms, seed by seed, at equal epochs, on images of the axis ``rho``."""
    images = background_correlation(settings)
    return [
        settings.at_equal_epochs(arm, seed, arm is not RANDOM, images)
        for seed in settings.seeds
        for arm in chosen_arms(settings, ARMS)
    ]


# -------------------------------------------------------------------- page


def prepare(results: Results, settings: Settings) -> Results:
    """Keep the maps of the page's figure."""
    map_traces.keep_maps(results, settings, PICTURED)
    return results


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, labels, out = report.results, report.labels, report.out
    contrasts = planned(report.study.contrasts, results)
    report.judge_claims(with_maps(results), {**report.names, **MAP_NAMES}, beside=contrasts)
    report.say(*filter(None, [polarity_sentence(results), place_sentence(results)]))
    report.show(
        tables.gain_table(results, labels, METRIC, HOST.name, {"equal epochs": {}}),
        f"Paired differences in {results.metric(METRIC).label}, in points, with 95 % t intervals over seeds, not "
        "corrected.",
        study_figures.differences(results, contrasts, report.names, out),
    )

    maps = report.section("The map over training")
    map_traces.pictures(maps, results, report.names, PICTURED, out)
    maps.figure(map_traces.curve_figure(results, report.names, CURVES, out, LEARNED))
    accuracy = report.section("Accuracy")
    accuracy.table(tables.arm_table(results, labels, MAIN))
    accuracy.figure(study_figures.seeds(results, labels, METRIC, out, reference=HOST.name))
    mapped = {name: labels[name] for name in WITH_MAPS if name in labels}
    polarity(report, mapped)
    standard.indicators(
        report.section("Maps against true masks"), results, mapped, MAP_SCORES,
        "Both polarities, beside the best map that is the same for all images and the best that the resolution "
        "allows. Only the oracle has seen masks in training; it has no map of its own to score.",
    )  # fmt: skip
    standard.indicators(
        report.section("Collapse"), results, labels, COLLAPSE,
        "Indicators of collapse, of maps and of features.",
    )  # fmt: skip


def with_maps(results: Results) -> Results:
    """The results and, seed by seed, two more arms: the better side of SCD's map, and the best map without an image.

    The better side is chosen with the masks, over all test images of a seed: an upper bound for SCD.
    """
    runs, rows = results.of("scd"), []
    trivial = next((name for name in TRIVIAL if name in runs), None)
    for run in runs.to_dict("records") if trivial and "saliency_iou" in runs else ():
        sides = run["saliency_iou"], run["saliency_iou_inverted"]
        rows += [{**run, "arm": BETTER_SIDE, FOUND: max(sides)}, {**run, "arm": NO_IMAGE, FOUND: run[trivial]}]
    definition = "IoU of a map and the true mask; the better side of a map is chosen by the masks, once a seed"
    metrics = {FOUND: Metric("IoU of the object", SHARE, "higher", definition)}
    return results.with_runs(pandas.concat([results.runs, pandas.DataFrame(rows)], ignore_index=True), metrics)


def inverted_seeds(results: Results, arm: str) -> tuple[int, int] | None:
    """In how many seeds the map marks the background in most test images, and of how many; None without maps."""
    shares = by_seed(results.of(arm), "saliency_inverted_share")
    return (sum(share > 0.5 for share in shares.values()), len(shares)) if shares else None


def polarity_sentence(results: Results) -> str:
    """How often SCD's map marks the background, and whether the border prior changes that."""
    plain, settled = (inverted_seeds(results, arm) for arm in ("scd", "settled"))
    if plain is None:
        return ""
    text = f"**Polarity:** the learned map marks the background in {plain[0]} of {plain[1]} seeds"
    if settled is not None:
        text += f", with the border prior (no label) in {settled[0]} of {settled[1]}"
    return f"{text}."


def place_of(results: Results, arm: str) -> Estimate | None:
    """Mean over seeds of the share of the map that the position explains, in percent; None where unknown."""
    if not results.has(PLACE):
        return None
    found = estimate(100 * results.of(arm)[PLACE])
    return found if found.n else None


def percent(found: Estimate | None) -> str:
    """The estimate with its half width."""
    if found is None:
        return tables.NONE
    return f"{found.mean:.0f}" + (f" ± {found.half:.0f}" if found.half is not None else " (no interval)")


def place_sentence(results: Results) -> str:
    """How much of SCD's map is position and how much is content."""
    found = place_of(results, "scd")
    if found is None:
        return ""
    return (
        f"**Position or content:** position alone, the same in every image, explains {percent(found)} % of the "
        "variance of the learned map (mean over seeds)."
    )


def polarity(report: Report, labels: dict[str, str]) -> None:
    """Which side of the map is the object, arm by arm."""
    results, rows = report.results, []
    iou = results.metric("saliency_iou")
    for arm, label in labels.items():
        found = inverted_seeds(results, arm)
        if found is None:
            continue
        runs = results.of(arm)
        best = runs[["saliency_iou", "saliency_iou_inverted"]].max(axis=1)
        shares = ", ".join(f"{100 * share:.0f}" for share in runs["saliency_inverted_share"])
        rows.append(
            {
                "arm": label,
                "seeds that mark the background": f"{found[0]} of {found[1]}",
                "images better inverted (%), by seed": shares,
                "explained by position (%)": percent(place_of(results, arm)),
                "IoU (%)": notation.mean_cell(iou, runs["saliency_iou"], len(runs)),
                "IoU of the better side (%)": notation.mean_cell(iou, best, len(runs)),
            }
        )
    section = report.section("Which side is the foreground?")
    if not rows:
        section.text("Not measured: no finished run has a map and masks to score it against.")
        return
    shown = ("saliency_iou", "saliency_iou_inverted", "saliency_inverted_share", PLACE)
    section.table(tables.Table(pandas.DataFrame(rows), metrics=shown))
    section.text(
        "A seed marks the background when more than half of its test images have a higher IoU for 1 − map. The better "
        "side is chosen with the masks, seed by seed: an upper bound for a rule that chooses the polarity. The triplet "
        "loss does not name a side. Zero padding lets a convolution detect the border of the image, and the loss "
        "does not depend on what a region shows."
    )


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    return {
        "Settings of the arms": (
            "learning rate, momentum, queue, temperature, margin and weight are the same in every self-supervised arm; "
            "none was tuned for one arm"
        ),
        **correlation_lines(results),
    }


DEVIATIONS = (
    "Scale: a small network on small images; the paper's is a ResNet-50 at 224 px on ImageNet.",
    "SCD is a reconstruction: margin, distance, projection, branch of the positive and weight are this suite's choices "
    "(`scd/scd.py`).",
    "Frozen random MLP: the weights of its last layer are multiplied by a gain, because a fresh map is nearly constant "
    "and would repeat the constant map.",
    "Oracle: the true mask of the crop, averaged over each position and clipped away from 0 and 1, so that a view "
    "without object still has two regions. It needs masks and counts as supervision.",
    "Another image's map: in training each image is given the learned map of the next one of the batch; the maps that "
    "are scored against masks are each image's own.",
)

STUDY = Study(
    name="mechanism",
    question_ids=("R4-e", "R5-a"),
    question="Why can a simple MLP help to find the foreground? Why does the method work, and what do its maps show?",
    title="Why can a simple MLP help to find the foreground?",
    arms=ARMS,
    contrasts=CONTRASTS,
    control=CONTROL,
    primary=CONTRASTS[0].name,
    claims=CLAIMS,
    looks=(5,),
    plan=plan,
    sections=sections,
    prepare=prepare,
    deviations=DEVIATIONS,
    notes=notes,
)
