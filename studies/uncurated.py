"""R1-c: is the separation limited to object-centric images; what of scenes, and of uncurated ones as from the web?

Each method is trained on object-centric images, on scenes and on a mixture as the web has it, as many of each, and all
are evaluated on the same clean sets: object-centric images, and scenes. Divide and Contrast, which is made for
uncurated images, is trained on the mixture: it is compared with MoCo at the training FLOPs of all its stages, and with
itself on a random partition. The background is predictive in training: there a correct map can help, which the true
mask has to show.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas

from scd.errors import UsageError
from studies.references import (
    LONGER,
    ORACLE,
    RANDOM,
    background_correlation,
    correlation_lines,
    has_masks,
    learns,
    separates,
)
from studies.scene_coco import gained
from studies.scene_images import PATH_SOURCE, Folder, opened
from studies.suite.analysis import notation, tables
from studies.suite.analysis.conditions import cross_conditions, fall_back_to_metric, planned, planned_there
from studies.suite.analysis.results import DONE, Results
from studies.suite.pages import study_figures
from studies.suite.pages.publish import Report
from studies.suite.pages.sections import words
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, Claim, Contrast, RunSpec, Study, contrast_factory, merge

METRIC, FALLBACK, SESOI = "centric_shift_linear_top1", "centric_linear_top1", 0.01  # one point
OBJECTS, SCENES, WEB = "object-centric images", "scenes", "web-like images"
IMAGES = (OBJECTS, SCENES, WEB)
SOURCES = {SCENES: "scd.data.sources.scenes.Scenes", WEB: "scd.data.sources.web.Web"}
CENTRIC = ("centric_linear_top1", "centric_knn_top1", METRIC, "centric_shift_knn_top1")
ON_SCENES = "scene_map"
INVARIANCES = tuple(
    f"{kind}_{what}" for what in ("invariance", "similarity") for kind in ("occlusion", "viewpoint", "illumination")
)
SHARED = ("classes", "size", "train", "test", "seed")  # options of all embedded images

MOCO = Arm("moco", "MoCo", {"method": "moco"}, "two global views, asymmetric loss", "no map, one vector per image")
LONG = Arm(
    "moco_long", "MoCo at DnC's cost", {"method": "moco"}, "all of MoCo",
    "trained as long as costs the FLOPs of all stages of Divide and Contrast",
)  # fmt: skip
DNC = Arm(
    "dnc", "Divide and Contrast", {"method": "divide_and_contrast"}, "MoCo is its base model and its experts' method",
    "experts on clusters of the images, distilled into one network",
)  # fmt: skip
RANDOMLY = {"annotations": {"segments": {"partition": "random"}}}
DNC_RANDOM = Arm(
    "dnc_random", "Divide and Contrast, random partition", merge(DNC.overrides, RANDOMLY), "all of Divide and Contrast",
    "the partition is random",
)  # fmt: skip
EXPERTS = Arm("dnc_experts", "its experts", {"method": "dnc_experts"}, "MoCo's loss and views", "one for each cluster")
ARMS = (
    RANDOM,
    MOCO,
    Arm("scd", "SCD-MoCo", {"method": "moco", "wrapper": "scd"}, "all of MoCo", "one saliency map, triplet loss"),
    replace(ORACLE, overrides={"method": "moco", **ORACLE.overrides}),
    LONG,
    DNC,
    DNC_RANDOM,
)
STAGED = (DNC.name, DNC_RANDOM.name)
ON_WEB_ALONE = (LONG.name, *STAGED)  # by default; on the images of axes.divided
GAINS = ((WEB, OBJECTS),)  # images, and those from which the gain of SCD is said to be larger
GAIN_NAMES = {f"gain:{images}": f"SCD's gain over MoCo from {images}" for images in (OBJECTS, WEB)}

contrast = contrast_factory(METRIC, SESOI, "on uncurated images SCD is better than MoCo")
CONTRASTS = (
    contrast("scd", "moco"),
    contrast("dnc", "moco_long", "Divide and Contrast is better than MoCo at equal training FLOPs"),
    contrast("dnc", "dnc_random", "clusters are better than a random partition"),
    contrast("dnc", "moco", "the stages of Divide and Contrast add to its base model"),
    contrast("dnc", "scd", "Divide and Contrast is better than SCD"),
    separates("oracle", "moco", METRIC, remedy=LONGER),  # the background is predictive already
    replace(learns("moco", "MoCo"), metric=FALLBACK),
)
SEPARATES, LEARNS = CONTROL = CONTRASTS[-2:]  # a correct separation is seen; the host has learned something


def claim(
    question: str, treatment: str, control: str, images: str, text: str, controls: tuple[Contrast, ...] = CONTROL
) -> Claim:
    """One claim about two arms that are trained on one kind of images."""
    return Claim(text, (contrast(treatment, control, text, {"images": images}),), question, controls)


CLAIMS = (
    claim(
        "Does SCD help on uncurated images?", "scd", "moco", WEB, "trained on web-like images SCD is better than MoCo"
    ),
    claim(
        "On object-centric ones?", "scd", "moco", OBJECTS, "trained on object-centric images SCD is better than MoCo"
    ),
    claim("On scenes?", "scd", "moco", SCENES, "trained on scenes SCD is better than MoCo"),
    claim(
        "Is it limited to object-centric images?", f"gain:{OBJECTS}", f"gain:{WEB}", WEB,
        "SCD gains more over MoCo from object-centric images than from web-like ones", (SEPARATES,),
    ),
    claim(
        "Can a correct map help there?", "oracle", "moco", WEB,
        "on web-like images SCD with the true mask is better than MoCo", (LEARNS,),
    ),
    claim(
        "Does a method for uncurated images help more?", "dnc", "moco_long", WEB,
        "on web-like images Divide and Contrast is better than MoCo at equal training FLOPs", (LEARNS,),
    ),
    claim(
        "Do its clusters matter?", "dnc", "dnc_random", WEB,
        "on web-like images Divide and Contrast is better with clusters than with a random partition", (LEARNS,),
    ),
)  # fmt: skip


# -------------------------------------------------------------------- images


@dataclass(frozen=True)
class Kinds:
    """The kinds of images of a study, and what all arms are scored on.

    Attributes:
        forms: kind -> what is merged into the configuration of a run that is trained on it.
        centric: the source of the clean object-centric images; crowded: of scenes, or None.
        folders: kind -> where the images are, if they are not generated.
        limits: of the images that are used of ``centric``.
    """

    forms: dict[str, dict[str, Any]]
    centric: dict[str, Any]
    crowded: dict[str, Any] | None
    folders: dict[str, Folder] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> "Kinds":
        """Embedded images of three kinds, or folders of real ones, where they are named.

        Raises:
            UsageError: real images that are no folder, or folders beside embedded images.
        """
        axes, data = settings.axes, settings.base["data"]
        named = {SCENES: axes["scene_centric"], WEB: axes["uncurated"]}
        if settings.embedded:
            if any(named.values()):
                raise UsageError("axes.scene_centric and axes.uncurated are for real images: name object-centric ones "
                                 "as well, data=FOLDER")  # fmt: skip
            options = merge(data, background_correlation(settings).get("data", {}))["options"]
            common = {key: options[key] for key in SHARED} | {"rho_train": options["rho_train"]}
            sources = {kind: {"_target_": SOURCES[kind], **common, **axes[name]}
                       for kind, name in ((SCENES, "scenes"), (WEB, "web"))}  # fmt: skip
            forms = {kind: {"data": {"title": kind, "options": source}} for kind, source in sources.items()}
            return cls({OBJECTS: {"data": {"options": options}}, **forms}, options, sources[SCENES])
        if data["options"].get("_target_") != PATH_SOURCE:
            raise UsageError(
                "uncurated scores all arms on the object-centric images: name a folder of them, data=FOLDER"
            )
        own = opened(settings.locations["path"])
        found = {kind: opened(path) for kind, path in named.items() if path is not None}
        images = min([own.images, *(folder.images for folder in found.values())])
        limit = min(images, data["train_limit"] or images)  # as many of each kind
        dropped = dict.fromkeys(data["options"])  # the options of the study's own images do not hold for the others
        forms = {
            kind: {"data": {"title": Path(folder.path).name, "train_limit": limit,
                            "options": {**dropped, "_target_": PATH_SOURCE}}}
            for kind, folder in found.items()
        }  # fmt: skip
        limits = {name: data[name] for name in ("train_limit", "test_limit")}
        return cls({OBJECTS: {"data": {"train_limit": limit}}, **forms}, own.source, None, found, limits)

    def protocols(self, settings: Settings) -> list[dict[str, Any]]:
        """The protocols of every run, on the clean images."""
        probes = [settings.protocol(name) for name in ("knn", "linear", "knn_shift", "linear_shift")]
        without_names = [{key: value for key, value in each.items() if key != "name"} for each in probes]
        own = {"data": self.centric, **self.limits}
        found = [
            {"preset": "transfer", "prefix": "centric_", "title": "object-centric", **own, "protocols": without_names},
            {"preset": "invariance", **own, "objects": settings.axes["invariant"]},
            {"preset": "collapse", **own},
        ]
        if self.crowded is not None:
            found.append(
                {"preset": "scenes", "data": self.crowded, "parts": ["multilabel"], **settings.axes["multilabel"]}
            )
        return found

    def source(self, config: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """The source of a run's training images, as an annotator opens it; of generated ones without test images."""
        if kind in self.folders:
            return self.folders[kind].source
        options = config["data"]["options"]
        least = {"test": 1, "probe": 0, "rho_test": 0.0, "rho_probe": 0.0}
        return {key: least.get(key, value) for key, value in options.items()} if "train" in options else self.centric


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """All arms on each kind of images; those of Divide and Contrast on the kinds of ``axes.divided``; seed by seed."""
    kinds = Kinds.of(settings)
    arms = settings.select(ARMS)
    if not has_masks(settings):
        arms = tuple(arm for arm in arms if arm.name != ORACLE.name or arm.name in settings.arms)
    runs = []
    for seed in settings.seeds:
        for kind in kinds.forms:
            for arm in arms:
                if arm is RANDOM and kind != OBJECTS:  # the same on all kinds
                    continue
                if arm.name in ON_WEB_ALONE and kind not in settings.axes["divided"]:
                    continue
                if arm.name == ORACLE.name and kind in kinds.folders:  # whether it has masks is not known here
                    continue
                spec = labelled(settings, kinds, arm, seed, kind)
                runs.append(kinds.folders[kind].in_place(spec) if kind in kinds.folders else spec)
        if RANDOM in arms:  # beside the others of each kind
            first = next(run for run in runs if run.labels["seed"] == seed and run.labels["arm"] == RANDOM.name)
            runs += [replace(first, labels={**first.labels, "images": kind}) for kind in kinds.forms if kind != OBJECTS]
    return runs


