"""The contract of a pretraining method: what it takes from the data, and what the training loop calls.

A method sees batches and returns a loss. It knows no optimiser, device, logger or file. Three layers build on it:
:class:`Method` (any method, for example MAE), :class:`scd.siamese.JointEmbedding` (pairs of views through one network,
for example SimSiam) and :class:`scd.siamese.MomentumSiamese` (an online and a momentum branch, for example MoCo).
:class:`scd.wrapper.Wrapper` puts something around a joint-embedding method, as SCD and LEWEL do.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

NEEDS = ("masks", "boxes", "segments", "labels")
SUPERVISION = ("none", "unsupervised teacher", "supervised teacher", "labels", "oracle")  # weakest first


@dataclass
class View:
    """One crop of every image in a batch, with its geometry.

    Args:
        name: the crop's name.
        role: "global" or "extra".
        images: (B, 3, s, s) float32, normalised.
        rectangles: (B, 4) x0, y0, x1, y1 of the crop in [0, 1] of the source image.
        flips: (B,) bool, True where the view is mirrored left to right.
        masks: (B, s, s) float in {0, 1}, 1 on the object, or None.
        segments: (B, s, s) int64 region ids of each image, -1 where unknown, or None.
        boxes: one (n_i, 4) tensor per image, x0, y0, x1, y1 in [0, 1] of the view, clipped to it, or None. Rows keep
            the order of the image's boxes, so that row k is the same object in every view; a box outside has no area.
        weight: of the pairs in which the view is the online one, in the mean of the image-level loss over pairs.
    """

    name: str
    role: str
    images: Tensor
    rectangles: Tensor
    flips: Tensor
    masks: Tensor | None = None
    segments: Tensor | None = None
    boxes: Sequence[Tensor] | None = None
    weight: float = 1.0

    def part(self, rows: slice) -> "View":
        """The view of some of the images."""
        chosen = {
            name: value[rows]
            for name in ("images", "rectangles", "flips", "masks", "segments", "boxes")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **chosen)

    def grid(self, h: int, w: int) -> Tensor:
        """Source coordinates (B, h, w, 2), x then y in [0, 1], of the centres of an h x w feature grid."""
        x0, y0, x1, y1 = self.rectangles.unbind(dim=1)
        u = (torch.arange(w, device=self.rectangles.device, dtype=self.rectangles.dtype) + 0.5) / w
        v = (torch.arange(h, device=self.rectangles.device, dtype=self.rectangles.dtype) + 0.5) / h
        u = torch.where(self.flips[:, None], 1 - u, u)  # (B, w)
        x = x0[:, None] + u * (x1 - x0)[:, None]
        y = y0[:, None] + v * (y1 - y0)[:, None]  # (B, h)
        return torch.stack([x[:, None, :].expand(-1, h, -1), y[:, :, None].expand(-1, -1, w)], dim=3)


def whole_view(images: Tensor, name: str = "whole") -> View:
    """The view of whole images (B, 3, s, s), normalised and not mirrored, as an evaluation sees them."""
    rectangles = images.new_tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float32).expand(len(images), 4)
    return View(name, "global", images, rectangles, torch.zeros(len(images), dtype=torch.bool, device=images.device))


@dataclass
class Batch:
    """What a method receives for one step.

    Args:
        views: by name, in the order of the recipe.
        indices: (B,) int64 row numbers of the images in the data set, or None.
        labels: (B,) int64, only for methods that declare the need.
    """

    views: dict[str, View]
    indices: Tensor | None = None
    labels: Tensor | None = None


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share optimiser settings.

    Args:
        parameters: trainable parameters.
        lr_multiplier: factor on the learning rate.
        weight_decay_multiplier: factor on the weight decay.
        constant_lr: True keeps the learning rate at its peak instead of following the schedule (SimSiam's predictor).
    """

    parameters: list[nn.Parameter]
    lr_multiplier: float = 1.0
    weight_decay_multiplier: float = 1.0
    constant_lr: bool = False


@dataclass(frozen=True)
class Parts:
    """Where the operations of a training step belong, for cost profiles.

    Args:
        root: the part of everything outside ``modules``.
        modules: module -> name of the part that its forward pass belongs to.
        functions: (object, name of its method) -> name of the part, for work that no module call delimits.
    """

    root: str = "loss"
    modules: Mapping[nn.Module, str] = field(default_factory=dict)
    functions: Mapping[tuple[object, str], str] = field(default_factory=dict)


class Method(nn.Module, ABC):
    """A pretraining method.

    Subclasses set ``backbone``, the part that is evaluated and exported, and implement :meth:`forward`.

    Attributes:
        needs: what the batches must carry beyond pixels, of ``NEEDS``.
        supervision: what the method learns from, of ``SUPERVISION``; pages print it.
    """

    needs: frozenset[str] = frozenset()
    supervision: str = "none"
    backbone: nn.Module

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """One step's loss and detached scalars worth logging: ``{"loss": scalar, ...}``."""

    def after_backward(self) -> None:
        """Called between the backward pass and the optimiser step, for example to drop the gradients of a layer."""

    def after_step(self, progress: float) -> None:
        """Called after the optimiser step, without gradients: momentum copies, queues, centres.

        Args:
            progress: share in (0, 1] of the training that is done.
        """

    def parameter_groups(self) -> list[ParameterGroup]:
        """All trainable parameters in groups of equal optimiser settings; each parameter in exactly one group."""
        return [ParameterGroup([parameter for parameter in self.parameters() if parameter.requires_grad])]

    def scheduled_values(self, progress: float) -> dict[str, float]:
        """Values that the method itself schedules (a momentum), for the log; ``progress`` as in :meth:`after_step`."""
        return {}

    def saliency(self, view: View) -> Tensor | None:
        """A map (B, h, w) in [0, 1] of where the foreground is in a view, or None: most methods have none."""
        return None

    def evaluated_state(self) -> dict[str, Tensor]:
        """The tensors that an evaluation needs, by name.

        Left out are momentum copies (modules called ``target_*``), what a loss keeps for itself (``matcher``,
        ``*_matcher``: queues, centres, predictors), and the progress of the training (``_extra_state``).
        """
        return {
            name: value
            for name, value in self.state_dict().items()
            if not any(
                part.startswith("target_") or part.endswith("matcher") or part == "_extra_state"
                for part in name.split(".")
            )
        }

    def load_evaluated_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what :meth:`evaluated_state` returned; the other tensors stay as they are.

        Raises:
            RuntimeError: names or shapes that are not this method's.
        """
        own, evaluated = self.state_dict(), self.evaluated_state()
        self.load_state_dict({**{name: value for name, value in own.items() if name not in evaluated}, **state})

    def parts(self) -> Parts:
        """The parts of a training step, for cost profiles."""
        return Parts(modules={self.backbone: "backbone, online"})


def strongest_supervision(*kinds: str) -> str:
    """The strongest of some kinds of supervision, in the order of ``SUPERVISION``."""
    return max(kinds, key=SUPERVISION.index)
