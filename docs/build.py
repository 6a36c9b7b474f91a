"""Build the documentation: ``python -m docs.build``; warnings are errors.

The sources of the pages are this folder's markdown files. They are filled in with jinja (computed numbers, files that
tests run) and put beside the generated pages of methods and reports into ``build/docs/source``; Sphinx writes the HTML
into ``build/docs/html``. Nothing is written elsewhere, and nothing is read from a network.
"""

import argparse
import importlib.util
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2

from docs.generators import method_pages, notebooks, reports, worked_example

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "docs"
NOTEBOOK = SOURCES / "notebooks" / "paired_difference.ipynb"
README = ROOT / "README.md"
OUT = ROOT / "build" / "docs"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the sources and run Sphinx; the exit code: 0, 1 Sphinx has warned, 2 Sphinx is not installed."""
    parser = argparse.ArgumentParser(prog="python -m docs.build", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="default: build/docs")
    given = parser.parse_args(argv)
    missing = [name for name in ("sphinx", "myst_parser", "furo") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"error: {', '.join(missing)} not installed; run `nox -s docs`, or install .[docs]", file=sys.stderr)
        return 2
    write_sources(given.out / "source")
    code = build_html(given.out / "source", given.out / "html")
    if code == 0:
        print(given.out / "html" / "index.html")
    return code


def build_html(source: Path, html: Path) -> int:
    """Run Sphinx in this process; its exit code."""
    from sphinx.cmd.build import main as sphinx

    return sphinx(["-q", "-W", "--keep-going", "-E", "-b", "html", "-c", str(SOURCES), str(source), str(html)])


def write_sources(source: Path) -> None:
    """All pages, written and generated, into an empty folder."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    write_texts(source)
    method_pages.write_all(source)
    reports.write_all(source, ROOT / "reports")
    (source / "notebook.md").write_text(notebooks.page(NOTEBOOK), encoding="utf-8")
    shutil.copy(NOTEBOOK, source)


def texts() -> list[Path]:
    """The pages that are written by hand."""
    return sorted(SOURCES.rglob("*.md"))


def write_texts(source: Path) -> None:
    """The pages that are written by hand, filled in."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    known = {"example": worked_example.values(), "file": file, "readme": readme}
    for path in texts():
        target = source / path.relative_to(SOURCES)
        target.parent.mkdir(parents=True, exist_ok=True)
        filled = environment.from_string(path.read_text(encoding="utf-8")).render(known)
        target.write_text(filled, encoding="utf-8")


def file(path: str) -> str:
    """A file of the repository as a code block, under its path in a clone (``tests/extension`` is left out of it)."""
    text, language = (ROOT / path).read_text(encoding="utf-8"), {".py": "python", ".yaml": "yaml"}[Path(path).suffix]
    return f"`{path.removeprefix('tests/extension/')}`:\n\n```{language}\n{text.rstrip()}\n```"


def readme(section: str, language: str) -> str:
    """The first code block of a language under a heading of the README."""
    body = README.read_text(encoding="utf-8").split(f"## {section}\n", 1)[1]
    found = re.search(rf"```{language}\n.*?```", body, re.DOTALL)
    return found[0]


if __name__ == "__main__":
    sys.exit(main())
