"""The page of a checkpoint: its numbers beside random and supervised weights of the same backbone."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from scd.atomic import write_text
from scd.evaluation.metric import Metric
from scd.evaluation.outcomes import SEED
from studies.suite.analysis import notation
from studies.suite.analysis.image_bootstrap import SAMPLES, Interval, difference, interval
from studies.suite.analysis.results import FOLDER as RECORDS
from studies.suite.analysis.tables import Notes, Table
from studies.suite.execution.scoring import CHECKPOINT, LABELS, RANDOM, SUPERVISED, Scorable, Scores, Scoring
from studies.suite.pages.markdown import Page, code_span, in_line
from studies.suite.pages.sections import words
from studies.suite.planning.protocols import build_protocol
from studies.suite.planning.scoring import FROZEN, NEEDS, TRAINED

FIRST = ("linear_top1", "knn_top1", "mixed_rand_top1", "worst_group_top1")  # the first one that is there is the answer
LISTED = 12  # names of a list in the details
NO_IMAGES = "this number is no mean over test images, so the bootstrap over images gives it no interval"
COLOURS = {"imagenet": "ImageNet", "cifar10": "CIFAR-10"}  # of scd.nn.normalisation.NORMALISATIONS
UNMEASURED = "not measured: the evaluation failed or has not run yet"


def write_page(
    scoring: Scoring, scores: Mapping[str, Scores], out: Path, failed: Mapping[str, str], notes: Sequence[str]
) -> Path:
    """Write the page and its records; the path of the page.

    Args:
        scores: of the networks, by name.
        failed: network and protocol -> reason.
        notes: what a reader must know of the images.
    """
    found = definitions(scoring)
    names = [name for name in found if name in scores[CHECKPOINT].numbers]
    measured = [name for name in names if name in scores[CHECKPOINT].outcomes]
    title = scoring.request.words.get("name") or scoring.request.checkpoint.name
    page = Page(f"Checkpoint {in_line(title)} on {in_line(scoring.request.settings.data)}")
    if not scoring.request.settings.meaningful:
        page.text(
            f"> **This page only tests the wiring.** It comes from the `{scoring.request.settings.tier}` tier: tiny "
            "images, few of them. Its numbers mean nothing."
        )
    page.text(
        f"> **Question.** What are the features of {code_span(scoring.request.checkpoint.name)} worth, beside random "
        f"and supervised weights of the same backbone ({in_line(scoring.request.backbone_word)})?",
        answer(scoring, scores, found),
    )
    page.table(first_table(scoring, scores, found, measured), caption(scoring))
    page.text(
        unsaid(scoring), *scoring.remarks, *(f"Failed: {in_line(key)}: {in_line(failed[key])}." for key in failed)
    )
    _read(page.details("What was read from the files"), scoring)
    if len(scoring.request.seeds) > 1:
        _seeds(page.details("Probe seeds"), scoring, scores, found, names)
    others = [name for name in names if name not in measured]
    if others:
        details = page.details("Further numbers")
        details.table(_plain_table(scoring, scores, found, others), "They have no interval over test images.")
    _measured(page.details("How it was measured"), scoring, found, names, notes)
    _provenance(page.details("Provenance"), scoring, scores)
    folder = out / RECORDS
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{scoring.request.page}.csv", records_text(scoring, scores, found, names))
    return page.write(out / f"{scoring.request.page}.md")


def definitions(scoring: Scoring) -> dict[str, Metric]:
    """Every number that the protocols can return, in their order, without those of single seeds."""
    found: dict[str, Metric] = {}
    for protocol in scoring.protocols:
        for name, metric in build_protocol({**protocol, "data": None}).metrics.items():
            if SEED not in name:
                found.setdefault(name, metric)
    return found


# ---------------------------------------------------------------- the first screen


def answer(scoring: Scoring, scores: Mapping[str, Scores], found: Mapping[str, Metric]) -> str:
    """One paragraph: the most telling number, and its differences."""
    own = scores[CHECKPOINT]
    name = next((name for name in (*FIRST, *own.outcomes) if name in own.outcomes), None)
    if name is None:
        return "No number with an interval has been measured yet." if not own.numbers else (
            "No protocol with an interval over test images applies to these images; the further numbers are below."
        )  # fmt: skip
    metric, value = found[name], interval(own.outcomes[name])
    text = f"**{metric.label[:1].upper()}{metric.label[1:]} is {_in_words(metric, value)}**"
    parts = []
    for other in (RANDOM, SUPERVISED):
        if other in scores and name in scores[other].outcomes:
            gap = difference(own.outcomes[name], scores[other].outcomes[name])
            where = "above" if gap.value > 0 else "below" if gap.value < 0 else "from"
            flipped = gap if gap.value >= 0 else Interval(-gap.value, -gap.high, -gap.low)
            amount = _in_words(metric, flipped, is_difference=True)
            excluded = "" if gap.low > 0 or gap.high < 0 else ", an interval that holds 0"
            parts.append(f"{amount} {where} {LABELS[other]}{excluded}")
    images = len(next(iter(own.outcomes[name].values())).values)
    ending = f" ({images:,} test images; 95 % intervals over test images, this network as it is)."
    return text + (f"; {'; '.join(parts)}" if parts else "") + ending


def _in_words(metric: Metric, value: Interval, is_difference: bool = False) -> str:
    unit = notation.unit_of_difference(metric) if is_difference else "%" if notation.is_share(metric) else ""

    def shown(number: float) -> str:
        return _number(metric, number)

    return " ".join(filter(None, [shown(value.value), unit, f"[{shown(value.low)}, {shown(value.high)}]"]))


def _number(metric: Metric, value: float, signed: bool = False) -> str:
    """One decimal for shares, three digits for other fractions; a sign where asked."""
    fraction = not notation.is_share(metric) and value != round(value) and abs(value) < 1
    text = f"{value:.3g}".replace("-", notation.MINUS) if fraction else notation.number(metric, value)
    return f"+{text}" if signed and value > 0 and not text.startswith("+") else text


def first_table(
    scoring: Scoring, scores: Mapping[str, Scores], found: Mapping[str, Metric], names: Sequence[str]
) -> Table:
    """One row per number: each network's with its interval, and the paired differences from the checkpoint."""
    notes, rows = Notes(), []
    others = [network for network in scoring.networks if network.name != CHECKPOINT]
    for name in names:
        metric, row = found[name], {"number": notation.heading(found[name])}
        for network in scoring.networks:
            row[network.label] = _cell(scores[network.name], name, metric, notes)
        for other in others:
            row[f"checkpoint − {other.label}"] = _gap_cell(scores, other, name, metric, notes)
        rows.append(row)
    columns = ["number", *(network.label for network in scoring.networks)]
    frame = pandas.DataFrame(rows, columns=None if rows else columns)
    return Table(frame, notes.lines, tuple(names))


