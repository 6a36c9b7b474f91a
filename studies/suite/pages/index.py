"""The answer sheet of the reports: the reviewers' questions, the systems that they name, and all pages.

Everything comes from the files of the pages; pages of older code are marked.
"""

from pathlib import Path
from typing import Any

import pandas

from scd.atomic import write_text
from scd.errors import DataError
from studies.suite.analysis.results import FOLDER, read_about
from studies.suite.analysis.tables import Table
from studies.suite.pages import answer_sheet, reread
from studies.suite.pages.markdown import Page, page_link
from studies.suite.pages.questions import QUESTIONS
from studies.suite.planning.staleness import is_page_stale
from studies.systems import named

STALE = (
    "**Stale** means that code which can change the page's numbers has changed since (comments and docstrings do not "
    "count), or that an older version of the suite wrote the page. The same command runs what is missing and writes "
    "the page again."
)


def write_index(out: Path) -> Path:
    """Write ``out/README.md``: the questions with their answers, the systems, and one row per page with its age.

    Claims are judged again from the records; one process does that once for each state of a page.
    """
    out = Path(out)
    page = Page("The reviewers' questions")
    page.text(
        "One page per study and data set, written by `python -m studies`. Each page begins with its answer; the "
        f"records behind it are in [{FOLDER}/]({FOLDER}/). `nox -s answers` writes this sheet from the records, and "
        "the same with the figures as one HTML file, `answers.html`."
    )
    readings = reread.read_pages(out)
    answer_sheet.write(page, answer_sheet.entries(readings))
    page.heading("The systems that the reviewers name", level=2)
    page.table(named.systems_table(readings), named.CAPTION)
    _all_pages(page, out, {name: reading.stale for name, reading in readings.items()})
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "README.md", page.markdown)
    return out / "README.md"


def _all_pages(page: Page, out: Path, stale: dict[str, bool]) -> None:
    """One row per page, and the answers of pages that belong to no question of the reviewers."""
    page.heading("All pages", level=2)
    rows, meaningless, answers, unread = page_rows(out, stale)
    page.text(*unread)
    if rows:
        page.table(Table(pandas.DataFrame(rows)))
    if answers:
        page.items(answers)
    if meaningless:
        page.heading("Tests of the wiring", level=3)
        page.text("Pages of the smoke tier; their numbers mean nothing.")
        page.table(Table(pandas.DataFrame(meaningless)))
    if not rows and not meaningless:
        page.text("There is no page yet.")
    if (out / "replications.csv").exists():
        page.text("[Replications](replications.md): pages whose first seeds were run again, and what came out equal.")
    page.text(STALE)


def page_rows(
    out: Path, stale: dict[str, bool]
) -> tuple[list[dict[str, str]], list[dict[str, str]], list[str], list[str]]:
    """Rows of pages, rows of pages that mean nothing, answers to no reviewer's question, and files without a row.

    Args:
        stale: whether a page is stale, by name, as far as it is known already.
    """
    rows, meaningless, answers, unread = [], [], [], []
    known = {question.id for question in QUESTIONS}
    for path in sorted((out / FOLDER).glob("*.json")):
        try:
            about = read_about(path)
        except DataError as error:
            unread.append(f"**{path.name} is left out:** {error}.")
            continue
        meaningful, name = about.get("meaningful", True), path.stem
        is_old = stale[name] if name in stale else is_page_stale(about)
        (rows if meaningful else meaningless).append(_row(name, about, is_old))
        if meaningful and about.get("answer") and not known & set(about.get("questions", [])):
            answers.append(f"{page_link(name)}: {about['answer']}")
    return rows, meaningless, answers, unread


def _row(name: str, about: dict[str, Any], stale: bool) -> dict[str, str]:
    seeds, done, planned = len(about.get("seeds", [])), about.get("done", 0), about.get("planned", 0)
    runs = f"{done} of {planned} {about.get('unit', 'runs')}"
    runs += f", {seeds} seed{'s' if seeds != 1 else ''}" if seeds else ""
    return {
        "page": page_link(name),
        "question": ", ".join(about.get("questions", [])) or "all",
        "data": about.get("data", ""),
        "tier": about.get("tier", ""),
        "answer": about.get("outcome") or "none yet",
        "runs": runs + ("" if done == planned else " (partial)"),
        "code": "**stale**" if stale else "current",
    }
