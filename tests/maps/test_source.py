"""The contract of map sources: its defaults, and buffers that both branches share."""

import copy

import pytest
import torch
from torch import Tensor

from scd.maps.source import MapSource
from scd.method import View, whole_view


class Counted(MapSource):
    """Its map is the number of steps over 10, one buffer shared and one not."""

    shared_buffers = ("steps",)

    def __init__(self, dim: int = 0):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("own", torch.zeros(()))

    def forward(self, maps: Tensor, view: View) -> Tensor:
        return (self.steps / 10).expand(len(maps), *maps.shape[2:])

    def after_step(self) -> None:
        self.steps += 1
        self.own += 1


def test_a_source_must_say_how_its_map_is_made():
    with pytest.raises(TypeError, match="abstract"):
        MapSource()


def test_defaults_need_nothing_and_score_the_map_itself():
    source, view = Counted(), whole_view(torch.zeros(2, 3, 8, 8))
    assert (source.needs, source.supervision, MapSource.shared_buffers) == (frozenset(), "none", ())
    assert torch.equal(source.scored(torch.zeros(2, 4, 3, 3), view), torch.zeros(2, 3, 3))


def test_only_the_named_buffers_are_shared_with_the_copy():
    source = Counted()
    target = copy.deepcopy(source)
    for _ in range(3):
        source.after_step()
    assert target.steps == 0
    source.share_buffers(target)
    assert (target.steps.item(), target.own.item()) == (3, 0)
    source.share_buffers(source)  # a method without a momentum branch has no copy
    assert source.steps == 3