def _cell(scores: Scores, name: str, metric: Metric, notes: Notes) -> str:
    if name not in scores.outcomes:
        return notes.dash(UNMEASURED)
    value = interval(scores.outcomes[name])
    low, high = (_number(metric, each) for each in (value.low, value.high))
    return f"{_number(metric, value.value)} [{low}, {high}]"


def _gap_cell(scores: Mapping[str, Scores], other: Scorable, name: str, metric: Metric, notes: Notes) -> str:
    if name not in scores[other.name].outcomes:
        return notes.dash(UNMEASURED)
    gap = difference(scores[CHECKPOINT].outcomes[name], scores[other.name].outcomes[name])
    low, high = (_number(metric, each, signed=True) for each in (gap.low, gap.high))
    return f"{_number(metric, gap.value, signed=True)} [{low}, {high}]"


def caption(scoring: Scoring) -> str:
    """What the table's numbers and intervals are."""
    seeds = len(scoring.request.seeds)
    return (
        f"Means over {seeds} probe seed{'s' if seeds > 1 else ''}, with 95 % percentile intervals of the bootstrap "
        f"over test images ({SAMPLES:,} samples, the same for all networks, so that differences are paired by image); "
        "not corrected for the number of rows. Shares in percent, their differences in points. The lowest of several "
        "groups is biased downwards where groups are small, in all columns alike."
    )


def unsaid(scoring: Scoring) -> str:
    """What one checkpoint cannot show."""
    return (
        "**What cannot be said.** This is one network from one training. The intervals cover the choice of the test "
        "images, and no other training of the same method: another seed of it may differ by more than they show. They "
        "take test images as independent, and are too short where several show one scene, person or video. There are "
        "no paired seeds, so that a difference between two checkpoints is one of these two networks and not of their "
        "methods. Whether its pretraining has seen these images, or their labels, a file does not say. A method is "
        "compared with another by a study, `nox -l` lists them."
    )


# ---------------------------------------------------------------- details


