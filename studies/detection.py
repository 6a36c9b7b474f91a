"""R1-d and R1-b: one detector and one recipe for every method of the suite.

Every method is trained on scenes. The same Mask R-CNN is then fine-tuned from each backbone, with the same steps,
learning rate and images, whose order is that of the seed. Random weights and a classifier are the references: the
detector has to tell these two apart before it can say anything of the methods between them. The systems are those of
the study ``related``; published numbers are quoted beside the measured ones.

The length of the fine-tuning at the tier cpu was chosen on another draw of the images than that of the page
(``data.options.seed=0``), with two seeds. At a learning rate of 0.01 and 200 steps the detector learned little (box AP
of 2 to 6). At 0.03 and 300 steps (AP of 15 to 19) supervised pretraining gave 2.6 points more than random weights with
150 training images, and 2.2 with 600; MoCo gave 0.9 and 0.6.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas

from scd.errors import DataError
from studies import related
from studies.references import (
    ORACLE,
    RANDOM,
    SUPERVISED,
    background_correlation,
    correlation_lines,
    has_masks,
    learns,
    separates,
)
from studies.scene_images import Images
from studies.suite.analysis import notation, tables
from studies.suite.analysis.comparison import compare
from studies.suite.analysis.conditions import planned
from studies.suite.analysis.results import Results
from studies.suite.pages import study_figures
from studies.suite.pages.markdown import Blocks
from studies.suite.pages.publish import Report
from studies.suite.pages.sections import words
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, Claim, Contrast, RunSpec, Study, contrast_factory, merge
from studies.systems import page
from studies.systems.detection_numbers import reported
from studies.systems.named import NAMED, systems_of
from studies.systems.page import named_inputs
from studies.systems.system import BYOL, MOCO, Host, System
from studies.systems.table import SYSTEMS

METRIC, SESOI = "det_ap", 0.01  # one point
BOXES, MASKS = ("det_ap", "det_ap50", "det_ap75"), ("seg_ap", "seg_ap50", "seg_ap75")
QUESTION_IDS = ("R1-d", "R1-b")
PAPER, COCO, VOC = "paper", "detection_coco_1x", "detection_voc07_12"
VOC_SOURCE = "scd.data.sources.voc.Voc"
LONGER = "a longer fine-tuning (`axes.detection.steps`), or more test scenes (`axes.detection.test_limit`)"

# Five seeds of the default arms take less than 20 minutes on two idle cores; all others run by arms=all.
CLAIMED_BY_DEFAULT = ("pointcl", "slotcon")
DEFAULT = (RANDOM.name, SUPERVISED.name, MOCO.host, MOCO.scd, MOCO.oracle, BYOL.host, BYOL.scd, *CLAIMED_BY_DEFAULT)
REASONS = {  # why a system that the reviewers name in R1-d does not run by default
    "soco": "its pyramid makes its training four times as long as MoCo's",
    "orl": "its crops make its training the longest of all",
    "odin": "it clusters each image anew in every step, which takes long",
    "densesiam": "it takes two further arms, SimSiam and SCD on it",
}

ARMS = tuple(replace(arm, default=arm.name in DEFAULT) for arm in (*related.ARMS, SUPERVISED))
LABELS = {arm.name: arm.label for arm in ARMS}
CLAIMED = tuple(each for each in SYSTEMS if each.name in CLAIMED_BY_DEFAULT)

contrast = contrast_factory(METRIC, SESOI, "")


def better(treatment: str, control: str) -> Contrast:
    """The contrast that says that one arm is better than another."""
    return contrast(treatment, control, f"{LABELS[treatment]} is better than {LABELS[control]}")


def asked(system: System) -> list[str]:
    """The study's questions in which the reviewers name a system, or what it stands for."""
    named = [question for each in NAMED if system in systems_of(each.name) for question in each.questions]
    return [question for question in sorted(QUESTION_IDS) if question in (*named, *system.questions)]


PRETRAINED = replace(
    contrast(SUPERVISED.name, RANDOM.name, "supervised pretraining helps this detector"), remedy=LONGER
)
LEARNS = {host: replace(learns(host.host, host.label), metric=METRIC) for host in (MOCO, BYOL)}
SEPARATES = separates(MOCO.oracle, MOCO.host, METRIC, remedy=LONGER)


def claim(question: str, treatment: str, control: str, host: Host, *further: Contrast) -> Claim:
    """One arm is better than another; the controls are that the detector tells trained networks from random ones."""
    declared = better(treatment, control)
    return Claim(declared.claim, (declared,), question, (PRETRAINED, LEARNS[host], *further))


