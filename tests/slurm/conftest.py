"""A Slurm of one machine for these tests: one for each process of pytest-xdist."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster, missing_programs


@pytest.fixture(scope="session")
def cluster():
    """A running Slurm; skips where its programs are missing or this is not root."""
    if missing := missing_programs():
        pytest.skip(f"Slurm is not installed (no {missing[0]}): apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons start jobs for a user only as root")
    before = os.environ.get("SLURM_CONF")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    started = Cluster(folder)
    try:
        try:
            started.start()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{started.logs()}") from error
        yield started
    finally:
        started.stop()
        os.environ.pop("SLURM_CONF") if before is None else os.environ.update(SLURM_CONF=before)
        shutil.rmtree(folder, ignore_errors=True)
