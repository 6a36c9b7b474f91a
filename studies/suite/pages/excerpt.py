"""Bring the README's excerpt up to date with the page it quotes: ``python -m studies.suite.pages.excerpt``.

The excerpt is the page's opening (question, answer, first table, first figure), copied, so that no number is typed.
"""

import re
import sys
from pathlib import Path

from scd.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]


def opening(page: str, folder: str) -> str:
    """The page's text between its title and its first section, with links that hold from the folder above it.

    Args:
        page: the markdown text.
        folder: where the page lies, as seen from where the excerpt goes.
    """
    body = page.split("\n## ", 1)[0]
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
        raise UsageError(f"{readme.name} marks no place for an excerpt: {mark}")

    def quoted(found: re.Match[str]) -> str:
        page = readme.parent / found[1]
        if not page.is_file():
            raise UsageError(f"{found[1]} does not exist; run its study first")
        quote = opening(page.read_text(encoding="utf-8"), Path(found[1]).parent.as_posix())
        return f"<!-- excerpt: {found[1]} -->\n{quote}\n<!-- end of excerpt -->"

    readme.write_text(marks.sub(quoted, text), encoding="utf-8")


if __name__ == "__main__":
    try:
        refresh(ROOT / "README.md")
    except UsageError as error:
        sys.exit(f"error: {error}")
