"""R5-b: is it the separation of foreground and background, or only additional crops?

Every arm is MoCo v2 and one visible difference. Three controls give MoCo more views and no map; one keeps SCD's heads,
cost and loss and takes the separation away; all are compared with SCD at equal epochs and at equal training FLOPs, with
and without a correlation of object and background in the training images.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas

from studies.suite.analysis import tables
from studies.suite.analysis.conditions import BUDGETS, Condition, conditions, everywhere, title, versus, words
from studies.suite.analysis.results import Evidence, gather, save
from studies.suite.analysis.verdict import Verdict, family, judge, rule
from studies.suite.pages import report
from studies.suite.pages.index import write_index
from studies.suite.pages.study_figures import Panels
from studies.suite.planning.study import Arm, Contrast, RunSpec, Settings, Standing, Study, declarer, merge

METRIC, SESOI = "linear_top1", 0.01  # smallest difference of interest: one point of linear top-1
MAIN = (METRIC, "knn_top1")
BACKGROUND = ("mixed_same_top1", "mixed_rand_top1", "bg_gap", "background_top1")
SALIENCY = (
    "saliency_iou", "saliency_iou_inverted", "saliency_iou_whole",
    "saliency_maxf", "saliency_maxf_inverted", "saliency_maxf_whole", "saliency_inverted_share",
)  # fmt: skip
COLLAPSE = ("feature_std", "effective_rank", "map_area", "map_std", "map_saturation", "map_entropy")
SECTIONS = (
    (
        "Background reliance", BACKGROUND, (),
        "Objects of test images on other backgrounds, and the background's own class.",
    ),
    (
        "Saliency maps against true masks", SALIENCY, ("constant_map", "scd", "scd_local"),
        "Nothing in a triplet loss says which side is the foreground, so both polarities are scored, beside a map that "
        "is 1 everywhere. No method has seen a mask.",
    ),
    (
        "Collapse", COLLAPSE, (),
        "Indicators, not qualities: they show a number that comes from a collapsed network.",
    ),
)  # fmt: skip
EXTRA_VIEWS = 2  # as many as SCD has pooled vectors per view: foreground and background
LOCAL_VIEWS = 4  # of 96/224 of the side: fewer pixels than one more global view


def crops(kind: str, count: int) -> dict[str, Any]:
    """Extra views without saliency; ``plan`` adds their size and area from the base configuration."""
    return {"views": {"extra": {"kind": kind, "count": count}}}


RANDOM = Arm("random", "random weights", {}, "backbone, evaluation", "no training: the floor")
MOCO = Arm("moco", "MoCo", {}, "two global views, MoCo v2's asymmetric loss", "nothing: what all arms start from")
ARMS = (
    RANDOM,
    MOCO,
    Arm(
        "same_rectangle", "MoCo + same rectangle", crops("same_rectangle", EXTRA_VIEWS),
        "all of MoCo", "2 extra views: the query's own rectangle with fresh flip and photometrics; no map",
    ),
    Arm(
        "random_crops", "MoCo + random crops", crops("random", EXTRA_VIEWS),
        "all of MoCo", "2 extra views: further crops of the global views' size and area; no map",
    ),
    Arm(
        "local_crops", "MoCo + local crops", crops("local", LOCAL_VIEWS),
        "all of MoCo", "4 extra views: 96/224 of the side, 5 to 20 % of the image's area; no map",
    ),
    Arm(
        "constant_map", "SCD, constant map", {"wrapper": "scd_constant"},
        "all of MoCo; SCD's projection, triplet loss and cost", "the map is 0.5 everywhere: nothing is separated",
    ),
    Arm("scd", "SCD", {"wrapper": "scd"}, "all of MoCo", "learned map, foreground and background, triplet loss"),
    Arm(
        "scd_local", "SCD + local crops", merge({"wrapper": "scd"}, crops("local", LOCAL_VIEWS)),
        "all of SCD", "the 4 local views, in MoCo's loss; triplets stay between global views",
    ),
)  # fmt: skip
LABELS = {arm.name: arm.label for arm in ARMS}
CLAIM = "SCD is better than MoCo, than MoCo with additional crops of any kind, and than SCD with a constant map"

contrast = declarer(METRIC, SESOI, CLAIM)  # the page takes each in every budget and every correlation
CONTRASTS = (
    contrast("scd", "same_rectangle"),
    contrast("scd", "random_crops"),
    contrast("scd", "local_crops"),
    contrast("scd", "constant_map"),
    contrast("scd", "moco"),
    contrast("scd_local", "local_crops", "SCD adds to local multi-crop"),
    contrast("constant_map", "moco", "SCD's heads and loss help without a separation"),
)


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """All runs, seed by seed, so that a stopped study has complete seeds."""
    arms = [with_views(arm, settings) for arm in settings.select(ARMS)]
    return [
        run(settings, arm, seed, budget, correlation)
        for seed, correlation, budget in product(settings.seeds, correlations(settings), budgets(settings))
        for arm in arms
    ]


def run(settings: Settings, arm: Arm, seed: int, budget: str, correlation: dict[str, float]) -> RunSpec:
    """One run. MoCo and random weights are the same run in both budgets: equal configurations, two labels."""
    unit = {RANDOM.name: "none", MOCO.name: "epochs"}.get(arm.name, budget)
    options = {"data": {"options": {"rho_train": correlation["rho"]}}} if correlation else {}
    spec = settings.spec(arm, seed, unit, reference=MOCO, overrides=options, **correlation)
    return replace(spec, labels={**spec.labels, "budget": budget})


def correlations(settings: Settings) -> list[dict[str, float]]:
    """The levels of the background's correlation with the object; only the embedded images have that knob."""
    if settings.base["data"]["name"] != "shapes":
        return [{}]
    return [{"rho": float(rho)} for rho in settings.axes.get("rho", [0.0])]


