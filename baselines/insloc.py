"""InsLoc: crops pasted onto other images, compared inside their boxes (Yang et al., CVPR 2021, arXiv 2102.08318).

    I_q, I_k = crops of one image, each pasted at random onto another image; b_q, b_k: where
    q        = g(h(RoIAlign(f(I_q), jittered b_q)))           box head h, linear projection g
    k        = g'(h'(RoIAlign(f'(I_k), b_k)))                 f', h' and g' are moving averages
    L        = InfoNCE(q, k, queue, tau)                      as in MoCo

"Instance Localization for Self-supervised Detection Pretraining". The foreground is a random crop, not an object, and
is known because it was pasted: no boxes, masks or maps are given or learned. Query and key share the image that the
crop is of, but neither its background nor its place. Colours change after pasting, so that foreground and background
share them. Images that serve as backgrounds count in the loss through their own crops only.

InsLoc is a method of its own and no wrapper around MoCo: MoCo's loss on whole images is not kept.

Official settings (limbo0000/InstanceLoc, the variant with FPN). ResNet-50, composites of 256 px, crops of 20 to 100 %
of the image with ratios of 1/2 to 2; RoIAlign of 7 x 7 cells, a head of 4 convolutions of 256 channels with BN and 2
linear layers of width 1024, dim 128; queue 65536, m 0.999, tau 0.2; SGD with Nesterov momentum, lr 0.03 at batch 256.

NOTE: the box is read from the backbone's last map, with one queue. The official code reads it from each of the four
levels of an FPN with the same head, has a queue for each and adds the losses; the query's box is jittered on the
coarsest alone. The paper's other variant reads the map before the last stage, which is its head.
NOTE: backgrounds are other images of this process's part of the batch, two different ones. Officially they are any two
images of the data set, which may be the image itself.
NOTE: where no anchor overlaps enough, the query has the exact box. The official code then draws one of the 4000 anchors
that overlap most, of 5120.
NOTE: the weights of the head start by torchvision's and torch's rules. The EMA runs after the optimiser step, with the
same sequence of weights. The backbone alone is evaluated; the paper's detectors also take over FPN and head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.ops import batched_nms, box_iou

from baselines.moco import QUEUE_SIZE, QueueContrast
from baselines.soco import read_boxes
from scd.data.crops import interpolation_matrix, resample
from scd.data.cut_views import WHOLE, rectangles_inside, uniform, unmirrored, whole_images
from scd.data.photometric import PHOTOMETRIC_DRAWS, apply_photometric, draw_parameters
from scd.data.photometric import photometric as photometric_of
from scd.errors import UsageError
from scd.method import Batch, Method, Parts
from scd.nn.ema import copy_without_grad, ema_update
from scd.nn.features import maps_and_vector
from scd.nn.heads import MLP
from scd.nn.norm import group_batch_norm, has_batch_norm
from scd.nn.normalisation import normalise
from scd.nn.processes import gather, place

FLIP = 0.5  # probability that a composite is mirrored
POSITIONS = 16  # of anchors along a side of a composite
ANCHOR_SIDES = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of a composite's side; official: 32 to 256 px of 256
ANCHOR_RATIOS = (0.5, 0.75, 1.0, 1.5, 2.0)  # height over width
SUPPRESSED = 0.7  # anchors of an image that overlap more than this are thinned out at random


@dataclass
class Composites:
    """Crops on backgrounds: ``images`` (B, 3, s, s), normalised, and ``boxes`` (B, 4) on the CPU.

    Boxes are x0, y0, x1, y1 in [0, 1] of the composite.
    """

    images: Tensor
    boxes: Tensor


class InsLoc(Method):
    """InsLoc with one level of features.

    The recipe gives one view of whole images. Keys are shuffled together with their boxes over the parts of the batch
    that have BN statistics of their own, as in :class:`baselines.moco.MoCo`.

    Args:
        backbone: feature maps; its BN is split in place when ``bn_groups`` > 1, as that of the box head.
        size: side of the composites in pixels.
        scale, ratio: range of a crop's area as a share of the image's, and of its width over its height.
        sides: range of the sides that a crop is fitted into, as shares of the composite's side. A crop keeps its shape:
            its longer side is at most the longer one that was drawn, its shorter side at most the shorter one.
        overlap: the intersection over union of the query's box with the true one is above it; 1: the exact box for the
            query as well.
        dim: D of the embeddings.
        channels: of the box head's convolutions.
        roi: cells along the side of what RoIAlign makes of a box.
        box_convs: 3x3 convolutions of the box head, with BN.
        box_layers, head_width: number and width of the box head's linear layers.
        queue_size: K, a multiple of the batch.
        momentum: m of the key branch, constant.
        temperature: tau.
        bn_groups: parts of a process's batch with BN statistics of their own.
        photometric: name of the photometric augmentation of the composites.
        blur_reference: see :class:`scd.data.views.CropSpec`.

    Raises:
        UsageError: a size below 2 pixels, less than one unit or layer, an impossible range, an overlap or momentum that
            is no share, or an unknown photometric augmentation.
    """

    def __init__(
        self,
        backbone: nn.Module,
        size: int = 256,
        scale: Sequence[float] = (0.2, 1.0),
        ratio: Sequence[float] = (0.5, 2.0),
        sides: Sequence[float] = (0.5, 1.0),
        overlap: float = 0.5,
        dim: int = 128,
        channels: int = 256,
        roi: int = 7,
        box_convs: int = 4,
        box_layers: int = 2,
        head_width: int = 1024,
        queue_size: int = QUEUE_SIZE,
        momentum: float = 0.999,
        temperature: float = 0.2,
        bn_groups: int = 1,
        photometric: str = "mocov2",
        blur_reference: float = 224.0,
    ):
        super().__init__()
        if size < 2:
            raise UsageError(f"InsLoc's size is 2 pixels or more, not {size}")
        numbers = {"dim": dim, "channels": channels, "roi": roi, "box_layers": box_layers, "head_width": head_width}
        for name, value in numbers.items():
            if value < 1:
                raise UsageError(f"InsLoc's {name} is 1 or more, not {value}")
        for name, value in {"scale": scale, "sides": sides}.items():
            if len(value) != 2 or not 0 < value[0] <= value[1] <= 1:
                raise UsageError(f"InsLoc's {name} is two ascending shares in (0, 1], not {list(value)}")
        if len(ratio) != 2 or not 0 < ratio[0] <= ratio[1]:
            raise UsageError(f"InsLoc's ratio is two ascending numbers above 0, not {list(ratio)}")
        for name, value in {"overlap": overlap, "momentum": momentum}.items():
            if not 0 <= value <= 1:
                raise UsageError(f"InsLoc's {name} is a share in [0, 1], not {value}")
        self.distribution = photometric_of(photometric)
        self.backbone = group_batch_norm(backbone, bn_groups)
        head = FastRCNNConvFCHead(
            (backbone.dim, roi, roi), [channels] * box_convs, [head_width] * box_layers, nn.BatchNorm2d
        )
        self.box_head = group_batch_norm(head, bn_groups)
        self.projector = MLP((head_width, dim))
        self.target_backbone = copy_without_grad(self.backbone)
        self.target_box_head = copy_without_grad(self.box_head)
        self.target_projector = copy_without_grad(self.projector)
        self.matcher = QueueContrast(dim, queue_size, temperature)
        self.size, self.scale, self.ratio, self.sides = size, tuple(scale), tuple(ratio), tuple(sides)
        self.overlap = overlap
        self.roi = roi
        self.momentum = momentum
        self.bn_groups = bn_groups
        self.shuffles = has_batch_norm(self.backbone) or has_batch_norm(self.box_head)
        self.blur_reference = blur_reference

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss; logs the overlap of the query's box with the true one, and the share of queries with an anchor.

        Raises:
            UsageError: other views than one of whole images, or too few images.
        """
        query, key = self.composites(batch)
        boxes, found = self.moved(query.boxes)
        queries = embed(query.images, boxes, self.roi, self.backbone, self.box_head, self.projector)
        keys = self.keys(key)
        loss = self.matcher(queries, keys)
        self.matcher.remember([keys])
        logs = {"box_overlap": box_iou(boxes, query.boxes).diagonal().mean(), "with_anchor": found.float().mean()}
        return {"loss": loss, **{name: value.to(loss.device) for name, value in logs.items()}}

    # ---------------------------------------------------------------- composites

    def composites(self, batch: Batch) -> tuple[Composites, Composites]:
        """Query and key: two crops of each image, each on another one of the batch.

        Raises:
            UsageError: other views than one of whole images, or fewer than 3 images.
        """
        (shown, *_) = batch.views.values()
        count = len(shown.images)
        if count < 3:
            raise UsageError(f"InsLoc pastes each image onto two others: 3 images or more in a process, not {count}")
        if shown.images.is_meta:  # pasting takes no operations that are counted
            return tuple(
                Composites(shown.images.new_empty(count, 3, self.size, self.size), shown.images.new_empty(count, 4))
                for _ in range(2)
            )
        images = whole_images(batch).images
        backgrounds = two_others(uniform(count, 2)).to(images.device)
        return tuple(self.composite(images, images[others]) for others in backgrounds.unbind(dim=1))

    @torch.no_grad()
    def composite(self, images: Tensor, backgrounds: Tensor) -> Composites:
        """A crop of each image (B, 3, S, S) in [0, 1] on its background, mirrored and recoloured at random."""
        count, device = len(images), images.device
        crops = rectangles_inside(torch.tensor(WHOLE).expand(count, 4), self.scale, self.ratio)
        boxes = places(crops, uniform(count, 4), self.size, self.sides)
        draws = uniform(count, 1 + PHOTOMETRIC_DRAWS)
        parameters = draw_parameters(draws[:, 1:], self.distribution, self.size / self.blur_reference)
        with torch.autocast(device.type, enabled=False):
            pixels = paste(images, backgrounds, crops.to(device), boxes.to(device), self.size)
            pixels = apply_photometric(pixels, parameters)
            flips = draws[:, 0] < FLIP
            x0, y0, x1, y1 = boxes.unbind(dim=1)
            mirrored = torch.stack([self.size - x1, y0, self.size - x0, y1], dim=1)
            boxes = torch.where(flips[:, None], mirrored, boxes) / self.size
            return Composites(normalise(unmirrored(pixels, flips.to(device))), boxes)

    def moved(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """The query's boxes (B, 4), see :func:`anchors_near`; and (B,) bool, False where it is the exact one."""
        if boxes.is_meta or self.overlap == 1:
            return boxes, boxes.new_zeros(len(boxes), dtype=torch.bool)
        anchors = all_anchors()
        return anchors_near(boxes, anchors, uniform(len(boxes), len(anchors) + 1), self.overlap)

    # ---------------------------------------------------------------- the key branch

    @torch.no_grad()
    def keys(self, composites: Composites) -> Tensor:
        """Embeddings (B, D) by the key branch; where BN has parts, images and boxes are shuffled over them together."""
        modules = (self.target_backbone, self.target_box_head, self.target_projector)
        images, boxes = composites.images, composites.boxes.to(composites.images.device)
        rank, world = place()
        if not (self.shuffles and self.training and self.bn_groups * world > 1):
            return embed(images, boxes, self.roi, *modules)
        count = len(images)
        own = slice(rank * count, (rank + 1) * count)  # this process's rows of the whole batch
        order = torch.randperm(count * world, device="cpu").to(images.device)  # the same on every device and process
        rows = order[own]
        shuffled = embed(gather(images)[rows], gather(boxes)[rows], self.roi, *modules)
        return gather(shuffled)[order.argsort()[own]]

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the key branch; its keys of this step enter the queue."""
        for name in ("backbone", "box_head", "projector"):
            ema_update(getattr(self, f"target_{name}"), getattr(self, name), self.momentum)
        self.matcher.after_step(progress)

    def scheduled_values(self, progress: float) -> dict[str, float]:
        return {"momentum": self.momentum}

    def parts(self) -> Parts:
        heads = (self.box_head, self.projector, self.target_box_head, self.target_projector)
        backbones = {self.backbone: "backbone, online", self.target_backbone: "backbone, target"}
        modules = {**backbones, **dict.fromkeys(heads, "heads"), self.matcher: "loss"}
        return Parts(root="loss", modules=modules, functions={(self, "composites"): "composites"})


def embed(
    images: Tensor, boxes: Tensor, cells: int, backbone: nn.Module, head: nn.Module, projector: nn.Module
) -> Tensor:
    """Embeddings (B, D) of what images (B, 3, s, s) show in their boxes (B, 4), by the modules of one branch."""
    maps, _ = maps_and_vector(backbone(images))
    boxes = boxes.to(images.device)[:, None]  # (B, 1, 4), one box an image
    level = torch.zeros(boxes.shape[:2], dtype=torch.long, device=boxes.device)
    return projector(head(read_boxes([maps], boxes, level, cells)))


# -------------------------------------------------------------------- pasting


def two_others(draws: Tensor) -> Tensor:
    """Two different other rows (B, 2) for each of B rows, from numbers (B, 2) in [0, 1)."""
    own = torch.arange(len(draws))
    first = (draws[:, 0] * (len(draws) - 1)).long()
    first += first >= own  # leave the row itself out
    second = (draws[:, 1] * (len(draws) - 2)).long()
    second += second >= torch.minimum(own, first)  # leave the lower one of both out, then the higher one
    second += second >= torch.maximum(own, first)
    return torch.stack([first, second], dim=1)


def places(crops: Tensor, draws: Tensor, size: int, sides: tuple[float, float]) -> Tensor:
    """Where crops are pasted, in whole pixels: (B, 4) x0, y0, x1, y1, each smaller than the composite.

    Args:
        crops: (B, 4) in [0, 1] of square images.
        draws: (B, 4) in [0, 1): the two sides that a crop is fitted into, and the place in x and y.
        size: of the composite.
        sides: range of the sides, as shares of the size.
    """
    room = (size * (sides[0] + draws[:, :2] * (sides[1] - sides[0]))).floor()
    shape = crops[:, 2:] - crops[:, :2]  # width, height
    factor = torch.minimum(room.amax(dim=1) / shape.amax(dim=1), room.amin(dim=1) / shape.amin(dim=1))
    lengths = (shape * factor[:, None] + 0.5).floor().clamp(1, size - 1)
    corner = (draws[:, 2:] * (size - lengths)).floor()
    return torch.cat([corner, corner + lengths], dim=1)


def paste(images: Tensor, backgrounds: Tensor, crops: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Whole backgrounds of this size with the crops in their boxes.

    Args:
        images, backgrounds: (B, 3, S, S) in [0, 1].
        crops: (B, 4) in [0, 1] of the images.
        boxes: (B, 4) in whole pixels of the result.

    Returns:
        (B, 3, size, size).
    """
    side = images.shape[2]
    step = (crops[:, 2:] - crops[:, :2]) / (boxes[:, 2:] - boxes[:, :2])  # (B, 2) of the image, for a pixel
    low = crops[:, :2] - boxes[:, :2] * step  # where the composite would begin, were the crop continued
    high = low + size * step
    # pixels outside the box may lie outside the image: 0 / 0 in their weights
    horizontal, vertical = (interpolation_matrix(low[:, i], high[:, i], side, size).nan_to_num() for i in (0, 1))
    crop = resample(images.transpose(1, 2).contiguous(), vertical[:, None], horizontal[:, None])[0]
    zeros = torch.zeros(len(images), device=images.device)
    whole = interpolation_matrix(zeros, zeros + 1, side, size)[:, None]
    background = resample(backgrounds.transpose(1, 2).contiguous(), whole, whole)[0]
    pixels = torch.arange(size, device=boxes.device)
    columns, rows = ((pixels >= boxes[:, [i]]) & (pixels < boxes[:, [i + 2]]) for i in (0, 1))  # (B, size)
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], crop, background)


