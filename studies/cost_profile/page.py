"""The page of the cost profile, from its evidence alone: counted rows, measured rows, and studies' records."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pandas

from scd.profiling.parts import ADDED, PARTS
from scd.profiling.steptime import BACKWARD, OPTIMISER, PHASES, STATE, VIEWS
from studies.cost_profile import joined
from studies.cost_profile.counted import SCALES
from studies.suite.analysis import tables
from studies.suite.analysis.tables import Notes, Table
from studies.suite.pages import figures
from studies.suite.pages.report import Page, environment_line
from studies.suite.pages.study_figures import Picture

QUESTION = "What does SCD cost in computation, time and memory, and where does it go?"
TARGETS = {"counted": 0.05, "measured": 0.10}  # SCD's addition to MoCo: of FLOPs at ResNet-50, of time at the cpu tier


def compose(evidence: Mapping[str, Any], out: Path) -> Page:
    """The page; figures are written under ``out/figures``."""
    page = Page("What does SCD cost, and why?")
    page.text(f"> **Question R4-d.** {QUESTION}", evidence["answer"])
    counted_sections(page, evidence)
    measured_sections(page, evidence)
    accuracy(page, out, evidence["page"])
    scaling(page, evidence, out)
    fast(page, evidence)
    how(page, evidence)
    return page


def answer(counted: Mapping[str, Sequence[Mapping]], measured: Sequence[Mapping]) -> str:
    """The first sentence: how much more SCD costs, and why, in numbers of both kinds."""
    rows = {row["arm"]: row for row in counted["resnet50"]}
    scd, moco = rows.get("scd_moco", {}), rows.get("moco", {})
    if "training" not in scd or "training" not in moco:
        return f"**Not counted:** {scd.get('error') or moco.get('error') or 'there is no SCD on MoCo'}."
    share = scd["training"] / moco["training"] - 1
    text = (
        f"**SCD adds {100 * share:.1f} % to the training FLOPs of MoCo at ResNet-50 and 224 px "
        f"({giga(scd['training'])} against {giga(moco['training'])} GFLOP per image)"
    )
    timed = {row["arm"]: row for row in of_kind(measured, "arm")}
    if "scd_moco" in timed:
        low, middle, high = quartiles([ratio - 1 for ratio in timed["scd_moco"]["to_moco"]])
        text += (
            f", and {100 * middle:.1f} % [{100 * low:.1f}, {100 * high:.1f}] to its step time as measured on this "
            f"machine ({timed['scd_moco']['side']} px, batch {timed['scd_moco']['batch_size']}; median and "
            "interquartile range of interleaved rounds)"
        )
    else:
        text += "; its time on this machine is not measured"
    passes = "no image goes through a backbone once more" if scd["full_size"] == moco["full_size"] else (
        f"{scd['full_size'] - moco['full_size']:g} more images of full size go through a backbone")  # fmt: skip
    return (
        f"{text}: {passes}; what is added is an MLP at every position of the feature map, two pooled vectors and their "
        f"projection, {100 * scd[f'part: {ADDED}'] / scd['training']:.1f} % of SCD's own FLOPs.**"
    )


# -------------------------------------------------------------------- counted


def counted_sections(page: Page, evidence: Mapping[str, Any]) -> None:
    """The tables at the papers' scale, one per backbone."""
    page.heading("At the papers' scale: counted")
    page.text(
        "Per source image of a training step; FLOPs count 2 per multiply-add in matrix products, convolutions and "
        "attention (forward, and backward where a gradient is taken); normalisation, activations, augmentation and "
        "optimiser count 0. Passes: images of any size through each backbone; full-size: both, each weighted by its "
        "pixels. Activations: what autograd keeps for the backward pass in float32, an estimate from shapes."
    )
    for key, (title, words) in SCALES.items():
        rows = evidence["counted"][key]
        page.heading(title, 3)
        page.table(cost_table(rows))
        page.details(f"Where the FLOPs go, {title}", share_table(rows), f"Settings: `{' '.join(words)}`.")


def cost_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row per arm; a method that cannot be built has its reason under the table."""
    notes, known, lines = Notes(), {row["arm"]: row for row in rows if "error" not in row}, []
    for row in rows:
        line = {"arm": row["label"]}
        if "error" in row:
            lines.append(line | {"training GFLOP": notes.dash(f"cannot be built: {row['error'].rstrip('.')}")})
            continue
        line |= {"training GFLOP": giga(row["training"]), "of these forward": giga(row["forward"])}
        for name, other in (("MoCo's", "moco"), ("its host's", row["host"])):
            why = f"no count of {other} to compare with"
            line[f"/ {name}"] = times(row["training"] / known[other]["training"]) if other in known else notes.dash(why)
        line |= {
            "passes online + target": f"{row['online']:g} + {row['target']:g}",
            "full-size passes": f"{row['full_size']:.3g}",
            "trained parameters": tables.quantity(row["parameters_trained"]),
            "momentum copy": tables.quantity(row["parameters_momentum"]),
            "inference": tables.quantity(row["parameters_inference"]),
            "activations (MB)": f"{row['activations'] / 1e6:.1f}",
        }
        lines.append(line)
    return Table(pandas.DataFrame(lines).fillna(tables.NONE), notes.lines)


def share_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The share of each part in an arm's training FLOPs."""
    lines = [
        {"arm": row["label"], **{part: percent(row[f"part: {part}"] / row["training"]) for part in PARTS}}
        for row in rows
        if "error" not in row
    ]
    return Table(pandas.DataFrame(lines))


