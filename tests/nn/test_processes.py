"""Rows and means over two real processes, and over one."""

import multiprocessing
import os

import pytest
import torch
import torch.distributed as dist
from torch import nn

from scd.nn.norm import GroupedBatchNorm2d, average_running_statistics, batch_norm_groups
from scd.nn.processes import average, gather, place

DRAWN = torch.Generator().manual_seed(0)
IMAGES = torch.randn(8, 3, 4, 4, generator=DRAWN).to(memory_format=torch.channels_last)


def test_one_process_has_its_own_rows_and_means():
    rows = torch.ones(3, 2)
    assert place() == (0, 1) and gather(rows) is rows
    average([rows])
    assert rows.equal(torch.ones(3, 2))


def one_of_two(rank: int, store: str, results: multiprocessing.Queue) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    own = IMAGES[4 * rank : 4 * rank + 4].contiguous(memory_format=torch.channels_last)
    means = [torch.full((2,), float(rank)), torch.full((1, 2), 10.0 * rank)]
    average(means)
    norm = nn.BatchNorm2d(3)
    norm(own)
    average_running_statistics(norm)
    found = (place(), gather(own).equal(IMAGES), [mean.tolist() for mean in means], batch_norm_groups(norm))
    results.put((*found, norm.running_mean.tolist(), norm.running_var.tolist()))
    dist.destroy_process_group()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="two processes without a second import of torch need fork")
def test_two_processes_share_rows_means_and_running_statistics(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    pair = [context.Process(target=one_of_two, args=(rank, str(tmp_path / "s"), results)) for rank in range(2)]
    for process in pair:
        process.start()
    found = sorted(results.get(timeout=60) for _ in pair)
    for process in pair:
        process.join(timeout=60)
    norm = GroupedBatchNorm2d(3, groups=2)
    norm(IMAGES)
    for rank, (where, whole, means, groups, running_mean, running_var) in enumerate(found):
        assert where == (rank, 2) and whole and groups == 2
        assert means == [[0.5, 0.5], [[5.0, 5.0]]]
        torch.testing.assert_close(torch.tensor(running_mean), norm.running_mean)
        torch.testing.assert_close(torch.tensor(running_var), norm.running_var)