def _read(details: Any, scoring: Scoring) -> None:
    rows = []
    for network in scoring.networks:
        fitted = network.fitted
        if fitted is None:
            rows.append({"network": network.label, "from": network.source, "format": "–", "branch": "–",
                         "removed prefix": "–", "names": "–", "used": "0", "not used": "0"})  # fmt: skip
            continue
        place = f"{fitted.place}: " if fitted.place else ""
        rows.append({
            "network": network.label,
            "from": network.source,
            "format": fitted.format,
            "branch": fitted.branch or "the only one",
            "removed prefix": code_span(f"{place}{fitted.prefix}") if f"{place}{fitted.prefix}" else "none",
            "names": fitted.naming,
            "used": str(len(fitted.used)),
            "not used": str(len(fitted.unused)),
        })  # fmt: skip
    details.table(
        Table(pandas.DataFrame(rows)),
        "Every tensor of the backbone comes from the file. The number of attention heads, the stride and the padding "
        "of layers, and the normalisation of colours that a network was trained with are not in a file of weights: "
        "`backbone.num_heads=`, `backbone.normalisation=` and the like set them.",
    )
    for network in scoring.networks:
        fitted = network.fitted
        if fitted is None:
            continue
        details.heading(network.label[:1].upper() + network.label[1:], level=4)
        items = {"SHA-256": f"`{fitted.sha256}`"}
        items |= {"Format": f"{fitted.format}, as in {fitted.source}"} if fitted.source else {}
        items |= {f"Note {number}": note for number, note in enumerate(fitted.notes, start=1)}
        items |= {"Used": _names(fitted.used)}
        items |= {"Not used": _names(fitted.unused)} if fitted.unused else {}
        details.items(items)


def _names(names: Sequence[str]) -> str:
    """Groups of names by their first parts, with how many there are."""
    groups: dict[str, list[str]] = {}
    for name in names:
        place, _, rest = name.rpartition(": ")
        parts = rest.split(".")
        start = ".".join(parts[: max(1, min(3, len(parts) - 1))])
        groups.setdefault(f"{place}: {start}" if place else start, []).append(name)
    shown = [
        f"{code_span(start)} ({len(each)})" if len(each) > 1 else code_span(each[0]) for start, each in groups.items()
    ]
    more = len(shown) - LISTED
    return ", ".join(shown[:LISTED]) + (f" and {more} more groups" if more > 0 else "")


def _seeds(
    details: Any, scoring: Scoring, scores: Mapping[str, Scores], found: Mapping[str, Metric], names: Sequence[str]
) -> None:
    rows = []
    for name in names:
        for network in scoring.networks:
            numbers = scores[network.name].numbers
            of_seed = {
                seed: numbers[key] for seed in scoring.request.seeds if (key := f"{name}{SEED}{seed}") in numbers
            }
            values = list(of_seed.values())
            if len(values) > 1 and max(values) > min(values):
                row = {"number": notation.heading(found[name]), "network": network.label}
                row |= {f"seed {seed}": _number(found[name], value) for seed, value in of_seed.items()}
                summary = notation.mean_cell(found[name], values, len(values))
                rows.append({**row, "mean ± half of the 95 % t interval": summary})
    if not rows:
        details.text("No number depends on the seed of its probe: nothing is drawn, or the draw changes nothing here.")
        return
    details.table(
        Table(pandas.DataFrame(rows)),
        "Numbers that depend on what a probe draws (the held-out images on which its penalty is chosen). This spread "
        "is that of the measurement on these images, and not of the network; numbers that are the same for every seed "
        "are left out.",
    )


def _plain_table(
    scoring: Scoring, scores: Mapping[str, Scores], found: Mapping[str, Metric], names: Sequence[str]
) -> Table:
    notes, rows = Notes(), []
    for name in names:
        protocol = scores[CHECKPOINT].protocol_of[name]
        row = {"number": notation.heading(found[name]), "protocol": protocol, "unit": found[name].unit}
        for network in scoring.networks:
            value = scores[network.name].numbers.get(name)
            row[network.label] = notes.dash(UNMEASURED) if value is None else _number(found[name], value)
        rows.append(row)
    return Table(pandas.DataFrame(rows), notes.lines, tuple(names))