def labelled(settings: Settings, kinds: Kinds, arm: Arm, seed: int, kind: str) -> RunSpec:
    """One run of an arm on one kind of images, with the runs of its earlier stages."""
    form, stages, inputs = kinds.forms[kind], settings.axes["stages"], {}
    asked = [*settings.base["evaluation"]["protocols"], *kinds.protocols(settings)]
    overrides, unit, reference = {**form, "evaluation": {"protocols": asked}}, "epochs", None
    if arm.name == LONG.name:
        arm = lengthened(settings, arm, 1 + stages["experts"] + stages["distillation"])
    if arm.name in STAGED:
        base = settings.spec(MOCO, seed, overrides=form)
        source = kinds.source(base.config, kind)
        divided = merge({"annotations": {"segments": {"images": source, "clusters": settings.axes["clusters"]}}})
        partition = {key: value for key, value in arm.overrides.items() if key == "annotations"}
        own = {"method": {"preset": EXPERTS.name, "clusters": settings.axes["clusters"]}}
        experts = lengthened(settings, replace(EXPERTS, overrides=merge(own, divided, partition)), stages["experts"])
        inputs = {"base": base, "experts": settings.spec(experts, seed, overrides=form, inputs={"base": base})}
        named = {"base": {"_input_": "base"}, "experts": {"_input_": "experts"}}
        method = {"method": {"preset": DNC.overrides["method"], "clusters": settings.axes["clusters"], **named}}
        arm = replace(arm, overrides=merge(divided, partition, method))
        unit, reference = "flops", lengthened(settings, MOCO, stages["distillation"])
    elif arm is RANDOM:
        unit = "none"
    spec = settings.spec(arm, seed, unit, reference, overrides, inputs, images=kind)
    return replace(spec, labels={**spec.labels, "budget": "epochs"})


