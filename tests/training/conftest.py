"""Makes ``tiny_training`` importable here and in the processes that these tests start."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def always_one_thread(one_thread):
    """These models are tiny: a second thread only makes them slower, and sums in another order."""
