"""The memory of keys: order, wrap-around, what it refuses, and all ranks' keys under two processes."""

import multiprocessing
import os

import pytest
import torch
import torch.distributed as dist

from scd.errors import UsageError
from scd.nn.queue import Queue


def rows(start: int, count: int) -> torch.Tensor:
    return torch.arange(start, start + count, dtype=torch.float32)[:, None].expand(count, 2).clone()


def test_starts_with_random_unit_vectors_of_the_global_generator():
    torch.manual_seed(3)
    queue = Queue(8, 32)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(32))
    torch.manual_seed(3)
    assert torch.equal(queue.keys, Queue(8, 32).keys)
    assert not torch.equal(queue.keys, Queue(8, 32).keys)


def test_replaces_the_oldest_first_and_wraps_around():
    queue = Queue(2, 6)
    for start in (0, 2, 4):
        queue.enqueue(rows(start, 2))
    assert queue.keys[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    queue.enqueue(rows(6, 2))
    assert queue.keys[:, 0].tolist() == [6, 7, 2, 3, 4, 5]
    queue.enqueue(rows(8, 3))
    assert queue.keys[:, 0].tolist() == [6, 7, 8, 9, 10, 5]
    queue.enqueue(rows(11, 2))  # over the end
    assert queue.keys[:, 0].tolist() == [12, 7, 8, 9, 10, 11]


def test_keeps_neither_gradient_nor_precision_of_the_keys():
    queue = Queue(2, 4)
    queue.enqueue(rows(0, 2).to(torch.bfloat16).requires_grad_())
    assert queue.keys.dtype == torch.float32 and not queue.keys.requires_grad


def test_place_survives_a_state_dict():
    queue, other = Queue(2, 6), Queue(2, 6)
    queue.enqueue(rows(0, 2))
    other.load_state_dict(queue.state_dict())
    for each in (queue, other):
        each.enqueue(rows(2, 2))
    assert torch.equal(queue.keys, other.keys)


@pytest.mark.parametrize(("count", "advice"), [(4, 8), (7, 7), (16, 16)])
def test_refuses_a_batch_that_does_not_divide_it(count, advice):
    text = f"holds 10 keys, which {count} keys a step do not divide; set queue_size to a multiple of {count}, for"
    with pytest.raises(UsageError, match=f"{text} example {advice}$"):
        Queue(2, 10).enqueue(rows(0, count))


def test_works_on_the_meta_device():
    queue = Queue(2, 6).to("meta")
    queue.enqueue(torch.empty(3, 2, device="meta"))
    assert queue.keys.shape == (6, 2) and queue.pointer.is_meta


def enqueue_as_one_of_two(rank: int, store: str, results: multiprocessing.Queue) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    queue = Queue(2, 8)
    queue.enqueue(torch.full((2, 2), 10.0 + rank))
    results.put((queue.keys[:4, 0].tolist(), queue.pointer.item()))
    dist.destroy_process_group()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="two processes without a second import of torch need fork")
def test_takes_the_keys_of_all_processes_in_rank_order(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = [(rank, str(tmp_path / "store"), results) for rank in range(2)]
    processes = [context.Process(target=enqueue_as_one_of_two, args=args, daemon=True) for args in arguments]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [([10.0, 10.0, 11.0, 11.0], 4)] * 2
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
