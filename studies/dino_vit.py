"""R1-e and R5-c: does an explicit separation still help on a ViT, whose attention finds objects by itself?

DINO, MoCo and BYOL on one ViT, each with and without SCD; SCD's map learned, taken from the attention, or cut from the
keys; with and without multi-crop; and a ResNet of like cost. All maps, learned or emerged, are scored on the same
images.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas

from studies import pretrained_vits as checkpoints
from studies.pretrained_vits import CHECKPOINTS
from studies.suite.analysis import tables
from studies.suite.analysis.conditions import by_what_there_is
from studies.suite.analysis.results import Evidence, gather, save
from studies.suite.analysis.statistics import by_seed
from studies.suite.analysis.verdict import family, judge
from studies.suite.pages import map_traces as traces
from studies.suite.pages import report
from studies.suite.pages.contrasts import compared
from studies.suite.pages.index import write_index
from studies.suite.pages.study_figures import Panels
from studies.suite.planning.study import Arm, RunSpec, Settings, Standing, Study, declarer, merge

METRIC, FALLBACK, FOUND, SESOI = "linear_top1", "attention_maxf", "found_maxf", 0.01  # one point
MAIN = (METRIC, "knn_top1", "mixed_rand_top1", "bg_gap")
COLLAPSE = ("effective_rank", "feature_std", "map_area", "map_std", "map_saturation")
COURSE = ("learned_maxf", "attention_maxf", "tokencut_maxf")
EXTRACTORS = {
    "learned": "own map",
    "inverted": "own map, inverted",
    "attention": "attention, mean of heads",
    "best_head": "attention, best head by the mask (oracle choice)",
    "tokencut": "TokenCut",
    "whole": "whole image",
    "centre": "centre bump",
}
SCORES = ("maxf", "jaccard", "corloc")
CROPS = {"views": {"extra": {"kind": "local", "count": 4, "scale": [0.05, 0.4], "photometric": "local"}}}
SOURCES = {"attention": "scd.maps.attention.AttentionMap", "tokencut": "scd.maps.attention.TokenCutMap"}


def dino(**overrides: Any) -> dict[str, Any]:
    """DINO with its local views."""
    return merge({"method": "dino"}, CROPS, overrides)


def given(source: str) -> dict[str, Any]:
    """SCD on DINO with a map that is not learned."""
    return dino(wrapper={"preset": "scd", "saliency": {"_target_": SOURCES[source], "_partial_": True}})


def on(method: str, **overrides: Any) -> dict[str, Any]:
    """Another host on the ViT: two global views, and MoCo v3's fixed patch projection."""
    groups = {"bn_groups": 1} if method == "moco" else {}  # a ViT has no batch norm to split
    return merge({"method": {"preset": method, **groups}, "backbone": {"fixed_patches": True}}, overrides)


PLUS, SCD = "four local views", {"wrapper": "scd"}
RANDOM = Arm("random", "random weights", {"method": "dino"}, "ViT, evaluation", "no training: the floor")
DINO = Arm("dino", "DINO", dino(), "ViT", f"two global and {PLUS}, no separation")
ARMS = (
    RANDOM,
    DINO,
    Arm("scd", "SCD-DINO", dino(**SCD), f"all of DINO, {PLUS}", "learned map (MLP on patch tokens), triplet loss"),
    Arm("constant", "SCD-DINO, constant map", dino(wrapper="scd_constant"), "all of SCD-DINO", "the map is 0.5"),
    Arm(
        "attention", "SCD-DINO, attention map", given("attention"), "all of SCD-DINO",
        "the map is the class token's attention in the last block, mean of heads",
    ),
    Arm(
        "tokencut", "SCD-DINO, TokenCut map", given("tokencut"), "all of SCD-DINO",
        "the map is the normalised cut of the last block's keys",
    ),
    Arm("dino_global", "DINO, no local views", {"method": "dino"}, "ViT, DINO's loss", "two global views only"),
    Arm("scd_global", "SCD-DINO, no local views", {"method": "dino", **SCD}, "all of SCD", "two global views only"),
    Arm("moco", "MoCo on the ViT", on("moco"), "ViT, two global views", "MoCo v2's loss, queue and head"),
    Arm("scd_moco", "SCD-MoCo on the ViT", on("moco", **SCD), "all of MoCo on the ViT", "learned map, triplet loss"),
    Arm("byol", "BYOL on the ViT", on("byol"), "ViT, two global views", "BYOL's loss and heads"),
    Arm("scd_byol", "SCD-BYOL on the ViT", on("byol", **SCD), "all of BYOL on the ViT", "learned map, triplet loss"),
    Arm("dino_resnet", "DINO on a ResNet", dino(), "DINO's loss and views", "a ResNet of like cost; pooled map"),
    Arm("scd_resnet", "SCD-DINO on a ResNet", dino(**SCD), "all of DINO on a ResNet", "learned map, triplet loss"),
)  # fmt: skip
ON_RESNET = ("dino_resnet", "scd_resnet")  # their backbone is the study's axis "resnet", of about the ViT's cost
LABELS = {arm.name: arm.label for arm in ARMS}
SHOWN = {f"{arm}:{kind}": f"{LABELS[arm]}: {EXTRACTORS[kind]}" for arm in LABELS for kind in EXTRACTORS}
PICTURED = (
    ("dino:attention", 0.0), ("dino:attention", 0.5), ("dino:attention", 1.0), ("dino:tokencut", 1.0),
    ("scd:learned", 0.5), ("scd:learned", 1.0), ("scd:attention", 1.0), ("scd_resnet:learned", 1.0),
)  # fmt: skip
CLAIM = "on a ViT SCD adds to DINO, with and without local views"
EMERGED = "a learned map finds the object better than what emerges in plain DINO, its attention and its TokenCut"

