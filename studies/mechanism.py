"""R5-a and R4-e: why can a simple MLP help to find the foreground, and why does it work?

A causal ladder: everything of SCD stays but the map, which goes from none over a constant, a random and a centred one,
and another image's, to the learned one and the true mask. Beside it: what the learned map does while it learns, which
side of it is the object, and which half of the triplet does the work.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas

from studies.suite.analysis import tables
from studies.suite.analysis.results import Evidence, gather, save
from studies.suite.analysis.statistics import Estimate, by_seed, estimate
from studies.suite.analysis.verdict import family, judge
from studies.suite.pages import map_traces as traces
from studies.suite.pages import report
from studies.suite.pages.contrasts import compared
from studies.suite.pages.index import write_index
from studies.suite.pages.study_figures import Panels
from studies.suite.planning.study import Arm, RunSpec, Settings, Standing, Study, declarer

METRIC, SESOI = "linear_top1", 0.01  # one point of linear top-1
MAIN = (METRIC, "knn_top1", "bg_gap")
SALIENCY = (
    "saliency_iou", "saliency_iou_inverted", "saliency_iou_whole",
    "saliency_maxf", "saliency_maxf_inverted", "saliency_maxf_whole", "saliency_inverted_share",
)  # fmt: skip
COLLAPSE = ("map_area", "map_std", "map_saturation", "map_entropy", "feature_std", "effective_rank")
COURSE = ("saliency_iou", "saliency_iou_inverted", "map_area", "map_entropy", "map_saturation", "view_agreement")


def scd(**changes: Any) -> dict[str, Any]:
    """SCD with other settings."""
    return {"wrapper": {"preset": "scd", **changes}}


def preset(name: str) -> dict[str, Any]:
    """SCD with another map source, whose numbers stand in conf/wrapper."""
    return {"wrapper": name}


LOSS = "all of MoCo; SCD's projection and triplet loss"
RANDOM = Arm("random", "random weights", {}, "backbone, evaluation", "no training: the floor")
MOCO = Arm("moco", "MoCo", {}, "two global views, MoCo v2's asymmetric loss", "no map, no triplet")
ARMS = (
    RANDOM,
    MOCO,
    Arm("constant_map", "constant map", preset("scd_constant"), LOSS, "the map is 0.5 everywhere"),
    Arm("frozen", "frozen random MLP", preset("scd_frozen"), LOSS, "the map's MLP keeps its random weights"),
    Arm("centre", "centre prior", preset("scd_centre"), LOSS, "the map is a bump at the centre of the image"),
    Arm("other_image", "another image's map", preset("scd_other_image"), LOSS, "the learned map of the next image"),
    Arm("depth1", "SCD, linear map", scd(saliency={"depth": 1}), "all of SCD", "one linear layer in the map's MLP"),
    Arm("scd", "SCD", {"wrapper": "scd"}, "all of MoCo", "learned map (2 layers), triplet loss"),
    Arm("depth3", "SCD, 3 layers", scd(saliency={"depth": 3}), "all of SCD", "three layers in the map's MLP"),
    Arm(
        "no_gradient", "SCD, map detached", scd(map_gradient=False), "all of SCD",
        "the backbone does not learn through the map",
    ),
    Arm(
        "settled", "SCD, settled polarity", preset("scd_settled"), "all of SCD",
        "the border rule decides, without a label, which side is the foreground",
    ),
    Arm(
        "anchors_both", "SCD, both anchors", scd(anchors="both"), "all of SCD",
        "backgrounds are anchors too, so that nothing tells the sides apart",
    ),
    Arm("consistency", "SCD, consistency only", scd(terms="consistency"), "all of SCD", "the triplet's pull alone"),
    Arm("discrimination", "SCD, discrimination only", scd(terms="discrimination"), "all of SCD", "its push alone"),
    Arm("oracle", "oracle mask", preset("scd_oracle"), LOSS, "the map is the true mask (supervision)"),
)  # fmt: skip
LABELS = {arm.name: arm.label for arm in ARMS}
LEARNED = ("depth1", "scd", "depth3", "no_gradient", "settled", "anchors_both", "consistency", "discrimination")
WITH_MAPS = ("frozen", "centre", "other_image", *LEARNED)
PICTURED = (
    ("scd", 0.0), ("scd", 0.25), ("scd", 0.5), ("scd", 1.0),
    ("depth1", 1.0), ("depth3", 1.0), ("settled", 1.0), ("discrimination", 1.0), ("frozen", 1.0),
)  # fmt: skip
CLAIM = (
    "the learned map is what helps: SCD is better than the same loss with a constant map, a frozen random one, a "
    "centre prior, and another image's map"
)

contrast = declarer(METRIC, SESOI, CLAIM)
CONTRASTS = (
    contrast("scd", "constant_map"),
    contrast("scd", "frozen"),
    contrast("scd", "centre"),
    contrast("scd", "other_image"),
    contrast("scd", "moco", "SCD is better than MoCo"),
    contrast("oracle", "scd", "the true mask is better than the learned map"),
    contrast("oracle", "constant_map", "a right map helps at all"),
    contrast("scd", "depth1", "a hidden layer in the map's MLP helps"),
    contrast("depth3", "scd", "a third layer helps"),
    contrast("scd", "no_gradient", "the gradient through the map helps the backbone"),
    contrast("settled", "scd", "settling the polarity helps"),
    contrast("scd", "consistency", "the push from the background adds to the pull"),
    contrast("scd", "discrimination", "the pull between foregrounds adds to the push"),
)


def plan(settings: Settings) -> list[RunSpec]:
    """All arms, seed by seed, at equal epochs; without masks the oracle's runs fail, and the page says why."""
    runs = []
    for seed in settings.seeds:
        for arm in settings.select(ARMS):
            runs.append(settings.at_equal_epochs(arm, seed, trained=arm is not RANDOM))
    return runs


