"""R1-c, R1-d and R5-d: does the separation survive on scenes with several objects, and what does it transfer to?

Every method is trained on scenes and on object-centric images of the same families and number, and evaluated on both:
several labels an image, segmentation, retrieval, detection, and what its own map covers. Beside it the number of
objects as an axis, from one to six.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas

from studies.scene_images import Images, image_lines
from studies.suite.analysis import tables
from studies.suite.analysis.results import DONE, Evidence, gather, save
from studies.suite.analysis.statistics import by_seed, paired
from studies.suite.analysis.verdict import family, judge
from studies.suite.pages import figures, report
from studies.suite.pages import map_figures as mapfigures
from studies.suite.pages.contrasts import compared
from studies.suite.pages.index import write_index
from studies.suite.pages.study_figures import Panels, Picture
from studies.suite.planning.resolve import is_embedded
from studies.suite.planning.study import Arm, RunSpec, Settings, Standing, Study, declarer

METRIC, SESOI = "scene_map", 0.01  # one point
DENSE = ("scene_map", "scene_miou_linear", "scene_miou_knn")
CENTRIC = ("centric_linear_top1", "centric_knn_top1")
DETECTION = ("det_ap", "det_ap50", "det_ap75")
DISCOVERY = (
    "scene_discovery_corloc", "scene_discovery_corloc_inverted", "scene_discovery_corloc_whole",
    "scene_objects_covered_gain", "scene_objects_covered", "scene_objects_covered_inverted",
    "scene_objects_covered_best", "scene_foreground_precision", "scene_foreground_precision_whole",
    "scene_map_area_on_scenes",
)  # fmt: skip
SCENES, OBJECTS = "scenes", "object-centric images"
SWEPT = ("moco", "lewel", "scd")
LOCAL = {"views": {"extra": {"kind": "local", "count": 4, "scale": [0.05, 0.2]}}}

RANDOM = Arm("random", "random weights", {}, "backbone, evaluation", "no training: the floor")
MOCO = Arm("moco", "MoCo", {"method": "moco"}, "two global views, asymmetric loss", "no map, one vector an image")
ARMS = (
    RANDOM,
    MOCO,
    Arm("local", "MoCo + local crops", {"method": "moco", **LOCAL}, "all of MoCo", "four local views, no map"),
    Arm("scd", "SCD-MoCo", {"method": "moco", "wrapper": "scd"}, "all of MoCo", "one saliency map, triplet loss"),
    Arm("lewel", "LEWEL-MoCo", {"method": "moco", "wrapper": "lewel"}, "all of MoCo", "alignment maps, aligned loss"),
    Arm("densecl", "DenseCL", {"method": "moco", "wrapper": "densecl"}, "all of MoCo", "every position is contrasted"),
    Arm("slotcon", "SlotCon", {"method": "slotcon", "views": {"recipe": "byol"}}, "backbone, data, schedule",
        "prototypes group positions, slots are contrasted; BYOL's views"),
)  # fmt: skip
LABELS = {arm.name: arm.label for arm in ARMS}
WITH_MAPS = ("scd", "lewel")
CLAIM = "on scenes with several objects SCD is better than MoCo and than LEWEL"
LIMITED = "what SCD adds to MoCo is limited to object-centric images: less from scenes than from them"
FROM = {
    f"gain:{OBJECTS}": "SCD − MoCo, trained on object-centric images",
    f"gain:{SCENES}": "SCD − MoCo, trained on scenes",
}

contrast, gain = declarer(METRIC, SESOI, CLAIM), declarer(METRIC, SESOI, LIMITED)
CONTRASTS = (
    contrast("scd", "moco"),
    contrast("scd", "lewel"),
    contrast("scd", "local", "SCD is better than MoCo with local crops"),
    contrast("scd", "densecl", "SCD is better than DenseCL"),
    contrast("scd", "slotcon", "SCD is better than SlotCon"),
    contrast("densecl", "moco", "contrasting every position adds to MoCo"),
    contrast("moco", "random", "MoCo has learned something"),
)
GAINS = (gain(f"gain:{OBJECTS}", f"gain:{SCENES}"),)


def plan(settings: Settings) -> list[RunSpec]:
    """All arms on scenes and, where there are any, on as many object-centric images, and the sweep; seed by seed."""
    arms, axes, images = settings.select(ARMS), settings.axes, Images.of(settings)
    counts = axes["counts"] if is_embedded(settings.base["data"]) else []
    runs = []
    for seed in settings.seeds:
        own = images.protocols(axes["detection"])
        runs += [labelled(settings, arm, seed, SCENES, images.on_scenes, own) for arm in arms]
        if images.on_objects is not None:
            form, own, trained = images.on_objects, images.protocols(None), [arm for arm in arms if arm is not RANDOM]
            there = [labelled(settings, arm, seed, OBJECTS, form, own) for arm in trained]
            runs += [images.folder.in_place(run) for run in there] if images.folder else there
        for count in counts:
            form = {"data": {"options": {"objects": [count, count], **axes["swept"]}}}
            own = [{"_target_": "scd.evaluation.scenes.SceneEvaluation", "parts": ["multilabel", "discovery"]}]
            swept = [arm for arm in arms if arm.name in SWEPT]
            runs += [labelled(settings, arm, seed, objects(count), form, own) for arm in swept]
    return runs


def objects(count: int) -> str:
    """The name of a point of the sweep."""
    return f"{count} object{'s' if count > 1 else ''}"


def labelled(
    settings: Settings, arm: Arm, seed: int, images: str, form: Mapping[str, Any], protocols: list[dict[str, Any]]
) -> RunSpec:
    """One run of an arm, trained on images of a form and scored by some protocols."""
    overrides = {**form, "evaluation": {"further": protocols}}
    return settings.at_equal_epochs(arm, seed, arm is not RANDOM, overrides, images=images)


# -------------------------------------------------------------------- page


def render(settings: Settings, records: pandas.DataFrame, standing: Standing) -> Path:
    """Write records, figures, page and index; returns the page's path."""
    return compose(gather(STUDY, settings, records, standing), settings.out)


