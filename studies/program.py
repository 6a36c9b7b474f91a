"""How a command was started and how it ends: for help texts, messages and exit codes."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from scd.errors import UsageError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
BELOW_SEVERAL = re.compile(r"'(.+)' is not in the subpath of '(.+?)'(?: OR .*)?$")  # of pathlib's ValueError


def program(command: str) -> str:
    """The words that start a command: ``scd-suite status`` where that is how this process was started.

    Otherwise ``python -m studies.status``; of the command "study", ``python -m studies``.
    """
    started = Path(sys.argv[0])
    if started.stem == "scd-suite" or started.parent.name == "scd_suite":
        return f"scd-suite {command}"
    return "python -m studies" if command == "study" else f"python -m studies.{command}"


def exit_code(run: Callable[[], int], stopped: str = "") -> int:
    """The exit code of a command; wrong usage and Ctrl-C end it in one line on stderr.

    Args:
        run: does the work and returns its own code.
        stopped: what is said after Ctrl-C of what is kept; empty: nothing is.
    """
    try:
        return run()
    except UsageError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return EXIT_USAGE
    except ValueError as error:
        if not (found := BELOW_SEVERAL.search(str(error))):
            raise
        # NOTE: the reader of folders ends so where images lie below several folders, deeper than class folders do. Its
        # code is part of the id of every run on a folder, so that the text is put right here, not there.
        print(
            f"error: '{found[1]}' lies too deep for a class folder; give the one folder that holds train and test, or "
            f"the class folders, such as data={found[2]}",
            file=sys.stderr,
        )
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("\nstopped" + (f"; {stopped}" if stopped else ""), file=sys.stderr)
        return EXIT_INTERRUPTED
