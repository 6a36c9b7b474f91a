"""R1-c, R1-d and R5-d: does the separation help on scenes with several objects, and what does it transfer to?

Every method is trained on scenes and on as many object-centric images of the same families, and evaluated on both:
several labels per image, segmentation, retrieval, detection, and what its own map covers. The number of objects per
image is varied as well. The background is predictive in training: only there can a map help, which the true mask has
to show.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas

from studies.references import (
    LONGER,
    ORACLE,
    RANDOM,
    SUPERVISED,
    background_correlation,
    correlation_lines,
    has_masks,
    learns,
    separates,
)
from studies.scene_images import Images, image_lines
from studies.suite.analysis import notation, tables
from studies.suite.analysis.comparison import compare
from studies.suite.analysis.conditions import cross_conditions, planned
from studies.suite.analysis.results import DONE, Results
from studies.suite.analysis.statistics import by_seed, class_by_seed
from studies.suite.pages import map_figures, study_figures
from studies.suite.pages import sections as standard
from studies.suite.pages.markdown import Picture
from studies.suite.pages.publish import Report
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, Claim, Contrast, RunSpec, Study, contrast_factory, merge

METRIC, SESOI = "scene_map", 0.01  # one point
DENSE = ("scene_map", "dense_miou_linear", "dense_miou_knn")
CENTRIC = ("centric_linear_top1", "centric_knn_top1")
DETECTION = ("det_ap", "det_ap50", "det_ap75")
DISCOVERY = (
    "scene_discovery_corloc", "scene_discovery_corloc_inverted", "scene_discovery_corloc_whole",
    "scene_objects_covered_gain", "scene_objects_covered", "scene_objects_covered_inverted",
    "scene_objects_covered_best", "scene_foreground_precision", "scene_foreground_precision_whole",
    "scene_map_area_on_scenes",
)  # fmt: skip
SCENES, OBJECTS = "scenes", "object-centric images"
LOCAL_VIEWS = 4
LOCAL = {"views": {"extra": {"kind": "local", "count": LOCAL_VIEWS}}}

MOCO = Arm("moco", "MoCo", {"method": "moco"}, "two global views, asymmetric loss", "no map, one vector per image")
ARMS = (
    RANDOM,
    MOCO,
    Arm("scd", "SCD-MoCo", {"method": "moco", "wrapper": "scd"}, "all of MoCo", "one saliency map, triplet loss"),
    replace(ORACLE, overrides={"method": "moco", **ORACLE.overrides}),
    Arm(
        "local", "MoCo + local crops", {"method": "moco", **LOCAL}, "all of MoCo", f"{LOCAL_VIEWS} local views",
        default=False,
    ),
    Arm(
        "lewel", "LEWEL-MoCo", {"method": "moco", "wrapper": "lewel"}, "all of MoCo", "alignment maps, aligned loss",
        default=False,
    ),
    Arm(
        "densecl", "DenseCL", {"method": "moco", "wrapper": "densecl"}, "all of MoCo", "every position is contrasted",
        default=False,
    ),
    Arm(
        "slotcon", "SlotCon", {"method": "slotcon"}, "backbone, images, epochs",
        "prototypes group positions, and the groups are contrasted; BYOL's views", default=False,
    ),
    replace(SUPERVISED, default=False),
)  # fmt: skip
COMPARED = (("scd", "moco"), ("scd", "lewel"), ("oracle", "moco"))  # in the sweep
SWEPT = ("moco", "lewel", "scd", "oracle")
WITH_MAPS = ("scd", "lewel")
FEW, MANY = "1 object", "6 objects"  # the points of the sweep that a claim compares
GAINS = ((SCENES, OBJECTS), (MANY, FEW))  # images, and those from which the gain of SCD is said to be larger
GAIN_NAMES = {
    f"gain:{images}": f"SCD's gain over MoCo from {name}"
    for images, name in (
        (OBJECTS, OBJECTS), (SCENES, SCENES), (FEW, "images of one object"), (MANY, "images of six objects"),
    )
}  # fmt: skip

contrast = contrast_factory(METRIC, SESOI, "on scenes with several objects SCD is better than MoCo")
CONTRASTS = (
    contrast("scd", "moco"),
    contrast("scd", "lewel", "SCD is better than LEWEL"),
    contrast("scd", "local", "SCD is better than MoCo with local crops"),
    contrast("scd", "densecl", "SCD is better than DenseCL"),
    contrast("scd", "slotcon", "SCD is better than SlotCon"),
    contrast("densecl", "moco", "contrasting every position adds to MoCo"),
    separates("oracle", "moco", METRIC, remedy=LONGER),  # the background is predictive already
    replace(learns("moco", "MoCo"), metric=METRIC),
)
SEPARATES, LEARNS = CONTROL = CONTRASTS[-2:]  # a correct separation is seen; the host has learned something


def claim(
    question: str, treatment: str, control: str, images: str, text: str, controls: tuple[Contrast, ...] = (SEPARATES,)
) -> Claim:
    """One claim about two arms that are trained on one kind of images."""
    return Claim(text, (contrast(treatment, control, text, {"images": images}),), question, controls)


CLAIMS = (
    claim(
        "Can a correct map help on scenes?", "oracle", "moco", SCENES,
        "on scenes SCD with the true mask is better than MoCo", (LEARNS,),
    ),
    claim("Does SCD help on scenes?", "scd", "moco", SCENES, "trained on scenes SCD is better than MoCo", CONTROL),
    claim(
        "On object-centric images?", "scd", "moco", OBJECTS,
        "trained on object-centric images SCD is better than MoCo",
    ),
    claim(
        "Is it limited to these?", f"gain:{OBJECTS}", f"gain:{SCENES}", SCENES,
        "SCD gains more over MoCo from object-centric images than from scenes",
    ),
    claim("With many objects?", "scd", "moco", MANY, "on images of six objects SCD is better than MoCo"),
    claim(
        "Does the number of objects matter?", f"gain:{FEW}", f"gain:{MANY}", MANY,
        "SCD gains more over MoCo with one object than with six",
    ),
)  # fmt: skip


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """All arms on scenes and, where there are any, on as many object-centric images, and the sweep; seed by seed."""
    settings = replace(settings, base=merge(settings.base, background_correlation(settings)))  # of probes as well
    arms, axes, images = settings.select(ARMS), settings.axes, Images.of(settings)
    if not has_masks(settings):
        arms = tuple(arm for arm in arms if arm.name != ORACLE.name or arm.name in settings.arms)
    counts = axes["counts"] if settings.embedded else []
    runs = []
    for seed in settings.seeds:
        own = images.protocols(axes["multilabel"], axes["detection"])
        chosen = [arm for arm in arms if arm.name != SUPERVISED.name]
        runs += [labelled(settings, arm, seed, SCENES, images.on_scenes, own) for arm in chosen]
        if images.on_objects is not None:
            form, own = images.on_objects, images.protocols(axes["multilabel"], None)
            chosen = [arm for arm in arms if arm is not RANDOM and (arm.name != SUPERVISED.name or images.labelled)]
            if images.folder:
                chosen = [arm for arm in chosen if arm.name != ORACLE.name]  # whether it has masks is not known here
            there = [labelled(settings, arm, seed, OBJECTS, form, own) for arm in chosen]
            runs += [images.folder.in_place(run) for run in there] if images.folder else there
        for count in counts:
            form = {"data": {"options": {"objects": [count, count], **axes["swept"]}}}
            own = [{"preset": "scenes", "parts": ["multilabel", "discovery"], **axes["multilabel"]}]
            swept = [arm for arm in arms if arm.name in SWEPT]
            runs += [labelled(settings, arm, seed, objects(count), form, own) for arm in swept]
    return runs


def objects(count: int) -> str:
    """The name of a point of the sweep."""
    return f"{count} object{'s' if count > 1 else ''}"


def labelled(
    settings: Settings, arm: Arm, seed: int, images: str, form: Mapping[str, Any], protocols: list[dict[str, Any]]
) -> RunSpec:
    """One run of an arm, trained on images of a form, and scored by protocols of its own and those asked for."""
    both = [*settings.base["evaluation"]["protocols"], *protocols]
    return settings.at_equal_epochs(
        arm, seed, arm is not RANDOM, {**form, "evaluation": {"protocols": both}}, images=images
    )


# -------------------------------------------------------------------- page


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, labels, out = report.results, report.labels, report.out
    main, contrasts = results.where(images=SCENES), planned(CONTRASTS, results)
    beside = cross_conditions(contrasts, [{"images": SCENES}])
    report.judge_claims(gained(results), {**report.names, **GAIN_NAMES}, beside)
    report.show(
        by_training(results, labels),
        f"{results.metric(METRIC).label} on the same test scenes, by the images of the training; means with 95 % t "
        "intervals over seeds.",
        study_figures.differences(main, contrasts, report.names, out),
    )

    sweep(report)
    transfer(report)
    standard.indicators(
        report.section("What the maps cover"), main, {name: labels[name] for name in WITH_MAPS if name in labels},
        DISCOVERY,
        "Of methods with a map of their own, trained on scenes. The loss does not say which side is the object, so "
        "both are scored; a map that is the same everywhere has a coverage gain of 0.",
    )  # fmt: skip


def gained(results: Results, gains: tuple[tuple[str, str], ...] = GAINS, metric: str = METRIC) -> Results:
    """The results and, as further arms, what SCD adds to MoCo seed by seed, from each of the images of a claim.

    The two gains that a claim compares stand under one kind of images, that of its positive control. A gain has the
    numerics class of its two runs. That of runs of two classes has one of its own, so that it makes no pair, and the
    page names the seed.
    """
    rows = []
    for place, other in gains:
        for images in (place, other):
            part = results.where(images=images)
            runs = {arm: part.of(arm) for arm in ("scd", "moco")}
            scd, moco = (by_seed(own, metric) for own in runs.values())
            classes = [class_by_seed(own) for own in runs.values()]
            for seed in (seed for seed in scd if seed in moco):
                found = sorted({each[seed] for each in classes})
                numerics = found[0] if len(found) == 1 else f"{' and '.join(found)}, on {images}"
                common = {"arm": f"gain:{images}", "images": place, "budget": "epochs", "status": DONE, "reason": ""}
                rows.append({**common, "numerics": numerics, "seed": seed, metric: scd[seed] - moco[seed]})
    return results.with_runs(pandas.concat([results.runs, pandas.DataFrame(rows)], ignore_index=True))


def by_training(results: Results, labels: Mapping[str, str]) -> tables.Table:
    """One row per arm: the main metric after training on scenes and on object-centric images."""
    notes, rows = tables.Notes(), []
    kinds = [images for images in (SCENES, OBJECTS) if images in results.levels("images")]
    for arm, label in labels.items():
        row = {"arm": label}
        for images in kinds:
            runs = results.where(images=images, arm=arm).runs
            name = f"trained on {images}: {notation.heading(results.metric(METRIC))}"
            if runs.empty:
                row[name] = notes.dash("not trained on these images")
            else:
                row[name] = tables.mean_or_dash(METRIC, runs[runs["status"] == DONE], results, notes)
        rows.append(row)
    return tables.Table(pandas.DataFrame(rows), notes.lines, (METRIC,))


def sweep(report: Report) -> None:
    """SCD and the true mask against other arms by the number of objects, as a table and as a figure."""
    results, metric = report.results, report.results.metric(METRIC)
    pairs = [each for each in COMPARED if set(each) <= set(report.labels)]
    counts = {objects(count): count for count in results.about["axes"]["counts"]}
    found = [name for name in results.levels("images") if name in counts]
    if not found:
        return
    section = report.section("How many objects?")
    notes, rows, points = tables.Notes(), [], []
    for name in found:
        part = results.where(images=name)
        row = {"objects in an image": str(counts[name])}
        for treatment, control in pairs:
            result = compare(part, treatment, control, METRIC)
            title = f"{report.names[treatment]} − {report.names[control]}"
            row[title] = tables.difference_cell(METRIC, result, results, notes)
            points += [
                {"panel": f"difference in {metric.label} (points)", "row": title, "seed": seed, "x": counts[name],
                 "value": notation.scaled(metric, value)}
                for seed, value in zip(result.seeds, result.differences, strict=True)
            ]  # fmt: skip
        rows.append(row)
    section.table(
        tables.Table(pandas.DataFrame(rows), notes.lines),
        "Trained and tested on images with so many objects of one range of sizes; paired differences in "
        f"{metric.label}, in points, with 95 % t intervals, not corrected.",
    )
    if points:
        frame, path = pandas.DataFrame(points), f"figures/{results.page}-objects.png"
        names = {
            name: name for name in (RANDOM.label, MOCO.label, *dict.fromkeys(frame["row"]))
        }  # first two: references
        colours = study_figures.colours_of(names)
        map_figures.curves_over_training(report.out / path, frame, "objects in an image", colours)
        section.figure(
            Picture(path, "The same differences: mean over seeds; faint lines: seeds. Above 0 SCD is better.")
        )


def transfer(report: Report) -> None:
    """Transfer to dense tasks, to object-centric images and to detection."""
    results, labels = report.results, report.labels
    section = report.section("Transfer")
    for images in (SCENES, OBJECTS):
        if images in results.levels("images"):
            part = results.where(images=images)
            section.text(f"**Trained on {images}**")
            shown = [name for name in (*DENSE, *CENTRIC) if part.has(name)] or list(DENSE)
            section.table(tables.arm_table(part, labels, shown))
    section.heading("Detection, fine-tuned from each backbone")
    scenes = results.where(images=SCENES)
    if not any(scenes.has(name) for name in DETECTION):
        section.text("Not measured: no finished run has detection (`axes.detection`, or images without objects).")
        return
    section.table(
        tables.arm_table(scenes, labels, DETECTION),
        "Trained on scenes, then a detector with a feature pyramid, all layers fine-tuned, with the same steps and "
        "learning rate for every backbone.",
    )
    if RANDOM.name in labels and len(labels) > 1:
        name = results.metric(DETECTION[0]).label
        section.table(
            tables.gain_table(scenes, labels, DETECTION[0], RANDOM.name, {f"{name} (points)": {}}),
            f"The effect of pretraining on the detector: paired differences in {name} with 95 % t intervals, not "
            "corrected.",
        )


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    return {
        "Settings of the arms": "the same learning rate and number of images in every self-supervised arm, tuned for "
        "none; SlotCon has its own views",
        **correlation_lines(results),
        **image_lines(results, results.about["axes"]),
    }


DEVIATIONS = (
    "Scale: a small network on small images; the papers train a ResNet-50 at 224 px on COCO or ImageNet.",
    "DenseCL and SlotCon below the paper tier share the suite's optimiser, schedule and learning rate (DenseCL's own "
    "is ten times higher on COCO than on ImageNet; SlotCon uses LARS), see `baselines/densecl.py`, "
    "`baselines/slotcon.py`.",
    "Detection: a small detector, trained for few steps; the papers' recipes are `detection_coco_1x` and "
    "`detection_voc07_12` in `studies/conf/protocol`.",
    "SCD is a reconstruction (`scd/scd.py`): one map and its complement, whatever the number of objects.",
)

STUDY = Study(
    name="scene_coco",
    question_ids=("R1-c", "R1-d", "R5-d"),
    question="Is the separation of foreground and background limited to object-centric images? Is SCD better on scene "
    "images with several foregrounds and backgrounds, and what about dense references and detection?",
    title="Does the separation help on scenes with several objects?",
    arms=ARMS,
    contrasts=CONTRASTS,
    control=CONTROL,
    primary=CONTRASTS[0].name,
    claims=CLAIMS,
    looks=(5,),
    plan=plan,
    sections=sections,
    deviations=DEVIATIONS,
    notes=notes,
)
