"""Seeds derived from named axes: arms with the same seed share the random numbers of the axes that they share."""

import hashlib

import torch


def derive_seed(seed: int, *axes: str | int) -> int:
    """A 63-bit seed for one named axis of a run.

    Two arms that ask for the same axes under the same seed get the same stream: the same data order, the same crop of
    the same view, the same initial weights. Different axes give independent streams.

    Args:
        seed: the run's seed, the number that pairs the arms.
        axes: the path of names, for example ``("augmentation", step, "v1")``.
    """
    text = "/".join(str(part) for part in (seed, *axes))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *axes: str | int) -> torch.Generator:
    """A CPU generator for one named axis; numbers are drawn on the CPU and then moved, so that all devices agree."""
    return torch.Generator().manual_seed(derive_seed(seed, *axes))
