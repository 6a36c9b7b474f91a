"""A small CrOC in float64 and views of a few images, for its tests."""

import numpy as np
import torch
from torch import Tensor, nn

from baselines.croc import CrOC
from baselines.dino import DINO
from scd.method import Batch, View
from scd.nn.vit import Tokens

BATCH, SIDE, CHANNELS = 4, 12, 6
WHOLE, LEFT, RIGHT = [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]
PLACES = ([WHOLE, [0.1, 0.0, 0.9, 0.6], [0.0, 0.0, 0.5, 0.5], LEFT], [[0.2, 0.1, 0.7, 0.9], WHOLE, WHOLE, RIGHT])
FLIPS = ([False, True, False, True], [True, True, False, False])


class WithKeys(nn.Module):
    """A 1 x 1 convolution whose maps carry the keys of two heads, products of the positions, as a ViT's do."""

    dim = CHANNELS

    def __init__(self, mix: Tensor):
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 1, bias=False)
        self.register_buffer("mix", mix)

    def forward(self, images):
        maps = self.conv(images)
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        keys = (tokens @ self.mix).unflatten(2, (2, -1)).transpose(1, 2)  # (B, 2, 1 + hw, d)
        maps.tokens = Tokens(keys[:, :, 0], keys.detach(), tuple(maps.shape[2:]), 1.0)
        return maps, tokens[:, 0]


class Patches(nn.Module):
    """Maps of 3 x 3 positions without attention."""

    dim = CHANNELS

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 4, stride=4)

    def forward(self, images):
        return self.conv(images)


def dino(backbone=None, **options):
    torch.manual_seed(0)
    options = {"prototypes": 12, "hidden": 10, "bottleneck": 5, "momentum": 0.9, **options}
    return DINO(Patches() if backbone is None else backbone, **options)


def croc(backbone=None, **options):
    """A CrOC in float64 whose target networks differ from their online ones."""
    method = CrOC(dino(backbone), **{"prototypes": 9, "seeds": 5, **options}).double()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def make_views(places=PLACES, extras=()):
    draw = torch.Generator().manual_seed(1)
    sides = {"v1": SIDE, "v2": SIDE, **dict.fromkeys(extras, 8)}
    return {
        name: View(
            name, "extra" if name in extras else "global",
            torch.randn(BATCH, 3, side, side, generator=draw, dtype=torch.float64),
            torch.tensor(places[i % 2], dtype=torch.float64), torch.tensor(FLIPS[i % 2]),
        )
        for i, (name, side) in enumerate(sides.items())
    }  # fmt: skip


def outputs(method, views, seed=5):
    torch.manual_seed(seed)
    return method(Batch(views))


def unit(x):
    return x / np.linalg.norm(x)


def softmax(x):
    weights = np.exp(np.asarray(x) - max(x))
    return weights / weights.sum()