def lengthened(settings: Settings, arm: Arm, factor: float) -> Arm:
    """The arm with so many times its training."""
    budget = settings.configure(arm, 0)["training"]["budget"]
    longer = {"training": {"budget": {**budget, "value": budget["value"] * factor}}}
    return replace(arm, overrides=merge(arm.overrides, longer))


# -------------------------------------------------------------------- page


def prepare(results: Results, settings: Settings) -> Results:
    """Count what each stage of Divide and Contrast costs, and MoCo at its cost; nothing is trained."""
    from studies.suite.planning.resolve import Resolver  # imports torch, which importing a study must not

    named = {spec.labels["arm"]: spec for spec in plan(replace(settings, seeds=settings.seeds[:1]))
             if spec.labels["arm"] in (DNC.name, LONG.name) and spec.labels["images"] == WEB}  # fmt: skip
    resolver, found = Resolver(check=False), {}
    for name, spec in named.items():
        done = resolver.complete(spec.with_protocols([])).spec
        stages = {**{stage: earlier for stage, earlier in done.inputs.items()}, name: done}
        found[name] = {
            stage: [each.config["training"]["budget"]["value"], each.flops_per_step] for stage, each in stages.items()
        }
    return replace(results, about={**results.about, "stages": found})


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, labels, out = report.results, report.labels, report.out
    metric = METRIC if results.has(METRIC) or not results.has(FALLBACK) else FALLBACK
    kinds = [kind for kind in IMAGES if kind in results.levels("images")]
    crossed = cross_conditions(planned(CONTRASTS, results), [{"images": kind} for kind in kinds])
    beside = fall_back_to_metric(planned_there(crossed, results), results, FALLBACK)
    report.judge_claims(gained(results, GAINS, metric), {**report.names, **GAIN_NAMES}, beside)
    report.show(
        by_training(results, labels, metric, kinds),
        f"{results.metric(metric).label} on the same clean test images, by the images of the training; means with "
        "95 % t intervals over seeds.",
        study_figures.differences(results, beside, report.names, out),
    )
    section = report.section("Other clean test sets and probes")
    for kind in kinds:
        part = results.where(images=kind)
        section.heading(f"Trained on {kind}")
        shown = [name for name in (*CENTRIC, ON_SCENES) if part.has(name)] or [metric]
        section.table(tables.arm_table(part, labels, shown))
    invariances(report, kinds)
    stages(report)


