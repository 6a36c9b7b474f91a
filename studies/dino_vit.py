"""R1-e and R5-c: does an explicit separation still help on a ViT, whose attention finds objects by itself?

DINO, MoCo and BYOL on one ViT, each with and without SCD; SCD's map learned, from the attention, or from TokenCut; with
and without local views; and a ResNet of about the same cost. The background is predictive in training: only there can a
map help, which the true mask has to show. All maps, learned or emerged, are scored on the same images.
"""

from dataclasses import replace
from typing import Any

import pandas

from scd.evaluation.metric import SHARE, Metric
from studies import pretrained_vits
from studies.pretrained_vits import CHECKPOINTS
from studies.references import (
    LONGER,
    RANDOM,
    background_correlation,
    chosen_arms,
    correlation_lines,
    has_labels,
    learns,
    separates,
)
from studies.suite.analysis import notation, tables
from studies.suite.analysis.conditions import fall_back_to_metric, planned
from studies.suite.analysis.results import DONE, Results
from studies.suite.pages import map_traces, study_figures
from studies.suite.pages import sections as standard
from studies.suite.pages.publish import Report
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, Claim, RunSpec, Study, contrast_factory, merge

METRIC, FALLBACK, FOUND, SESOI = "knn_top1", "attention_maxf", "found_maxf", 0.01  # one point
MAIN = (METRIC, "linear_top1", "mixed_rand_top1", "bg_gap")
SALIENCY = ("saliency_iou", "saliency_maxf", "saliency_inverted_share")
COLLAPSE = ("effective_rank", "feature_std", "map_area", "map_std", "map_saturation", "map_entropy")
CURVES = ("learned_maxf", "attention_maxf", "tokencut_maxf")
EXTRACTORS = {
    "learned": "own map",
    "inverted": "own map, inverted",
    "attention": "attention, mean of heads",
    "best_head": "attention, best head by the mask (oracle choice)",
    "tokencut": "TokenCut",
    "whole": "whole image",
    "centre": "centre bump",
}
SHOWN = ("learned", "inverted", "attention", "best_head", "tokencut")  # those that look at the image
FLOORS = ("whole", "centre")  # those that do not: they are equal in all arms
SCORES = ("maxf", "jaccard", "corloc")
NO_LOCAL_VIEWS = {"views": {"extra": {"kind": "none", "count": 0}}}


def dino(**overrides: Any) -> dict[str, Any]:
    """DINO with its local views."""
    return {"method": "dino", **overrides}


def scd(source: str) -> dict[str, Any]:
    """SCD with another source of its map."""
    return {"preset": "scd", "saliency": source}


def on(method: str, **overrides: Any) -> dict[str, Any]:
    """Another host on the ViT: two global views, and MoCo v3's fixed patch projection."""
    groups = {"bn_groups": 1} if method == "moco" else {}  # a ViT has no batch norm to split
    return merge({"method": {"preset": method, **groups}, "backbone": {"fixed_patches": True}}, overrides)


