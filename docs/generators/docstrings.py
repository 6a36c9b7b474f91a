"""Docstrings as markdown: paragraphs, formulas, lists of arguments, and the notes (``NOTE:``) by themselves."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

SECTIONS = {
    "Args:": "Arguments",
    "Attributes:": "Attributes",
    "Raises:": "Errors",
    "Returns:": "Returns",
    "Yields:": "Yields",
}
NOTE = re.compile(r"\bNOTE: ((?:(?!NOTE: |\n\s*- ).)*)", re.DOTALL)  # up to the next one, or the next item of a list
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`~?([^`]+)`")
PAPER = re.compile(r"arXiv:? ?(\d{4}\.\d{4,5})")
CODE = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)


@dataclass(frozen=True)
class Docstring:
    """A docstring in parts.

    Attributes:
        title: its first line, without the final full stop.
        body: what follows, as markdown, without the notes.
        notes: the sentences of each ``NOTE:``, as markdown.
        papers: arXiv numbers in their first order.
    """

    title: str
    body: str
    notes: tuple[str, ...]
    papers: tuple[str, ...]


def read(text: str | None) -> Docstring:
    """The parts of a docstring."""
    lines = inspect.cleandoc(text or "").splitlines() or [""]
    title, rest = lines[0], lines[1:]
    while rest and rest[0].strip():  # a first sentence of several lines
        title, rest = f"{title} {rest[0].strip()}", rest[1:]
    found, notes = [], []
    for block in blocks(rest):
        if block[0] in SECTIONS:
            found.append(section(block, notes))
        elif all(line.startswith("  ") for line in block if line.strip()):
            found.append(formula(block))
        else:
            found.append(paragraph(block, notes))
    papers = tuple(dict.fromkeys(PAPER.findall(text or "")))
    return Docstring(title.rstrip("."), "\n\n".join(filter(None, found)), tuple(notes), papers)


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """Runs of lines between empty ones; a section keeps all of its indented lines, and formulas in a row stay one."""
    current: list[str] = []
    for number, line in enumerate(lines):
        if line.strip():
            if current and current[0] in SECTIONS and not line.startswith(" "):
                yield current
                current = []
            current.append(line)
        elif current:
            following = next((each for each in lines[number:] if each.strip()), "")
            if following.startswith("  ") and (current[0] in SECTIONS or current[0].startswith("  ")):
                current.append("")
            else:
                yield current
                current = []
    if current:
        yield current


def formula(block: list[str]) -> str:
    """Indented lines as they stand."""
    return "```text\n" + inspect.cleandoc("\n" + "\n".join(block)) + "\n```"


def section(block: list[str], notes: list[str]) -> str:
    """A section of arguments or errors as a list, one entry for each line of the smallest indentation."""
    entries: list[str] = []
    lines = [line for line in block[1:] if line.strip()]
    depth = min(len(line) - len(line.lstrip()) for line in lines)
    for line in lines:
        if len(line) - len(line.lstrip()) == depth or not entries:
            entries.append(line.strip())
        else:
            entries[-1] += f" {line.strip()}"
    items = []
    for entry in entries:
        name, separator, meaning = entry.partition(": ")
        if separator and re.fullmatch(r"[\w*, ]+", name) and block[0] != "Returns:":
            names = ", ".join(f"`{each}`" for each in name.split(", "))
            items.append(f"- {names}: {inline(without_notes(meaning, notes, f'{names}: '))}")
        else:
            items.append(f"- {inline(without_notes(entry, notes))}")
    return f"**{SECTIONS[block[0]]}**\n\n" + "\n".join(items)


def paragraph(block: list[str], notes: list[str]) -> str:
    """Lines of prose, or a list, as markdown; its notes are taken out."""
    text = without_notes("\n".join(block), notes)
    return inline(text.strip())


def without_notes(text: str, notes: list[str], about: str = "") -> str:
    """The text without what follows each ``NOTE:``, which is added to ``notes`` behind ``about``."""
    notes += [about + inline(" ".join(found[1].split()).rstrip(";")) for found in NOTE.finditer(text)]
    return re.sub(r"[ ;]+(?=\n|$)", "", NOTE.sub("", text))


def inline(text: str) -> str:
    """Prose of a docstring as markdown: code stays code, references become code, everything else means itself."""
    text = ROLE.sub(r"``\1``", text)
    parts = []
    for part in CODE.split(text):
        if part.startswith("`"):
            parts.append(f"`{part.strip('`')}`")
            continue
        part = re.sub(r"([*_<>\[\]|$~^])", r"\\\1", part)
        part = re.sub(r"(?m)^(\s*)([#+=])", r"\1\\\2", part)
        parts.append(PAPER.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", part))
    return "".join(parts)