def by_training(results: Results, labels: Mapping[str, str], metric: str, kinds: list[str]) -> tables.Table:
    """One row per arm: the main metric by the images of the training."""
    notes, rows = tables.Notes(), []
    for arm, label in labels.items():
        row = {"arm": label}
        for kind in kinds:
            runs = results.where(images=kind, arm=arm).runs
            name = f"trained on {kind}: {notation.heading(results.metric(metric))}"
            if runs.empty:
                row[name] = notes.dash("not trained on these images")
            else:
                row[name] = tables.mean_or_dash(metric, runs[runs["status"] == DONE], results, notes)
        rows.append(row)
    return tables.Table(pandas.DataFrame(rows), notes.lines, (metric,))


def invariances(report: Report, kinds: list[str]) -> None:
    """Invariance to occlusion, viewpoint and illumination by the images of the training."""
    section = report.section("Invariances (Demystifying)")
    shown = [name for name in INVARIANCES if report.results.has(name)]
    if not shown:
        section.text("Not measured: no finished run has them; they need masks of the object-centric test images.")
        return
    section.text(
        "Of the clean object-centric test images, whose objects are covered, moved or lit otherwise. Random weights "
        "are the reference: what they are invariant to was not learned."
    )
    for kind in kinds:
        section.heading(f"Trained on {kind}")
        section.table(tables.arm_table(report.results.where(images=kind), report.labels, shown))