GROUPVIT = "groupvit"  # the name of its arm
DINO = Arm("dino", "DINO", dino(), "ViT", "two global views and local views, no separation")
OTHERS = (  # other hosts, another backbone, and systems in which objects are said to emerge, by arms=all
    Arm("moco", "MoCo on the ViT", on("moco"), "ViT, two global views", "MoCo v2's loss, queue and head"),
    Arm(
        "scd_moco", "SCD-MoCo on the ViT", on("moco", wrapper="scd"), "all of MoCo on the ViT",
        "learned map, triplet loss",
    ),
    Arm("byol", "BYOL on the ViT", on("byol"), "ViT, two global views", "BYOL's loss and heads"),
    Arm(
        "scd_byol", "SCD-BYOL on the ViT", on("byol", wrapper="scd"), "all of BYOL on the ViT",
        "learned map, triplet loss",
    ),
    Arm("dino_resnet", "DINO on a ResNet", dino(), "DINO's loss and views", "a ResNet of about the ViT's cost"),
    Arm(
        "scd_resnet", "SCD-DINO on a ResNet", dino(wrapper="scd"), "all of DINO on a ResNet",
        "learned map, triplet loss",
    ),
    Arm(
        "dinov2", "DINOv2's losses", {"method": "dinov2"}, "all of DINO",
        "a loss on masked patches and the KoLeo regulariser",
    ),
    Arm(
        GROUPVIT, "GroupViT", {"method": "groupvit"}, "the ViT's blocks, images, epochs",
        "patches are grouped into segments; one view, matched with a caption that is made of the label", pool="",
    ),
)  # fmt: skip
ARMS = (
    RANDOM,
    DINO,
    Arm("scd", "SCD-DINO", dino(wrapper="scd"), "all of DINO", "learned map (MLP on patch tokens), triplet loss"),
    Arm("constant", "SCD-DINO with a constant map", dino(wrapper=scd("constant")), "all of SCD-DINO", "a constant map"),
    Arm(
        "attention", "SCD-DINO with the attention as map", dino(wrapper=scd("attention")), "all of SCD-DINO",
        "the map is the class token's attention in the last block, mean of heads",
    ),
    Arm(
        "tokencut", "SCD-DINO with TokenCut's map", dino(wrapper=scd("tokencut")), "all of SCD-DINO",
        "the map is the normalised cut of the last block's keys",
    ),
    Arm("dino_global", "DINO without local views", dino(**NO_LOCAL_VIEWS), "ViT, DINO's loss", "two global views only"),
    Arm(
        "scd_global", "SCD-DINO without local views", dino(wrapper="scd", **NO_LOCAL_VIEWS), "all of SCD-DINO",
        "two global views only",
    ),
    Arm(
        "oracle", "SCD-DINO with the true mask", dino(wrapper=scd("oracle")), "all of SCD-DINO",
        "the map is the true mask",
    ),
    Arm(
        "oracle_global", "SCD-DINO with the true mask, without local views",
        dino(wrapper=scd("oracle"), **NO_LOCAL_VIEWS), "all of SCD-DINO without local views",
        "the map is the true mask",
    ),
    *(replace(arm, default=False) for arm in OTHERS),
)  # fmt: skip
ON_RESNET = ("dino_resnet", "scd_resnet")  # their backbone is the study's axis "resnet"
OTHER_HOSTS = ("moco", "scd_moco", "byol", "scd_byol")
LABELS = {arm.name: arm.label for arm in ARMS}
NAMES = {f"{arm}:{kind}": f"{LABELS[arm]}: {EXTRACTORS[kind]}" for arm in LABELS for kind in EXTRACTORS}
PICTURED = (
    ("dino:attention", 0.0), ("dino:attention", 0.5), ("dino:attention", 1.0), ("dino:tokencut", 1.0),
    ("scd:learned", 0.5), ("scd:learned", 1.0), ("scd:attention", 1.0), ("scd_resnet:learned", 1.0),
)  # fmt: skip
CLAIM = "on a ViT SCD adds to DINO"
EMERGED = "a learned map finds the object better than what emerges in plain DINO, its attention and its TokenCut"
NO_PRIOR = "what emerges in DINO is better than a bump at the centre of the image"

contrast, found = contrast_factory(METRIC, SESOI, CLAIM), contrast_factory(FOUND, SESOI, EMERGED)
OTHER_SCD = (
    "another reconstruction of SCD, as `presets.wrapper.scd.projection_dim=0 presets.wrapper.scd.anchors=both`, with "
    "which the true mask helps MoCo most ([reconstruction](reconstruction.md)), or a longer training "
    "(`training.budget.value`)"
)

