"""The installed suite. A wheel has one top-level package, so that it takes no name of another project.

The packages ``scd``, ``baselines`` and ``studies`` are in the folder ``packages`` of the wheel, and beside this package
in a clone of the repository. The command ``scd-suite`` finds them by itself; a program of your own calls
:func:`make_importable` before it imports them.
"""

import os
import sys
from pathlib import Path

__version__ = "0.2.0"  # the only place of the version


def packages() -> Path:
    """The folder that holds ``scd``, ``baselines`` and ``studies``."""
    here = Path(__file__).resolve().parent
    return here / "packages" if (here / "packages").is_dir() else here.parent


def make_importable() -> None:
    """Let ``import scd``, ``import baselines`` and ``import studies`` find the packages of this installation.

    NOTE: records name the commit of the code, which git finds in the folders above it. Those above a wheel may be a
    checkout of another project, so git is kept from looking there.
    """
    folder = packages()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    if folder.name == "packages":
        limits = os.environ.get("GIT_CEILING_DIRECTORIES", "").split(os.pathsep)
        kept = [limit for limit in limits if limit and limit != str(folder.parent)]
        os.environ["GIT_CEILING_DIRECTORIES"] = os.pathsep.join([*kept, str(folder.parent)])
