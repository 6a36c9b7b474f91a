"""What the benchmarks share: a number of cores, images of the cpu tier, and arms measured in turn in one process.

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

from scd.allocator import keep_freed_memory
from studies.suite.planning.settings import resolve_settings


def pytest_addoption(parser: pytest.Parser) -> None:
    """The words of the command line that `studies.cost_profile` hands on."""
    parser.addoption("--words", default="tier=cpu", help="settings of the cost profile: 'tier=cpu sizes.crop=32'")


@pytest.fixture(autouse=True, scope="session")
def allocator() -> None:
    """As in the process of a run; every arm, other pipelines included, has the benefit of it."""
    keep_freed_memory()


@pytest.fixture(params=[1, os.cpu_count()], ids=["one core", "all cores"])
def cores(request):
    """The cores that every arm may use, loader processes included.

    One core is how a study runs here: as many runs beside each other as there are cores. All cores: one run by itself.
    """
    threads, pinned = torch.get_num_threads(), hasattr(os, "sched_setaffinity")
    allowed = os.sched_getaffinity(0) if pinned else set()
    torch.set_num_threads(request.param)
    if pinned:
        os.sched_setaffinity(0, sorted(allowed)[: request.param])
    yield request.param
    torch.set_num_threads(threads)
    if pinned:
        os.sched_setaffinity(0, allowed)


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
