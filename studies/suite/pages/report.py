"""The markdown page: a writer, and the sections that every study's page has.

Plain markdown that a code-hosting site renders: tables, images by relative path, <details> for what only a checker
reads. The text depends on the evidence alone, so equal records give an equal page.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from studies.suite.analysis import tables
from studies.suite.analysis.conditions import Condition, title, versus
from studies.suite.analysis.conditions import words as words_of
from studies.suite.analysis.results import FAILED, FOLDER, MISSING, Evidence, only
from studies.suite.analysis.tables import NONE, Table
from studies.suite.analysis.verdict import Verdict, sentence
from studies.suite.execution.store import write_text
from studies.suite.pages.study_figures import Picture
from studies.suite.planning.study import Arm, Contrast, Study


class Page:
    """Collects the blocks of a page in their order."""

    def __init__(self, heading: str):
        self.blocks = [f"# {heading}"]

    def heading(self, text: str, level: int = 2) -> None:
        """A heading; level 2 is a section."""
        self.blocks.append(f"{'#' * level} {text}")

    def text(self, *paragraphs: str) -> None:
        """Paragraphs; empty ones are left out."""
        self.blocks.extend(paragraph for paragraph in paragraphs if paragraph)

    def items(self, entries: Mapping[str, str] | Sequence[str]) -> None:
        """A list; a mapping's keys are set in bold."""
        if isinstance(entries, Mapping):
            entries = [f"**{key}:** {value}" for key, value in entries.items()]
        self.blocks.append("\n".join(f"- {entry}" for entry in entries))

    def table(self, table: Table) -> None:
        """A table with its lines underneath."""
        self.blocks.append(markdown(table.frame))
        if table.notes:
            self.blocks.append("<br>\n".join(table.notes))

    def figure(self, picture: Picture) -> None:
        """An image by its path relative to the page; its caption also is its text for who cannot see it."""
        self.blocks.append(f"![{picture.caption}]({picture.path})\n\n*{picture.caption}*")

    def details(self, summary: str, *blocks: str | Table) -> None:
        """Blocks behind a click."""
        inside = []
        for block in blocks:
            inside.append(markdown(block.frame) if isinstance(block, Table) else block)
            if isinstance(block, Table) and block.notes:
                inside.append("<br>\n".join(block.notes))
        self.blocks.append("\n\n".join([f"<details>\n<summary>{summary}</summary>", *inside, "</details>"]))

    @property
    def markdown(self) -> str:
        """The page's text."""
        return "\n\n".join(self.blocks) + "\n"

    def write(self, path: Path) -> Path:
        """Write the page whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, self.markdown)
        return path


def markdown(frame: pandas.DataFrame) -> str:
    """A frame of text as a markdown table; the first column to the left, numbers to the right."""
    safe = frame.map(lambda cell: " ".join(str(cell).split()).replace("|", "\\|"))
    numeric = [safe[column].str.match(r"^[−+]?[\d–<]").all() for column in safe]
    alignment = ["right" if number and position else "left" for position, number in enumerate(numeric)]
    return safe.to_markdown(index=False, disable_numparse=True, colalign=alignment)


# -------------------------------------------------------------------- sections


def opening(page: Page, evidence: Evidence, study: Study, answer: str) -> None:
    """Warning of a tier without meaning, the question, the answer, and how far the study is."""
    about = evidence.about
    if not about["meaningful"]:
        page.text(
            f"> **This page proves the wiring, nothing else.** It comes from the `{about['tier']}` tier, a few steps "
            "of a tiny network on a few images. Its numbers mean nothing, and neither does its verdict."
        )
    page.text(f"> **Question {', '.join(study.question_ids)}.** {study.question}", answer, standing(evidence))


def answer_of(verdict: Verdict, labels: Mapping[str, str]) -> str:
    """The verdict's sentence, with amounts in the metric's own unit and arms by their labels."""
    metric = verdict.parts[0].contrast.metric

    def name(contrast: Contrast) -> str:
        where = words_of(contrast.conditions)
        return versus(contrast, labels) + (f" at {where}" if where else "")

    return sentence(verdict, lambda result: tables.amount(metric, result), name)


def standing(evidence: Evidence) -> str:
    """How complete the page is, in one line; says so when it is complete, too."""
    about, runs = evidence.about, evidence.runs
    seeds = about["seeds"]
    waiting = runs[runs["status"] != "done"]
    whole = [seed for seed in seeds if seed not in set(waiting["seed"])]
    line = f"{about['done']} of {about['planned']} runs have finished"
    if waiting.empty:
        count = (
            f"{'at least ' if set(runs['seed']) - set(seeds) else ''}{len(seeds)} seed{'s' if len(seeds) != 1 else ''}"
        )
        return f"Complete: {line}, {count} in every arm and setting."
    failed = waiting[waiting["status"] == FAILED]["run"].nunique()
    missing = waiting[waiting["status"] == MISSING]["run"].nunique()
    parts = [f"{failed} failed"] if failed else []
    parts += [f"{missing} not run yet"] if missing else []
    return f"**Partial page:** {len(whole)} of {len(seeds)} seeds are complete; {line} ({', '.join(parts)})."


def chosen_arms(page: Page, evidence: Evidence, study: Study) -> tuple[Arm, ...]:
    """Print what each planned arm shares and where it differs; returns these arms."""
    arms = tuple(arm for arm in study.arms if arm.name in evidence.about["arms"])
    left_out = [arm.label for arm in study.arms if arm not in arms]
    rows = [{"arm": arm.label, "shares": arm.shares, "differs": arm.differs} for arm in arms]
    page.table(Table(pandas.DataFrame(rows)))
    if left_out:
        page.text(f"Left out by the command line: {', '.join(left_out)}.")
    return arms


def indicators(
    page: Page,
    evidence: Evidence,
    labels: Mapping[str, str],
    found: Sequence[Condition],
    heading: str,
    metrics: Sequence[str],
    arms: Sequence[str],
    text: str,
) -> None:
    """Secondary numbers by arm: the first budget openly, the others behind a click.

    Args:
        arms: those that can have these numbers; empty for all.
    """
    page.heading(heading)
    rows = {arm: label for arm, label in labels.items() if not arms or arm in arms}
    done = evidence.finished
    present = [metric for metric in metrics if metric in done and done[done["arm"].isin(rows)][metric].notna().any()]
    if not present:
        page.text(
            "Not measured: no finished run has these numbers. They take what the data may lack (masks, labels, "
            "classes of the background), or an arm that was left out."
        )
        return
    page.text(text)
    for condition in found:
        table = tables.arm_table(evidence, rows, present, **condition)
        if condition.get("budget") == found[0].get("budget"):
            page.text(f"**{title(condition)}**" if len(found) > 1 else "")
            page.table(table)
        else:
            page.details(title(condition), table)


def how_measured(page: Page, evidence: Evidence, metrics: Sequence[str], more: Mapping[str, str] | None = None) -> None:
    """Backbone, data, views, schedule, seeds and evaluation, from the resolved configuration and the records."""
    base, done = evidence.about["base"], evidence.finished
    page.heading("How it was measured")
    entries = {
        "Backbone": backbone_line(base["backbone"], done),
        "Data": data_line(evidence),
        "Views": views_line(base["views"]),
        "Host method": method_line(base["method"]),
        "Schedule": schedule_line(base),
        "Seeds": seeds_line(evidence),
        "Evaluation": evaluation_line(base, done),
        **(more or {}),
    }
    page.items(entries)
    page.details("What each number is", tables.definitions(metrics))


def backbone_line(backbone: Mapping[str, Any], done: pandas.DataFrame) -> str:
    """Name, options and size of the backbone."""
    hidden = ("_target_", "name", "channels_last")
    options = {key: value for key, value in backbone.items() if key not in hidden}
    text = f"`{backbone['name']}`" + (f" ({words(options)})" if options else "")
    size = only(done["parameters_backbone"]) if "parameters_backbone" in done else None
    return text + (f", {tables.quantity(size)} parameters" if size else "") + "; evaluated: the online backbone"


def data_line(evidence: Evidence) -> str:
    """What the images are, their version and their fingerprint."""
    about, done = evidence.about, evidence.finished
    data, source = about["base"]["data"], about.get("source", {})
    text = f"`{about['data']}`"
    text += f", version {source['version']}" if source.get("version") else ""
    text += f": {source['description'].rstrip('.')}" if source.get("description") else ""
    text += f"; kept as {data['size']} px squares"
    counts = [only(done[key]) if key in done else None for key in ("n_train", "n_test")]
    if all(counts):
        text += f"; {counts[0]:,.0f} training and {counts[1]:,.0f} test images"
    options = {key: value for key, value in data.get("options", {}).items() if value not in (None, {})}
    text += f"; options: {words(options)}" if options else ""
    fingerprint = source.get("fingerprint") or data.get("fingerprint")
    return text + (f"; content fingerprint `{fingerprint}`" if fingerprint else "")


def views_line(views: Mapping[str, Any]) -> str:
    """The global views; an arm's extra views stand in the table of arms."""
    low, high = views["scale"]
    return (
        f"recipe `{views['recipe']}`, two global views of {views['size']} px that cover {low:g} to {high:g} of the "
        "image's area; arms of one seed see the same images in the same order, and the same crop where they share a "
        "view"
    )


