"""The processes of a distributed run, as a method sees them: its place among them, and rows of all of them."""

import torch
import torch.distributed as dist
from torch import Tensor


def place() -> tuple[int, int]:
    """(rank of this process, number of processes); (0, 1) where nothing is distributed."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def gather(rows: Tensor) -> Tensor:
    """The rows (B, ...) of all processes in rank order, (world·B, ...); the same rows in a single process."""
    _, world = place()
    if world == 1:
        return rows
    rows = rows.contiguous()  # in one memory format on all processes
    gathered = [torch.empty_like(rows) for _ in range(world)]
    dist.all_gather(gathered, rows)
    return torch.cat(gathered)


def average(tensors: list[Tensor]) -> None:
    """Replace floating tensors by their means over all processes, in place, with one message."""
    _, world = place()
    if world == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
