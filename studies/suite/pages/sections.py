"""The sections that every page has: arms, how it was measured, further numbers, cost, provenance."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pandas

from studies.suite.analysis import notation, tables
from studies.suite.analysis.conditions import Condition, title
from studies.suite.analysis.results import DONE, FAILED, FOLDER, Results, only
from studies.suite.analysis.tables import NONE, Table
from studies.suite.execution.numerics import recorded_class
from studies.suite.pages.markdown import Blocks, code_span, in_line
from studies.suite.planning.study import Study, merge

COSTS = {
    "parameters_trained": "trained parameters",
    "parameters_backbone": "of these in the backbone",
    "flops_per_step": "FLOPs per step",
    "images_per_second": "images/s",
    "seconds_pretrain": "training time (s)",
}
COLUMNS = 6  # of metrics in one table of further numbers
NOT_MEASURED = (
    "Not measured: no finished run has these numbers. They need something that the images may lack (labels, masks, "
    "classes of the background), or an arm that was left out."
)


def arms(blocks: Blocks, study: Study, results: Results) -> None:
    """What each planned arm shares, where it differs, and what supervision it has."""
    planned = [arm for arm in study.arms if arm.name in results.about["arms"]]
    left_out = [arm.label for arm in study.arms if arm not in planned]
    rows = []
    for arm in planned:
        done = results.of(arm.name)
        supervision = only(done["supervision"]) if "supervision" in done and len(done) else None
        rows.append(
            {"arm": arm.label, "shares": arm.shares, "differs": arm.differs, "supervision": supervision or NONE}
        )
    blocks.table(Table(pandas.DataFrame(rows)))
    overrides = results.about["overrides"]
    entries = {
        f"{arm.label}, {words}": described(overrides[arm.name][key])
        for key, words in (("backbone", "backbone"), ("annotations", "annotations"))
        for arm in planned
        if overrides.get(arm.name, {}).get(key)
    }
    if entries:
        blocks.items(entries)
    if left_out:
        blocks.text(f"Not part of this page: {', '.join(left_out)}.")


def indicators(
    blocks: Blocks,
    results: Results,
    labels: Mapping[str, str],
    metrics: Sequence[str],
    text: str,
    found: Sequence[Condition] = ({},),
) -> None:
    """Secondary numbers by arm, in each condition.

    Args:
        labels: arm -> its label, of the arms that can have these numbers.
    """
    done = results.finished[results.finished["arm"].isin(labels)]
    present = [metric for metric in metrics if metric in done and done[metric].notna().any()]
    if not present:
        blocks.text(NOT_MEASURED)
        return
    blocks.text(text)
    for condition in found:
        blocks.text(f"**{title(condition)}**" if len(found) > 1 else "")
        blocks.table(tables.arm_table(results, labels, present, **condition))


def how_measured(blocks: Blocks, study: Study, results: Results, shown: Sequence[str]) -> None:
    """Backbone, data, views, schedule, seeds and protocols, from the configuration and the records.

    Args:
        shown: the metrics of the page, whose definitions are listed.
    """
    base = results.about["base"]
    entries = {}
    if base:
        entries = {
            "Backbone": backbone_line(base["backbone"], results.finished),
            "Data": data_line(results),
            "Views": views_line(base["views"]),
            "Blur": blur_line(study, results),
            "Method": described(base["method"]),
            "Schedule": schedule_line(base),
            "Seeds": seeds_line(results),
            "Evaluation": f"the online backbone after the last step, on images at {base['evaluation']['size']} px; "
            "nothing is chosen on test images",
        }
    lines = [f"**{name}:** {text}" for name, text in entries.items()]
    source = results.about["source"]
    read = [f"**Read as:** {in_line(line)}" for line in source.get("read", ())]
    lines[2:2] = [*read, *(f"**Note on the data:** {in_line(note)}" for note in source.get("notes", ()))]
    for protocol in results.about["protocols"]:
        options = {key: value for key, value in protocol.items() if key != "name"}
        lines.append(f"**Protocol {protocol['name']}:** {described(options)}")
    lines += [f"**{name}:** {text}" for name, text in (study.notes(results) if study.notes else {}).items()]
    if lines:
        blocks.items(lines)
    definitions = tables.definitions(results, shown)
    if len(definitions.frame):
        blocks.text("**What each number is**")
        blocks.table(definitions)


def deviations(study: Study, results: Results) -> list[str]:
    """Where the page departs from the papers: what the study declares, the suite, and each method's configuration."""
    declared = results.about.get("deviations", {})
    return [*study.deviations, *(f"{', '.join(names)}: {text}" if names else text for text, names in declared.items())]