def compose(evidence: Evidence, out: Path) -> Path:
    """The page from its evidence alone."""
    out, main, gains = Path(out), evidence.where(images=SCENES), gained(evidence)
    verdict = judge(main.finished, family(CONTRASTS, STUDY.primary))
    limited = judge(gains.finished, GAINS)
    answer = f"R5-d: {report.answer_of(verdict, LABELS)} R1-c: {report.answer_of(limited, FROM)}"
    evidence = evidence.answered(verdict.outcome, answer)
    labels = {name: LABELS[name] for name in evidence.about["arms"]}
    panels = Panels(main, LABELS, MOCO.name, (RANDOM.name,), METRIC, SESOI, out)

    page = report.Page("Does the separation survive on scenes with several objects?")
    report.opening(page, evidence, STUDY, answer)
    page.table(by_training(evidence, labels))
    page.text(f"{tables.label(METRIC)} on the same test scenes, by what the backbone was trained on; means with 95 % t "
              "intervals over seeds.")  # fmt: skip
    page.figure(panels.differences([replace(each, conditions={"budget": "epochs"}) for each in CONTRASTS]))
    sweep(page, evidence, out)
    page.heading("Arms")
    report.chosen_arms(page, evidence, STUDY)
    transfer(page, evidence, labels)
    compared(page, main, CONTRASTS, (verdict,), LABELS, "1 point")
    compared(page, gains, GAINS, (limited,), FROM, "1 point", "Scenes against object-centric images")
    report.indicators(
        page, main, labels, [{}], "What the maps cover", DISCOVERY, WITH_MAPS,
        "Of methods with a map of their own, trained on scenes. Nothing in the loss says which side is the object, so "
        "both are scored; a map that is the same everywhere has a coverage gain of 0.",
    )  # fmt: skip
    report.how_measured(page, evidence, (*DENSE, *CENTRIC, *DETECTION, *DISCOVERY), measured(evidence))
    report.deviations(page, DEVIATIONS)
    report.cost(page, main, labels)
    report.provenance(page, evidence, ("arm", "images"))
    path = page.write(out / f"{evidence.page}.md")
    save(evidence, out)
    write_index(out)
    return path


def gained(evidence: Evidence) -> Evidence:
    """What SCD adds to MoCo, seed by seed, as two arms: from scenes and from object-centric images."""
    rows = []
    for images in (OBJECTS, SCENES):
        if images not in evidence.levels("images"):
            continue
        done = evidence.where(images=images).finished
        scd, moco = (by_seed(done[done["arm"] == arm], METRIC) for arm in ("scd", "moco"))
        common = {"arm": f"gain:{images}", "budget": "epochs", "status": DONE, "reason": ""}
        rows += [{**common, "seed": seed, METRIC: scd[seed] - moco[seed]} for seed in scd if seed in moco]
    return Evidence(
        evidence.about, pandas.DataFrame(rows, columns=["arm", "budget", "status", "reason", "seed", METRIC])
    )


def by_training(evidence: Evidence, labels: Mapping[str, str]) -> tables.Table:
    """One row per arm: the main metric after training on scenes and on object-centric images."""
    notes, rows = tables.Notes(), []
    kinds = [images for images in (SCENES, OBJECTS) if images in evidence.levels("images")]
    for arm, label in labels.items():
        row = {"arm": label}
        for images in kinds:
            runs = evidence.where(images=images, arm=arm).runs
            done = runs[runs["status"] == DONE]
            name = f"trained on {images}: {tables.heading(METRIC)}"
            if done.empty or METRIC not in done:
                row[name] = notes.dash("not trained" if runs.empty else "no finished run")
            else:
                row[name] = tables.mean_cell(METRIC, done[METRIC], len(runs))
        rows.append(row)
    return tables.Table(pandas.DataFrame(rows), notes.lines)


