"""How a command was started, for help texts and messages."""

import sys
from pathlib import Path


def program(command: str) -> str:
    """The words that start a command: ``scd-suite status`` where that is how this process was started.

    Otherwise ``python -m studies.status``; of the command "study", ``python -m studies``.
    """
    started = Path(sys.argv[0])
    if started.stem == "scd-suite" or started.parent.name == "scd_suite":
        return f"scd-suite {command}"
    return "python -m studies" if command == "study" else f"python -m studies.{command}"