def further(blocks: Blocks, results: Results, names: Mapping[str, str], shown: set[str]) -> bool:
    """The recorded numbers of all protocols that no section shows; False where there are none.

    Args:
        names: arm -> its label.
    """
    names_of = [name for name in results.metrics if name not in shown and "@" not in name and results.has(name)]
    for start in range(0, len(names_of), COLUMNS):
        blocks.table(tables.label_table(results, names, names_of[start : start + COLUMNS]))
    return bool(names_of)


def cost(blocks: Blocks, results: Results, labels: Mapping[str, str]) -> None:
    """Parameters, FLOPs, speed and time of each arm, in the first setting of the plan."""
    keys = [label for label in results.labels if label not in ("arm", "seed", "data") and results.levels(label)]
    first = {key: results.levels(key)[0] for key in keys}
    chosen, rows, notes = tables.select(results.finished, **first), [], tables.Notes()
    for arm, label in labels.items():
        done = chosen[chosen["arm"] == arm]
        trained = "steps" not in done or (not done.empty and done["steps"].max() > 0)
        row = {"arm": label}
        for column, name in COSTS.items():
            values = done[column].dropna() if column in done else ()
            if not len(values) or not (trained or column.startswith("parameters")):
                row[name] = notes.dash("not trained" if len(done) and not trained else "no finished run")
            elif column in ("images_per_second", "seconds_pretrain"):
                row[name] = f"{values.mean():,.0f}"
            else:
                row[name] = notation.quantity(values.mean())
        rows.append(row)
    blocks.table(Table(pandas.DataFrame(rows), notes.lines))
    blocks.text(
        "FLOPs count 2 per multiply-add, forward and backward pass of one training step, the momentum branch included; "
        "normalisation, activations, optimiser and augmentation count 0. Images are source images, whatever the number "
        "of views. Speed and time are means over seeds, measured while other runs shared the machine: they compare the "
        "arms of this page, not machines."
    )


def provenance(blocks: Blocks, results: Results) -> None:
    """Where each number comes from: command, code, libraries, hardware, configuration, run ids."""
    about = results.about
    csv = f"{FOLDER}/{results.page}.csv"
    blocks.text(
        f"Every number of this page comes from [{csv}]({quote(csv)}), one row per planned run. Its `run` is the "
        "identity of the pretraining in the run store, with configuration, log, environment and record. The runs took "
        f"{about['seconds'] / 60:,.0f} minutes of training and evaluation, summed."
    )
    entries = {}
    if about["roots"]:
        roots = ", ".join(f"`{root}`" for root in about["roots"])
        entries["Code fingerprint"] = f"`{about['fingerprint']}`, of {roots} and all that they import"
    if about["command"]:
        entries["Command"] = code_span(about["command"])
    for position, environment in enumerate(about["environments"]):
        number = f" {position + 1}" if len(about["environments"]) > 1 else ""
        entries[f"Machine{number}"] = environment_line(environment)
    if entries:
        blocks.items(entries)
    if about["base"]:
        part = blocks.details("Configuration of the first trained arm")
        part.code(yaml_text(about["base"]))
    if about["overrides"]:
        part = blocks.details("Arm overrides: what each arm's configuration sets differently")
        part.code(yaml_text(about["overrides"]))
    blocks.details("Run ids").table(runs_table(results))


# -------------------------------------------------------------------- lines


def backbone_line(backbone: Mapping[str, Any], done: pandas.DataFrame) -> str:
    """Name, options and size of the backbone."""
    options = {key: value for key, value in backbone.items() if key not in ("name", "channels_last")}
    name = backbone.get("name") or backbone.get("_target_")
    text = f"`{name}`" + (f" ({words(options)})" if words(options) else "")
    size = only(done["parameters_backbone"]) if "parameters_backbone" in done else None
    return text + (f", {notation.quantity(size)} parameters" if size else "")


def data_line(results: Results) -> str:
    """What the images are, their version, options and fingerprint."""
    about, done = results.about, results.finished
    data, source = about["base"]["data"], about["source"]
    parts = [code_span(about["data"]) + (f", version {source['version']}" if source.get("version") else "")]
    parts[0] += f": {source['description'].rstrip('.')}" if source.get("description") else ""
    parts.append(f"kept as squares of {data['size']} px")
    counts = [only(done[key]) if key in done else None for key in ("n_train", "n_test")]
    if all(counts):
        parts.append(f"{counts[0]:,.0f} training and {counts[1]:,.0f} test images")
    if options := words(data.get("options", {})):
        parts.append(f"options: {options}")
    if source.get("fingerprint"):
        parts.append(f"content fingerprint `{source['fingerprint']}`")
    return "; ".join(parts)


def views_line(views: Mapping[str, Any]) -> str:
    """The views of the first trained arm; other arms' views are among the arm overrides."""
    return (
        f"{words(views)}; arms of one seed see the same images in the same order, and the same crop where they share a "
        "view"
    )


