"""Tables of the study ``related``: mechanisms, what systems are given, directions of known effects, quotations."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas

from studies.references import RANDOM
from studies.suite.analysis import tables
from studies.suite.analysis.comparison import compare
from studies.suite.analysis.results import Results, only
from studies.suite.analysis.verdict import BETTER, EQUIVALENT, NOT_RESOLVED, WORSE, outcome_of
from studies.suite.pages.markdown import Blocks
from studies.suite.pages.publish import Report
from studies.suite.planning.study import merge
from studies.systems.system import HOSTS, Effect, System

SESOI = 0.01  # one point
EQUAL_EPOCHS = {"budget": "epochs"}
SCORED = 3000  # training images at most whose boxes, segments and masks are compared with the true ones
SCORES = {  # of scd/evaluation/proposals.py: in words
    "best_overlap": "IoU of a true box with the best of them",
    "mean_overlap": "IoU of each of them with a true box",
    "cover": "share of the object in segments that lie mostly on it",
    "mask_overlap": "IoU of the mask with the true one",
}

REPRODUCED = {BETTER: "yes", WORSE: "no, the reverse", EQUIVALENT: "no", NOT_RESOLVED: "not resolved"}


def gains(
    systems: Sequence[System],
    results: Results,
    labels: Mapping[str, str],
    metric: str,
    found: Mapping[str, Mapping[str, Any]],
) -> tables.Table:
    """One row per trained arm: its difference from its host, and SCD's difference from it, in each condition."""
    notes, rows = tables.Notes(), []
    hosts = {arm: host for host in HOSTS for arm in (host.scd, host.oracle)}
    hosts |= {arm.name: each.host for each in systems for arm in each.arms}
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


def mechanisms(systems: Sequence[System], section: Blocks, report: Report, metric: str) -> None:
    """What each system compares, shares with SCD and does otherwise, and what the number says."""
    notes, rows = tables.Notes(), []
    for each in systems:
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


def outside(systems: Sequence[System], section: Blocks, report: Report, metric: str) -> None:
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
        if named_inputs(configuration_of(results, arm)):
            row["trained before it"] = f"{label_of_host(systems, arm)}, of the same seed"
        rows.append(row)
    section.table(tables.Table(pandas.DataFrame(rows).fillna(tables.NONE)))
    section.text(
        f"Measured on the first {SCORED:,} training images at most, against their masks and the boxes around the "
        "masks' connected parts; IoUs are means, and those of each box are with the most similar true box. Boxes and "
        "segments do not say which of them is an object; of masks, the first column is the share of images that have "
        "one (`scd/evaluation/proposals.py`)."
        if scores
        else "How well boxes, segments and masks fit the objects was not measured: the images have no masks, no run "
        "has such annotations, or runs are missing."
    )
    told = [each for each in systems if each.given and each.oracle in report.labels]
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


def named_inputs(config: Any) -> set[str]:
    """The names of the earlier runs that a configuration asks for."""
    if isinstance(config, Mapping):
        own = {config["_input_"]} if "_input_" in config else set()
        return own.union(*map(named_inputs, config.values()))
    return set().union(*map(named_inputs, config)) if isinstance(config, list | tuple) else set()


def label_of_host(systems: Sequence[System], arm: str) -> str:
    """What the system of an arm is put on."""
    return only(each.host.label for each in systems if arm in [own.name for own in each.arms])


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


def quoted(systems: Sequence[System], section: Blocks) -> None:
    """Published numbers of each system, with where they stand."""
    rows = []
    for each in systems:
        rows += [{"system": each.label, "quoted": quote.text, "from": quote.source} for quote in each.published] or [
            {"system": each.label, "quoted": "no number in the facts", "from": tables.NONE}
        ]
    section.table(tables.Table(pandas.DataFrame(rows)))
    section.text(
        "None of these numbers was measured here. They come from other code, other schedules and a ResNet-50, and "
        "compare with nothing on this page."
    )


def planned_effects(systems: Sequence[System], report: Report) -> list[Effect]:
    """The known effects whose two arms are on the page."""
    effects = [effect for each in systems for effect in each.effects]
    return [effect for effect in effects if {effect.better, effect.worse} <= set(report.labels)]


def directions(effects: Sequence[Effect], section: Blocks, report: Report, metric: str) -> None:
    """Known effects of the systems' own parts: as published, and as found here."""
    notes, rows = tables.Notes(), []
    for effect in effects:
        result = compare(report.results, effect.better, effect.worse, metric, **EQUAL_EPOCHS)
        outcome = outcome_of(result, SESOI) if result.n else ""
        rows.append(
            {
                "better, as published": report.labels[effect.better],
                "than": report.labels[effect.worse],
                "published": effect.text,
                "from": effect.source,
                "difference here": tables.difference_cell(metric, result, report.results, notes),
                "it is": outcome or tables.NONE,
                "reproduced": REPRODUCED.get(outcome, tables.NONE),
            }
        )
    section.table(tables.Table(pandas.DataFrame(rows), notes.lines, (metric,)))
    section.text(
        f"Differences here are in {report.results.metric(metric).label}, in points, at equal epochs, with 95 % t "
        "intervals, not corrected. A difference that is not resolved is neither a reproduction nor a contradiction."
    )