contrast, found = declarer(METRIC, SESOI, CLAIM), declarer(FOUND, SESOI, EMERGED)
CONTRASTS = (
    contrast("scd", "dino"),
    contrast("scd_global", "dino_global"),
    contrast("scd", "constant", "the learned map adds to what a constant one gives"),
    contrast("attention", "dino", "with the attention as its map SCD adds to DINO"),
    contrast("tokencut", "dino", "with TokenCut's map SCD adds to DINO"),
    contrast("scd", "attention", "the learned map is the better source"),
    contrast("scd", "tokencut", "the learned map is the better source"),
    contrast("scd_moco", "moco", "on a ViT SCD adds to MoCo"),
    contrast("scd_byol", "byol", "on a ViT SCD adds to BYOL"),
    contrast("scd_resnet", "dino_resnet", "on a ResNet SCD adds to DINO"),
    contrast("dino", "dino_global", "local views add to DINO"),
    contrast("dino", "random", "DINO has learned something"),
)
MAP_CONTRASTS = (
    found("scd:learned", "dino:attention"),
    found("scd:learned", "dino:tokencut"),
    found("scd:attention", "dino:attention", "the separation sharpens the attention"),
    found("dino:attention", "random:centre", "what emerges in DINO is better than a bump at the image's centre"),
    found("dino:tokencut", "random:centre", "what emerges in DINO is better than a bump at the image's centre"),
    found("dino:attention", "random:attention", "objects emerge in DINO's attention"),
    found("dino:tokencut", "random:tokencut", "objects emerge in DINO's keys"),
    found("dino:attention", "dino_global:attention", "local views help objects to emerge"),
    found("scd:learned", "scd_resnet:learned", "a ViT's learned map is better than that of a ResNet of like cost"),
)


def plan(settings: Settings) -> list[RunSpec]:
    """All arms, seed by seed, at equal epochs; the ResNet's in the place of the ViT."""
    runs = []
    for seed in settings.seeds:
        for arm in settings.select(ARMS):
            axis = {"backbone": settings.axes["resnet"]} if arm.name in ON_RESNET else {}
            runs.append(settings.at_equal_epochs(arm, seed, arm is not RANDOM, axis))
    return runs + checkpoints.checkpoint_runs(settings, "dino", CHECKPOINTS)


# -------------------------------------------------------------------- page


def render(settings: Settings, records: pandas.DataFrame, standing: Standing) -> Path:
    """Write records, figures, page and index; returns the page's path."""
    evidence = gather(STUDY, settings, records, standing)
    traces.keep_maps(evidence, settings, PICTURED)
    return compose(evidence, settings.out)


