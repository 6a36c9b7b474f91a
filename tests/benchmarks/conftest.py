"""What the benchmarks share: all cores, images of the cpu tier, and arms measured in turn within one process.

`nox -s bench` runs the files bench_*.py here; `nox -s tests` does not collect them. A ratio is taken between arms that
ran interleaved, round by round, so that whatever else the machine does meets all of them alike.
"""

import os
from collections.abc import Callable
from statistics import median
from time import perf_counter

import pytest
import torch
from torch import Tensor

from studies.suite.settings import resolve_settings


@pytest.fixture(autouse=True)
def all_cores():
    """Every core for PyTorch, as in a run by itself, or as many as SCD_BENCH_THREADS says.

    On a machine that does other work, two threads that wait for each other measure the other work: give 1 there.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("SCD_BENCH_THREADS", os.cpu_count())))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tier() -> dict:
    """The resolved configuration of a MoCo v2 run of the cpu tier, as a study lists it."""
    return {**resolve_settings("multicrop", ["tier=cpu"]).base, "seed": 0}


@pytest.fixture(scope="session")
def images(tier) -> Tensor:
    """(1024, 3, S, S) uint8 images of the cpu tier's size; the pixels' values do not matter to any arm's speed."""
    size = tier["data"]["size"]
    coarse = torch.rand(1024, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (smooth * 255).to(torch.uint8)


def rates(arms: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Median items per second of every arm; an arm does its work and returns the number of items."""
    measured = {name: [] for name in arms}
    for arm in arms.values():
        arm()  # warm-up: allocator, thread pools, worker processes
    for _ in range(rounds):
        for name, arm in arms.items():
            start = perf_counter()
            items = arm()
            measured[name].append(items / (perf_counter() - start))
    return {name: median(values) for name, values in measured.items()}


@pytest.fixture(scope="session", name="rates")
def rates_fixture() -> Callable[[dict[str, Callable[[], int]], int], dict[str, float]]:
    """The function :func:`rates`."""
    return rates
