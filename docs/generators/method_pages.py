"""One page per method, from its docstring, its declarations, its configurations and the committed records."""

import importlib
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from docs.generators import costs
from docs.generators.declarations import (
    ROOT,
    TIERS,
    Configuration,
    arms_of_pages,
    kind_of,
    modules,
    of_module,
    public_classes,
)
from docs.generators.docstrings import Docstring, inline, read

FOLDER = "methods"


def write_all(out: Path, root: Path = ROOT) -> list[Path]:
    """Write the page of every method and their index into ``out/methods``; returns the pages."""
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for module in modules(root):
        path = folder / f"{module.rpartition('.')[2]}.md"
        path.write_text(page(module), encoding="utf-8")
        written.append(path)
    (folder / "index.md").write_text(index(modules(root)), encoding="utf-8")
    return written


def title_of(doc: Docstring) -> str:
    """The name of a method: what stands before the colon of its docstring's first line, or that line."""
    name, separator, _ = doc.title.partition(": ")
    return name if separator else doc.title.split(" (")[0].split(",")[0]


def index(names: Sequence[str]) -> str:
    """The list of all methods with their configurations and what they need."""
    rows = []
    for module in names:
        doc, own = read(importlib.import_module(module).__doc__), of_module(module)
        needs = sorted({need for each in own for need in each.needs}) or ["nothing"]
        supervision = list(dict.fromkeys(each.supervision for each in own if each.supervision)) or ["–"]
        named = ", ".join(f"`{each.group}/{each.name}`" for each in own) or "–"
        link = f"[{inline(title_of(doc))}]({module.rpartition('.')[2]}.md)"
        rows.append((link, named, ", ".join(needs) if own else "–", ", ".join(supervision)))
    head = (
        "# Methods\n\n"
        "Each page is written when the documentation is built: from the docstring of the method's file, from its "
        "configuration and from the committed records. *Needs* and *supervision* are those of the configuration as it "
        "stands; a map source or an annotator of another supervision changes them.\n\n"
    )
    listed = "\n".join(name.rpartition(".")[2] for name in names)
    table = markdown_table(("method", "configurations", "needs", "supervision"), rows)
    return f"{head}{table}\n\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"


def page(module: str) -> str:
    """The page of one method."""
    code = importlib.import_module(module)
    doc, own = read(code.__doc__), of_module(module)
    classes = [(made, read(made.__doc__)) for made in public_classes(code)]
    notes = [*doc.notes, *(note for _, each in classes for note in each.notes)]
    parts = [f"# {inline(title_of(doc))}", f"{inline(doc.title)}.", doc.body]
    papers = doc.papers or tuple(dict.fromkeys(number for _, each in classes for number in each.papers))
    parts += ["## In short", in_short(module, papers, own)]
    parts += ["## Classes", *(part for made, each in classes for part in described_class(made, each))]
    parts += ["## Settings by tier", *settings(own)]
    parts += ["## Deviations", *deviations(own, notes)]
    parts += ["## Cost", cost(module), "## On committed pages", arms(module)]
    return "\n\n".join(filter(None, parts)) + "\n"


def in_short(module: str, numbers: Sequence[str], own: Sequence[Configuration]) -> str:
    """Source, file, and what each configuration needs."""
    papers = ", ".join(f"[arXiv {each}](https://arxiv.org/abs/{each})" for each in numbers)
    lines = [
        f"- **Papers:** {papers or 'the file names none by its arXiv number'}",
        f"- **File:** `{module.replace('.', '/')}.py`",
    ]
    for each in own:
        if each.group == "method":
            use = f"`method={each.name}` on the command line, or `{{'method': '{each.name}'}}` in an arm"
        else:
            use = f"`{{'wrapper': '{each.name}'}}` in an arm"
        if each.problem:
            lines.append(f"- **`{each.group}/{each.name}`:** {use}. It cannot be built alone: {inline(each.problem)}.")
            continue
        needs = ", ".join(each.needs) or "nothing but images"
        around = f", shown around `{each.host}`" if each.host else ""
        lines.append(
            f"- **`{each.group}/{each.name}`:** {use}{around}. Needs: {needs}. Supervision: {each.supervision}."
        )
    if not own:
        lines.append("- **Configuration:** none of its own; studies name its classes in their arms.")
    return "\n".join(lines)


def described_class(made: type, doc: Docstring) -> list[str]:
    """Heading and docstring of a class."""
    kind = kind_of(made)
    signature = str(inspect.signature(made)).split(" -> ")[0] if "__init__" in vars(made) else ""
    code = f"```python\n{made.__name__}{plain_signature(signature)}\n```" if signature else ""
    said = f" ({kind})" if kind else ""
    return [f"### {made.__name__}{said}", code, f"{inline(doc.title)}." if doc.title else "", doc.body]


