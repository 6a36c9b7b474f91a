"""Shared by the benchmarks: a number of cores, images of the cpu tier, and arms measured in turn in one process.

`nox -s bench` runs the files bench_*.py here; `nox -s tests` does not collect them. A ratio is taken between arms that
ran interleaved, round by round, so that other work on the machine affects all of them alike.
"""

import os
from collections.abc import Callable
from statistics import median
from time import perf_counter

import pytest
import torch
from torch import Tensor

from scd.allocator import keep_freed_memory
from scd.profiling.workload import example_images
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.study import Arm


@pytest.fixture(autouse=True, scope="session")
def allocator() -> None:
    """As in the process of a run, for every arm, other pipelines included."""
    keep_freed_memory()


@pytest.fixture(params=[1, os.cpu_count()], ids=["one core", "all cores"])
def cores(request):
    """The cores that every arm may use, loader processes included.

    One core is how a study runs on the CPU: as many runs in parallel as there are cores. All cores: one run alone.
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
    """The configuration of a MoCo v2 run of the cpu tier, as a study lists it."""
    moco = Arm("moco", "MoCo", {"method": "moco"}, "everything", "nothing")
    return resolve_settings("multicrop", ["tier=cpu"]).configure(moco, seed=0)


@pytest.fixture(scope="session")
def images(tier) -> Tensor:
    """(1024, 3, S, S) uint8 images of the cpu tier's size; the pixels' values do not matter to any arm's speed."""
    return example_images(tier["data"]["size"], 1024)


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