def sweep(page: report.Page, evidence: Evidence, out: Path) -> None:
    """SCD against MoCo and LEWEL by the number of objects, as a table and as a figure."""
    counts = {objects(n): n for n in evidence.about["axes"]["counts"]}
    found = [name for name in evidence.levels("images") if name in counts]
    if not found:
        return
    page.heading("How many objects?")
    rows, points = [], []
    for name in found:
        done = evidence.where(images=name).finished
        row = {"objects in an image": str(counts[name])}
        for control in ("moco", "lewel"):
            result = paired(done, "scd", control, METRIC)
            title = f"SCD − {LABELS[control]}"
            row[title] = tables.NONE
            if result.n:
                row[title] = f"{tables.number(METRIC, result.mean, True)} {tables.interval(METRIC, result)}"
            points += [
                {"panel": f"difference in {tables.label(METRIC)} (points)", "row": title, "seed": seed,
                 "x": counts[name], "value": tables.scaled(METRIC, value)}
                for seed, value in zip(result.seeds, result.differences, strict=True)
            ]  # fmt: skip
        rows.append(row)
    page.table(tables.Table(pandas.DataFrame(rows)))
    page.text("Trained and tested on images with so many objects of one range of sizes; paired differences in "
              f"{tables.label(METRIC)}, in points, with 95 % t intervals, not corrected.")  # fmt: skip
    if points:
        frame = pandas.DataFrame(points)
        path, names = f"figures/{evidence.page}-objects.png", list(dict.fromkeys(frame["row"]))
        colours = figures.colours([RANDOM.label, MOCO.label, *names])  # the first two mean floor and reference
        mapfigures.courses(out / path, frame, "objects in an image", colours)
        page.figure(Picture(path, "The same differences: mean over seeds, every seed as a faint line; above 0 "
                            "SCD is better."))  # fmt: skip


def transfer(page: report.Page, evidence: Evidence, labels: Mapping[str, str]) -> None:
    """Transfer to dense tasks, to object-centric images and to detection."""
    page.heading("Transfer")
    for images in (SCENES, OBJECTS):
        if images in evidence.levels("images"):
            there = [name for name in (*DENSE, *CENTRIC) if name in evidence.where(images=images).finished]
            page.text(f"**Trained on {images}**")
            page.table(tables.arm_table(evidence, labels, there or DENSE, images=images))
    page.heading("Detection, fine-tuned from each backbone", 3)
    found = evidence.where(images=SCENES).finished
    if not any(name in found and found[name].notna().any() for name in DETECTION):
        page.text("Not measured: no finished run has detected anything (`axes.detection`, or images without objects).")
        return
    page.table(tables.arm_table(evidence, labels, DETECTION, images=SCENES))
    page.text("Trained on scenes, then Faster R-CNN with a feature pyramid, all layers fine-tuned, the same steps and "
              "learning rate for every backbone.")  # fmt: skip
    if RANDOM.name in labels and len(labels) > 1:
        name = tables.label(DETECTION[0])
        worth = {f"{name} (points)": {}}
        page.table(tables.gain_table(evidence.where(images=SCENES), labels, DETECTION[0], RANDOM.name, worth))
        page.text(f"What pretraining is worth to the detector: paired differences in {name} with 95 % t intervals, not "
                  "corrected.")  # fmt: skip


def measured(evidence: Evidence) -> dict[str, str]:
    """What only this study has to say about its measuring."""
    axes = evidence.about["axes"]
    entries = {
        "Settings of the arms": "the same learning rate and number of images in every arm, tuned for none",
        **image_lines(evidence, axes),
    }
    if axes["detection"] is not None:
        entries["Detection"] = f"`scd.evaluation.detection.Detection` ({report.words(axes['detection'])})"
    return {**entries, **report.preset_lines(evidence)}


DEVIATIONS = (
    "Scale: a small network on small images, see above; the papers train a ResNet-50 at 224 px on COCO or ImageNet.",
    "DenseCL and SlotCon share this suite's optimiser, schedule and learning rate (DenseCL's own is ten times higher "
    "on COCO than on ImageNet; SlotCon uses LARS), see `baselines/densecl.py` and `baselines/slotcon.py`.",
    "Detection: a small Faster R-CNN, trained for a few hundred steps; the papers' recipes stand in "
    "`scd/evaluation/detection.py`.",
    "SCD is a reconstruction (`scd/scd.py`): one map and its complement, whatever the number of objects.",
)

STUDY = Study(
    name="scene_coco",
    question_ids=("R1-c", "R1-d", "R5-d"),
    question="Is the separation of foreground and background limited to object-centric images? Is SCD better on scene "
    "images with several foregrounds and backgrounds, and what about dense references and detection?",
    arms=ARMS,
    contrasts=CONTRASTS,
    primary=CONTRASTS[0].name,
    plan=plan,
    render=render,
)