def compose(evidence: Evidence, out: Path) -> Path:
    """The page from its evidence and its kept maps alone."""
    out, whole = Path(out), evidence
    evidence = checkpoints.trained_here(whole)
    maps = by_extractor(evidence)
    contrasts = by_what_there_is(CONTRASTS, evidence, FALLBACK)
    verdict = judge(evidence.finished, family(contrasts, STUDY.primary))
    emerged = judge(maps.finished, family(MAP_CONTRASTS, MAP_CONTRASTS[0].name))
    labels = {name: LABELS[name] for name in evidence.about["arms"]}
    answer = f"R5-c: {report.answer_of(verdict, LABELS)} R1-e: {report.answer_of(emerged, SHOWN)}"
    evidence, whole = (each.answered(verdict.outcome, answer) for each in (evidence, whole))
    metric = contrasts[0].metric
    panels = Panels(evidence, LABELS, DINO.name, (RANDOM.name,), metric, SESOI, out)

    page = report.Page("Does an explicit separation still help on a ViT that finds objects by itself?")
    report.opening(page, evidence, STUDY, answer)
    page.text(learned_sentence(evidence, metric))
    page.table(tables.gain_table(evidence, labels, metric, DINO.name, {"equal epochs": {}}))
    page.text(f"Paired differences in {tables.label(metric)}, in points, with 95 % t intervals, not corrected.")
    page.figure(panels.differences([replace(each, conditions={"budget": "epochs"}) for each in contrasts]))
    emergence(page, evidence, maps, out)
    page.heading("Arms")
    report.chosen_arms(page, evidence, STUDY)
    page.heading("Accuracy beside cost")
    page.table(tables.arm_table(evidence, labels, MAIN, {"flops_per_step": "FLOPs per step"}, DINO.name))
    page.figure(panels.cost([]))
    checkpoints.section(page, whole, (METRIC, "knn_top1", "attention_maxf", "tokencut_maxf"), CHECKPOINTS)
    compared(page, evidence, contrasts, (verdict,), LABELS, "1 point")
    compared(page, maps, MAP_CONTRASTS, (emerged,), SHOWN, "1 point", "Contrasts of maps, declared before the runs")
    report.indicators(
        page, evidence, labels, [{}], "Collapse", COLLAPSE, (), "Indicators of collapse, of features and of maps."
    )
    scores = [f"{kind}_{score}" for kind in EXTRACTORS for score in SCORES]
    report.how_measured(page, evidence, (*MAIN, *COLLAPSE, *scores), measured(evidence))
    report.deviations(page, DEVIATIONS)
    report.cost(page, evidence, labels)
    report.provenance(page, evidence, ("arm",))
    path = page.write(out / f"{evidence.page}.md")
    save(whole, out)
    write_index(out)
    return path


def by_extractor(evidence: Evidence) -> Evidence:
    """One row per run and way of finding objects: arm "dino:attention", its scores as ``found_maxf`` and so on."""
    rows = []
    for run in evidence.runs.to_dict("records"):
        for kind in EXTRACTORS:
            scores = {f"found_{score}": run.get(f"{kind}_{score}") for score in SCORES}
            if run["status"] != "done" or pandas.notna(scores[FOUND]):
                rows.append({**run, "arm": f"{run['arm']}:{kind}", **scores})
    return Evidence(evidence.about, pandas.DataFrame(rows, columns=None if rows else [*evidence.runs.columns]))


def learned_sentence(evidence: Evidence, metric: str) -> str:
    """Whether there was anything to compare: DINO against random weights."""
    scores = {arm: by_seed(evidence.finished[evidence.finished["arm"] == arm], metric) for arm in ("dino", "random")}
    both = sorted(set(scores["dino"]) & set(scores["random"]))
    if not both:
        return ""
    higher = sum(scores["dino"][seed] > scores["random"][seed] for seed in both)
    return (
        f"**Has DINO learned?** Its {tables.label(metric)} is above random weights' in {higher} of {len(both)} seeds."
    )


def emergence(page: report.Page, evidence: Evidence, maps: Evidence, out: Path) -> None:
    """Every way of finding objects on the same images."""
    page.heading("What finds the object?")
    names = {name: SHOWN[name] for name in dict.fromkeys(maps.finished["arm"]) if scored(name)}
    if not names:
        page.text("Not measured: no finished run has masks to score its maps against.")
        return
    page.text(floors_sentence(maps))
    page.table(side_by_side(evidence))
    page.text(
        f"{tables.label(FOUND)} in percent, on the same test images and masks. Nothing tells a learned map which side "
        "is the object: its inverse stands beside it, and no score picks a side. The best head is chosen by the mask, "
        "image by image; it says what a rule for choosing heads could reach at best. TokenCut's threshold is its "
        "paper's, for the keys of DINO's ViTs; on a ResNet's maps it may find nothing to cut."
    )
    page.details("All scores", tables.arm_table(maps, names, [f"found_{score}" for score in SCORES]))
    figure = traces.maps_figure(evidence, SHOWN, PICTURED, out)
    page.figure(figure) if figure else page.text("No pictures of maps: these images are not republished.")
    lines = {name: LABELS[name] for name in ("dino", "scd", "dino_global", "moco") if name in evidence.about["arms"]}
    courses = traces.course_figure(evidence, lines, COURSE, out, traces.colours_of(LABELS))
    if courses:
        page.figure(courses)


