"""Full precision inside mixed precision: losses and statistics that bfloat16 would spoil."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32 where its type is narrower; float32 and float64 stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def no_autocast(x: Tensor) -> torch.autocast:
    """A context without autocast for the device of a tensor (the meta device has none; the CPU's is used for it)."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)
