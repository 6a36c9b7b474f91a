"""R1-a, R1-b, R3-c and R4-b: what does SCD add to systems that separate regions, boxes or points?

Every system runs in the same engine as SCD, on the same images, where the background is predictive in training: only
there can a separation help, which the true mask has to show. A system that is given boxes or segments also runs with
those of the true masks, so that the method and what it is told can be told apart. The page has the mechanisms one by
one, what each system is given from outside, and published numbers, quoted. The systems are in systems/.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas

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
from studies.suite.analysis.comparison import compare
from studies.suite.analysis.conditions import (
    BUDGET_WORDS,
    conditions,
    cross_conditions,
    fall_back_to_metric,
    planned_there,
    title,
    words,
)
from studies.suite.analysis.results import Results, only
from studies.suite.analysis.verdict import outcome_of
from studies.suite.pages import sections as standard
from studies.suite.pages import study_figures
from studies.suite.pages.markdown import Blocks
from studies.suite.pages.publish import Report
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm, Claim, Contrast, RunSpec, Study, contrast_factory, merge
from studies.systems.system import HOSTS as ALL_HOSTS
from studies.systems.system import MOCO, Host, System
from studies.systems.table import NOT_YET, SYSTEMS

METRIC, FALLBACK, SESOI = "knn_top1", "saliency_maxf", 0.01  # one point
MAIN = (METRIC, "linear_top1", "mixed_rand_top1", "bg_gap")
MAPS = (*MAP_SCORES, "map_area", "map_std", "map_saturation", "map_entropy", "map_place_share")
WITH_MAPS = ("scd", "scd_byol", "lewel")
EQUAL_EPOCHS = {"budget": "epochs"}
SCORED = 3000  # training images at most whose boxes and segments are compared with their masks
SCORES = {  # of scd/evaluation/proposals.py: in words
    "best_overlap": "IoU of a true box with the best of them",
    "mean_overlap": "IoU of each of them with a true box",
    "cover": "share of the object in segments that lie mostly on it",
    "mask_overlap": "IoU of the mask with the true one",
}


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


def named_inputs(config: Any) -> set[str]:
    """The names of the earlier runs that a configuration asks for."""
    if isinstance(config, Mapping):
        own = {config["_input_"]} if "_input_" in config else set()
        return own.union(*map(named_inputs, config.values()))
    return set().union(*map(named_inputs, config)) if isinstance(config, list | tuple) else set()


def halved(settings: Settings, arm: Arm) -> Arm:
    """The arm with half of its training."""
    budget = settings.configure(arm, 0)["training"]["budget"]
    half = {"training": {"budget": {**budget, "value": budget["value"] / 2}}}
    return replace(arm, overrides=merge(arm.overrides, half))


# -------------------------------------------------------------------- page


def prepare(results: Results, settings: Settings) -> Results:
    """Compare the boxes, segments and masks that finished runs learned from with the true masks, if there are any."""
    told = [arm for each in SYSTEMS if each.given for arm in each.arms[:2] if len(results.of(arm.name))]
    scores = {}
    if told and has_masks(settings):
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

    data, (named,) = spec.config["data"], spec.config["annotations"].values()
    annotator = instantiate(named, inputs=load_inputs(spec, Store(settings.store)))
    images = open_data(data, settings.locations), "train", data["size"], data["train_limit"]
    return proposal_scores(annotate(annotator, *images), annotator.provides, image_parts(*images), SCORED)


def sections(report: Report) -> None:
    """The study's part of the page."""
    results, out = report.results, report.out
    found = conditions(results, ("budget",))
    metric = METRIC if results.has(METRIC) or not results.has(FALLBACK) else FALLBACK

    def there(declared: Sequence[Contrast]) -> list[Contrast]:
        return fall_back_to_metric(planned_there(cross_conditions(declared, found), results), results, FALLBACK)

    report.judge_claims(beside=there(CONTRASTS))
    report.show(
        gains(results, report.labels, metric, {words(each): each for each in found}),
        f"Paired differences in {results.metric(metric).label}, in points, with 95 % t intervals, not corrected. SCD "
        "stands on the host of the row.",
        study_figures.differences(results, there(COMPARED), report.names, out),
    )

    mechanisms(report.section("The mechanisms, one by one"), report, metric)
    outside(report.section("What they are given"), report, metric)
    quoted(report.section("Published numbers, quoted"), report)
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


def planned_systems(report: Report) -> list[System]:
    """The systems whose arm is on the page."""
    return [each for each in SYSTEMS if each.name in report.labels]


def gains(
    results: Results, labels: Mapping[str, str], metric: str, found: Mapping[str, Mapping[str, Any]]
) -> tables.Table:
    """One row per trained arm: its difference from its host, and SCD's difference from it, in each condition."""
    notes, rows = tables.Notes(), []
    hosts = {arm: host for host in HOSTS for arm in (host.scd, host.oracle)} | HOST_OF
    for arm in (arm for arm in labels if arm in hosts):
        host, row = hosts[arm], {"arm": labels[arm], "host": hosts[arm].label}
        for name, condition in found.items():
            suffix = f", {name}" if len(found) > 1 else ""
            for heading, pair in (("arm − host", (arm, host.host)), ("SCD − arm", (host.scd, arm))):
                if arm == host.scd and heading == "SCD − arm":
                    row[heading + suffix] = tables.NONE
                else:
                    result = compare(results, *pair, metric, **condition)
                    row[heading + suffix] = tables.difference_cell(metric, result, results, notes)
        rows.append(row)
    return tables.Table(pandas.DataFrame(rows), [*notes.lines, *tables.interval_note(results)], (metric,))


