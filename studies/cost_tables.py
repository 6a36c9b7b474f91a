"""The page of the cost profile: its answer, tables and figures, from the records of its measurements."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas

from scd.evaluation.metric import Metric
from studies import accuracy_vs_cost
from studies.suite.analysis import notation
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import select
from studies.suite.analysis.tables import NONE, Notes, Table
from studies.suite.pages import figures
from studies.suite.pages.markdown import Blocks, Picture
from studies.suite.pages.publish import Report

RESNET50, VIT = "ResNet-50, 224 px", "ViT-S/16, 224 px"
PART, PHASE = "flops: ", "phase: "
Row = dict[str, Any]
METRICS = {
    "training_flops": Metric(
        "training FLOPs", "FLOP per image", "lower",
        "operations of forward and backward pass per source image with all its views, 2 per multiply-add of matrix "
        "products, convolutions and attention; normalisation, activations, augmentation and optimiser count 0",
    ),
    "passes_online": Metric(
        "passes, online", "images", "lower",
        "forward operations in the online backbone per source image, in passes of one image of full size",
    ),
    "passes_target": Metric("passes, target", "images", "lower", "the same in the momentum backbone"),
    "activation_bytes": Metric(
        "activations", "bytes per image", "lower",
        "what autograd keeps for the backward pass in float32, an estimate from shapes",
    ),
    "parameters_trained": Metric("parameters, trained", "", "lower", "scalar parameters that receive gradients"),
    "parameters_momentum": Metric("parameters without gradient", "", "lower", "momentum copies and fixed tables"),
    "parameters_backbone": Metric("parameters, backbone", "", "lower", "what is evaluated and exported"),
    "step_seconds": Metric("step", "s", "lower", "seconds of a training step, median over rounds"),
    "time_to_moco": Metric(
        "time / MoCo's", "ratio", "lower", "ratio of the blocks of one round; median and quartiles over rounds"
    ),
    "time_to_host": Metric("time / its host's", "ratio", "lower", "the same for the arm's host"),
    "time_to_usual": Metric("time / the usual step's", "ratio", "lower", "the same for the step without the change"),
    "images_per_second": Metric("images/s", "", "higher", "source images per second"),
    "peak_bytes": Metric(
        "peak memory", "bytes", "lower",
        "CPU: resident set at its peak, in a process of its own that returns freed tensors at once, above that before "
        "the method was built; CUDA: tensors at the peak",
    ),
    "step_joules": Metric("energy", "J per step", "lower", "energy of the GPU during a step"),
}  # fmt: skip


def write(report: Report, hosts: Mapping[str, str]) -> None:
    """Fill a page.

    Args:
        hosts: arm -> its host, itself for a method alone.
    """
    results, labels = report.results, report.labels
    text = answer(results)
    report.say(text, summary=text.replace("**", ""))
    report.outcome = "measured" if rows_of(results, "timed") else "counted"
    added = {arm: label for arm, label in labels.items() if hosts[arm] != arm}
    caption = (
        "What is added to a method, as a multiple of the method's own cost. FLOPs are counted at the papers' scale; "
        "time and memory are measured on this machine, the time with quartiles over interleaved rounds."
    )
    report.show(added_table(results, added, report.names, hosts), caption, added_figure(report, added, hosts))
    for scale in (RESNET50, VIT):
        rows = rows_of(results, "counted", setting=scale)
        if not rows and not failures(results, "counted", setting=scale):
            continue
        blocks = report.section(f"Counted at the papers' scale: {scale}")
        blocks.text("Per source image of a training step; all methods with the views of their own papers.")
        blocks.table(counted_table(results, scale, labels, hosts))
        blocks.text("Where the FLOPs go, in percent of the training FLOPs:")
        blocks.table(parts_table(rows, labels))
    measured(report.section("Measured on this machine"), results, labels, hosts)
    accuracy_vs_cost.section(report.section("Accuracy against cost"), report.out, results.page)
    scaling(report.section("How the addition scales"), report)
    speed(report.section("What makes it fast"), results)


def notes(results: Results) -> dict[str, str]:
    """How the numbers were measured."""
    return {
        "Counter": "shapes on the device \"meta\", nothing is computed; torch's FLOP counter with this suite's formula "
        "for the backward pass of grouped convolutions, checked against closed forms in `tests/profiling`",
        "Parts": "a module belongs to one part, its backward pass to the part of its forward pass "
        "(`scd/profiling/parts.py`); LEWEL's use of the projector at every position counts as heads",
        "Time": "blocks of 4 steps as the training loop takes them (views of 4 steps at once, forward, backward, "
        "optimiser, momentum update), without log and checkpoints, in float32, on example images; nothing else of the "
        "study runs meanwhile",
        "Batch size": "the tier's, for all arms",
    }  # fmt: skip


# -------------------------------------------------------------------- records


def rows_of(results: Results, kind: str, **labels: Any) -> list[Row]:
    """The measurements of a kind: arm, setting, x and numbers, as means over seeds."""
    if "kind" not in results.runs:
        return []
    found, chosen = [], select(results.finished.fillna({"setting": ""}), kind=kind, **labels)
    for (arm, setting, x), part in chosen.groupby(["arm", "setting", "x"], sort=False, dropna=False):
        numbers = part.drop(columns=["seed", "x"]).mean(numeric_only=True).dropna().to_dict()
        reason = next(iter(part["unavailable"].dropna()), None) if "unavailable" in part else None
        found.append({"arm": arm, "setting": setting, "x": x, **numbers, **({"unavailable": reason} if reason else {})})
    return found


def by_arm(results: Results, kind: str, **labels: Any) -> dict[str, Row]:
    """The measurements of a kind by arm."""
    return {row["arm"]: row for row in rows_of(results, kind, **labels)}


def failures(results: Results, kind: str, **labels: Any) -> dict[str, str]:
    """Arm -> why a measurement failed."""
    chosen = select(results.runs[results.runs["reason"] != ""].fillna({"setting": ""}), kind=kind, **labels)
    return dict(zip(chosen["arm"], chosen["reason"], strict=True))


def time_to(row: Row, arm: str, host: str, end: str = "") -> float | None:
    """An arm's time as a multiple of its host's; ``end`` is "", "_low" or "_high"."""
    if arm == host:
        return None
    return row.get(f"time_to_{'moco' if host == 'moco' else 'host'}{end}")


# -------------------------------------------------------------------- first screen


def answer(results: Results) -> str:
    """How much more SCD costs than MoCo, and why, in numbers of both kinds."""
    counts = by_arm(results, "counted", setting=RESNET50)
    if not {"moco", "scd_moco"} <= set(counts):
        reasons = failures(results, "counted", setting=RESNET50)
        return f"**Not counted yet.** {'; '.join(dict.fromkeys(reasons.values()))}".strip()
    moco, scd = counts["moco"], counts["scd_moco"]
    text = (
        f"**SCD adds {percent(scd['training_flops'] / moco['training_flops'] - 1)} to the training FLOPs of MoCo at "
        f"ResNet-50 and 224 px** ({giga(scd['training_flops'])} against {giga(moco['training_flops'])} GFLOP per image)"
    )
    timed = by_arm(results, "timed").get("scd_moco")
    if timed:
        low, middle, high = (100 * (timed[f"time_to_moco{end}"] - 1) for end in ("_low", "", "_high"))
        text += (
            f", **and {decimal(middle)} % [{decimal(low)}, {decimal(high)}] to its step time on this machine** "
            f"({timed['setting']}; median and quartiles of interleaved rounds)."
        )
    else:
        text += ". Its step time on this machine is not measured yet."
    more = [scd[f"passes_{branch}"] - moco[f"passes_{branch}"] for branch in ("online", "target")]
    added = [name for name in parts_of([scd]) if not moco.get(name)]
    share = sum(scd[name] for name in added) / scd["training_flops"]
    passes = "No image passes through a backbone once more" if not any(more) else (
        f"{sum(more):.3g} more images of full size pass through a backbone")  # fmt: skip
    what = ", ".join(name.removeprefix(PART) for name in added)
    return f"{text} {passes}; what is added ({what}) is {percent(share)} of SCD's own FLOPs."


def added_table(
    results: Results, added: Mapping[str, str], names: Mapping[str, str], hosts: Mapping[str, str]
) -> Table:
    """One row per addition to a method: FLOPs, time and memory relative to the method alone."""
    marks, lines = Notes(), []
    counts = {scale: by_arm(results, "counted", setting=scale) for scale in (RESNET50, VIT)}
    timed, memory = by_arm(results, "timed"), by_arm(results, "memory")
    for arm, label in added.items():
        host, line = hosts[arm], {"arm": label, "host": names[hosts[arm]]}
        for scale, found in counts.items():
            line[f"FLOPs, {scale}"] = relative(found, arm, host, "training_flops", marks)
        measured_here = arm in timed and time_to(timed[arm], arm, host) is not None
        line["time, here"] = spread(timed[arm], arm, host) if measured_here else marks.dash("not measured")
        line["peak memory, here"] = relative(memory, arm, host, "peak_bytes", marks)
        lines.append(line)
    return Table(pandas.DataFrame(lines), marks.lines, ("training_flops", "peak_bytes"))


def relative(found: Mapping[str, Row], arm: str, host: str, name: str, marks: Notes) -> str:
    """A number as a multiple of the host's, or why there is none."""
    if name not in found.get(arm, {}) or name not in found.get(host, {}):
        return marks.dash("not counted" if name == "training_flops" else "not measured")
    return times(found[arm][name] / found[host][name])


