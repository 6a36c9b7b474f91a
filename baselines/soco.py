"""SoCo: BYOL on the boxes of objects instead of whole images (Wei et al., NeurIPS 2021, arXiv 2106.02637).

    P_1 ... P_L = FPN(stages of f)                        a feature pyramid over the backbone, of the view's image
    b_k         = h(RoIAlign(P_l(k), box_k))              box head h; the level l(k) by the size of the box in the view
    L           = mean over k of || n(p(g(b_k))) - n(g'(b'_k)) ||^2
                                                          k: K boxes of an image, drawn anew, that both views show

The same box is an object in both views. f', FPN', h' and g' are moving averages; there are no negatives. The boxes
are proposals that an annotator makes of each image: the method is as supervised as they are.

SoCo is a method of its own and no wrapper around BYOL: BYOL's loss on whole images is not kept, and projector and
predictor are trained on vectors of boxes. Where the boxes are those of the true objects, it is told what SCD has to
find by itself.

Official settings. ResNet-50 with FPN (P2 to P5, 256 channels), RoIAlign of 7 x 7 cells, a head of 4 convolutions and
one linear layer of width 1024, hidden 4096, dim 256; K = 4 of selective search's proposals; boxes up to 48, 96 and
192 px on P2, P3 and P4; jitter of a tenth with probability 0.5; m from 0.99 on a cosine to 1; LARS with lr 1.0 at batch
256.

NOTE: range [0, 4], as BYOL here; the official loss is the sum over directions of -2 cos, without the constant. An
image's loss is the mean over its boxes, the whole loss the mean over the images that have any. Officially an image
without any counts as 0.
NOTE: both views are crops by the recipe. The official view 1 is the whole image, squeezed into a square, and the crops
are drawn again, up to 5 times, until they share boxes with it.
NOTE: an extra view is online only, as everywhere, and compared with the target of both global views. The official third
view, a crop of half the side, is compared with view 1 alone, in both directions.
NOTE: each box is read from its own level. The official code reads every box from every level and drops the rest from
the loss: its BN statistics in head, projector and predictor are those of one level and of all boxes.
NOTE: in each pair the boxes of the online view are jittered, and clipped to it. The official code jitters those of view
1, in both branches.
NOTE: the official cut-outs in the boxes of the other views, a part of some of its recipes, are left out.
NOTE: in an image with fewer than K usable boxes they are repeated, as officially, for the sake of BN; here repetitions
do not count in the loss. An image without any box has the whole image as its box, as officially.
NOTE: the EMA runs after the optimiser step, see :class:`scd.siamese.MomentumSiamese`; the sequence of weights is the
official one. Weights of FPN and box head start by torchvision's rules. BN is per process, not synchronised.
NOTE: the backbone alone is evaluated; the paper's detectors also take over FPN and head.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.ops import roi_align

from baselines.byol import Prediction
from baselines.slotcon import masked_mean
from scd.errors import UsageError
from scd.method import Parts, View
from scd.nn.detector import Pyramid
from scd.nn.heads import MLP
from scd.nn.precision import at_least_float32, no_autocast
from scd.nn.stages import maps_of_stages
from scd.siamese import Encoded, Features, MomentumSiamese

SIDE = 224  # px of the image from which the strides of the levels are read off
REACH = 12 / 7  # largest box of a level, in its cells, for each cell of the RoI; official: 48 px at stride 4, 7 cells


@dataclass
class PyramidFeatures(Features):
    """The backbone's output for one view, and the pyramid over it: ``levels`` (B, channels, h_l, w_l), finest first."""

    levels: list[Tensor]