def preset_lines(evidence: Evidence) -> dict[str, str]:
    """The settings of every named method and wrapper that arms put in the base's place, for "how it was measured"."""
    return {
        f"{group.capitalize()} {name}": method_line(content)
        for group, presets in evidence.about["presets"].items()
        for name, content in presets.items()
    }


def method_line(method: Mapping[str, Any]) -> str:
    """A method's class and its settings."""
    options = {key: value for key, value in method.items() if not key.startswith("_")}
    return f"`{method['_target_']}`" + (f" ({words(options)})" if options else "")


def schedule_line(base: Mapping[str, Any]) -> str:
    """Optimiser, schedule, batch and budget of the base configuration."""
    optimizer, schedule, training = (dict(base[part]) for part in ("optimizer", "schedule", "training"))
    budget = training.pop("budget")
    return (
        f"{budget['value']:g} {budget['unit']}, {words(training)}; {optimizer.pop('name')}, {words(optimizer)}; "
        f"{schedule.pop('name')} learning rate, {words(schedule)}"
    )


def seeds_line(evidence: Evidence) -> str:
    """Which seeds, and what is random in a seed."""
    seeds = evidence.about["seeds"]
    text = (
        f"{len(seeds)} ({', '.join(map(str, seeds))}); a seed draws the initial weights, the order of the images, the "
    )
    text += "crops, and the part that the probe holds out"
    return (
        text + "; intervals are two-sided 95 % Student-t over seeds, of paired differences where two arms are compared"
    )