def stages(report: Report) -> None:
    """What the stages of Divide and Contrast cost, beside MoCo at its cost."""
    found = report.results.about.get("stages") or {}
    if not found:
        return
    names = {"base": "base model: MoCo's run", "experts": "experts", DNC.name: "distillation"}
    rows, reference = [], None
    for arm, own in found.items():
        total = sum(steps * flops for steps, flops in own.values())
        reference = reference or total
        rows += [
            {"arm": report.names[arm], "stage": names.get(stage, "whole training"), "steps": f"{steps:,.0f}",
             "GFLOPs per step": f"{flops / 1e9:.3g}", "share of the arm's FLOPs": f"{steps * flops / total:.0%}"}
            for stage, (steps, flops) in own.items()
        ]  # fmt: skip
        rows.append({"arm": report.names[arm], "stage": "**all**", "steps": "", "GFLOPs per step": "",
                     "share of the arm's FLOPs": f"{total / 1e12:.3g} TFLOPs"})  # fmt: skip
    section = report.section("What Divide and Contrast costs")
    section.table(tables.Table(pandas.DataFrame(rows)))
    section.text(
        "FLOPs of the forward and backward passes. Not counted: one forward pass of the base model over the images, "
        "and k-means. Tables of costs on this page have the last stage alone; the base model is the run of MoCo."
    )


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    axes = results.about["axes"]
    entries = {
        "Settings of the arms": "the same learning rate in every arm and stage, tuned for none",
        **correlation_lines(results),
    }
    if axes["uncurated"] or axes["scene_centric"]:
        given = {SCENES: axes["scene_centric"], WEB: axes["uncurated"]}
        return entries | {f"Images: {kind}": f"those of `{path}`, as many" for kind, path in given.items() if path}
    return entries | {
        "Images: scenes": f"generator `scenes` with {words(axes['scenes']) or 'its defaults'}; as many images",
        "Images: web-like": f"generator `web` with {words(axes['web'])}; as many images",
        "Clean test sets": "object-centric images with probes that learn from images of the same kind, and scenes; the "
        "same for all arms",
    }


DEVIATIONS = (
    "Scale: a small network on small generated images; the papers train a ResNet-50 on YFCC100M or JFT-300M.",
    "Divide and Contrast: MoCo v2 in the place of MoCLR, see `baselines/divide_and_contrast.py`. The stages take 1, "
    "1.5 and 0.5 trainings of MoCo, as in the paper's schedule of 3,000 epochs.",
    "Demystifying measures photographs of one object under other conditions; here objects are cut out by their "
    "masks, see `scd/evaluation/invariance.py`.",
    "SCD is a reconstruction (`scd/scd.py`).",
)

STUDY = Study(
    name="uncurated",
    question_ids=("R1-c",),
    question="Is the separation of foreground and background limited to object-centric images? What of scene-centric "
    "and of uncurated ones, as from the web (Demystifying, Divide and Contrast)?",
    title="Does the separation need curated images?",
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