class BoxPrediction(Prediction):
    """BYOL's regression of the target embeddings of boxes; see :class:`baselines.byol.Prediction`."""

    def forward(self, online: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Mean of 2 - 2 cos over the boxes of an image that count, then over images with any; 0 when none has.

        Args:
            online, target: (B, R, D) of R boxes an image; no gradient flows into the target.
            counted: (B, R) bool.
        """
        predictions = self.predictor(online)
        with no_autocast(predictions):
            p, z = (F.normalize(at_least_float32(x), dim=2) for x in (predictions, target.detach()))
            losses = torch.where(counted, 2.0 - 2.0 * (p * z).sum(dim=2), 0.0)  # (B, R)
            return masked_mean(losses.sum(dim=1) / counted.sum(dim=1).clamp_min(1), counted.any(dim=1))


class SoCo(MomentumSiamese):
    """SoCo with a feature pyramid, symmetric.

    Args:
        backbone: feature maps. A ResNet has a level for each stride from 2 px on. NOTE: a backbone without stages, a
            ViT for example, has its map as the only level, on which all boxes are then.
        dim: D of the embeddings.
        hidden: width of the projector's and the predictor's hidden layer.
        proposals: K, boxes that are drawn of each image.
        channels: of the pyramid and of the head's convolutions.
        roi: cells along the side of what RoIAlign makes of a box. A box belongs to the finest level on which it is at
            most 12/7 ``roi`` cells large, by the root of its area, or to the coarsest.
        box_convs: 3x3 convolutions of the box head, with BN.
        head_width: of the box head's linear layer.
        jitter: largest shift of a corner, and change of a side, as a share of the box's side.
        jitter_probability: of each box.
        momentum: m of the target at the start.
        momentum_schedule: "cosine" to 1 (official) or "constant".

    Raises:
        UsageError: less than one proposal, channel, cell or unit, a jitter outside [0, 0.5), a probability or momentum
            outside [0, 1], or a backbone whose strides are no powers of two.
    """

    needs = frozenset({"boxes"})
    next_steps_momentum = True  # the official code moves the target before its forward pass

    def __init__(
        self,
        backbone: nn.Module,
        dim: int = 256,
        hidden: int = 4096,
        proposals: int = 4,
        channels: int = 256,
        roi: int = 7,
        box_convs: int = 4,
        head_width: int = 1024,
        jitter: float = 0.1,
        jitter_probability: float = 0.5,
        momentum: float = 0.99,
        momentum_schedule: str = "cosine",
    ):
        sizes = {"proposals": proposals, "channels": channels, "roi": roi, "head_width": head_width}
        for name, value in sizes.items():
            if value < 1:
                raise UsageError(f"SoCo's {name} is 1 or more, not {value}")
        if not 0 <= jitter < 0.5:
            raise UsageError(f"SoCo's jitter is a share of a box's side in [0, 0.5), not {jitter}")
        if not 0 <= jitter_probability <= 1:
            raise UsageError(f"SoCo's jitter_probability is a share in [0, 1], not {jitter_probability}")
        super().__init__(
            backbone=backbone,
            projector=MLP((head_width, hidden, dim), norm="batch"),
            matcher=BoxPrediction(MLP((dim, hidden, dim), norm="batch")),
            momentum=momentum,
            momentum_schedule=momentum_schedule,
            symmetric=True,
        )
        pyramid = Pyramid(backbone, SIDE, channels)  # over a copy of the backbone, which is not used
        self.strides, self.kept, self.fpn = pyramid.strides, pyramid.kept, pyramid.fpn.train()
        self.box_head = FastRCNNConvFCHead((channels, roi, roi), [channels] * box_convs, [head_width], nn.BatchNorm2d)
        self.target_fpn = self.target_of(self.fpn)
        self.target_box_head = self.target_of(self.box_head)
        self.proposals = proposals
        self.roi = roi
        self.jitter = jitter
        self.jitter_probability = jitter_probability

    # ---------------------------------------------------------------- features

    def encode_each(
        self, views: dict[str, View], names: Iterable[str], encode: Callable[[Tensor], Features]
    ) -> dict[str, Features]:
        """Features of each named view by one branch; every view has a forward pass of its own, as officially."""
        return {name: encode(views[name].images) for name in names}

    def encode_online(self, images: Tensor) -> PyramidFeatures:
        return self.pyramid_features(images, self.backbone, self.fpn)

    def encode_target(self, images: Tensor) -> PyramidFeatures:
        return self.pyramid_features(images, self.target_backbone, self.target_fpn)

    def pyramid_features(self, images: Tensor, backbone: nn.Module, fpn: nn.Module) -> PyramidFeatures:
        """One branch's maps, vectors and pyramid of images (B, 3, s, s)."""
        found, pooled = maps_of_stages(backbone, images)
        levels = fpn({str(level): found[i] for level, i in enumerate(self.kept)})
        return PyramidFeatures(found[-1], pooled, [levels[str(level)] for level in range(len(self.kept))])

    # ---------------------------------------------------------------- loss

    def image_loss(self, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss averaged over pairs; logs the share of boxes that both views show, and of images with such a box.

        Without any such box in the batch the loss is 0, with gradients of 0.

        Raises:
            UsageError: views without boxes.
        """
        boxes = {name: padded(view) for name, view in encoded.views.items()}  # (B, n, 4) each
        count = sum(max(1, len(each)) for each in next(iter(encoded.views.values())).boxes)  # of boxes in the batch
        sides = {name: view.images.shape[3] for name, view in encoded.views.items()}
        some = next(iter(boxes.values()))
        draws = torch.rand(*some.shape[:2], 6, device="cpu").to(some.device)  # of each box, the same in every view
        losses, usable, shares = [], [], []
        for i, j in encoded.pairs:
            both = has_area(boxes[i]) & has_area(boxes[j])
            rows, counted = draw(both, draws[:, :, 0], self.proposals)
            moved = jittered(boxes[i], draws[:, :, 1:], self.jitter, self.jitter_probability)
            online = self.embed(encoded.online[i], take(moved, rows, both), sides[i], self.box_head, self.projector)
            with torch.no_grad():
                own = take(boxes[j], rows, both)
                target = self.embed(encoded.target[j], own, sides[j], self.target_box_head, self.target_projector)
            losses.append(self.matcher(online, target, counted))
            usable.append(both.sum() / count)
            shares.append(both.any(dim=1).float().mean())
        weights = losses[0].new_tensor(encoded.weights)
        loss = (torch.stack(losses) * (weights / weights.sum())).sum()
        logs = {"usable_boxes": torch.stack(usable).mean(), "usable_images": torch.stack(shares).mean()}
        return loss, {"image_loss": loss.detach(), **logs}

    def embed(
        self, features: PyramidFeatures, boxes: Tensor, side: int, head: nn.Module, projector: nn.Module
    ) -> Tensor:
        """Embeddings (B, R, D) of boxes (B, R, 4) of a view of ``side`` px, by the head and projector of one branch."""
        regions = read_boxes(features.levels, boxes, self.level_of(boxes, side), self.roi)  # (B·R, channels, roi, roi)
        return projector(head(regions)).unflatten(0, boxes.shape[:2])

    def level_of(self, boxes: Tensor, side: int) -> Tensor:
        """The level (B, R) that each box (B, R, 4) of a view of ``side`` px is read from, by the root of its area."""
        size = (boxes[:, :, 2:] - boxes[:, :, :2]).prod(dim=2).sqrt() * side  # px
        reach = size.new_tensor(self.strides[:-1]) * (REACH * self.roi)
        return (size[:, :, None] > reach).sum(dim=2)

    def parts(self) -> Parts:
        own = super().parts()
        added = dict.fromkeys((self.fpn, self.target_fpn, self.box_head, self.target_box_head), "heads")
        return Parts(root=own.root, modules={**own.modules, **added})


# -------------------------------------------------------------------- boxes


def padded(view: View) -> Tensor:
    """The boxes of a view as (B, n, 4), n the most of an image; the other rows are boxes without area.

    An image without boxes has one, the whole view.

    Raises:
        UsageError: a view without boxes.
    """
    if view.boxes is None:
        raise UsageError("SoCo needs images with boxes: name what makes them, annotations.boxes=ANNOTATOR")
    return pad_sequence([each if len(each) else whole(each, 1) for each in view.boxes], batch_first=True)


def whole(like: Tensor, *shape: int) -> Tensor:
    """Boxes (*shape, 4) of the whole view, of the type and on the device of another tensor."""
    return like.new_tensor([0.0, 0.0, 1.0, 1.0]).expand(*shape, 4)


def has_area(boxes: Tensor) -> Tensor:
    """Whether a box (..., 4) has an area, (...) bool."""
    return (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)


def draw(usable: Tensor, order: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Up to ``most`` usable boxes of each image, without repetition, then the same again until all rows are full.

    Args:
        usable: (B, n) bool.
        order: (B, n) random numbers in [0, 1); boxes with the smallest ones are drawn.
        most: K.

    Returns:
        Numbers (B, R) of the boxes, R = min(K, n), and (B, R) bool: the row counts. It does where it is no repetition;
        no row of an image without usable boxes does.
    """
    rows = (order + (~usable).to(order.dtype)).argsort(dim=1)[:, :most]
    places = torch.arange(rows.shape[1], device=rows.device)
    number = usable.sum(dim=1, keepdim=True).clamp_max(rows.shape[1])  # (B, 1)
    return rows.gather(1, places % number.clamp_min(1)), places < number


def take(boxes: Tensor, rows: Tensor, usable: Tensor) -> Tensor:
    """The boxes (B, R, 4) of these numbers (B, R); the whole view in an image without usable ones (B, n)."""
    taken = boxes.take_along_dim(rows[:, :, None], dim=1)
    return torch.where(usable.any(dim=1)[:, None, None], taken, whole(boxes, 1, 1))


def jittered(boxes: Tensor, draws: Tensor, ratio: float, probability: float) -> Tensor:
    """Boxes (B, n, 4) with their first corner and their sides changed at random, clipped to [0, 1].

    Args:
        boxes: x0, y0, x1, y1.
        draws: (B, n, 5) in [0, 1): whether, the corner's shift in x and y, the change of width and height.
        ratio: of a side, by which corner and side change at most.
        probability: of each box.
    """
    changes = (2 * draws[:, :, 1:] - 1) * ratio * (draws[:, :, :1] < probability)  # (B, n, 4) of a side
    sides = boxes[:, :, 2:] - boxes[:, :, :2]
    low = boxes[:, :, :2] + changes[:, :, :2] * sides
    high = low + (1 + changes[:, :, 2:]) * sides
    return torch.cat([low, high], dim=2).clamp(0, 1).to(boxes.dtype)


def read_boxes(levels: Sequence[Tensor], boxes: Tensor, level: Tensor, cells: int) -> Tensor:
    """RoIAlign of each box from its own level, (B·R, C, cells, cells).

    Every box is read from every level and one is kept, so that no shape depends on the boxes.

    Args:
        levels: (B, C, h_l, w_l).
        boxes: (B, R, 4) in [0, 1] of the view.
        level: (B, R).
        cells: along a side of the result, with as many samples in each as the box has positions (official).
    """
    images = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])  # (B·R,)
    regions = []
    with no_autocast(boxes):
        for number, maps in enumerate(levels):
            maps = at_least_float32(maps)
            height, width = maps.shape[2:]
            corners = boxes.to(maps.dtype).flatten(0, 1) * maps.new_tensor([width, height, width, height])
            rois = torch.cat([images[:, None].to(maps.dtype), corners], dim=1)  # (B·R, 5) in cells
            read = roi_align(maps, rois, cells, aligned=True)
            regions.append(torch.where((level == number).flatten()[:, None, None, None], read, 0.0))
        return torch.stack(regions).sum(dim=0)