def added_figure(report: Report, added: Mapping[str, str], hosts: Mapping[str, str]) -> Picture | None:
    """Percent that is added to each method: counted at both scales, and measured."""
    lines, results = [], report.results
    for scale in (RESNET50, VIT):
        found = by_arm(results, "counted", setting=scale)
        for arm, label in added.items():
            if arm in found and hosts[arm] in found:
                share = 100 * (found[arm]["training_flops"] / found[hosts[arm]]["training_flops"] - 1)
                lines.append({"row": label, "style": f"FLOPs, {scale}", "mean": share, "low": None, "high": None})
    for arm, row in by_arm(results, "timed").items():
        if arm in added and time_to(row, arm, hosts[arm]) is not None:
            ends = {"mean": "", "low": "_low", "high": "_high"}
            shares = {name: 100 * (time_to(row, arm, hosts[arm], end) - 1) for name, end in ends.items()}
            lines.append({"row": added[arm], "style": "time, on this machine", **shares})
    if not lines:
        return None
    path = f"figures/{results.page}-added.png"
    intervals = pandas.DataFrame(lines).assign(panel="").astype({"low": float, "high": float})
    points = pandas.DataFrame(columns=["panel", "row", "style", "value"])
    figures.differences(report.out / path, points, intervals, "added to the cost of the host (%)")
    return Picture(path, "What is added to the cost of each host, in percent; lines: quartiles over rounds.")


