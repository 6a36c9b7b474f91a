"""What every test shares: one thread, no network, no display, a cache of its own, and the folder of real data sets."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # modules that tests share

# Set before torch, datasets and matplotlib are imported; tests that start processes hand these on.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch

from scd.errors import UsageError
from scd.installation import check_torchvision


def pytest_configure(config: pytest.Config) -> None:
    """One cache folder for the whole session; pytest-xdist's worker processes inherit it from the first process."""
    try:
        check_torchvision()
    except UsageError as error:
        pytest.exit(str(error), returncode=2)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="scd-tests-")
        os.environ["SCD_CACHE"] = os.path.join(folder, "scd")
        os.environ["HF_DATASETS_CACHE"] = os.path.join(folder, "datasets")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


# Files with the longest tests, which start processes of their own; they are first, so that no process of pytest-xdist
# begins one of them when there is little else left.
FIRST = ("test_ranks.py", "test_local.py", "test_package.py", "test_extension.py", "test_minutes.py", "test_status.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first; the order of the others, and of those within a file, stays."""
    items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets (cifar10/, duts_tr_labelled/, …) that SCD_REAL_DATA names; skips without one."""
    folder = os.environ.get("SCD_REAL_DATA")
    if not folder:
        pytest.skip("SCD_REAL_DATA is not set: no real images to test on")
    if not Path(folder).is_dir():
        pytest.skip(f"SCD_REAL_DATA={folder} is not a folder: no real images to test on")
    return Path(folder)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
