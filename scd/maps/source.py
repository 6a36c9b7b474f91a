"""The contract of a map source: what turns feature maps into a saliency map."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from scd.method import View


class MapSource(nn.Module, ABC):
    """A module that returns a saliency map for the feature maps of one view.

    The first argument of a constructor is ``dim``, the number of channels C of the feature maps, so that a method can
    build the source for any backbone. ``maps`` carry their gradient; a source that learns passes it on. A method with
    a momentum branch makes a copy of the source for it by ``copy.deepcopy``.

    Attributes:
        needs: what the views must carry beyond pixels and geometry, of ``scd.method.NEEDS``.
        supervision: what the map is made or learned from, of ``scd.method.SUPERVISION``.
        shared_buffers: names of buffers that the momentum copy takes over from this source after each step, so that
            both branches agree within a step.
    """

    needs: frozenset[str] = frozenset()
    supervision: str = "none"
    shared_buffers: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, maps: Tensor, view: View) -> Tensor | None:
        """Saliency in [0, 1], (B, h, w) or J maps (B, J, h, w).

        Args:
            maps: (B, C, h, w), the features that the image-level loss uses.
            view: that they were computed from: pixels, geometry and what ``needs`` names. In evaluation it is the whole
                image without annotations.

        Returns:
            None in evaluation mode, where the view lacks what the source needs.
        """

    def scored(self, maps: Tensor, view: View) -> Tensor | None:
        """The one map (B, h, w) that is evaluated and shown; a source of J maps says how it is made of them."""
        return self(maps, view)

    def after_step(self) -> None:
        """Called after the optimiser step, without gradients, on the online source only."""

    @torch.no_grad()
    def share_buffers(self, copy: "MapSource") -> None:
        """Give the momentum copy the values of ``shared_buffers``."""
        for name in self.shared_buffers:
            copy.get_buffer(name).copy_(self.get_buffer(name))
