"""R1-a, R1-b, R3-c and R4-b: what does SCD add to systems that separate regions, boxes or points?

Every system runs in the same engine as SCD, on the same images, where the background is predictive in training: only
there can a separation help, which the true mask has to show. A system that is given boxes or segments also runs with
those of the true masks, so that the method and what it is told can be told apart. The page has the mechanisms one by
one, what each system is given from outside, and published numbers, quoted. The systems are in systems/.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from scd.errors import unknown
from studies.references import (
    MAP_SCORES,
    ORACLE,
    RANDOM,
    background_correlation,
    chosen_arms,
    correlation_lines,
    has_masks,
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
from studies.systems import page
from studies.systems.page import EQUAL_EPOCHS, SCORED, SESOI, named_inputs
from studies.systems.system import HOSTS as ALL_HOSTS
from studies.systems.system import MOCO, Host, System
from studies.systems.table import SYSTEMS

METRIC, FALLBACK = "knn_top1", "saliency_maxf"
MAIN = (METRIC, "linear_top1", "mixed_rand_top1", "bg_gap")
MAPS = (*MAP_SCORES, "map_area", "map_std", "map_saturation", "map_entropy", "map_place_share")
WITH_MAPS = ("scd", "scd_byol", "lewel")


# -------------------------------------------------------------------- arms and claims


def host_arms(host: Host) -> tuple[Arm, ...]:
    """A host, SCD on it, and SCD with the true mask; run by default if a default system is put on it."""
    base, scd = {"method": host.host}, f"SCD-{host.label}"
    used = any(each.default for each in SYSTEMS if each.host is host)
    return (
        Arm(
            host.host, host.label, base, f"{host.label}'s views and schedule", "one vector per image, no map",
            default=used,
        ),
        Arm(
            host.scd, scd, {**base, "wrapper": "scd"}, f"all of {host.label}", "one saliency map, triplet loss",
            default=used,
        ),
        Arm(
            host.oracle, f"{scd} with the true mask", {**base, **ORACLE.overrides}, f"all of {scd}",
            "the map is the true mask", default=used,
        ),
    )  # fmt: skip


HOSTS = tuple(host for host in ALL_HOSTS if any(each.host is host for each in SYSTEMS))
ARMS = (RANDOM, *(arm for host in HOSTS for arm in host_arms(host)), *(arm for each in SYSTEMS for arm in each.arms))
LABELS = {arm.name: arm.label for arm in ARMS}
HOST_OF = {arm.name: each.host for each in SYSTEMS for arm in each.arms}  # of the arms of systems
HOST_ARMS = {arm.name: arm for arm in ARMS if arm.name in [host.host for host in HOSTS]}

contrast = contrast_factory(METRIC, SESOI, "")  # taken in every budget


def better(treatment: str, control: str, conditions: Mapping[str, Any] | None = None) -> Contrast:
    """The contrast that says that one arm is better than another."""
    return contrast(treatment, control, f"{LABELS[treatment]} is better than {LABELS[control]}", conditions)


COMPARED = (  # in the first figure
    *(better(each.host.scd, each.name) for each in SYSTEMS),
    *(better(each.name, each.host.host) for each in SYSTEMS),
    *(better(host.scd, host.host) for host in HOSTS),
)
TOLD = tuple(  # what the true boxes or segments add, and SCD with the true mask beside them
    found
    for each in SYSTEMS
    if each.given
    for found in (better(each.oracle, each.name), better(each.host.oracle, each.oracle))
)
CONTROLS = {
    host: (separates(host.oracle, host.host, METRIC), learns(host.host, host.label)) for host in HOSTS
}  # a correct separation is seen; the host has learned something
CONTRASTS = (*COMPARED, *TOLD, *(control for pair in CONTROLS.values() for control in pair))


def claim_about(system: System) -> Claim:
    """SCD is better than the system, with the positive controls of their host."""
    declared = better(system.host.scd, system.name, EQUAL_EPOCHS)
    return Claim(declared.claim, (declared,), f"{system.asked}: {system.label}?", CONTROLS[system.host])


CLAIMS = tuple(claim_about(each) for each in SYSTEMS if each.default)


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """All arms at equal epochs, and the systems at their host's training FLOPs where asked for; seed by seed."""
    asked = settings.axes.get("budgets", ["epochs"])
    for budget in asked:
        if budget not in BUDGET_WORDS:
            raise unknown("budget (axes.budgets)", budget, BUDGET_WORDS)
    budgets, arms = [budget for budget in BUDGET_WORDS if budget in asked], chosen_arms(settings, ARMS)
    return [labelled(settings, arm, seed, budget) for seed in settings.seeds for budget in budgets for arm in arms]


def labelled(settings: Settings, arm: Arm, seed: int, budget: str) -> RunSpec:
    """One run. An arm that is no system's is the same run in both budgets: equal configurations, two labels.

    The first stage of a system with two is the run of its host, of the same seed and images. At equal epochs each stage
    trains as long as the host, at equal FLOPs each has half of the host's.
    """
    host, images = HOST_OF.get(arm.name), background_correlation(settings)
    unit = "none" if arm is RANDOM else budget if host else "epochs"
    reference, inputs = (HOST_ARMS[host.host] if host else None), {}
    if stages := named_inputs(settings.configure(arm, seed, images)):
        reference = halved(settings, reference) if unit == "flops" else reference
        inputs = dict.fromkeys(stages, settings.spec(reference, seed, "epochs", overrides=images))
    spec = settings.spec(arm, seed, unit, reference, images, inputs=inputs)
    return replace(spec, labels={**spec.labels, "budget": budget})