# -------------------------------------------------------------------- anchors


def all_anchors() -> Tensor:
    """Anchors (A, 4) of a composite, x0, y0, x1, y1 in its sides, of which some reach beyond it.

    Position by position, row by row; of each position ratio by ratio; of each ratio from small to large. As in the
    official code, the anchors of a position are centred on the upper left corner of its cell.
    """
    roots = torch.tensor(ANCHOR_RATIOS).sqrt()[:, None]
    sides = torch.tensor(ANCHOR_SIDES)[None, :]
    half = torch.stack([sides / roots, sides * roots], dim=2).flatten(0, 1) / 2  # (ratios · sides, 2)
    y, x = torch.meshgrid(*[torch.arange(POSITIONS) / POSITIONS] * 2, indexing="ij")
    centres = torch.stack([x, y], dim=2).flatten(0, 1)[:, None]
    return torch.cat([centres - half, centres + half], dim=2).flatten(0, 1)


def anchors_near(boxes: Tensor, anchors: Tensor, draws: Tensor, overlap: float) -> tuple[Tensor, Tensor]:
    """An anchor for each box, at random among those that overlap with it.

    Of the anchors whose intersection over union with the box is above ``overlap``, those are kept that overlap at most
    0.7 with one that came before, in a random order. One of them is drawn uniformly.

    Args:
        boxes: (B, 4).
        anchors: (A, 4).
        draws: (B, A + 1) in [0, 1): anchors with a higher number come first; the last one draws.
        overlap: in [0, 1].

    Returns:
        (B, 4); and (B,) bool, False where no anchor overlaps enough: there it is the box itself.
    """
    image, number = (box_iou(boxes.double(), anchors.double()) > overlap).nonzero(as_tuple=True)
    kept = batched_nms(anchors[number].double(), draws[image, number].double(), image, SUPPRESSED).sort().values
    counts = image[kept].bincount(minlength=len(boxes))  # kept anchors are now in the order of the boxes
    place = counts.cumsum(0) - counts + (draws[:, -1] * counts).long()
    chosen = torch.cat([number[kept], number.new_zeros(1)])[place.clamp(max=len(kept))]
    found = counts > 0
    return torch.where(found[:, None], anchors[chosen].to(boxes.dtype), boxes), found