def budgets(settings: Settings) -> list[str]:
    """The budgets asked for, in the study's order."""
    return [budget for budget in BUDGETS if budget in settings.axes.get("budgets", BUDGETS)]


def with_views(arm: Arm, settings: Settings) -> Arm:
    """The arm with the size and area of its extra views written out."""
    from baselines.multicrop import extra_views  # imports torch, which listing the studies should not

    extra = arm.overrides.get("views", {}).get("extra")
    if extra is None:
        return arm
    views = settings.base["views"]
    whole = {**extra_views(extra["kind"], views["size"], tuple(views["scale"])), "count": extra["count"]}
    return replace(arm, overrides=merge(arm.overrides, {"views": {"extra": whole}}))


# -------------------------------------------------------------------- page


def render(settings: Settings, records: pandas.DataFrame, standing: Standing) -> Path:
    """Write records, figures, page and index; returns the page's path."""
    return compose(gather(STUDY, settings, records, standing), settings.out)


def compose(evidence: Evidence, out: Path) -> Path:
    """The page from its evidence alone: ``compose(load(out, "multicrop"), out)`` writes the same page again."""
    found = conditions(evidence, ("rho", "budget"))
    contrasts = everywhere(CONTRASTS, found)
    primary = family(contrasts, contrasts[0].name)
    verdict = judge(evidence.finished, primary)
    answer = report.answer_of(verdict, LABELS)
    evidence = evidence.answered(verdict.outcome, answer)
    labels = {name: LABELS[name] for name in evidence.about["arms"]}
    panels = Panels(evidence, LABELS, MOCO.name, (RANDOM.name, MOCO.name), METRIC, SESOI, Path(out))

    page = report.Page("Is it the separation, or only additional crops?")
    report.opening(page, evidence, STUDY, answer)
    page.table(tables.gain_table(evidence, labels, METRIC, MOCO.name, {words(each): each for each in found}))
    page.text("Paired differences in linear top-1, in points, with 95 % t intervals over seeds, not corrected.")
    page.figure(panels.differences(contrasts))
    page.heading("Arms")
    report.chosen_arms(page, evidence, STUDY)
    accuracy(page, evidence, labels, found)
    page.figure(panels.seeds(["rho"]))
    page.figure(panels.cost(["rho"]))
    compared(page, evidence, contrasts, primary, found, verdict)
    for section in SECTIONS:
        report.indicators(page, evidence, labels, found, *section)
    report.how_measured(page, evidence, (*MAIN, *BACKGROUND, *SALIENCY, *COLLAPSE), measured(evidence))
    report.deviations(page, DEVIATIONS)
    report.cost(page, evidence, labels, **found[0])
    report.provenance(page, evidence, ("arm", "budget", "rho"))
    path = page.write(Path(out) / f"{evidence.page}.md")
    save(evidence, out)
    write_index(out)
    return path


def accuracy(page: report.Page, evidence: Evidence, labels: dict[str, str], found: list[Condition]) -> None:
    """The main table, one per condition."""
    page.heading("Accuracy and cost")
    page.text(
        "Mean ± half width of the 95 % t interval over seeds. What seeds share cancels in the paired differences "
        "below; it does not in these intervals."
    )
    relative = {"total_flops": "training FLOPs / MoCo's", "seconds_pretrain": "time / MoCo's"}
    for condition in found:
        page.heading(title(condition), 3)
        page.table(tables.arm_table(evidence, labels, MAIN, relative, MOCO.name, **condition))


