"""A small MoCo and views of a few images, for the tests of methods that are put around it."""

import torch
from torch import nn

from baselines.moco import MoCo
from scd.method import Batch, View

BATCH, SIDE, DIM, HIDDEN, QUEUE = 4, 16, 6, 10, 32
WHOLE, LEFT, RIGHT = [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]  # LEFT only touches RIGHT
ONE = [WHOLE, [0.1, 0.0, 0.9, 0.6], [0.0, 0.0, 0.5, 0.5], LEFT]  # whole, partly, in a corner, not at all
FLIPS = ([False, True, False, True], [True, True, False, False])


class Patches(nn.Module):
    """A backbone without BN: 4 x 4 patches, one Linear each."""

    dim = 16

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, self.dim, 4, stride=4)

    def forward(self, images):
        return self.conv(images).relu()


def moco(symmetric=False, backbone=None, **options):
    torch.manual_seed(0)
    options = {"dim": DIM, "hidden": HIDDEN, "queue_size": QUEUE, "momentum": 0.9, "symmetric": symmetric, **options}
    return MoCo(Patches() if backbone is None else backbone, **options)


def with_moved_targets(method):
    """The method with target networks that differ from the online ones."""
    for parameter in method.parameters():
        if not parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def views_at(one, other, extra=None):
    """Random views v1 and v2, and perhaps an extra one, with these rectangles of each image."""
    draw = torch.Generator().manual_seed(1)
    places = {"v1": (one, FLIPS[0]), "v2": (other, FLIPS[1]), **({"extra": (extra, FLIPS[1])} if extra else {})}
    return {
        name: View(
            name,
            "extra" if name == "extra" else "global",
            torch.randn(BATCH, 3, SIDE, SIDE, generator=draw),
            torch.tensor(rectangles),
            torch.tensor(flips),
        )
        for name, (rectangles, flips) in places.items()
    }


def outputs(method, views, seed=5):
    """What a method makes of some views, with the random numbers of one step."""
    torch.manual_seed(seed)
    return method(Batch(views))