# -------------------------------------------------------------------- measured


def measured_sections(page: Page, evidence: Mapping[str, Any]) -> None:
    """Step time, memory and energy of the tier's own runs on this machine, and where the time goes."""
    page.heading("On this machine: measured")
    rows = of_kind(evidence["measured"], "arm")
    if not rows:
        page.text(f"Not measured: {evidence['not_measured']}.")
        return
    first = rows[0]
    page.text(
        f"Training steps of the `{evidence['tier']}` tier ({first['backbone']['name']}, {first['side']} px, "
        f"batch {first['batch_size']}), {first['machine']['threads']} thread, each round of an arm beside a round of "
        "its host and one of MoCo. Ratios: median and interquartile range over rounds."
    )
    page.table(time_table(rows))
    page.text(
        "Where a step's time goes (ms; the forward pass by part, as in the counted tables). Reading the clock at every "
        "border costs the last column; the table above is measured without it."
    )
    page.table(phase_table(rows))


def time_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Ratios first, then speed, memory and energy."""
    notes, lines = Notes(), []
    for row in rows:
        memory, joules = row["memory"], row["joules"]
        own = row["arm"] == row["host"]
        energy = f"{joules:.2f}" if joules is not None else f"not measured{notes.mark(row['joules_why'])}"
        lines.append({
            "arm": row["label"],
            "time / MoCo's": joined.spread(row["to_moco"]),
            "time / its host's": notes.dash("is its own host") if own else joined.spread(row["to_host"]),
            "step (ms)": f"{1000 * median(row['seconds']):.1f}",
            "images/s": f"{row['images_per_second']:,.0f}",
            "peak memory (MB)": f"{memory / 1e6:,.0f}" if memory is not None else notes.dash(
                "the system does not tell the peak of a process"),
            "energy (J per step)": energy,
        })  # fmt: skip
    return Table(pandas.DataFrame(lines), [*notes.lines, f"Peak memory: {rows[0]['memory_what']}."])


def phase_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Milliseconds by phase, and what watching them costs."""
    lines = []
    for row in rows:
        times_ = {phase: f"{1000 * row['phases'][phase]:.1f}" for phase in PHASES}
        order = (VIEWS, *PARTS, BACKWARD, OPTIMISER, STATE)
        lines.append({"arm": row["label"], **{phase: times_[phase] for phase in order},
                      "watching costs": f"{100 * row['overhead']:+.1f} %".replace("-", tables.MINUS)})  # fmt: skip
    return Table(pandas.DataFrame(lines))


# -------------------------------------------------------------------- accuracy, scaling, speed


def accuracy(page: Page, out: Path, name: str) -> None:
    """What the studies' records say of the accuracy that the cost buys."""
    page.heading("Accuracy against cost")
    pages = joined.pages_with_costs(out)
    if not pages:
        page.text("No study has records yet: `nox -s study-multicrop`, then this page again.")
        return
    page.text("Of every study with records of linear top-1; where it varies more than budget and background "
              "correlation, the runs at its first setting.")  # fmt: skip
    for evidence in pages:
        about = evidence.about
        page.heading(f"[{about['page']}]({about['page']}.md): {about['data']}, {len(about['seeds'])} seeds", 3)
        for words, axis in joined.settings_found(evidence):
            page.text(f"**{words}**" if words else "")
            page.table(joined.joined_table(evidence, axis))
    points = joined.cost_points(pages)
    if points.empty:
        return
    path = f"figures/{name}-accuracy.png"
    figures.cost_points(
        Path(out) / path, points, "training FLOPs (TFLOP, 2 per multiply-add)", tables.heading(joined.METRIC),
        figures.colours(list(dict.fromkeys(points["row"]))),
    )  # fmt: skip
    caption = (
        f"{tables.heading(joined.METRIC)} against the FLOPs that training took, where a study has runs at equal epochs "
        "and at equal FLOPs; one panel per page (its first setting): means with 95 % t intervals, small dots: seeds, "
        "dashed: no training."
    )
    page.figure(Picture(path, caption))