def difference(report: Report, treatment: str, control: str, metric: str, notes: tables.Notes) -> str:
    """A difference at equal epochs, its interval, and what follows from it."""
    result = compare(report.results, treatment, control, metric, **EQUAL_EPOCHS)
    cell = tables.difference_cell(metric, result, report.results, notes)
    return f"{cell}: {outcome_of(result, SESOI)}" if result.n else cell


def mechanisms(section: Blocks, report: Report, metric: str) -> None:
    """What each system compares, shares with SCD and does otherwise, and what the number says."""
    notes, rows = tables.Notes(), []
    for each in planned_systems(report):
        rows.append(
            {
                "system": each.label,
                "asked in": each.asked,
                "compares": each.compares,
                "shared with SCD": each.shares,
                "different from SCD": each.differs,
                "SCD − system: SCD is": difference(report, each.host.scd, each.name, metric, notes),
                "system − host: it is": difference(report, each.name, each.host.host, metric, notes),
            }
        )
    section.text(
        "SCD compares the foregrounds of two views, pooled under one learned map, and pushes them away from the "
        "background of the same image, pooled under the map's complement. It takes the images alone, and keeps its "
        "host's loss on whole images."
    )
    section.table(tables.Table(pandas.DataFrame(rows), notes.lines, (metric,)))
    section.text(
        f"Differences in {report.results.metric(metric).label}, in points, at equal epochs, with 95 % t intervals, not "
        "corrected; outcomes by the rule of the contrasts."
    )


def outside(section: Blocks, report: Report, metric: str) -> None:
    """What each arm needs beside the images, from where, how it is declared, and how well it fits the true masks."""
    results, notes, rows = report.results, tables.Notes(), []
    scores = results.about.get("given", {})
    for arm in (arm for arm in report.labels if arm != RANDOM.name):
        done, named = results.of(arm), annotations_of(results, arm)
        source = [str(config["_target_"]).rpartition(".")[2] for config in named.values()]
        row = {
            "arm": report.labels[arm],
            "needs": ", ".join(sorted(needs_of(results, arm))) or "nothing",
            "from": ", ".join(source) or tables.NONE,
            "supervision": (only(done["supervision"]) if "supervision" in done and len(done) else None) or tables.NONE,
        }
        if scores:
            own = scores.get(arm, {})
            row["of them in an image"] = f"{own['proposals']:.1f}" if own else tables.NONE
            for score, name in SCORES.items():
                row[name] = f"{100 * own[score]:.1f} %" if score in own else tables.NONE
        rows.append(row)
    section.table(tables.Table(pandas.DataFrame(rows)))
    section.text(
        f"Measured on the first {SCORED:,} training images at most, against their masks and the boxes around the "
        "masks' connected parts; IoUs are means, and those of each box are with the most similar true box. Boxes and "
        "segments do not say which of them is an object (`scd/evaluation/proposals.py`)."
        if scores
        else "How well boxes and segments fit the objects was not measured: the images have no masks, or no run with "
        "boxes or segments has finished."
    )
    told = [each for each in planned_systems(report) if each.given and each.oracle in report.labels]
    if told:
        section.heading("The method apart from its teacher")
        pairs = {
            "with the true ones − with its own": lambda each: (each.oracle, each.name),
            "with the true ones − host": lambda each: (each.oracle, each.host.host),
            "SCD with the true mask − with the true ones": lambda each: (each.host.oracle, each.oracle),
        }
        rows = [
            {"system": f"{each.label} ({each.given})"}
            | {name: difference(report, *pair(each), metric, notes) for name, pair in pairs.items()}
            for each in told
        ]
        section.table(tables.Table(pandas.DataFrame(rows), notes.lines, (metric,)))


def configuration_of(results: Results, arm: str) -> dict[str, Any]:
    """The configuration of an arm's first run."""
    return merge(results.about["base"], results.about["overrides"].get(arm, {}))


def annotations_of(results: Results, arm: str) -> dict[str, Any]:
    """The annotators of an arm, by what they provide."""
    return configuration_of(results, arm).get("annotations") or {}


def needs_of(results: Results, arm: str) -> frozenset[str]:
    """What method, wrapper and map source of an arm declare to need of the images."""
    config = configuration_of(results, arm)
    wrapper = config.get("wrapper") or {}
    needs: frozenset[str] = frozenset()
    for part in (config["method"], wrapper, wrapper.get("saliency") or {}):
        if "_target_" in part:
            module, _, name = part["_target_"].rpartition(".")
            needs |= getattr(importlib.import_module(module), name).needs
    return needs


def quoted(section: Blocks, report: Report) -> None:
    """Published numbers of each system, with where they stand."""
    rows = []
    for each in planned_systems(report):
        rows += [{"system": each.label, "quoted": quote.text, "from": quote.source} for quote in each.published] or [
            {"system": each.label, "quoted": "no number in the facts", "from": tables.NONE}
        ]
    section.table(tables.Table(pandas.DataFrame(rows)))
    section.text(
        "None of these numbers was measured here. They come from other code, other schedules and a ResNet-50, and "
        "compare with nothing on this page."
    )


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
    "Systems that the reviews name and that are not in the suite yet: " + ", ".join(NOT_YET) + ".",
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