# -------------------------------------------------------------------- page


def render(settings: Settings, records: pandas.DataFrame, standing: Standing) -> Path:
    """Write records, figures, page and index; returns the page's path."""
    evidence = gather(STUDY, settings, records, standing)
    traces.keep_maps(evidence, settings, PICTURED)
    return compose(traces.with_place_share(evidence, settings), settings.out)


def compose(evidence: Evidence, out: Path) -> Path:
    """The page from its evidence and its kept maps alone."""
    verdict = judge(evidence.finished, family(CONTRASTS, STUDY.primary))
    answer = report.answer_of(verdict, LABELS)
    evidence = evidence.answered(verdict.outcome, answer)
    labels = {name: LABELS[name] for name in evidence.about["arms"]}
    panels = Panels(evidence, LABELS, MOCO.name, (RANDOM.name,), METRIC, SESOI, Path(out))

    page = report.Page("Why can a simple MLP help to find the foreground?")
    report.opening(page, evidence, STUDY, answer)
    page.text(polarity_sentence(evidence), place_sentence(evidence))
    page.table(tables.gain_table(evidence, labels, METRIC, MOCO.name, {"equal epochs": {}}))
    page.text("The ladder: paired differences in linear top-1, in points, with 95 % t intervals, not corrected.")
    page.figure(panels.differences([replace(each, conditions={"budget": "epochs"}) for each in CONTRASTS]))
    pictures(page, evidence, Path(out))
    page.heading("Arms")
    report.chosen_arms(page, evidence, STUDY)
    page.heading("Accuracy")
    page.table(tables.arm_table(evidence, labels, MAIN))
    page.figure(panels.seeds([]))
    compared(page, evidence, CONTRASTS, (verdict,), LABELS, "1 point of linear top-1")
    polarity(page, evidence, labels)
    report.indicators(
        page, evidence, labels, [{}], "Maps against true masks", SALIENCY, WITH_MAPS,
        "Both polarities, beside a map that is 1 everywhere. Only the oracle has seen a mask, and it has no map of its "
        "own to score.",
    )  # fmt: skip
    report.indicators(
        page, evidence, labels, [{}], "Collapse", COLLAPSE, (), "Indicators of collapse, of maps and of features."
    )
    report.how_measured(page, evidence, (*MAIN, *SALIENCY, *COLLAPSE, "view_agreement"), measured(evidence))
    report.deviations(page, DEVIATIONS)
    report.cost(page, evidence, labels)
    report.provenance(page, evidence, ("arm",))
    path = page.write(Path(out) / f"{evidence.page}.md")
    save(evidence, out)
    write_index(out)
    return path


def pictures(page: report.Page, evidence: Evidence, out: Path) -> None:
    """The maps on fixed images, and their numbers over training."""
    page.heading("What the map does")
    figure = traces.maps_figure(evidence, LABELS, PICTURED, out)
    if figure:
        page.figure(figure)
    else:
        page.text("No pictures of maps: these images are not the suite's own, and are not republished.")
    lines = {name: LABELS[name] for name in LEARNED if name in evidence.about["arms"]}
    courses = traces.course_figure(evidence, lines, COURSE, out, traces.colours_of(LABELS))
    if courses:
        page.figure(courses)


def inverted_seeds(evidence: Evidence, arm: str) -> tuple[int, int] | None:
    """In how many seeds the map marks the background in most test images, and of how many; None without maps."""
    shares = by_seed(evidence.finished[evidence.finished["arm"] == arm], "saliency_inverted_share")
    return (sum(share > 0.5 for share in shares.values()), len(shares)) if shares else None