CONTRASTS = (
    contrast("scd", "dino"),
    contrast("scd_global", "dino_global", "without local views SCD adds to DINO"),
    contrast("scd", "constant", "the learned map adds to the effect of a constant one"),
    contrast("attention", "constant", "the attention as map adds to a constant map"),
    contrast("tokencut", "constant", "TokenCut's map adds to a constant map"),
    contrast("attention", "dino", "with the attention as its map SCD adds to DINO"),
    contrast("tokencut", "dino", "with TokenCut's map SCD adds to DINO"),
    contrast("scd", "attention", "the learned map is the better source"),
    contrast("scd", "tokencut", "the learned map is the better source"),
    contrast("scd_moco", "moco", "on a ViT SCD adds to MoCo"),
    contrast("scd_byol", "byol", "on a ViT SCD adds to BYOL"),
    contrast("scd_resnet", "dino_resnet", "on a ResNet SCD adds to DINO"),
    contrast("dino", "dino_global", "local views add to DINO"),
    contrast("dinov2", "dino", "DINOv2's losses add to DINO"),
    contrast("scd", "dinov2", "SCD adds more to DINO than DINOv2's losses do"),
    contrast(GROUPVIT, "dino", "captions made of labels teach more than DINO's views"),
    separates("oracle", "constant", METRIC, remedy=OTHER_SCD),
    separates("oracle_global", "dino_global", METRIC, remedy=OTHER_SCD),
    learns("dino", "DINO"),
)
SEPARATES, SEPARATES_GLOBAL, LEARNS = CONTRASTS[-3:]  # a correct separation is seen; DINO has learned something
CONTROL = (SEPARATES, LEARNS)
MAP_CONTRASTS = (
    found("scd:learned", "dino:attention"),
    found("scd:learned", "dino:tokencut"),
    found("scd:attention", "dino:attention", "the separation sharpens the attention"),
    found("dino:attention", "random:centre", NO_PRIOR),
    found("dino:tokencut", "random:centre", NO_PRIOR),
    found("dino:tokencut", "random:tokencut", "objects emerge in DINO's keys"),
    found("dino:attention", "dino_global:attention", "local views help objects to emerge"),
    found("scd:learned", "scd_resnet:learned", "a ViT's learned map is better than that of a ResNet of like cost"),
    found("dino:attention", "random:attention", "objects emerge in DINO's attention"),
    found("dinov2:attention", "dino:attention", "DINOv2's losses help objects to emerge in the attention"),
    found("dinov2:tokencut", "dino:tokencut", "DINOv2's losses help objects to emerge in the keys"),
    found("scd:learned", "dinov2:attention", "a learned map finds the object better than DINOv2's attention"),
    found("groupvit:learned", "random:centre", "GroupViT's segments are better than a bump at the centre of the image"),
    found("groupvit:learned", "dino:attention", "GroupViT's segments find the object better than DINO's attention"),
    found("scd:learned", "groupvit:learned", "a learned map finds the object better than GroupViT's segments"),
)
SEES = replace(  # a map that finds the object at all is above one that looks at no image
    found("dino:tokencut", "random:whole", "what emerges in DINO is better than the whole image"), remedy=LONGER
)
CLAIMS = (
    Claim("on a ViT SCD adds to DINO with local views", (contrast("scd", "dino"),), "Does it work on DINO?"),
    Claim(
        "on a ViT SCD adds to DINO without local views", (contrast("scd_global", "dino_global"),),
        "And without multi-crop?", (SEPARATES_GLOBAL, LEARNS),
    ),
    Claim("the learned map adds to a constant map", (contrast("scd", "constant"),), "Does the learned map help?"),
    Claim(
        "the attention as the map adds to a constant map", (contrast("attention", "constant"),),
        "Does the attention help as the map?",
    ),
    Claim(
        "TokenCut's map adds to a constant map", (contrast("tokencut", "constant"),),
        "Does TokenCut's map help?",
    ),
    Claim(
        "the learned map finds the object better than the attention of plain DINO",
        (found("scd:learned", "dino:attention"),), "Is an explicit map needed to find objects?", (SEES, LEARNS),
    ),
    Claim(
        "the learned map finds the object better than TokenCut on plain DINO",
        (found("scd:learned", "dino:tokencut"),), "The same against TokenCut?", (SEES, LEARNS),
    ),
    Claim(
        "TokenCut finds the object better on DINO than on random weights",
        (found("dino:tokencut", "random:tokencut"),), "Do objects emerge in DINO?", (SEES, LEARNS),
    ),
)  # fmt: skip


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """All arms, seed by seed, at equal epochs, with DINO's optimiser, schedule and global views."""
    images = background_correlation(settings)
    axes = dict.fromkeys(ON_RESNET, {"backbone": settings.axes["resnet"]})
    axes |= dict.fromkeys(OTHER_HOSTS, like_dino(settings))
    arms = [with_names(arm, settings) for arm in chosen_arms(settings, ARMS) if is_possible(arm, settings)]
    runs = [
        settings.at_equal_epochs(arm, seed, arm is not RANDOM, merge(images, axes.get(arm.name, {})))
        for seed in settings.seeds
        for arm in arms
    ]
    return runs + pretrained_vits.checkpoint_runs(settings, "dino", CHECKPOINTS)


def like_dino(settings: Settings) -> dict[str, Any]:
    """What arms of other hosts share with DINO: everything but the method and the local views."""
    config = settings.configure(DINO, settings.seeds[0])
    shared = {key: config[key] for key in ("optimizer", "schedule", "training", "views")}
    return merge(shared, NO_LOCAL_VIEWS)


def is_possible(arm: Arm, settings: Settings) -> bool:
    """False for GroupViT on images without labels, unless the command line names it: it is refused with its reason."""
    return arm.name != GROUPVIT or arm.name in settings.arms or has_labels(settings)


