"""The markdown of a page: open blocks, and blocks that are collapsed under details.

Plain markdown that a code-hosting site renders: tables, images by relative path, ``<details>``. The text depends on its
blocks alone, so equal results give an equal page.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas

from scd.atomic import write_text
from studies.suite.analysis.tables import Table

OPEN_LINES = 150  # a page has at most so many lines outside its details
DETAILS = "details"  # folder of the files that take what does not fit
NUMBER = re.compile(r"[−+]?[\d–<]")  # how a cell that holds a number begins


@dataclass(frozen=True)
class Picture:
    """A drawn figure: its path relative to the page, and its caption."""

    path: str
    caption: str


class Blocks:
    """Blocks of a page in their order."""

    def __init__(self):
        self.blocks: list[str | Table | Picture | Details] = []

    def heading(self, text: str, level: int = 3) -> None:
        """A heading inside a section."""
        self.blocks.append(f"{'#' * level} {text}")

    def text(self, *paragraphs: str) -> None:
        """Paragraphs; empty ones are left out."""
        self.blocks.extend(paragraph for paragraph in paragraphs if paragraph)

    def items(self, entries: Mapping[str, str] | Sequence[str]) -> None:
        """A list; a mapping's keys are set in bold."""
        if isinstance(entries, Mapping):
            entries = [f"**{key}:** {value}" for key, value in entries.items()]
        self.blocks.append("\n".join(f"- {entry}" for entry in entries))

    def code(self, text: str, language: str = "yaml") -> None:
        """A block of code."""
        self.blocks.append(f"```{language}\n{text}\n```")

    def table(self, table: Table, caption: str = "") -> None:
        """A table with its lines and a caption underneath."""
        self.blocks.append(table)
        self.text(caption)

    def figure(self, picture: Picture | None) -> None:
        """An image; its caption is also its alternative text. None adds nothing."""
        if picture is not None:
            self.blocks.append(picture)

    def details(self, summary: str) -> "Details":
        """A collapsed part at this place, to be filled."""
        self.blocks.append(Details(summary))
        return self.blocks[-1]

    @property
    def metrics(self) -> set[str]:
        """The metrics that the tables show, collapsed ones too."""
        shown: set[str] = set()
        for block in self.blocks:
            if isinstance(block, Blocks):
                shown |= block.metrics
            elif isinstance(block, Table):
                shown |= set(block.metrics)
        return shown

    @property
    def markdown(self) -> str:
        """The blocks as markdown, without a line end."""
        return "\n\n".join(rendered(block) for block in self.blocks)


class Details(Blocks):
    """A collapsed part."""

    def __init__(self, summary: str):
        super().__init__()
        self.summary = summary

    @property
    def markdown(self) -> str:
        """The blocks inside ``<details>``; the empty lines let markdown be read inside it."""
        return f"<details>\n<summary><b>{self.summary}</b></summary>\n\n{super().markdown}\n\n</details>"


class Page(Blocks):
    """A page with its title."""

    def __init__(self, title: str):
        super().__init__()
        self.title = title

    @property
    def markdown(self) -> str:
        """The page's text."""
        return f"# {self.title}\n\n{super().markdown}\n"

    def write(self, path: Path) -> Path:
        """Write the page; open blocks that do not fit into ``OPEN_LINES`` go, longest first, into ``details/``."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        moved = Page(f"{self.title}: details")
        while open_lines(self.markdown) > OPEN_LINES and self._move_longest(moved, path):
            pass
        aside = path.parent / DETAILS / path.name
        if moved.blocks:
            aside.parent.mkdir(exist_ok=True)
            write_text(aside, moved.markdown)
        else:
            aside.unlink(missing_ok=True)
        write_text(path, self.markdown)
        return path

    def _move_longest(self, moved: "Page", path: Path) -> bool:
        """Put a link in the place of the longest open block; False where that would save nothing."""
        lengths = [0 if isinstance(block, Details) else len(rendered(block).splitlines()) for block in self.blocks]
        longest = lengths.index(max(lengths))
        if lengths[longest] < 2 or isinstance(self.blocks[longest], Picture):
            return False
        number = len(moved.blocks) // 2 + 1
        moved.blocks += [f"## Part {number}", self.blocks[longest]]
        self.blocks[longest] = f"[Part {number} of the details]({quote(f'{DETAILS}/{path.name}')}#part-{number})"
        return True


def rendered(block: "str | Table | Picture | Details") -> str:
    """One block as markdown."""
    if isinstance(block, Table):
        lines = [markdown_table(block.frame)]
        return "\n\n".join([*lines, "<br>\n".join(block.notes)] if block.notes else lines)
    if isinstance(block, Picture):
        return f"![{block.caption}]({quote(block.path)})\n\n*{block.caption}*"
    return block if isinstance(block, str) else block.markdown


def page_link(name: str) -> str:
    """A link to a page, from the folder of the pages."""
    return f"[{name}]({quote(name)}.md)"


def in_line(text: str) -> str:
    """Text that may come from file names, in one line and without meaning in markdown."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def code_span(text: str) -> str:
    """Text in one line as code, whatever it contains."""
    text = " ".join(text.splitlines())
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def open_lines(text: str) -> int:
    """The number of lines outside ``<details>``."""
    return sum(1 for _ in _outside(text))


def _outside(text: str) -> Iterator[str]:
    depth = 0
    for line in text.splitlines():
        depth += line.startswith("<details>")
        if depth == 0:
            yield line
        depth -= line.startswith("</details>")


def markdown_table(frame: pandas.DataFrame) -> str:
    """A frame of text as a markdown table; the first column to the left, numbers to the right."""
    columns = {name: [" ".join(str(cell).split()).replace("|", "\\|") for cell in frame[name]] for name in frame}
    numeric = [all(map(NUMBER.match, cells)) for cells in columns.values()]
    alignment = ["right" if number and position else "left" for position, number in enumerate(numeric)]
    return pandas.DataFrame(columns).to_markdown(index=False, disable_numparse=True, colalign=alignment)