def plain_signature(signature: str) -> str:
    """A signature with the last part of each dotted name."""
    return "".join(part for part in _last_parts(signature))


def _last_parts(text: str) -> Iterable[str]:
    word = ""
    for character in text:
        if character.isalnum() or character in "_.":
            word += character
        else:
            yield _last(word)
            yield character
            word = ""
    yield _last(word)


def _last(word: str) -> str:
    is_number = word.replace(".", "", 1).isdigit()
    return word if is_number or word.startswith("...") else word.rpartition(".")[2] or word


def settings(own: Sequence[Configuration]) -> Iterable[str]:
    """A table per configuration: every setting that a run resolves to, on each tier."""
    shown = [each for each in own if each.tiers]
    if not shown:
        yield "None of its own: the settings are those of the method or wrapper that it is a part of."
        return
    yield (
        "What `studies/conf` resolves to with nothing else on the command line. A study may set more for all of its "
        "arms, and prints what it has set."
    )
    before: dict[str, tuple[str, ...]] = {}
    for each in shown:
        rows = setting_rows(each)
        different = {name: cells for name, cells in rows.items() if before.get(name) != cells}
        yield f"### {each.group}/{each.name}"
        if each.host:
            yield f"Around `{each.host}`, whose views, optimiser and schedule hold where the wrapper sets none."
        if before:
            yield f"As `{shown[0].group}/{shown[0].name}`, except for these settings (empty: not set):"
            different |= {name: ("",) * len(TIERS) for name in before if name not in rows}
        yield markdown_table(
            ("setting", *(f"`{tier}`" for tier in TIERS)),
            [(f"`{name}`", *cells) for name, cells in different.items()],
        )
        before = before or rows


def setting_rows(each: Configuration) -> dict[str, tuple[str, ...]]:
    """Setting -> its value on each tier, settings of one part together."""
    names = list(dict.fromkeys(name for tier in TIERS for name in each.tiers[tier]))
    parts = list(dict.fromkeys(name.partition(".")[0] for name in names))
    ordered = sorted(names, key=lambda name: parts.index(name.partition(".")[0]))
    return {name: tuple(value(each.tiers[tier].get(name)) for tier in TIERS) for name in ordered}


def deviations(own: Sequence[Configuration], notes: Sequence[str]) -> Iterable[str]:
    """What the code notes, and what the recipes declare."""
    if notes:
        yield "From the code (`NOTE:`):\n\n" + "\n".join(f"- {note}" for note in dict.fromkeys(notes))
    for each in own:
        points = dict.fromkeys(point for tier in TIERS for point in each.deviations.get(tier, {}))
        lines = []
        for point in points:
            by_text: dict[str, list[str]] = {}
            for tier in TIERS:
                if point in each.deviations[tier]:
                    by_text.setdefault(each.deviations[tier][point], []).append(tier)
            for text, where in by_text.items():
                tiers = "" if len(where) == len(TIERS) else f" (tier {', '.join(where)})"
                lines.append(f"- *{inline(point)}*{tiers}: {inline(' '.join(text.split()))}")
        if lines:
            yield f"Declared by `{each.group}/{each.name}` (`recipe.deviations`):\n\n" + "\n".join(lines)
    if not notes and not any(each.deviations.get(tier) for each in own for tier in TIERS):
        yield "None is declared."


def cost(module: str) -> str:
    """The counted operations, or that there are none."""
    rows = costs.rows(module)
    if not rows:
        return (
            "Its operations are not in the committed records of [cost-profile](../reports/cost-profile.md), so no "
            "number is given here."
        )
    table = markdown_table(("arm", "backbone, view", "forward, GFLOPs", "training, GFLOPs"), rows)
    return (
        "Counted operations per source image with all of its views, 2 per multiply-add, from the records of "
        f"[cost-profile](../reports/cost-profile.md).\n\n{table}"
    )


def arms(module: str) -> str:
    """The arms of committed pages that have this method, wrapper or map."""
    found: dict[str, list[str]] = {}
    hosts: dict[str, None] = {}
    for each in arms_of_pages():
        if module in each.own:
            found.setdefault(each.page, []).append(f"{inline(each.label)} (`{each.arm}`)")
        elif module in each.host:
            hosts[each.page] = None
    rows = [(f"[{name}](../reports/{name}.md)", "; ".join(labels)) for name, labels in found.items()]
    table = markdown_table(("page", "arms"), rows) if rows else "It is not an arm of a committed page."
    links = ", ".join(f"[{name}](../reports/{name}.md)" for name in hosts)
    return f"{table}\n\nIt is the host of other arms on: {links}." if links else table


def value(entry: Any) -> str:
    """A setting in a cell."""
    if entry is None:
        return ""
    if isinstance(entry, float):
        return f"{entry:g}"
    return f"`{entry}`" if isinstance(entry, str | list) else str(entry)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