def halved(settings: Settings, arm: Arm) -> Arm:
    """The arm with half of its training."""
    budget = settings.configure(arm, 0)["training"]["budget"]
    half = {"training": {"budget": {**budget, "value": budget["value"] / 2}}}
    return replace(arm, overrides=merge(arm.overrides, half))


# -------------------------------------------------------------------- page


def prepare(results: Results, settings: Settings) -> Results:
    """Compare the boxes, segments and masks that finished runs learned from with the true masks, if there are any."""
    told = [arm for each in SYSTEMS if each.given for arm in each.arms[:2] if len(results.of(arm.name))]
    scores, is_complete = {}, results.about["done"] == results.about["planned"]
    if told and is_complete and has_masks(settings):  # it takes seconds, and the page is written again and again
        scores = {arm.name: scores_of(labelled(settings, arm, settings.seeds[0], "epochs"), settings) for arm in told}
    return replace(results, about={**results.about, "given": scores})


def scores_of(spec: RunSpec, settings: Settings) -> dict[str, float]:
    """Scores of what a run's annotator proposes for the training images; it has been run for the training."""
    from scd.data.annotators.annotator import annotate  # imports torch, which importing a study must not
    from scd.data.images import image_parts
    from scd.evaluation.proposals import proposal_scores
    from studies.suite.execution.run import load_inputs
    from studies.suite.execution.store import Store
    from studies.suite.planning.assembly import instantiate, open_data
    from studies.suite.planning.resolve import resolve

    if spec.inputs:  # as they were planned: only then are they the runs of the store
        (spec,) = [run.spec for run in resolve([spec]) if run.spec.labels == spec.labels and run.spec.inputs]
    data, (named,) = spec.config["data"], spec.config["annotations"].values()
    annotator = instantiate(named, inputs=load_inputs(spec, Store(settings.store)))
    images = open_data(data, settings.locations), "train", data["size"], data["train_limit"]
    return proposal_scores(annotate(annotator, *images), annotator.provides, image_parts(*images), SCORED)


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, out = report.results, report.out
    found = conditions(results, ("budget",))
    systems = [each for each in SYSTEMS if each.name in report.labels]
    metric = METRIC if results.has(METRIC) or not results.has(FALLBACK) else FALLBACK

    def there(declared: Sequence[Contrast]) -> list[Contrast]:
        return fall_back_to_metric(planned_there(cross_conditions(declared, found), results), results, FALLBACK)

    report.judge_claims(beside=there(CONTRASTS))
    report.show(
        page.gains(systems, results, report.labels, metric, {words(each): each for each in found}),
        f"Paired differences in {results.metric(metric).label}, in points, with 95 % t intervals, not corrected. SCD "
        "stands on the host of the row.",
        study_figures.differences(results, there(COMPARED), report.names, out),
    )

    page.mechanisms(systems, report.section("The mechanisms, one by one"), report, metric)
    page.outside(systems, report.section("What they are given"), report, metric)
    if effects := page.planned_effects(systems, report):
        page.directions(effects, report.section("Known effects of their parts"), report, metric)
    page.quoted(systems, report.section("Published numbers, quoted"))
    accuracy = report.section("Accuracy and cost")
    relative = {"total_flops": f"training FLOPs / {MOCO.label}'s", "seconds_pretrain": f"time / {MOCO.label}'s"}
    for condition in found:
        accuracy.heading(title(condition))
        accuracy.table(tables.arm_table(results, report.labels, MAIN, relative, MOCO.host, **condition))
    accuracy.figure(study_figures.seeds(results, report.labels, metric, out, reference=MOCO.host))
    standard.indicators(
        report.section("Maps against true masks"), results,
        {name: label for name, label in report.labels.items() if name in WITH_MAPS}, MAPS,
        "Of the arms that learn one map of each image. The loss does not say which side is the object, so both "
        "polarities are scored, beside a map that is 1 everywhere.",
        found,
    )  # fmt: skip


def notes(results: Results) -> dict[str, str]:
    """What only this study has to say about how it was measured."""
    entries = {
        "Settings of the arms": "the same learning rate in every arm, tuned for none; each host has its own views, and "
        "SoCo, DetCon and SlotCon have BYOL's",
        **correlation_lines(results),
    }
    if "flops" in results.levels("budget"):
        entries["Equal training FLOPs"] = (
            "a system takes as many steps as cost the forward and backward FLOPs of its host's training, and its "
            "learning-rate schedule ends there; the hosts and SCD, which costs little more, are the same runs in both "
            "budgets"
        )
    return entries


DEVIATIONS = (
    "Scale: a small network on small images; the papers train a ResNet-50 at 224 px on ImageNet or COCO, mostly for "
    "detection and segmentation, which this page does not measure.",
    "SCD is a reconstruction (`scd/scd.py`).",
)

STUDY = Study(
    name="related",
    question_ids=("R1-a", "R1-b", "R3-c", "R4-b"),
    question="Systems that separate a foreground, objects or points exist already: what does SCD add to each of them, "
    "and how do they differ, one by one?",
    title="What does SCD add to systems that separate regions, boxes or points?",
    arms=ARMS,
    contrasts=CONTRASTS,
    control=CONTROLS[MOCO],
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