def evaluation_line(base: Mapping[str, Any], done: pandas.DataFrame) -> str:
    """Protocols and their version."""
    version = only(done["protocol_version"]) if "protocol_version" in done else None
    text = f"protocols {', '.join(base['evaluation']['protocols'])}"
    text += f", version {version}" if version is not None else ""
    return (
        f"{text}; whole images at {base['evaluation']['size']} px; the last step is evaluated, nothing is chosen on "
        "test images"
    )


def claims(page: Page, contrasts: Sequence[Contrast], labels: Mapping[str, str]) -> None:
    """What the rows of a contrast table say if they are above 0, each claim once."""
    named: dict[str, list[str]] = {}
    for contrast in contrasts:
        named.setdefault(contrast.claim, []).append(versus(contrast, labels))
    page.text("What the rows say if they are above 0:")
    page.items([f"{'; '.join(rows)}: {claim}" for claim, rows in named.items()])


def deviations(page: Page, notes: Iterable[str]) -> None:
    """Where the study departs from the papers."""
    page.heading("Deviations from the papers")
    page.items(list(notes))


def cost(page: Page, evidence: Evidence, labels: Mapping[str, str], **conditions: Any) -> None:
    """Parameters, FLOPs, speed and time of each arm, in one setting."""
    page.heading("Cost")
    chosen, rows, notes = tables.select(evidence.finished, **conditions), [], tables.Notes()
    columns = {
        "parameters_trained": "trained parameters",
        "parameters_backbone": "of these in the backbone",
        "flops_per_step": "FLOPs per step",
        "images_per_second": "images/s",
        "seconds_pretrain": "training time (s)",
    }
    for arm, label in labels.items():
        done = chosen[chosen["arm"] == arm]
        row = {"arm": label}
        for column, name in columns.items():
            values = done[column].dropna() if column in done else ()
            trained = not done.empty and done["steps"].max() > 0 if "steps" in done else not done.empty
            if len(values) == 0 or (not trained and not column.startswith("parameters")):
                row[name] = notes.dash("not trained" if not done.empty and not trained else "no finished run")
            else:
                mean = values.mean()
                row[name] = (
                    f"{mean:,.0f}" if column in ("images_per_second", "seconds_pretrain") else tables.quantity(mean)
                )
        rows.append(row)
    page.table(Table(pandas.DataFrame(rows), notes.lines))
    page.text(
        "FLOPs count 2 per multiply-add, forward and backward pass of one training step, the momentum branch "
        "included; normalisation, activations, the optimiser and the augmentation count 0. Images are source "
        "images, whatever the number of views. Speed and time are means over seeds, measured while other runs "
        "shared the machine: they compare arms of this page, not machines."
    )