# -------------------------------------------------------------------- counted


def counted_table(results: Results, scale: str, labels: Mapping[str, str], hosts: Mapping[str, str]) -> Table:
    """One row per arm at one scale."""
    marks, lines = Notes(), []
    found, failed = by_arm(results, "counted", setting=scale), failures(results, "counted", setting=scale)
    for arm, label in labels.items():
        row, line = found.get(arm), {"arm": label}
        if row is None:
            if arm in failed:
                lines.append(line | {"training GFLOP": marks.dash(f"failed: {failed[arm].rstrip('.')}")})
            continue
        line |= {"training GFLOP": giga(row["training_flops"]), "of these forward": giga(row["forward_flops"])}
        for heading, other in (("/ MoCo's", "moco"), ("/ its host's", hosts[arm])):
            line[heading] = relative(found, arm, other, "training_flops", marks)
        line |= {
            "passes online + target": f"{row['passes_online']:.3g} + {row['passes_target']:.3g}",
            "trained parameters": notation.quantity(row["parameters_trained"]),
            "without gradient": notation.quantity(row["parameters_momentum"]),
            "backbone": notation.quantity(row["parameters_backbone"]),
            "activations (MB)": f"{row['activation_bytes'] / 1e6:.1f}",
        }
        lines.append(line)
    shown = ("training_flops", "passes_online", "passes_target", "activation_bytes", "parameters_trained",
             "parameters_momentum", "parameters_backbone")  # fmt: skip
    return Table(pandas.DataFrame(lines).fillna(NONE), marks.lines, shown)


