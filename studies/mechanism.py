"""R5-a and R4-e: why can a simple MLP help to find the foreground, and why does it work?

Everything of SCD stays but the map, which goes from none over a constant, a random and a centred one, and another
image's map, to the learned one and the true mask. The page also shows the learned map over training, which side of it
is the object, and which half of the triplet loss has the effect.
"""

from typing import Any

import pandas

from studies.references import ORACLE, RANDOM, SUPERVISED, chosen_arms
from studies.suite.analysis import notation, tables
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import Estimate, by_seed, estimate
from studies.suite.pages import map_traces, study_figures
from studies.suite.pages import sections as standard
from studies.suite.pages.publish import Report
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, RunSpec, Study, contrast_factory

METRIC, SESOI = "linear_top1", 0.01  # one point of linear top-1
MAIN = (METRIC, "knn_top1", "bg_gap")
SALIENCY = (
    "saliency_iou", "saliency_iou_inverted", "saliency_iou_whole",
    "saliency_maxf", "saliency_maxf_inverted", "saliency_maxf_whole", "saliency_inverted_share",
)  # fmt: skip
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
    Arm("depth3", "SCD with three layers", scd(saliency={"depth": 3}), "all of SCD", "three layers in the map's MLP"),
    Arm(
        "no_gradient", "SCD without the map's gradient", scd(map_gradient=False), "all of SCD",
        "the backbone does not learn through the map",
    ),
    Arm(
        "settled", "SCD with the border prior", scd(saliency="settled"), "all of SCD",
        "a rule about the image's border decides, without a label, which side of the map is the foreground",
    ),
    Arm(
        "anchors_both", "SCD with both anchors", scd(anchors="both"), "all of SCD",
        "backgrounds are anchors too, so the two sides enter the loss in the same way",
    ),
    Arm("consistency", "SCD with attraction only", scd(terms="consistency"), "all of SCD", "no repulsion in the loss"),
    Arm(
        "discrimination", "SCD with repulsion only", scd(terms="discrimination"), "all of SCD",
        "no attraction in the loss",
    ),
    ORACLE,
    SUPERVISED,
)  # fmt: skip
LEARNED = ("depth1", "scd", "depth3", "no_gradient", "settled", "anchors_both", "consistency", "discrimination")
WITH_MAPS = ("frozen", "centre", "other_image", *LEARNED)
PICTURED = (
    ("scd", 0.0), ("scd", 0.25), ("scd", 0.5), ("scd", 1.0),
    ("depth1", 1.0), ("depth3", 1.0), ("settled", 1.0), ("discrimination", 1.0), ("frozen", 1.0),
)  # fmt: skip
CLAIM = (
    "the learned map is what helps: SCD is better than the same loss with a constant map, with a frozen random one, "
    "with a centre prior, and with another image's map"
)

contrast = contrast_factory(METRIC, SESOI, CLAIM)
CONTRASTS = (
    contrast("scd", "constant_map"),
    contrast("scd", "frozen"),
    contrast("scd", "centre"),
    contrast("scd", "other_image"),
    contrast("scd", "moco", "SCD is better than MoCo"),
    contrast("oracle", "scd", "the true mask is better than the learned map"),
    contrast("scd", "depth1", "a hidden layer in the map's MLP helps"),
    contrast("depth3", "scd", "a third layer helps"),
    contrast("scd", "no_gradient", "the gradient through the map helps the backbone"),
    contrast("settled", "scd", "a fixed polarity helps"),
    contrast("scd", "consistency", "repulsion from the background adds to the attraction"),
    contrast("scd", "discrimination", "attraction between foregrounds adds to the repulsion"),
    contrast("oracle", "constant_map", "a correct map helps"),
)
CONTROL = CONTRASTS[-1:]


def plan(settings: Settings) -> list[RunSpec]:
    """All arms, seed by seed, at equal epochs."""
    return [
        settings.at_equal_epochs(arm, seed, trained=arm is not RANDOM)
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
    contrasts = report.study.contrasts
    report.judge(contrasts)
    report.say(*filter(None, [polarity_sentence(results), place_sentence(results)]))
    report.show(
        tables.gain_table(results, labels, METRIC, HOST.name, {"equal epochs": {}}),
        "Paired differences in linear top-1, in points, with 95 % t intervals over seeds, not corrected.",
        study_figures.differences(results, contrasts, report.names, out),
    )

    maps = report.section("The map over training")
    map_traces.pictures(maps, results, report.names, PICTURED, out)
    maps.figure(map_traces.curve_figure(results, report.names, CURVES, out, LEARNED))
    accuracy = report.section("Accuracy")
    accuracy.table(tables.arm_table(results, labels, MAIN))
    accuracy.figure(study_figures.seeds(results, labels, METRIC, out, reference=HOST.name))
    with_maps = {name: labels[name] for name in WITH_MAPS if name in labels}
    polarity(report, with_maps)
    standard.indicators(
        report.section("Maps against true masks"), results, with_maps, SALIENCY,
        "Both polarities, beside a map that is 1 everywhere. Only the oracle has seen masks in training; it has no map "
        "of its own to score.",
    )  # fmt: skip
    standard.indicators(
        report.section("Collapse"), results, labels, COLLAPSE,
        "Indicators of collapse, of maps and of features.",
    )  # fmt: skip


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
        )
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
    plan=plan,
    sections=sections,
    prepare=prepare,
    deviations=DEVIATIONS,
    notes=notes,
)
