"""R5-b: is it the separation of foreground and background, or only additional crops?

Every arm is the host (MoCo v2) with one difference. Three controls give the host more views and no map. One control
has SCD's heads, cost and loss and no separation; one has the true mask in the place of the learned map. All are
compared at equal training FLOPs, and local crops at equal epochs as well, on images whose background is correlated
with the object in training, as in photographs: only there can a separation help, which the true mask has to show. SCD
has two reconstructions here: its default, and the one that the rule of the study reconstruction chooses.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from scd.errors import unknown
from studies.references import (
    MAP_SCORES,
    ORACLE,
    PROBE,
    RANDOM,
    SUPERVISED,
    chosen_arms,
    learns,
    separates,
)
from studies.suite.analysis import tables
from studies.suite.analysis.conditions import (
    BUDGET_WORDS,
    conditions,
    cross_conditions,
    fall_back_to_metric,
    planned_there,
    title,
    words,
)
from studies.suite.analysis.results import Results
from studies.suite.pages import sections as standard
from studies.suite.pages import study_figures
from studies.suite.pages.publish import Report
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, Claim, Contrast, RunSpec, Study, contrast_factory, merge

METRIC, FALLBACK = "shift_linear_top1", PROBE  # the fallback: images without a correlation of background and object
SESOI = 0.015  # a fifth of what a correct map gives on draw 0
MAIN = (METRIC, PROBE, "knn_top1", "shift_knn_top1")
BACKGROUND = ("mixed_same_top1", "mixed_rand_top1", "bg_gap", "background_top1")
COLLAPSE = ("feature_std", "effective_rank", "map_area", "map_std", "map_saturation", "map_entropy")
EXTRA_VIEWS = 2  # as many as SCD has pooled vectors per view: foreground and background
LOCAL_VIEWS = 4
WITH_MAPS = ("constant_map", "scd", "scd_local", "scd_by_rule", "other_by_rule")  # and no mask in training


def crops(kind: str, count: int) -> dict[str, Any]:
    """Extra views without saliency; size and area are those of their kind, see scd/data/recipes.py."""
    return {"views": {"extra": {"kind": kind, "count": count}}}


HOST = Arm("moco", "MoCo", {}, "two global views, MoCo's loss", "nothing: what all arms start from")
ARMS = (
    RANDOM,
    HOST,
    Arm(
        "same_rectangle", "MoCo + same rectangle", crops("same_rectangle", EXTRA_VIEWS), "all of MoCo",
        f"{EXTRA_VIEWS} extra views: the query's own rectangle with another flip and other photometrics; no map",
    ),
    Arm(
        "random_crops", "MoCo + random crops", crops("random", EXTRA_VIEWS), "all of MoCo",
        f"{EXTRA_VIEWS} extra views: further crops of the global views' size and area; no map", default=False,
    ),
    Arm(
        "local_crops", "MoCo + local crops", crops("local", LOCAL_VIEWS), "all of MoCo",
        f"{LOCAL_VIEWS} extra views: small crops of a small area, as in SwAV and DINO; no map",
    ),
    Arm(
        "constant_map", "SCD with a constant map", {"wrapper": {"preset": "scd", "saliency": "constant"}},
        "all of MoCo; SCD's projection, triplet loss and cost", "the map is constant: nothing is separated",
    ),
    Arm("scd", "SCD", {"wrapper": "scd"}, "all of MoCo", "learned map, foreground and background, triplet loss"),
    Arm(
        "scd_local", "SCD + local crops", merge({"wrapper": "scd"}, crops("local", LOCAL_VIEWS)), "all of SCD",
        f"the {LOCAL_VIEWS} local views in MoCo's loss; triplets are between global views", default=False,
    ),
    ORACLE,
    Arm(
        "scd_by_rule", "SCD by rule", {"wrapper": "scd_by_rule"}, "all of MoCo",
        "SCD in the reconstruction that a rule chooses: softmax map, no projection, MoCo's loss on the foregrounds, "
        "both anchors, margin 1", default=False,
    ),
    Arm(
        "other_by_rule", "SCD by rule with another image's map",
        {"wrapper": {"preset": "scd_by_rule", "saliency": {"preset": "other_image", "normalisation": "softmax"}}},
        "all of SCD by rule: loss, weights, map network",
        "in training each image has the learned map of another image of the batch", default=False,
    ),
    Arm(
        "oracle_by_rule", "SCD by rule with the true mask",
        {"wrapper": {"preset": "scd_by_rule", "saliency": "oracle"}}, "all of SCD by rule", "the map is the true mask",
        default=False,
    ),
    replace(SUPERVISED, default=False),
)  # fmt: skip
SHARED = (RANDOM.name, HOST.name, SUPERVISED.name)  # one run in both budgets
AT_EQUAL_EPOCHS = (*SHARED, "local_crops")  # by default; the other arms where arms= or axes.budgets= asks for them
OF_CONTROLS, FEW = (RANDOM.name, ORACLE.name), 8  # arms of the positive controls alone, and their seeds
FIRST, ALL = 5, 20  # seeds of the page's two readings; the first is for one's own images, whose runs take longer
AT_FEW = (FIRST, FEW)
RHO = 0.8  # the correlation for which the claims are made

contrast = contrast_factory(METRIC, SESOI, "SCD is better than MoCo")  # taken in every budget and correlation


def at_few(declared: Contrast) -> Contrast:
    """The contrast with its last reading at ``FEW`` seeds."""
    return replace(declared, looks=AT_FEW)


CONTRASTS = (
    contrast("scd", "moco"),
    contrast("scd", "constant_map", "the separation adds to SCD with a constant map"),
    contrast("local_crops", "moco", "local crops alone improve MoCo"),
    contrast("local_crops", "scd", "local crops without a map are better than SCD"),
    contrast("constant_map", "moco", "SCD's heads and loss help without a separation"),
    contrast("scd", "same_rectangle", "SCD is better than extra views of the same rectangle"),
    contrast("scd", "random_crops", "SCD is better than extra random crops"),
    contrast("scd_local", "local_crops", "SCD adds to local multi-crop"),
    contrast("same_rectangle", "moco", "extra views of the same rectangle improve MoCo"),
    contrast("random_crops", "moco", "extra random crops improve MoCo"),
    contrast("scd_by_rule", "other_by_rule", "the separation adds to SCD by rule"),
    contrast("scd_by_rule", "moco", "SCD by rule is better than MoCo"),
    at_few(separates("oracle_by_rule", "other_by_rule", METRIC, SESOI)),
    at_few(separates("oracle", "constant_map", METRIC, SESOI)),
    at_few(learns("moco", "MoCo")),
)
SEPARATES, LEARNS = CONTRASTS[-2:]  # positive controls: a correct separation is seen; the host has learned something
CONTROL = (LEARNS,)


def claim(question: str, treatment: str, control: str, budget: str, text: str) -> Claim:
    """One claim of the page, in one budget. A claim about SCD also needs a data set that shows a correct separation."""
    declared = contrast(treatment, control, text, {"rho": RHO, "budget": budget})
    controls = (SEPARATES, LEARNS) if "scd" in (treatment, control) else CONTROL
    return Claim(text, (declared,), question, controls)


CLAIMS = (
    claim(
        "Do extra crops alone give the gain?", "local_crops", "moco", "epochs",
        "local crops without a map improve MoCo at equal epochs",
    ),
    claim(
        "The same at equal cost?", "local_crops", "moco", "flops",
        "local crops without a map improve MoCo at equal training FLOPs",
    ),
    claim(
        "Does the separation add at the same cost?", "scd", "constant_map", "flops",
        "SCD is better than SCD with a constant map at equal training FLOPs",
    ),
    claim(
        "Is multi-crop worth more than the separation?", "local_crops", "scd", "flops",
        "MoCo with local crops is better than SCD at equal training FLOPs",
    ),
    claim("Does SCD help at all?", "scd", "moco", "flops", "SCD is better than MoCo at equal training FLOPs"),
    claim(
        "Do crops of the same place, under other augmentations?", "same_rectangle", "moco", "flops",
        "extra views of the same rectangle improve MoCo at equal training FLOPs",
    ),
)  # fmt: skip


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """All runs, seed by seed, so that a stopped study has complete seeds.

    Where no arms are named, only those of ``AT_EQUAL_EPOCHS`` are run at equal epochs, unless this budget alone is
    asked for, and the arms of ``OF_CONTROLS`` have ``FEW`` seeds.
    """
    chosen = settings.axes.get("budgets", BUDGET_WORDS)
    for budget in chosen:
        if budget not in BUDGET_WORDS:
            raise unknown("budget (axes.budgets)", budget, BUDGET_WORDS)
    asked = [budget for budget in BUDGET_WORDS if budget in chosen]
    return [
        run(settings, arm, seed, budget, correlation)
        for seed, correlation, budget in product(settings.seeds, correlations(settings), asked)
        for arm in chosen_arms(settings, ARMS)
        if settings.arms or is_default(arm, budget, len(asked)) and seed in seeds_of(settings, arm)
    ]


def is_default(arm: Arm, budget: str, budgets: int) -> bool:
    """Whether an arm is run in a budget where no arms are named."""
    return arm.name in AT_EQUAL_EPOCHS or budget != "epochs" or budgets == 1


def seeds_of(settings: Settings, arm: Arm) -> Sequence[int]:
    """All seeds for the arms of the questions; the first ``FEW`` for the controls, whose differences are large."""
    return settings.seeds[:FEW] if arm.name in OF_CONTROLS else settings.seeds


def run(settings: Settings, arm: Arm, seed: int, budget: str, correlation: dict[str, float]) -> RunSpec:
    """One run. The references are the same run in both budgets: equal configurations, two labels."""
    unit = "none" if arm is RANDOM else "epochs" if arm.name in SHARED else budget
    options = {"data": {"options": {"rho_train": correlation["rho"]}}} if correlation else {}
    spec = settings.spec(arm, seed, unit, reference=HOST, overrides=options, **correlation)
    return replace(spec, labels={**spec.labels, "budget": budget})


def correlations(settings: Settings) -> list[dict[str, float]]:
    """The levels of the correlation of background and object, where the images have that option."""
    if not settings.has_option("rho_train"):
        return [{}]
    return [{"rho": float(rho)} for rho in settings.axes.get("rho", [RHO])]


# -------------------------------------------------------------------- page


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, labels, out = report.results, report.labels, report.out
    found = conditions(results, ("rho", "budget"))
    metric = METRIC if results.has(METRIC) else FALLBACK
    crossed = planned_there(cross_conditions(report.study.contrasts, found), results)
    crossed = fall_back_to_metric(crossed, results, FALLBACK)
    report.judge_claims(beside=crossed)
    report.show(
        tables.gain_table(
            results,
            labels,
            metric,
            HOST.name,
            {words(each): each for each in found},
            dict.fromkeys(OF_CONTROLS, AT_FEW),
        ),
        f"Paired differences in {results.metric(metric).label}, in points, with 95 % t intervals over seeds, not "
        "corrected.",
        study_figures.differences(results, crossed, report.names, out),
    )

    accuracy = report.section("Accuracy and cost")
    accuracy.text(
        "Mean ± half width of the 95 % t interval over seeds. What the arms of a seed share cancels in paired "
        "differences; it does not cancel in these intervals."
    )
    host = report.names[HOST.name]
    relative = {"total_flops": f"training FLOPs / {host}'s", "seconds_pretrain": f"time / {host}'s"}
    shown = [each for each in MAIN if results.has(each)]
    for condition in found:
        accuracy.heading(title(condition))
        accuracy.table(tables.arm_table(results, labels, shown, relative, HOST.name, **condition))
    accuracy.figure(study_figures.seeds(results, labels, metric, out, ["rho"], HOST.name))
    accuracy.figure(study_figures.cost(results, labels, metric, out, ["rho"], SHARED))

    standard.indicators(
        report.section("Background reliance"), results, labels, BACKGROUND,
        "Objects of test images on other backgrounds, and the background's own class.", found,
    )  # fmt: skip
    standard.indicators(
        report.section("Saliency maps against true masks"), results,
        {name: label for name, label in labels.items() if name in WITH_MAPS}, MAP_SCORES,
        "The triplet loss does not say which side is the foreground, so both polarities are scored, beside the best "
        "map that is the same for all images and the best that the resolution allows. These arms see no mask in "
        "training.",
        found,
    )  # fmt: skip
    standard.indicators(
        report.section("Collapse"), results, labels, COLLAPSE,
        "Indicators, not qualities: they identify numbers that come from a collapsed network.", found,
    )  # fmt: skip


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    entries = {
        "Equal training FLOPs": (
            "every arm takes as many steps as cost the forward and backward FLOPs of the host's training above, and "
            "its learning-rate schedule ends there; the host, random weights and the supervised reference are the same "
            "runs in both budgets. At equal epochs only local crops are run by default; `axes.budgets=[epochs]` runs "
            "all arms there"
        ),
        "Seeds": (
            "all arms of the questions have all seeds; random weights and SCD with the true mask, which serve the "
            f"positive controls alone, the first {FEW}, which suffice for their larger differences. The page is read "
            f"at {FIRST} and {ALL} seeds: the first reading is for one's own images, whose runs take longer "
            f"(`seeds={FIRST}`). Arms that are named by `arms=` have all seeds"
        ),
        "Primary metric": (
            "linear top-1 under shift: the probe learns from images whose background is as predictive as in training, "
            "and is tested where it is not. Chosen on draw 0 of the embedded images (`data.options.seed=0`, six seeds) "
            "and checked on draw 1 (four), by how much the true mask changes each metric (SCD with the true mask minus "
            "SCD with a constant map) over the spread of the differences that the claims are about: 7.7 points over "
            "1.7 on draw 0 and 8.8 over 1.1 on draw 1, against 5.3 over 1.2 and 5.1 over 3.0 in kNN top-1, and 5.4 "
            "over 1.8 and 5.6 over 2.0 in linear top-1. The smallest effect of interest, 1.5 points, is a fifth of "
            "what the true mask gives on draw 0. On draw 2 a page of 8 seeds left open whether the separation adds "
            "(+0.8 points [−1.0, 2.6]), on draw 4 one of 16 seeds whether SCD is better than MoCo (+0.6 [−0.3, 1.6]), "
            f"and contrasts of {FEW} seeds there could have detected 2.2 points. All contrasts but the positive "
            "controls have 20 seeds now: an interval of ± half the smallest effect of interest always ends in an "
            "answer. Nothing was chosen on the draw of this page. "
            "Where images have no correlation of background and object, the metric is linear top-1. That MoCo has "
            "learned something is judged by linear top-1 without shift"
        ),
        "Settings of the arms": (
            "learning rate, momentum, queue and temperature are the same in every self-supervised arm; none was tuned "
            "for one arm. Those of the cpu tier were chosen on draw 0 of the embedded images (`data.options.seed=0`) "
            "by the test accuracy of MoCo and random weights; the distance in SCD's triplets by its own training loss"
        ),
    }
    if levels := results.levels("rho"):
        entries["Background correlation"] = (
            f"ρ = {' and '.join(f'{level:g}' for level in levels)}: how often the class of the background is the "
            "partner of the object's class in the training images (else it is drawn at random). The test images and "
            "those that probes learn from have the values of `rho_test` and `rho_probe` above; accuracies under shift "
            "are of probes that learn from the training images"
        )
    return entries


DEVIATIONS = (
    "Scale: the papers train a ResNet-50 at 224 px on 1.28 million images for 100 epochs or more. A difference at the "
    "scale of this page need not be one there.",
    "SCD is a reconstruction from its abstract and reviews: margin, distance, projection, branch of the positive and "
    "weight are this suite's choices (`scd/scd.py`).",
    "SCD with a constant map: foreground and background are the same vector, so the triplet loss only pulls the two "
    "views together through the projection.",
    "Loss of several views: the mean over all pairs, as in SwAV and DINO. Asym-Siam adds the mean over small views to "
    "the large pair's loss (here `views.extra.weight`, one over their number).",
    "Local crops: the global views keep their range of areas, which SwAV and DINO raise, so that arms differ in the "
    "extra views alone. All views have MoCo v2's photometrics.",
    "Linear probe: solved to its optimum on features without augmentation; MoCo trains it by SGD on augmented crops. "
    "Accuracies compare between the arms of this page, not with published ones.",
)

STUDY = Study(
    name="multicrop",
    question_ids=("R5-b",),
    question="Is it the separation of foreground and background that helps, or only additional crops (of the same "
    "place, under other augmentations)? Is multi-crop more important than the separation?",
    title="Is it the separation, or only additional crops?",
    arms=ARMS,
    contrasts=CONTRASTS,
    control=CONTROL,
    primary=CONTRASTS[0].name,
    claims=CLAIMS,
    looks=(FIRST, ALL),
    fallback=FALLBACK,
    plan=plan,
    sections=sections,
    deviations=DEVIATIONS,
    notes=notes,
)