def provenance(page: Page, evidence: Evidence, labels: Sequence[str]) -> None:
    """Where each number comes from: command, code, libraries, hardware, configuration, run ids."""
    about = evidence.about
    csv = f"{FOLDER}/{evidence.page}.csv"
    page.heading("Provenance")
    page.text(
        f"Every number of this page comes from [{csv}]({csv}), one row per planned run; its `run` names the folder "
        "`runs/ID` with configuration, log, environment and record. Runs took "
        f"{about['seconds'] / 60:,.0f} minutes of training and evaluation, summed."
    )
    entries = {"Code fingerprint": f"`{about['fingerprint']}`, of {', '.join(f'`{root}`' for root in about['roots'])} "
               "and all that they import from `scd` and `baselines`"}  # fmt: skip
    if about["command"]:
        entries["Command"] = f"`{about['command']}`"
    for position, environment in enumerate(about["environments"]):
        number = f" {position + 1}" if len(about["environments"]) > 1 else ""
        entries[f"Machine{number}"] = environment_line(environment)
    lines = "\n".join(f"- **{key}:** {value}" for key, value in entries.items())
    page.details("Code, machine, libraries", lines)
    page.details("Base configuration", f"```yaml\n{yaml_text(about['base'])}\n```")
    page.details("What arms put in its place, by name", f"```yaml\n{yaml_text(about['presets'])}\n```")
    page.details("Run ids", runs_table(evidence, labels))


def environment_line(environment: Mapping[str, Any]) -> str:
    """One machine: processor, cores, memory, GPU, system, git state and libraries."""
    git = environment.get("git") or {}
    dirty = {True: " with uncommitted changes", False: "", None: ""}[git.get("dirty")]
    commit = f"commit `{git['commit'][:12]}`{dirty}" if git.get("commit") else "no git checkout"
    libraries = ", ".join(
        f"{name} {version}" for name, version in (environment.get("libraries") or {}).items() if version
    )
    parts = [
        environment.get("cpu"),
        f"{environment['cores']} cores" if environment.get("cores") else None,
        f"{environment['threads']} thread(s) per run" if environment.get("threads") else None,
        f"{environment['memory_gb']:g} GB" if environment.get("memory_gb") else None,
        environment.get("gpu"),
        environment.get("platform"),
        commit,
        f"Python {environment['python']}" if environment.get("python") else None,
        libraries,
    ]
    return "; ".join(part for part in parts if part)


def runs_table(evidence: Evidence, labels: Sequence[str]) -> Table:
    """Run ids by setting and seed, failures with their reasons."""
    runs = evidence.runs
    present = [label for label in labels if label in runs and runs[label].notna().any()]
    rows = []
    for values, group in runs.groupby(present, sort=False, dropna=False):
        row = {label: _plain(value) for label, value in zip(present, values, strict=True)}
        row["runs, in the order of seeds"] = " ".join(_run_cell(run) for run in group.itertuples())
        rows.append(row)
    return Table(pandas.DataFrame(rows))


def _run_cell(run: Any) -> str:
    if run.status == FAILED:
        return f"`{run.run}` (failed: {run.reason})"
    return f"`{run.run}`" if run.status == "done" else NONE


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def words(options: Mapping[str, Any]) -> str:
    """Options as a reader writes them: "classes 10, scale 0.35 to 0.75"."""
    return ", ".join(f"{key.replace('_', ' ')} {_word(value)}" for key, value in options.items() if value is not None)


def _word(value: Any) -> str:
    if isinstance(value, Mapping) and "_target_" in value:
        return method_line(value)
    if isinstance(value, list | tuple):
        return " / ".join(_word(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return f"({words(value)})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def yaml_text(config: Mapping[str, Any]) -> str:
    """A configuration as yaml, its keys in their order."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(config))).rstrip()