CLAIMS = (
    claim(f"Does SCD help on {MOCO.label}?", MOCO.scd, MOCO.host, MOCO, SEPARATES),
    *(claim(f"{', '.join(asked(each))}: {each.label}?", each.host.scd, each.name, each.host) for each in CLAIMED),
    *(claim(f"Is {each.label} above its host?", each.name, each.host.host, each.host) for each in CLAIMED),
)
COMPARED = (  # in the first figure
    *(better(host.scd, host.host) for host in related.HOSTS),
    *(better(each.host.scd, each.name) for each in SYSTEMS),
    *(better(each.name, each.host.host) for each in SYSTEMS),
)
CONTRASTS = (*COMPARED, SEPARATES, PRETRAINED, *LEARNS.values())


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """All arms on scenes, seed by seed; the supervised one on labelled images, of one object where they are drawn."""
    settings = replace(settings, base=merge(settings.base, background_correlation(settings)))  # of the detector as well
    images = Images.of(settings)
    arms = arms_of(settings, images)
    return [run_of(settings, arm, seed, images) for seed in settings.seeds for arm in arms]


def arms_of(settings: Settings, images: Images) -> list[Arm]:
    """The chosen arms, but those that learn from labels or masks where the images have none.

    Raises:
        DataError: the command line names such an arm.
    """
    chosen, masks = [], has_masks(settings)
    for arm in settings.select(ARMS):
        lacks = "labels" if arm.name == SUPERVISED.name and not images.labelled else ""
        lacks = "masks" if arm.name.startswith(ORACLE.name) and not masks else lacks
        if lacks and arm.name in settings.arms:
            raise DataError(f"the arm '{arm.name}' learns from {lacks}, and its training images have none")
        chosen += [] if lacks else [arm]
    return chosen


def run_of(settings: Settings, arm: Arm, seed: int, images: Images) -> RunSpec:
    """One run, trained on scenes or on labelled images; the first stage of a system with two is the run of its host."""
    is_supervised = arm.name == SUPERVISED.name
    own = {**settings.base["data"]["options"], **settings.locations} if is_supervised else None
    protocols = [*settings.base["evaluation"]["protocols"], *detectors(settings, images.scenes or own)]
    form = merge(images.on_objects if is_supervised else images.on_scenes, {"evaluation": {"protocols": protocols}})
    inputs = {}
    if stages := named_inputs(settings.configure(arm, seed, form)):
        host = related.HOST_ARMS[related.HOST_OF[arm.name].host]
        inputs = dict.fromkeys(stages, settings.spec(host, seed, "epochs", overrides=form))
    spec = settings.at_equal_epochs(arm, seed, arm.name != RANDOM.name, form, inputs)
    return images.folder.in_place(spec) if is_supervised and images.folder else spec


