"""Parameters by what happens to them, each counted once."""

import copy

import torch
from torch import nn

from scd.method import Method
from scd.profiling.parameters import ParameterCount, count_parameters


class Sharing(Method):
    """A backbone, its frozen copy, a head that shares the backbone's weight, and buffers."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(3, 5, bias=False)
        self.target_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.tied = nn.Linear(3, 5, bias=True)
        self.tied.weight = self.backbone.weight
        self.register_buffer("queue", torch.zeros(4, 2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch):
        raise NotImplementedError


def test_parameters_are_counted_by_what_happens_to_them():
    assert count_parameters(Sharing()) == ParameterCount(trained=15 + 5, momentum=15, inference=15, buffers=8)