def polarity_sentence(evidence: Evidence) -> str:
    """How often SCD's map marks the background, and whether the border rule changes that."""
    plain, settled = (inverted_seeds(evidence, arm) for arm in ("scd", "settled"))
    if plain is None:
        return ""
    text = f"**Polarity:** the learned map marks the background in {plain[0]} of {plain[1]} seeds"
    if settled is not None:
        text += f", with the border rule (no label) in {settled[0]} of {settled[1]}"
    return text + "."


def place_of(evidence: Evidence, arm: str) -> Estimate | None:
    """Mean over seeds of the share of the map that the position alone explains, in percent; None where unknown."""
    if "place_share" not in evidence.finished:
        return None
    found = estimate(100 * evidence.finished[evidence.finished["arm"] == arm]["place_share"])
    return found if found.n else None


def percent(found: Estimate | None) -> str:
    """The estimate with its half width."""
    if found is None:
        return tables.NONE
    return f"{found.mean:.0f}" + (f" ± {found.half:.0f}" if found.half is not None else " (no interval)")


def place_sentence(evidence: Evidence) -> str:
    """How much of SCD's map is where, and not what."""
    found = place_of(evidence, "scd")
    if found is None:
        return ""
    return (
        f"**Place or content:** {percent(found)} % of the learned map's variance (over the first test images and all "
        "positions, mean over seeds) is explained by the position alone, the same in every image."
    )


def polarity(page: report.Page, evidence: Evidence, labels: dict[str, str]) -> None:
    """Which side of the map is the object, arm by arm."""
    page.heading("Which side is the foreground?")
    rows = []
    for arm in [name for name in WITH_MAPS if name in labels]:
        found = inverted_seeds(evidence, arm)
        if found is None:
            continue
        runs = evidence.finished[evidence.finished["arm"] == arm]
        best = runs[["saliency_iou", "saliency_iou_inverted"]].max(axis=1)
        rows.append(
            {
                "arm": labels[arm],
                "seeds that mark the background": f"{found[0]} of {found[1]}",
                "images better inverted (%), by seed": ", ".join(
                    f"{100 * x:.0f}" for x in runs["saliency_inverted_share"]
                ),
                "explained by place alone (%)": percent(place_of(evidence, arm)),
                "IoU (%)": tables.mean_cell("saliency_iou", runs["saliency_iou"], len(runs)),
                "IoU of the better side (%)": tables.mean_cell("saliency_iou", best, len(runs)),
            }
        )
    if not rows:
        page.text("Not measured: no finished run has a map and masks to score it against.")
        return
    page.table(tables.Table(pandas.DataFrame(rows)))
    page.text(
        "A seed marks the background when more than half of its test images have a higher IoU for 1 − map. The better "
        "side is chosen with the masks at hand, seed by seed: it says what a rule for the polarity could reach at "
        "best. "
        "Nothing in the triplet loss names a side; with both anchors the two sides enter it in the same way. Place: "
        "adjusted share of the variance of the kept maps that their mean over images explains; 100 is one map for all "
        "images. Zero padding tells a convolution where the border is, and the loss does not ask what a region shows."
    )


def measured(evidence: Evidence) -> dict[str, str]:
    """What only this study has to say about its measuring."""
    entries = {
        "Settings of the arms": (
            "learning rate, momentum, queue, temperature, margin and weight are the same in every arm; none was tuned "
            "for one"
        ),
        "Maps over training": (
            "scored on the first 500 test images before training and at each quarter of it; looking changes nothing"
        ),
    }
    return {**entries, **report.preset_lines(evidence)}


DEVIATIONS = (
    "Scale: a small network on small images, see above; the papers' is a ResNet-50 at 224 px on ImageNet.",
    "SCD is a reconstruction: margin, distance, projection, positive branch and weight are this suite's "
    "(`scd/scd.py`).",
    "Frozen random MLP: its last layer's weights are multiplied by a gain (see the wrapper above), since a fresh map "
    "is "
    "nearly 0.5 everywhere and would repeat the constant map.",
    "Oracle: the true mask of the crop, averaged over each position and kept between 0.02 and 0.98, so that a view "
    "without object still has two regions. It needs masks and counts as supervision.",
    "Another image's map: in training each image is given the learned map of the next one of the batch; what is scored "
    "against masks is each image's own.",
)

STUDY = Study(
    name="mechanism",
    question_ids=("R4-e", "R5-a"),
    question="Why can a simple MLP help to find the foreground? Why does the method work, and what do its maps show?",
    arms=ARMS,
    contrasts=CONTRASTS,
    primary=CONTRASTS[0].name,
    plan=plan,
    render=render,
)