def detectors(settings: Settings, scenes: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The recipe of the tier, on scenes or, where there are none, on the run's own images; and that of VOC if asked."""
    axes = settings.axes
    if settings.tier == PAPER:
        is_voc = settings.base["data"]["options"]["_target_"] == VOC_SOURCE and axes["scored"] is None
        found = [{"preset": VOC if is_voc else COCO, "data": scenes}]
    else:
        found = [{"preset": "detection", "data": scenes, "masks": True, **axes["detection"]}]
    if axes["voc"] is not None:
        data = {"_target_": VOC_SOURCE, "root": axes["voc"]}
        found.append({"preset": VOC, "name": "detection on VOC07+12", "prefix": "voc_", "data": data})
    return found


# -------------------------------------------------------------------- page


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, labels, out = report.results, report.labels, report.out
    label = results.metric(METRIC).label
    declared = [each for each in planned(CONTRASTS, results) if results.has(each.metric)]
    report.judge_claims(beside=declared)
    report.show(
        summary(results, labels),
        f"{label} and mask AP: means with 95 % t intervals over seeds. Differences in {label}, in points: paired, with "
        "95 % t intervals, not corrected. SCD stands on the host of the row.",
        study_figures.differences(results, [each for each in declared if each in COMPARED], report.names, out),
    )
    detector(report.section("AP of boxes and of masks"), report)
    named_systems(report.section("The systems that the reviewers name"), labels)
    missing = [each.name for each in SYSTEMS if "R1-d" in asked(each)]  # they get a row without a number, too
    page.quoted(reported(SYSTEMS, missing), report.section("Published numbers, quoted"))


def summary(results: Results, labels: Mapping[str, str]) -> tables.Table:
    """One row per arm: AP of boxes and masks, its difference from its host, and SCD's difference from it."""
    notes, rows = tables.Notes(), []
    hosts = {arm: host for host in related.HOSTS for arm in (host.scd, host.oracle)} | related.HOST_OF
    for arm, label in labels.items():
        done, host = results.of(arm), hosts.get(arm)
        row = {"arm": label, "host": host.label if host else tables.NONE}
        for metric in main_metrics(results):
            row[notation.heading(results.metric(metric))] = tables.mean_or_dash(metric, done, results, notes)
        pairs = {"arm − host": (arm, host.host), "SCD − arm": (host.scd, arm)} if host else {}
        for heading in ("arm − host", "SCD − arm"):
            row[heading] = tables.NONE
            if heading in pairs and len(set(pairs[heading])) == 2:
                result = compare(results, *pairs[heading], METRIC)
                row[heading] = tables.difference_cell(METRIC, result, results, notes)
        rows.append(row)
    lines = [*notes.lines, *tables.interval_note(results)]
    return tables.Table(pandas.DataFrame(rows), lines, tuple(main_metrics(results)))


def main_metrics(results: Results) -> list[str]:
    """AP of boxes, and of masks where the detector has any."""
    return [name for name in (METRIC, MASKS[0]) if name == METRIC or results.has(name)]


def detector(section: Blocks, report: Report) -> None:
    """All numbers of the detector, what the training before it costs, and what it adds."""
    results, labels = report.results, report.labels
    relative = {"total_flops": f"training FLOPs / {MOCO.label}'s", "seconds_pretrain": f"time / {MOCO.label}'s"}
    shown = [name for name in (*BOXES, *MASKS) if name in BOXES or results.has(name)]
    section.table(tables.arm_table(results, labels, shown, relative, MOCO.host))
    section.text(
        "FLOPs and time are of the training before the detector. The detector takes as many steps from every backbone, "
        "and costs the same for all arms with the same backbone."
    )
    if not results.has(METRIC):
        return
    section.heading("What the training adds to the detector")
    for metric in main_metrics(results):
        column = {f"{results.metric(metric).label} (points)": {}}
        section.table(tables.gain_table(results, labels, metric, RANDOM.name, column))
    section.figure(study_figures.seeds(results, labels, METRIC, report.out, reference=RANDOM.name))
    if found := [name for name in (f"voc_{each}" for each in BOXES) if results.has(name)]:
        section.heading("On VOC07+12")
        section.table(tables.arm_table(results, labels, found))


def named_systems(section: Blocks, labels: Mapping[str, str]) -> None:
    """Every system that the reviewers name in the study's questions: whether it is an arm here, and why not."""
    rows = []
    for each in NAMED:
        questions = ", ".join(question for question in each.questions if question in QUESTION_IDS)
        if not questions:
            continue
        rows += [
            {
                "system": each.name,
                "asked in": questions,
                "arm": f"`{system.name}`, {system.label}",
                "on this page": "yes" if system.name in labels else left_out(system),
            }
            for system in systems_of(each.name)
        ] or [
            {
                "system": each.name, "asked in": questions, "arm": tables.NONE,
                "on this page": each.role or "no: it is not in the suite",
            }
        ]  # fmt: skip
    section.table(tables.Table(pandas.DataFrame(rows)))


def left_out(system: System) -> str:
    """Why a system that is not on the page is none of its arms."""
    why = REASONS.get(system.name, "a claim is made of few systems, so that the page takes minutes")
    return "no: it was not asked for" if system.name in CLAIMED_BY_DEFAULT else f"no, by `arms=all`: {why}"


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    entries = {
        "Settings of the arms": "the same learning rate, epochs and detector in every arm, tuned for none; each host "
        "has its own views. The detector takes the steps that the tier has for the study of scenes; at the tier cpu "
        "their number was chosen on another draw of the images, where supervised pretraining was above random weights",
        "Pairs": "the detector's own initial weights, the order of its images and its flips are those of the seed, the "
        "same for every arm",
        **correlation_lines(results),
    }
    if SUPERVISED.name in results.about["arms"]:
        entries["Supervised reference"] = (
            f"a classifier, trained on as many images of one object each ({words(results.about['axes']['centric'])}), "
            "as a scene has no single label; in the papers it is ImageNet for detection on COCO"
            if results.about["axes"]["object_centric"] is None
            else f"a classifier, trained on the images of `{results.about['axes']['object_centric']}`"
        )
    return entries


DEVIATIONS = (
    "Scale: a small detector on small images, fine-tuned for few steps from backbones that were trained for few "
    "epochs; the papers' recipes, `detection_coco_1x` and `detection_voc07_12`, are those of the tier paper.",
    "Only the backbone goes into the detector, from every arm: SoCo and InsLoc also transfer their pyramid and box "
    "head, and SoCo's released detector has a smaller weight decay.",
    "SCD is a reconstruction (`scd/scd.py`): one map and its complement, whatever the number of objects.",
)

STUDY = Study(
    name="detection",
    question_ids=QUESTION_IDS,
    question="Detection lacks ORL, SoCo, SlotCon, Odin, PointCL and DenseSiam: how does SCD compare with them, with "
    "one detector and one recipe for every method?",
    title="One detector for every method: how does SCD compare?",
    arms=ARMS,
    contrasts=CONTRASTS,
    control=(PRETRAINED, LEARNS[MOCO]),
    primary=CONTRASTS[0].name,
    claims=CLAIMS,
    looks=(5,),
    plan=plan,
    sections=sections,
    deviations=DEVIATIONS,
    notes=notes,
)