def blur_line(study: Study, results: Results) -> str:
    """How many views are blurred at all, by arms of equal views."""
    from studies.suite.planning.assembly import build_views  # imports torch, which importing a page must not

    about = results.about
    arms_of: dict[str, list[str]] = {}
    for arm in study.arms:
        changed = about["overrides"].get(arm.name, {})
        untrained = changed.get("training", {}).get("budget", {}).get("value") == 0
        if arm.name not in about["arms"] or untrained:
            continue
        crops = build_views({"views": merge(about["base"]["views"], changed.get("views", {}))}).crops
        shares = {"the extra views" if crop.role == "extra" else crop.name: crop.share_blurred for crop in crops}
        text = ", ".join(f"{100 * share:.0f} % of {name}" for name, share in shares.items())
        arms_of.setdefault(text, []).append(arm.label)
    found = list(arms_of) if len(arms_of) == 1 else [f"{text} ({', '.join(arms)})" for text, arms in arms_of.items()]
    return (
        f"views that are blurred at all: {'; '.join(found)}. The papers' standard deviation, 0.1 to 2 px of a view of "
        "224 px (local views: 96 px), is scaled to the size of the view, and below 0.25 px nothing is blurred "
        "(`views.blur_reference`)"
    )


def schedule_line(base: Mapping[str, Any]) -> str:
    """Optimiser, schedule, batch and budget."""
    optimizer, schedule, training = (dict(base[part]) for part in ("optimizer", "schedule", "training"))
    budget = training.pop("budget")
    return (
        f"{budget['value']:g} {budget['unit']}, {words(training)}; {optimizer.pop('name')}, {words(optimizer)}; "
        f"{schedule.pop('name')} learning rate, {words(schedule)}"
    )


def seeds_line(results: Results) -> str:
    """Which seeds, and what is random in a seed."""
    seeds = results.about["seeds"]
    most = "up to " if "time_budget" in results.about else ""
    return (
        f"{most}{len(seeds)} ({', '.join(map(str, seeds))}); a seed draws the initial weights, the order of the "
        "images, the crops, and the part of the training images that the probe holds out; intervals are two-sided 95 % "
        "Student-t over seeds, of paired differences where two arms are compared"
    )


def environment_line(environment: Mapping[str, Any]) -> str:
    """One machine: processor, cores, memory, GPU, system, git state and libraries."""
    git = environment.get("git") or {}
    dirty = " with uncommitted changes" if git.get("dirty") else ""
    libraries = (environment.get("libraries") or {}).items()
    numerics = recorded_class(environment)
    parts = [
        environment.get("cpu"),
        f"{environment['cores']} cores" if environment.get("cores") else None,
        f"{environment['threads']} thread(s) per run" if environment.get("threads") else None,
        f"{environment['memory_gb']:g} GB" if environment.get("memory_gb") else None,
        environment.get("gpu"),
        environment.get("platform"),
        f"numerics class `{numerics}`" if numerics else None,
        f"commit `{git['commit'][:12]}`{dirty}" if git.get("commit") else "no git checkout",
        f"Python {environment['python']}" if environment.get("python") else None,
        ", ".join(f"{name} {version}" for name, version in libraries if version),
    ]
    return "; ".join(part for part in parts if part)


def runs_table(results: Results) -> Table:
    """Run ids by setting and seed, failures with their reasons."""
    labels = [name for name in results.labels if name not in ("seed", "data") and results.runs[name].notna().any()]
    rows = []
    for values, group in results.runs.groupby(labels, sort=False, dropna=False):
        row = {label: "" if pandas.isna(value) else _plain(value) for label, value in zip(labels, values, strict=True)}
        row["runs, in the order of seeds"] = " ".join(_run_cell(run) for run in group.itertuples())
        rows.append(row)
    return Table(pandas.DataFrame(rows))


def _run_cell(run: Any) -> str:
    if run.status == DONE:
        return f"`{run.run}`"
    return f"`{run.run}` (failed: {run.reason})" if run.status == FAILED else NONE


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


# -------------------------------------------------------------------- settings in words


def described(config: Mapping[str, Any]) -> str:
    """A class and its settings, or settings alone: "`baselines.moco.MoCo` (dim 64, hidden 128)"."""
    options, target = words(config), config.get("_target_")
    if not target:
        return options
    return f"`{target}`" + (f" ({options})" if options else "")


def words(options: Mapping[str, Any]) -> str:
    """Settings in words: "classes 10, scale 0.35 / 0.75"; without those that are null or empty."""
    shown = {key: value for key, value in options.items() if not key.startswith("_") and value not in (None, {}, [])}
    return ", ".join(f"{key.replace('_', ' ')} {_word(value)}" for key, value in shown.items())


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return described(value) if "_target_" in value else f"({words(value)})"
    if isinstance(value, list | tuple):
        return " / ".join(_word(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def yaml_text(config: Mapping[str, Any]) -> str:
    """A configuration as YAML, its keys in their order."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(config))).rstrip()
