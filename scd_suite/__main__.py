"""The command ``scd-suite``: the same as ``python -m studies`` in a clone of the repository.

``scd-suite status`` and ``scd-suite clean`` are ``python -m studies.status`` and ``python -m studies.clean``.
"""

import importlib
import sys
from pathlib import Path

COMMANDS = ("status", "clean")  # modules of ``studies`` with a command line of their own


def packages() -> Path:
    """The folder that holds ``scd``, ``baselines`` and ``studies``."""
    here = Path(__file__).resolve().parent
    return here / "packages" if (here / "packages").is_dir() else here.parent


def main() -> int:
    """Run the command line; returns its exit code."""
    sys.path.insert(0, str(packages()))
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        return importlib.import_module(f"studies.{sys.argv[1]}").main(sys.argv[2:])
    from studies.__main__ import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