def compared(
    page: report.Page,
    evidence: Evidence,
    contrasts: list[Contrast],
    primary: tuple[Contrast, ...],
    found: list[Condition],
    verdict: Verdict,
) -> None:
    """Paired differences, the rule, and what the rule says in each condition alone."""
    names = {each.name: versus(each, LABELS) for each in contrasts}
    page.heading("Contrasts, declared before the runs")
    page.table(tables.contrast_table(evidence, contrasts, names, {c.name: words(c.conditions) for c in contrasts}))
    page.text(
        "Treatment minus control, linear top-1 in points, over the seeds that both arms have; two-sided 95 % t "
        f"intervals; Holm's correction over all {len(contrasts)} rows. d<sub>z</sub> = mean / standard deviation of "
        "the differences. Last column: paired seeds with which a true difference of 1 point is found with 80 % "
        "power, if the spread stays."
    )
    page.heading("How the verdict is reached", 3)
    page.text(f"Claim: *{verdict.claim}*.", rule(len(primary), "1 point of linear top-1"))
    if len(found) > 1:
        page.text("The parts of the claim, by the same bounds (all of them together make the verdict):")
        page.table(tables.verdict_table({words(each): verdict.within(each) for each in found}, names))


def measured(evidence: Evidence) -> dict[str, str]:
    """What only this study has to say about its measuring."""
    entries = {
        "Equal training FLOPs": (
            "every arm takes as many steps as cost the forward and backward FLOPs that MoCo spends in the epochs "
            "above; its learning-rate schedule ends there; MoCo and random weights are the same runs in both budgets"
        ),
        "Settings of the arms": (
            "learning rate, momentum, queue and temperature are the same in every arm; none was tuned for one. The "
            "cpu tier's were chosen on draw 0 of the embedded images (`data.options.seed=0`), by the test accuracy of, "
            "in the main, MoCo and random weights, for a clear gain; the distance of SCD's triplets by its own "
            "training loss, which the squared one left at the margin; pretraining sees no mask and no label"
        ),
    }
    entries |= report.preset_lines(evidence)
    if levels := evidence.levels("rho"):
        values = " and ".join(f"{level:g}" for level in levels)
        entries["Background correlation"] = (
            f"ρ = {values} in the place of the training images' value above; ρ is how often the background's class is "
            "the object class's partner (else it is drawn at random) in the training images, from which pretraining "
            "and the probes learn; in the test images ρ is 0"
        )
    return entries


DEVIATIONS = (
    "Scale: the papers train a ResNet-50 at 224 px on 1.28 million images for 100 epochs and more, on several "
    "GPUs. Size of network, images, batch, queue and schedule of this page stand above; a difference at this scale "
    "need not be one there.",
    "SCD is a reconstruction. Abstract and reviews say: an MLP on the feature map gives the map, the background is "
    "its inverse, a triplet loss parts their vectors, beside the host's own loss. Margin, distance, projection, "
    "branch of the positive and weight are this suite's (`scd/scd.py`).",
    "SCD, constant map: foreground and background are the same vector, so what stays of the triplet loss is a pull "
    "between the two views through the projection.",
    "MoCo: batch norm over groups within one process, keys shuffled over them, in place of several GPUs; the momentum "
    "update follows the optimiser step (the same sequence of weights at every key).",
    "Loss of several views: the mean over all pairs, so its scale is MoCo's. Asym-Siam adds the mean over small "
    "views to the large pair's loss; SwAV and DINO average over pairs, as here.",
    "Local crops: 4 of 96/224 of the side, rounded to a multiple of 4 px, and 5 to 20 % of the area (SwAV, DINO: 6 "
    "to 8 of 96 px beside 224 px, from 5 % to 14 or 40 %). The global views keep their area range, which SwAV and DINO "
    "raise, so that arms differ in extra views alone; all views share MoCo v2's photometrics, with the blur scaled to "
    "the view's size.",
    "Crops are cut in continuous coordinates with antialiasing; torchvision rounds rectangles to whole pixels.",
    "Linear probe: solved to its optimum on un-augmented features; MoCo trains it by SGD on augmented crops. "
    "Accuracies compare between arms of this page, not with published ones.",
)

STUDY = Study(
    name="multicrop",
    question_ids=("R5-b",),
    question="Is it the separation of foreground and background that helps, or only additional crops (of the same "
    "place, under other augmentations)? Is multi-crop more important than the separation?",
    arms=ARMS,
    contrasts=CONTRASTS,
    primary=CONTRASTS[0].name,
    plan=plan,
    render=render,
)