def _measured(
    details: Any, scoring: Scoring, found: Mapping[str, Metric], names: Sequence[str], notes: Sequence[str]
) -> None:
    request = scoring.request
    colours = request.backbone.get("normalisation", "imagenet")
    images = ", ".join(f"{count:,} {part}" for part, count in scoring.images.items() if count)
    items = {
        "Backbone": f"{code_span(request.backbone_word)} ({in_line(words(request.backbone))})",
        "Images": f"{in_line(request.settings.data)}: {images}; squares of {scoring.config['data']['size']} px, seen "
        f"at {request.size} px, normalised by the mean and standard deviation of {COLOURS[colours]}",
        "Protocols": ", ".join(code_span(protocol["name"]) for protocol in scoring.protocols),
    }
    items |= {"About the images": " ".join(in_line(note) for note in notes)} if notes else {}
    lacking = [f"`{name}` (needs {NEEDS.get(name, 'other data')})" for name in scoring.left_out]
    items |= {"Left out, because the data lack what it needs": "; ".join(lacking)} if lacking else {}
    chosen = {protocol["name"] for protocol in request.protocols}
    apart = [name for name in (*FROZEN, *TRAINED) if name not in chosen]
    if apart:
        items["Not asked for"] = (
            f"{', '.join(code_span(name) for name in apart)}; `protocols=all` adds those that the data allow "
            "(fine-tuning and detection train the network and take long)"
        )
    details.items(items)
    details.text(
        "Where a definition speaks of the images of pretraining, it means the split `train` of the images above: what "
        "the checkpoint was trained on is not known here."
    )
    details.items([f"**{found[name].label}:** {found[name].definition}" for name in names])


def _provenance(details: Any, scoring: Scoring, scores: Mapping[str, Scores]) -> None:
    request = scoring.request
    data = scoring.config["data"]
    items = {
        "Command": code_span(request.command),
        "Records": f"[{RECORDS}/{request.page}.csv]({RECORDS}/{request.page}.csv)",
        "Data": "; ".join(f"{split} `{value[:16]}`" for split, value in (data.get("fingerprints") or {}).items())
        or "generated, see the options below",
    }
    details.items(items)
    rows = [
        {"network": network.label, "protocol": protocol, "evaluation": f"`{run}`"}
        for network in scoring.networks
        for protocol, run in scores[network.name].runs.items()
    ]
    if rows:
        details.table(Table(pandas.DataFrame(rows)), "Evaluations in the store, under `checkpoints/`.")
    environments = {
        str(each.get("numerics", {}).get("class")): each for score in scores.values() for each in score.environments
    }
    machines = [
        f"{each.get('cpu', 'unknown')}, {each.get('threads')} thread(s), numerics class `{name}`, "
        + ", ".join(f"{library} {version}" for library, version in (each.get("libraries") or {}).items() if version)
        for name, each in environments.items()
    ]
    if machines:
        details.items({"Computed on": "; ".join(machines)})
    details.text("Options of the data:")
    details.code("\n".join(f"{key}: {value}" for key, value in data["options"].items()))


# ---------------------------------------------------------------- records


def records_text(
    scoring: Scoring, scores: Mapping[str, Scores], found: Mapping[str, Metric], names: Sequence[str]
) -> str:
    """One row per network and number, as CSV."""
    rows = []
    own = scores[CHECKPOINT]
    for network in scoring.networks:
        each = scores[network.name]
        for name in (name for name in names if name in each.numbers):
            row: dict[str, Any] = {
                "network": network.name,
                "weights": network.fitted.sha256 if network.fitted else "random",
                "protocol": each.protocol_of[name],
                "evaluation": each.runs[each.protocol_of[name]],
                "metric": name,
                "unit": found[name].unit,
                "value": repr(each.numbers[name]),
            }
            if name in each.outcomes:
                value = interval(each.outcomes[name])
                row |= {"low": repr(value.low), "high": repr(value.high)}
                if network.name != CHECKPOINT and name in own.outcomes:
                    gap = difference(own.outcomes[name], each.outcomes[name])
                    row |= {
                        "checkpoint_minus": repr(gap.value),
                        "minus_low": repr(gap.low),
                        "minus_high": repr(gap.high),
                    }
            for seed in scoring.request.seeds:
                if f"{name}{SEED}{seed}" in each.numbers:
                    row[f"seed_{seed}"] = repr(each.numbers[f"{name}{SEED}{seed}"])
            rows.append(row)
    columns = ["network", "weights", "protocol", "evaluation", "metric", "unit", "value", "low", "high"]
    columns += ["checkpoint_minus", "minus_low", "minus_high", *(f"seed_{seed}" for seed in scoring.request.seeds)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