def floors_sentence(maps: Evidence) -> str:
    """What is found without any training, beside what DINO finds."""
    ways = ("random:centre", "random:attention", "random:tokencut", "dino:attention", "dino:tokencut")
    done = {name: maps.finished[maps.finished["arm"] == name] for name in ways}
    if any(runs.empty for runs in done.values()):
        return ""
    shown = {name: tables.mean_cell(FOUND, runs[FOUND], len(runs)) for name, runs in done.items()}
    return (
        f"**What needs no training:** the {tables.label(FOUND)} of a bump at the centre of every image is "
        f"{shown['random:centre']} %, of random weights' attention {shown['random:attention']} % and of their TokenCut "
        f"{shown['random:tokencut']} %; DINO's attention reaches {shown['dino:attention']} %, its TokenCut "
        f"{shown['dino:tokencut']} %."
    )


def side_by_side(evidence: Evidence) -> tables.Table:
    """One row per arm, one column per way of finding objects that looks at the image."""
    notes, rows = tables.Notes(), []
    for arm in evidence.about["arms"]:
        runs = evidence.finished[evidence.finished["arm"] == arm]
        row = {"arm": LABELS[arm]}
        for kind in ("learned", "inverted", "attention", "best_head", "tokencut"):
            column = f"{kind}_{FOUND.removeprefix('found_')}"
            values = runs[column].dropna() if column in runs else ()
            why = "no finished run" if runs.empty else "this arm has none"
            row[EXTRACTORS[kind]] = tables.mean_cell(FOUND, values, len(runs)) if len(values) else notes.dash(why)
        rows.append(row)
    return tables.Table(pandas.DataFrame(rows), notes.lines)


def scored(name: str) -> bool:
    """Whether a row of the table of maps says something of its own: floors once, given maps only as what emerged."""
    arm, kind = name.split(":")
    return arm == RANDOM.name if kind in ("whole", "centre") else True


def measured(evidence: Evidence) -> dict[str, str]:
    """What only this study has to say about its measuring."""
    trace = evidence.about["base"]["evaluation"]["trace"]
    entries = {
        "Settings of the arms": (
            "one learning rate, schedule, weight decay and gradient cut in every arm, chosen for plain DINO on another "
            "draw of the images; none was tuned for an arm"
        ),
        "MoCo and BYOL on the ViT": "two global views, class token projected, fixed patch projection (MoCo v3); a ViT "
        "has no batch norm, so MoCo's is not split into groups",
        "ResNet": report.method_line({"_target_": "resnet", **evidence.about["axes"].get("resnet", {})}),
        "Maps over training": f"scored on the first {trace['images']} test images before training and at each of "
        f"{trace['points']} equal parts of it; at the end on the first 500",
    }
    return {**entries, **report.preset_lines(evidence)}


DEVIATIONS = (
    "Scale: a small ViT on small images for a few epochs, see above; DINO trains a ViT-S/16 for 100 to 800 epochs.",
    "DINO without local views keeps the global views' area range, so that the arms differ in the local views alone; "
    "the official code then widens it to 0.14 to 1.",
    "The online (student) network is evaluated, in every arm; DINO's published numbers are the teacher's.",
    "MoCo on the ViT keeps MoCo v2's queue and head, without MoCo v3's batch-norm heads and in-batch negatives; BYOL "
    "keeps its batch-norm heads.",
    "SCD is a reconstruction (`scd/scd.py`); on a ViT its feature map are the patch tokens after the final norm.",
)

STUDY = Study(
    name="dino_vit",
    question_ids=("R1-e", "R5-c"),
    question="Objectness emerges by itself in DINO's attention: is an explicit separation needed, and does it work on "
    "transformers, with multi-crop, where attention gives better saliency?",
    arms=ARMS,
    contrasts=CONTRASTS,
    primary=CONTRASTS[0].name,
    plan=plan,
    render=render,
)
