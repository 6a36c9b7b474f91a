"""A first-in first-out memory of target embeddings: MoCo's negatives."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.errors import UsageError
from scd.nn.processes import gather


class Queue(nn.Module):
    """The last ``size`` keys of ``dim`` numbers, unit length; random unit vectors until they are replaced.

    The random start comes from torch's global generator, and so from the run's initialisation seed. The position of
    the next key is a tensor that is never read on the host: no synchronisation, and it works on the meta device.

    Raises:
        UsageError: a size below 1.
    """

    keys: Tensor
    pointer: Tensor

    def __init__(self, dim: int, size: int):
        super().__init__()
        if size < 1:
            raise UsageError(f"queue_size is at least 1 key, not {size}")
        self.size = size
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys by these (B, D), in rank order those of all processes.

        Raises:
            UsageError: the size is not a multiple of the number of keys that arrive at once.
        """
        keys = gather(keys.detach())
        count = keys.shape[0]
        if self.size % count:
            raise UsageError(
                f"the queue holds {self.size} keys, which {count} keys a step do not divide; "
                f"set queue_size to a multiple of {count}, for example {max(1, round(self.size / count)) * count}"
            )
        places = (self.pointer + torch.arange(count, device=self.keys.device)) % self.size
        self.keys.index_copy_(0, places, keys.to(self.keys.dtype))
        self.pointer.copy_((self.pointer + count) % self.size)
