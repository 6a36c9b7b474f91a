"""Update the excerpts of pages in the README: ``python -m studies.suite.pages.excerpt``.

An excerpt is a copy of a page's first screen, so that no number of the README is typed.
"""

import argparse
import re
import sys
from pathlib import Path

from scd.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]


def first_screen(page: str, folder: str) -> str:
    """The page's text between its title and its first details, with links that hold in the folder above it.

    Args:
        page: the markdown text.
        folder: path of the page's folder, relative to the file that takes the excerpt.
    """
    body = page.split("\n<details>", 1)[0]
    text = "\n".join(line for line in body.splitlines() if not line.startswith(("# ", "<!--"))).strip()
    return re.sub(r"\]\((?!https?:|#)", f"]({folder}/", text)


def refresh(readme: Path) -> None:
    """Rewrite every excerpt of a file, each between ``<!-- excerpt: PAGE -->`` and ``<!-- end of excerpt -->``.

    Raises:
        UsageError: no excerpt is marked, or its page does not exist.
    """
    text = readme.read_text(encoding="utf-8")
    marks = re.compile(r"<!-- excerpt: (\S+) -->\n.*?<!-- end of excerpt -->", re.DOTALL)
    if not marks.search(text):
        mark = "<!-- excerpt: PAGE --> ... <!-- end of excerpt -->"
        raise UsageError(f"{readme.name} has no place for an excerpt; mark one: {mark}")

    def excerpt(found: re.Match[str]) -> str:
        page = readme.parent / found[1]
        if not page.is_file():
            raise UsageError(f"{found[1]} does not exist; run its study first")
        copied = first_screen(page.read_text(encoding="utf-8"), Path(found[1]).parent.as_posix())
        return f"<!-- excerpt: {found[1]} -->\n{copied}\n<!-- end of excerpt -->"

    readme.write_text(marks.sub(excerpt, text), encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description="Copy the first screens of the pages named in README.md.").parse_args()
    try:
        refresh(ROOT / "README.md")
    except UsageError as error:
        sys.exit(f"error: {error}")
