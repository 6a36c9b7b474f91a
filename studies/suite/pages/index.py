"""The index of the reports, made of the small JSON file beside each page, with a mark on pages of older code."""

from pathlib import Path
from typing import Any

import pandas

from scd.errors import DataError, UsageError
from studies.suite.analysis.results import FOLDER, read_about
from studies.suite.analysis.tables import Table
from studies.suite.execution.store import write_text
from studies.suite.pages.report import Page
from studies.suite.planning.identity import fresh_fingerprint


def write_index(out: Path) -> Path:
    """Write ``out/README.md``: one row per page with its question, data, verdict, completeness and age."""
    out = Path(out)
    page = Page("Reports")
    page.text(
        "One page per study and data set, written by `python -m studies` and by nobody's hand. Each opens with its "
        f"answer; the records behind it lie in [{FOLDER}/]({FOLDER}/)."
    )
    rows, meaningless, answers = [], [], []
    for path in sorted((out / FOLDER).glob("*.json")):
        try:
            about = read_about(path)
        except DataError as error:
            page.text(f"**{path.name} is left out:** {error}.")
            continue
        (rows if about["meaningful"] else meaningless).append(_row(about))
        if about["meaningful"] and about.get("answer"):
            answers.append(f"[{about['page']}]({about['page']}.md): {about['answer']}")
    if rows:
        page.table(Table(pandas.DataFrame(rows)))
        page.items(answers)
    if meaningless:
        page.heading("Wiring only")
        page.text("Pages of the smoke tier; their numbers mean nothing.")
        page.table(Table(pandas.DataFrame(meaningless)))
    if not rows and not meaningless:
        page.text("There is no page yet.")
    page.text(
        "**Stale** means that code which can change the page's numbers is not the code beside it any more (a "
        "comment or a docstring does not count); the same command runs what is missing and writes the page again."
    )
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "README.md", page.markdown)
    return out / "README.md"


def _row(about: dict[str, Any]) -> dict[str, str]:
    seeds = len(about["seeds"])
    done = f"{about['done']} of {about['planned']} {about.get('unit', 'runs')}"
    done += f", {seeds} seed{'s' if seeds != 1 else ''}" if seeds else ""
    whole = about["done"] == about["planned"]
    return {
        "page": f"[{about['page']}]({about['page']}.md)",
        "question": ", ".join(about["questions"]),
        "data": about["data"],
        "tier": about["tier"],
        "verdict": about.get("outcome") or "none yet",
        "runs": done + ("" if whole else " (partial)"),
        "code": "**stale**" if is_stale(about) else "current",
    }


def is_stale(about: dict[str, Any]) -> bool:
    """Whether the code that made the page's numbers differs from the code on disk, or is gone."""
    try:
        return fresh_fingerprint(about["roots"]) != about["fingerprint"]
    except UsageError:  # a module that the page's runs used is gone
        return True