def scaling(page: Page, evidence: Mapping[str, Any], out: Path) -> None:
    """Two figures: what SCD adds to MoCo, counted and measured, along sizes."""
    page.heading("How the addition scales")
    name = evidence["page"]
    rows = [row for row in evidence["curves"] if "error" not in row]
    if rows:
        shares = [100 * row["added"] for row in rows]
        points = pandas.DataFrame(
            {"panel": [row["curve"] for row in rows], "style": "counted", "x": [row["x"] for row in rows],
             "value": shares, "low": shares, "high": shares})  # fmt: skip
        path = f"figures/{name}-counted.png"
        figures.curves(Path(out) / path, points, "added by SCD (% of MoCo's FLOPs)")
        page.figure(Picture(path, "Counted: FLOPs that SCD adds to a training step of MoCo, in percent of MoCo's own. "
                            "An axis from 0; lower is cheaper."))  # fmt: skip
        page.details("The counted points", curve_table(points, "% of MoCo's FLOPs"))
    points = measured_points(evidence["measured"])
    if points.empty:
        return
    path = f"figures/{name}-measured.png"
    figures.curves(Path(out) / path, points, "added by SCD (% of MoCo's time)")
    page.figure(Picture(path, "Measured here: time that SCD adds to a step of MoCo, in percent; medians and "
                        "interquartile ranges of interleaved rounds."))  # fmt: skip
    page.details("The measured points", curve_table(points, "% of MoCo's time"))


def measured_points(measured: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """The measured curves as the long table that the figure takes."""
    rows = []
    for curve in of_kind(measured, "curve"):
        for point in curve["points"]:
            low, middle, high = quartiles([100 * (ratio - 1) for ratio in point["ratios"]])
            row = {"panel": curve["curve"], "style": "measured", "x": point["x"], "value": middle}
            rows.append(row | {"low": low, "high": high})
    return pandas.DataFrame(rows)


def curve_table(points: pandas.DataFrame, unit: str) -> Table:
    """The numbers of a figure."""
    rows = [
        {"along": row["panel"], "at": f"{row['x']:g}",
         f"added ({unit})": f"{row['value']:.2f}" + (
             "" if row["low"] == row["high"] else f" [{row['low']:.2f}, {row['high']:.2f}]")}
        for row in points.to_dict("records")
    ]  # fmt: skip
    return Table(pandas.DataFrame(rows))


def fast(page: Page, evidence: Mapping[str, Any]) -> None:
    """What the suite does for speed: each undone alone, and what is left between it and bare compute."""
    rows = of_kind(evidence["measured"], "variant")
    if not rows:
        return
    page.heading("What makes it fast")
    page.text(
        "MoCo's step with one thing changed, as a multiple of the suite's step beside it: above 1 the change costs "
        "time, below 1 it would save some."
    )
    notes, lines = Notes(), []
    for row in rows:
        line = {"changed": row["variant"]}
        if "error" in row:
            lines.append(
                line | {"time / the suite's": notes.dash(f"tried, does not run here: {row['error'].rstrip('.')}")}
            )
            continue
        line["time / the suite's"] = joined.spread(row["ratios"])
        if "compile_seconds" in row:
            after = f"after {row['pays_after']:,.0f} steps" if row["pays_after"] else "never"
            line["time / the suite's"] += notes.mark(
                f"compiling took {row['compile_seconds']:.0f} s, which is paid back {after}; not used by default"
            )
        lines.append(line)  # fmt: skip
    page.table(Table(pandas.DataFrame(lines), notes.lines))


# -------------------------------------------------------------------- how


def how(page: Page, evidence: Mapping[str, Any]) -> None:
    """Method and provenance."""
    name = evidence["page"]
    page.heading("How it was measured")
    page.items({
        "Counter": "shapes on the device \"meta\", nothing is computed; torch's FLOP counter with this suite's formula "
        "for the backward pass of grouped convolutions; checked against closed forms of convolution, linear layer and "
        "attention in `tests/profiling`",
        "Parts": "a module belongs to one part, its backward pass to the part of its forward pass "
        "(`scd/profiling/parts.py`); LEWEL's dense use of the projector counts as heads",
        "Time": "blocks of 4 steps as the training loop takes them (views of 4 steps at once, forward, backward, "
        "optimiser, momentum update), no log and no checkpoint; `tests/benchmarks/profile_cost.py` under "
        "pytest-benchmark",
        "Accuracy": "records of the studies named above, with the code that they were run with",
    })  # fmt: skip
    page.text(
        f"Two commits compare by their JSON files: `python -m pytest_benchmark compare OLD.json NEW.json "
        f"--columns=median,iqr`; this page's is [benchmarks/{name}.json](benchmarks/{name}.json)."
    )
    page.heading("Provenance")
    page.text(
        f"Every number comes from [records/{name}.json](records/{name}.json) and from the records of the studies."
    )
    roots = (
        f"{', '.join(f'`{root}`' for root in evidence['roots'])} and all that they import from `scd` and `baselines`"
    )
    lines = {"Code fingerprint": f"`{evidence['fingerprint']}`, of {roots}"}
    if evidence["command"]:
        lines["Command"] = f"`{evidence['command']}`"
    lines["Machine"] = environment_line(evidence["environments"][0])
    page.items(lines)


# -------------------------------------------------------------------- numbers


def of_kind(measured: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """The measured rows of a kind: arm, variant, curve."""
    return [row for row in measured if row.get("kind") == kind]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    series = pandas.Series(values)
    return tuple(float(series.quantile(at)) for at in (0.25, 0.5, 0.75))


def giga(value: float) -> str:
    """FLOPs as GFLOP with three digits."""
    return f"{value / 1e9:.3g}"


def times(ratio: float) -> str:
    """A ratio: 1.015×."""
    return f"{ratio:.3f}×"


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %" if share else "0"