def parts_table(rows: list[Row], labels: Mapping[str, str]) -> Table:
    """The share of each part in an arm's training FLOPs."""
    parts = parts_of(rows)
    lines = [
        {"arm": labels[row["arm"]]}
        | {part.removeprefix(PART): percent(row.get(part, 0.0) / row["training_flops"]) for part in parts}
        for row in rows
        if row["arm"] in labels
    ]
    return Table(pandas.DataFrame(lines))


def parts_of(rows: list[Row]) -> list[str]:
    """The columns of the parts that any of the rows has."""
    return [name for name in dict.fromkeys(name for row in rows for name in row) if name.startswith(PART)]


# -------------------------------------------------------------------- measured


def measured(blocks: Blocks, results: Results, labels: Mapping[str, str], hosts: Mapping[str, str]) -> None:
    """Step time, memory and energy on this machine, and where the time goes."""
    rows = by_arm(results, "timed")
    if not rows:
        blocks.text("No step was timed yet.")
        return
    settings = " or ".join(dict.fromkeys(row["setting"] for row in rows.values()))
    threads = sorted({each["threads"] for each in results.about["environments"] if each.get("threads")})
    words = f" on {threads[0]} thread{'s' if threads[0] > 1 else ''}" if len(threads) == 1 else ""
    blocks.text(f"Training steps of the `{results.about['tier']}` tier ({settings}){words}.")
    blocks.table(time_table(results, rows, labels, hosts))
    blocks.text(
        "Where the time of a step goes, in ms; the forward pass by part, as in the counted tables. The last column is "
        "what reading the clock at every border adds; the table above is measured without it."
    )
    phases = [name for name in dict.fromkeys(name for row in rows.values() for name in row) if name.startswith(PHASE)]
    order = sorted(phases, key=lambda name: name.removeprefix(PHASE) in ("backward", "optimizer", "after_step"))
    lines = [
        {"arm": labels[arm]}
        | {name.removeprefix(PHASE): f"{1000 * row[name]:.1f}" if name in row else NONE for name in order}
        | {"clock": f"{decimal(100 * row['timer_overhead'])} %"}
        for arm, row in rows.items()
        if arm in labels
    ]
    blocks.table(Table(pandas.DataFrame(lines)))


def time_table(results: Results, rows: Mapping[str, Row], labels: Mapping[str, str], hosts: Mapping[str, str]) -> Table:
    """Ratios first, then speed, memory and energy."""
    marks, lines, memory = Notes(), [], by_arm(results, "memory")
    for arm, label in labels.items():
        if arm not in rows:
            continue
        row, peak = rows[arm], memory.get(arm, {}).get("peak_bytes")
        alone = "the reference itself" if arm == "moco" else "another backbone than MoCo's"
        same = "is its own host" if hosts[arm] == arm else "not measured"
        to_host = time_to(row, arm, hosts[arm]) is not None
        lines.append({
            "arm": label,
            "time / MoCo's": spread(row, arm, "moco") if "time_to_moco" in row else marks.dash(alone),
            "time / its host's": spread(row, arm, hosts[arm]) if to_host else marks.dash(same),
            "step (ms)": f"{1000 * row['step_seconds']:.1f}",
            "images/s": f"{row['images_per_second']:,.0f}",
            "peak memory (MB)": f"{peak / 1e6:,.0f}" if peak is not None else marks.dash("not measured"),
            "energy (J per step)": f"{row['step_joules']:.2f}" if "step_joules" in row else marks.dash(
                "not measured: no GPU whose counters can be read"),
        })  # fmt: skip
    shown = ("step_seconds", "time_to_moco", "time_to_host", "images_per_second", "peak_bytes", "step_joules")
    return Table(pandas.DataFrame(lines), marks.lines, shown)


# -------------------------------------------------------------------- scaling and speed


