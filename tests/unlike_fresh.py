"""Weights and running statistics that are unlike those of a fresh network."""

import torch
from torch import nn


def disturb(backbone: nn.Module) -> None:
    """Change every vector of a network, in place, from torch's global generator."""
    with torch.no_grad():
        for key, tensor in backbone.state_dict().items():
            if "running_var" in key:
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1 and tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn_like(tensor))
