"""The answer sheet from the committed records: ``python -m studies.answers`` writes it as markdown and as HTML.

``reports/README.md`` has every question of the reviewers with its answer, every system that they name, and every page;
``reports/answers.html`` has the same and the figures, in one file that needs nothing else. Nothing is trained.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scd.errors import UsageError
from studies.program import program
from studies.suite.pages.answers_html import write_html
from studies.suite.pages.index import write_index


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both forms; returns the exit code."""
    words = "Writes the reviewers' questions with their answers, from the records of the pages."
    parser = argparse.ArgumentParser(prog=program("answers"), description=words)
    parser.add_argument("--out", default="reports", metavar="DIR", help="the folder of the pages (default: reports)")
    options = parser.parse_args(arguments)
    try:
        if not Path(options.out).is_dir():
            raise UsageError(f"there is no folder '{options.out}' with pages; give --out=DIR, or run a study")
        for write in (write_index, write_html):
            print(write(Path(options.out)))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
