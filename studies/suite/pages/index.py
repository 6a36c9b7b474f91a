"""The index of the reports, from the JSON file of each page; pages of older code are marked."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas

from scd.atomic import write_text
from scd.errors import DataError, UsageError
from studies.suite.analysis.results import FOLDER, read_about
from studies.suite.analysis.tables import Table
from studies.suite.pages.markdown import Page
from studies.suite.planning.identity import fresh_fingerprint

STALE = (
    "**Stale** means that code which can change the page's numbers has changed since (comments and docstrings do not "
    "count), or that an older version of the suite wrote the page. The same command runs what is missing and writes "
    "the page again."
)


def write_index(out: Path) -> Path:
    """Write ``out/README.md``: one row per page with its question, data, answer, completeness and age."""
    out = Path(out)
    page = Page("Reports")
    page.text(
        "One page per study and data set, written by `python -m studies`. Each page begins with its answer; the "
        f"records behind it are in [{FOLDER}/]({FOLDER}/)."
    )
    rows, meaningless, answers = [], [], []
    for path in sorted((out / FOLDER).glob("*.json")):
        try:
            about = read_about(path)
        except DataError as error:
            page.text(f"**{path.name} is left out:** {error}.")
            continue
        meaningful = about.get("meaningful", True)
        (rows if meaningful else meaningless).append(_row(path.stem, about))
        if meaningful and about.get("answer"):
            answers.append(f"{_link(path.stem)}: {about['answer']}")
    if rows:
        page.table(Table(pandas.DataFrame(rows)))
        page.items(answers)
    if meaningless:
        page.heading("Tests of the wiring", level=2)
        page.text("Pages of the smoke tier; their numbers mean nothing.")
        page.table(Table(pandas.DataFrame(meaningless)))
    if not rows and not meaningless:
        page.text("There is no page yet.")
    if (out / "replications.csv").exists():
        page.text("[Replications](replications.md): pages whose first seeds were run again, and what came out equal.")
    page.text(STALE)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "README.md", page.markdown)
    return out / "README.md"


def _row(name: str, about: dict[str, Any]) -> dict[str, str]:
    seeds, done, planned = len(about.get("seeds", [])), about.get("done", 0), about.get("planned", 0)
    runs = f"{done} of {planned} {about.get('unit', 'runs')}"
    runs += f", {seeds} seed{'s' if seeds != 1 else ''}" if seeds else ""
    return {
        "page": _link(name),
        "question": ", ".join(about.get("questions", [])) or "all",
        "data": about.get("data", ""),
        "tier": about.get("tier", ""),
        "answer": about.get("outcome") or "none yet",
        "runs": runs + ("" if done == planned else " (partial)"),
        "code": "**stale**" if is_stale(about) else "current",
    }


def _link(name: str) -> str:
    return f"[{name}]({quote(name)}.md)"


def is_stale(about: dict[str, Any]) -> bool:
    """Whether a page's numbers come from other code than that on disk, or an older version of the suite wrote it."""
    if "metrics" not in about:
        return True
    try:
        return fresh_fingerprint(about["roots"]) != about["fingerprint"]
    except UsageError:  # a module that the page's runs used does not exist any more
        return True
