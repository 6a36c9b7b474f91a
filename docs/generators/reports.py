"""The committed pages as pages of the documentation: copies whose links hold there."""

import os
import re
import shutil
from pathlib import Path

FOLDER = "reports"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def write_all(out: Path, reports: Path) -> list[str]:
    """Copy pages, figures and records into ``out/reports``; the names of the pages, the answer sheet as "index".

    A link to a page that is not there becomes plain text, and a figure that is not there its description.
    """
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    pages = sorted(path.stem for path in reports.glob("*.md") if path.stem != "README")
    known = {*(f"{name}.md" for name in pages), "README.md"}
    for name in [*pages, "README"]:
        text = (reports / f"{name}.md").read_text(encoding="utf-8")
        text = with_links(text, reports, known)
        if name == "README":
            listed = "\n".join(pages)
            text += f"\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
        (folder / f"{'index' if name == 'README' else name}.md").write_text(text, encoding="utf-8")
    for part in ("figures", "records"):
        link_or_copy(reports / part, folder / part)
    for path in reports.glob("*.csv"):
        link_or_copy(path, folder / path.name)
    return pages


def with_links(text: str, reports: Path, known: set[str]) -> str:
    """The text with links that hold in the documentation; those to missing files and to folders are plain text."""

    def new(found: re.Match[str]) -> str:
        image, words, target, anchor = found[1], found[2], found[3], found[4] or ""
        if target.startswith(("http:", "https:")):
            return found[0]
        if target.endswith(".md"):
            place = "index.md" if target == "README.md" else target
            return f"[{words}]({place}{anchor})" if target in known else words
        if (reports / target).is_file():
            return found[0]
        return f"*(figure not committed: {words})*" if image else words

    return LINK.sub(new, text)


def link_or_copy(source: Path, target: Path) -> None:
    """The file or folder at another place, without a copy where links are possible."""
    if target.is_symlink() or target.exists():
        return
    if hasattr(os, "symlink"):
        target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
    elif source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)
