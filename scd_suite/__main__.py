"""The command ``scd-suite``: the same as ``python -m studies`` in a clone of the repository."""

import sys
from pathlib import Path


def packages() -> Path:
    """The folder that holds ``scd``, ``baselines`` and ``studies``."""
    here = Path(__file__).resolve().parent
    return here / "packages" if (here / "packages").is_dir() else here.parent


def main() -> int:
    """Run the command line; returns its exit code."""
    sys.path.insert(0, str(packages()))
    from studies.__main__ import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