def with_names(arm: Arm, settings: Settings) -> Arm:
    """GroupViT with the names of the images' classes, of which its captions are made; other arms as they are."""
    named = settings.arguments.get("presets", {}).get("method", {}).get(GROUPVIT, {}).get("names")
    if arm.name != GROUPVIT or named is not None or not (names := class_names_of(settings)):
        return arm
    return replace(arm, overrides=merge(arm.overrides, {"method": {"preset": GROUPVIT, "names": names}}))


def class_names_of(settings: Settings) -> list[str]:
    """Names of the images' classes; none where they have none, or are not on this machine."""
    if settings.embedded:
        from scd.data.sources.drawing import class_names

        return list(class_names(settings.base["data"]["options"]["classes"]))
    if settings.declared or not has_labels(settings):
        return []
    from studies.suite.planning.assembly import open_data  # imports torch, which importing a study must not

    return list(open_data(settings.base["data"], settings.locations).class_names or ())


# -------------------------------------------------------------------- page


def prepare(results: Results, settings: Settings) -> Results:
    """Keep the maps of the page's figure."""
    map_traces.keep_maps(results, settings, PICTURED)
    return results


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, labels, out = pretrained_vits.trained_here(report.results), report.labels, report.out
    maps = by_extractor(results)
    contrasts = fall_back_to_metric(planned(CONTRASTS, results), results, FALLBACK)
    metric = contrasts[0].metric if contrasts else METRIC
    both = results.with_runs(pandas.concat([results.runs, maps.runs], ignore_index=True), {FOUND: maps.metric(FOUND)})
    ways = [each for each in MAP_CONTRASTS if {each.treatment, each.control} <= set(maps.runs["arm"])]
    report.judge_claims(both, {**report.names, **NAMES}, [*contrasts, *ways])
    report.show(
        tables.gain_table(results, labels, metric, DINO.name, {"equal epochs": {}}),
        f"Paired differences in {results.metric(metric).label}, in points, with 95 % t intervals, not corrected.",
        study_figures.differences(results, contrasts, report.names, out),
    )

    emergence(report, results, maps)
    accuracy = report.section("Accuracy and cost")
    relative = {"flops_per_step": "FLOPs per step / DINO's"}
    accuracy.table(tables.arm_table(results, labels, MAIN, relative, DINO.name))
    accuracy.figure(study_figures.cost(results, labels, metric, out))
    pretrained_vits.section(
        report.section("Pre-trained checkpoints"), report.results,
        (METRIC, "knn_top1", "attention_maxf", "tokencut_maxf"), CHECKPOINTS,
    )  # fmt: skip
    standard.indicators(
        report.section("Collapse"), results, labels, (*COLLAPSE, *SALIENCY),
        "Indicators of collapse, of features and of maps; and the learned maps against the true masks.",
    )  # fmt: skip


def by_extractor(results: Results) -> Results:
    """One row per run and way of finding objects: arm "dino:attention", its scores as ``found_maxf`` and so on."""
    rows = []
    for run in results.runs.to_dict("records"):
        for kind in EXTRACTORS:
            scores = {f"found_{score}": run.get(f"{kind}_{score}") for score in SCORES}
            if run["status"] != DONE or pandas.notna(scores[FOUND]):
                rows.append({**run, "arm": f"{run['arm']}:{kind}", **scores})
    metrics = {}
    for score in SCORES:
        label, _, _, definition = results.metric(f"attention_{score}")
        metrics[f"found_{score}"] = Metric(f"{label.split(',')[0]} of the object", SHARE, "higher", definition)
    return results.with_runs(pandas.DataFrame(rows, columns=None if rows else [*results.runs.columns]), metrics)


def emergence(report: Report, results: Results, maps: Results) -> None:
    """Every way of finding objects, on the same images."""
    section = report.section("What finds the object?")
    names = {name: NAMES[name] for name in dict.fromkeys(maps.finished["arm"]) if is_shown(name)}
    if not names:
        section.text("Not measured: no finished run has masks to score its maps against.")
        return
    section.text(floors_sentence(maps))
    section.table(side_by_side(results, maps))
    section.text(
        f"{maps.metric(FOUND).label} in percent, on the same test images and masks. Nothing tells a learned map which "
        "side is the object: its inverse is scored as well. The best head is chosen by the mask, image by image: an "
        "upper bound for a rule that chooses heads. TokenCut's threshold is the paper's, for the keys of DINO's ViTs; "
        "on a ResNet's maps it may find nothing to cut."
    )
    section.details("All scores").table(tables.arm_table(maps, names, [f"found_{score}" for score in SCORES]))
    map_traces.pictures(section, results, NAMES, PICTURED, report.out)
    arms = ("dino", "scd", "dino_global", "moco")
    section.figure(map_traces.curve_figure(results, report.names, CURVES, report.out, arms))


