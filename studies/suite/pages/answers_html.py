"""The answer sheet as one HTML file without external resources: sortable tables, figures, light and dark."""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import jinja2
import pandas
from markupsafe import Markup

from scd.atomic import write_text
from studies.suite.pages import answer_sheet, reread
from studies.suite.pages.answer_sheet import Entry, PageAnswer
from studies.suite.pages.answers_template import TEMPLATE
from studies.suite.pages.index import STALE, page_rows
from studies.suite.pages.questions import REVIEWERS
from studies.suite.pages.reread import Reading
from studies.systems import named

NAME = "answers.html"
FIGURE = re.compile(r"^!\[(?P<alt>.*)\]\((?P<path>figures/[^)]+\.png)\)$", re.MULTILINE)
CREDIT = re.compile(r"credit|licen[cs]e|photograph", re.IGNORECASE)


@dataclass(frozen=True)
class Figure:
    """The first figure of a page: its id in the file, the image as a data URI, its caption, and credits as markdown."""

    anchor: str
    source: str
    alt: str
    credits: str


def write_html(out: Path) -> Path:
    """Write ``out/answers.html`` from the committed records and pages."""
    out = Path(out)
    readings = reread.read_pages(out)
    found = answer_sheet.entries(readings)
    rows, _, answers, unread = page_rows(out, {name: reading.stale for name, reading in readings.items()})
    summary = pandas.DataFrame([table_row(each) for each in found])
    page = environment().from_string(TEMPLATE).render(
        reviewers=[(name, words, parts_of(name, found)) for name, words in REVIEWERS.items()],
        figures=place_figures(found, readings, out),
        facts=answer_sheet.facts,
        summary=summary,
        power="What could have been detected is the difference that the claim's test finds with 80 % power.",
        systems=named.systems_table(readings).frame,
        caption=named.CAPTION,
        pages=pandas.DataFrame(rows),
        answers=answers,
        unread=unread,
        stale=STALE,
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / NAME, page)
    return out / NAME


def environment() -> jinja2.Environment:
    """Templates whose values are escaped; the filter ``md`` makes HTML of a line of markdown."""
    made = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    made.filters["md"] = lambda text: Markup(inline(text))
    made.globals["could_have_seen"] = reread.could_have_seen
    return made


def table_row(found: Entry) -> dict[str, str]:
    """A question in the first table: as in markdown, with the answer and what larger tiers would add."""
    row = {"question": f"[{found.question.id}](#{found.question.id})", "answer": found.answer}
    row |= {key: value for key, value in answer_sheet.row(found).items() if key != "question"}
    return row | {"tier gpu would add": found.question.gpu, "tier paper would add": found.question.paper}


def parts_of(reviewer: str, found: Sequence[Entry]) -> list[Entry]:
    """The questions of a reviewer."""
    return [each for each in found if each.question.id.startswith(f"{reviewer}-")]


# -------------------------------------------------------------------- figures


def place_figures(
    found: Sequence[Entry], readings: Mapping[str, Reading], out: Path
) -> dict[tuple[str, str], tuple[Figure, bool]]:
    """(question, page) -> the first figure of the page, and whether it is shown there; elsewhere it is a link to it."""
    figures = {name: first_figure(out / f"{name}.md", f"figure-{name}") for name in readings}
    placed, shown = {}, set()
    for entry in found:
        for answer in entry.main:
            name = answer.reading.name
            if figures[name] is not None and is_told(answer):
                placed[entry.question.id, name] = figures[name], name not in shown
                shown.add(name)
    return placed


def is_told(answer: PageAnswer) -> bool:
    """Whether a page says anything about a question."""
    return bool(answer.parts or answer.stored)


def first_figure(page: Path, anchor: str) -> Figure | None:
    """The first figure of a page with its caption, and a paragraph of credits below it; None without a figure."""
    if not page.is_file():
        return None
    text = page.read_text(encoding="utf-8")
    match = FIGURE.search(text)
    if match is None:
        return None
    image = page.parent / unquote(match["path"])
    if not image.is_file():
        return None
    below = [block.strip() for block in text[match.end() :].split("\n\n")[1:4]]
    credits = [block for block in below[1:] if CREDIT.search(block) and not block.startswith(("<", "#", "|"))]
    data = base64.b64encode(image.read_bytes()).decode("ascii")
    return Figure(re.sub(r"[^\w-]", "-", anchor), f"data:image/png;base64,{data}", match["alt"], " ".join(credits))


# -------------------------------------------------------------------- a line of markdown


def inline(text: str) -> str:
    """HTML of one line of markdown as pages use it: code, links, bold, italics, superscripts; all else is escaped."""
    kept: list[str] = []

    def keep(piece: str) -> str:
        kept.append(piece)
        return f"\0{len(kept) - 1}\0"

    text = re.sub(
        r"`` (.+?) ``|`([^`]+)`", lambda found: keep(f"<code>{html.escape(found[1] or found[2])}</code>"), text
    )
    text = html.escape(text, quote=False)
    text = re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", lambda found: keep(_anchor(found[1], found[2])), text)
    text = re.sub(r"&lt;(/?)sup&gt;", r"<\1sup>", text).replace("&lt;br&gt;", "<br>")
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"(?<![\w*])\*(?!\s)([^*]+)(?<!\s)\*(?![\w*])", r"<em>\1</em>", text)
    text = re.sub(r"\\([\\`*_\[\]&|#])", r"\1", text)
    while "\0" in text:
        text = re.sub(r"\0(\d+)\0", lambda found: kept[int(found[1])], text)
    return text


def _anchor(words: str, target: str) -> str:
    """A link whose words may hold kept pieces; only pages, places in this file and web addresses are linked."""
    if re.match(r"[a-z][a-z0-9+.-]*:", target, re.IGNORECASE) and not target.startswith(("http://", "https://")):
        return words
    return f'<a href="{html.escape(target)}">{words}</a>'