def scaling(blocks: Blocks, report: Report) -> None:
    """What SCD adds to MoCo along sizes, counted and measured."""
    captions = {
        "counted": "Counted: FLOPs that SCD adds to a training step of MoCo, in percent of MoCo's own.",
        "measured": "Measured on this machine: time that SCD adds to a step of MoCo, in percent; medians, and "
        "quartiles over interleaved rounds.",
    }
    for style, caption in captions.items():
        points = pandas.DataFrame(list(curve_points(report.results, style)))
        if points.empty:
            blocks.text(f"Not {style} yet.")
            continue
        path = f"figures/{report.results.page}-{style}.png"
        unit = "FLOPs" if style == "counted" else "time"
        figures.curves(report.out / path, points, f"added by SCD (% of MoCo's {unit})")
        blocks.figure(Picture(path, caption))
        lines = [
            {"along": row["panel"], "at": f"{row['x']:g}", f"added (% of MoCo's {unit})": point_text(row)}
            for row in points.to_dict("records")
        ]
        blocks.details(f"The points, {style}").table(Table(pandas.DataFrame(lines)))


def curve_points(results: Results, style: str) -> Iterator[Row]:
    """The points of :func:`studies.suite.pages.figures.curves`, in percent."""
    if style == "measured":
        for row in rows_of(results, "timed_scaling"):
            value, low, high = (100 * (row[f"time_to_moco{end}"] - 1) for end in ("", "_low", "_high"))
            yield {"panel": row["setting"], "style": style, "x": row["x"], "value": value, "low": low, "high": high}
        return
    pairs: dict[tuple, dict[str, float]] = {}
    for row in rows_of(results, "counted_scaling"):
        pairs.setdefault((row["setting"], row["x"]), {})[row["arm"]] = row["training_flops"]
    for (curve, x), flops in pairs.items():
        if len(flops) == 2:
            share = 100 * (flops["scd_moco"] / flops["moco"] - 1)
            yield {"panel": curve, "style": style, "x": x, "value": share, "low": share, "high": share}


def point_text(row: Row) -> str:
    """A point of a curve, with its quartiles where it is measured."""
    text = decimal(row["value"], 2)
    return text if row["low"] == row["high"] else f"{text} [{decimal(row['low'], 2)}, {decimal(row['high'], 2)}]"


def speed(blocks: Blocks, results: Results) -> None:
    """What the suite does for speed: each measure undone alone, and what a loop could reach at best."""
    rows = rows_of(results, "speed")
    if not rows:
        blocks.text("No change was timed yet.")
        return
    blocks.text(
        "MoCo's step with one thing changed, as a multiple of the usual step beside it: above 1 the change costs time, "
        "below 1 it would save some."
    )
    marks, lines = Notes(), []
    for row in rows:
        if "unavailable" in row:
            cell = marks.dash(f"does not run here: {row['unavailable'].rstrip('.')}")
        else:
            cell = ratio_text(*(row[f"time_to_usual{end}"] for end in ("", "_low", "_high")))
        if "compile_seconds" in row:
            after = f"after {row['pays_after_steps']:,.0f} steps" if "pays_after_steps" in row else "never"
            cell += marks.mark(f"compiling took {row['compile_seconds']:.0f} s, which is paid back {after}; not used")
        lines.append({"changed": row["setting"], "time / the usual step's": cell})
    blocks.table(Table(pandas.DataFrame(lines), marks.lines, ("time_to_usual",)))


# -------------------------------------------------------------------- numbers


def spread(row: Row, arm: str, host: str) -> str:
    """The ratio of an arm's time to another's, with quartiles."""
    return ratio_text(*(time_to(row, arm, host, end) for end in ("", "_low", "_high")))


def ratio_text(middle: float, low: float, high: float) -> str:
    """ "1.07 [1.05, 1.10]"."""
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def giga(value: float) -> str:
    """FLOPs as GFLOP."""
    return f"{value / 1e9:.1f}"


def times(ratio: float) -> str:
    """A ratio: 1.015×."""
    return f"{ratio:.3f}×"


def decimal(value: float, digits: int = 1) -> str:
    """A number with its sign where it is negative."""
    return f"{value:.{digits}f}".replace("-", notation.MINUS)


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %" if share else "0"