def floors_sentence(maps: Results) -> str:
    """What is found without any training, beside what DINO finds."""
    ways = ("random:centre", "random:attention", "random:tokencut", "dino:attention", "dino:tokencut")
    done = {name: maps.of(name) for name in ways}
    if any(runs.empty for runs in done.values()):
        return ""
    metric = maps.metric(FOUND)
    shown = {name: notation.mean_cell(metric, runs[FOUND], len(runs)) for name, runs in done.items()}
    return (
        f"**Without any training**, the {metric.label} is {shown['random:centre']} % for a bump at the centre of every "
        f"image, {shown['random:attention']} % for the attention of random weights and {shown['random:tokencut']} % "
        f"for their TokenCut. DINO's attention reaches {shown['dino:attention']} %, its TokenCut "
        f"{shown['dino:tokencut']} %."
    )


def side_by_side(results: Results, maps: Results) -> tables.Table:
    """One row per arm, one column per way of finding objects that looks at the image."""
    notes, rows = tables.Notes(), []
    for arm in results.about["arms"]:
        if arm not in LABELS:
            continue
        runs, row = results.of(arm), {"arm": LABELS[arm]}
        for kind in SHOWN:
            column = f"{kind}_{FOUND.removeprefix('found_')}"
            values = runs[column].dropna() if column in runs else ()
            why = "no finished run" if runs.empty else "this arm has none"
            cell = notation.mean_cell(maps.metric(FOUND), values, len(runs)) if len(values) else notes.dash(why)
            row[EXTRACTORS[kind]] = cell
        rows.append(row)
    shown = tuple(f"{kind}_{score}" for kind in EXTRACTORS for score in SCORES)
    return tables.Table(pandas.DataFrame(rows), notes.lines, shown)


def is_shown(name: str) -> bool:
    """Whether a row of the table of maps has information of its own: what looks at no image is equal in all arms."""
    arm, kind = name.split(":")
    return kind not in FLOORS or arm == RANDOM.name


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    groupvit = {
        "GroupViT": "its own map says how far a patch belongs to segments that show a class, by its paper's rule for "
        "background; texts of the classes, and so their names, are part of it. It has no class token: a head of its "
        "attention is a segment, and the mean over heads is the part of each patch in the image's vector, which is the "
        "mean of the segments. TokenCut takes the keys by which patches are first assigned to groups"
    }
    return {
        "Settings of the arms": (
            "learning rate, schedule, weight decay and gradient clipping are the same in every arm. They were chosen "
            "for plain DINO on another draw of the images; none was tuned for one arm"
        ),
        "MoCo and BYOL on the ViT": "two global views, the class token is projected, fixed patch projection (MoCo v3); "
        "a ViT has no batch norm, so MoCo's is not split into groups",
        **(groupvit if GROUPVIT in results.about["arms"] else {}),
        **correlation_lines(results),
    }


DEVIATIONS = (
    "Scale: a small ViT on small images for a few epochs; DINO trains a ViT-S/16 for 100 to 800 epochs.",
    "DINO without local views keeps the area range of the global views, so that the arms differ in the local views "
    "alone; the official code then widens it to 0.14 to 1.",
    "MoCo on the ViT keeps MoCo v2's queue and head, without MoCo v3's batch-norm heads and in-batch negatives; BYOL "
    "keeps its batch-norm heads.",
    "SCD is a reconstruction (`scd/scd.py`); on a ViT its feature map is the patch tokens after the final norm.",
)

STUDY = Study(
    name="dino_vit",
    question_ids=("R1-e", "R5-c"),
    question="Objectness emerges by itself in DINO's attention: is an explicit separation needed, and does it work on "
    "transformers, with multi-crop, where attention gives better saliency?",
    title="Does an explicit separation still help on a ViT that finds objects by itself?",
    arms=ARMS,
    contrasts=CONTRASTS,
    control=CONTROL,
    primary=CONTRASTS[0].name,
    claims=CLAIMS,
    looks=(5,),
    fallback=FALLBACK,
    plan=plan,
    sections=sections,
    prepare=prepare,
    deviations=DEVIATIONS,
    notes=notes,
)
