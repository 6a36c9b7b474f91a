"""Faster and Mask R-CNN over any backbone, from torchvision's parts, with sizes that depend on the images.

Faster R-CNN (arXiv 1506.01497), feature pyramids (1612.03144), Mask R-CNN (1703.06870). What depends on the images:

levels   the last map of every resolution after the stem, each turned into ``channels``, and one more, pooled from the
         coarsest, for proposals only. resnet_tiny has strides 2, 4 and 8; a torchvision ResNet 4, 8, 16, 32 and 64.
anchors  level l has anchors of side ``anchor`` 2^l, with ``octaves`` = 2 also of sqrt(2) times that, each in three
         shapes. From 8 px on three levels: 8, 11 | 16, 23 | 32, 45 px.
regions  an object of side s is read from level floor(log2(s / (7/4 anchor))), kept within the levels. This is the
         pyramid paper's eq. 1 (a side of 224 at stride 16), which has anchors of 32 px at stride 4.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from scd.errors import UsageError, unknown
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD
from scd.nn.stages import maps_of_stages

SHAPES = (0.5, 1.0, 2.0)  # height over width of an anchor
CANONICAL = 7 / 4  # anchors of 32 px: objects of 56 to 112 px belong to the finest level
HEAD_NORMS = {"batch": nn.BatchNorm2d, "group": partial(nn.GroupNorm, 8), "none": None}
FINEST = 2  # smallest stride of a level; finer maps are the most expensive ones and not needed


class Pyramid(nn.Module):
    """A feature pyramid over a copy of a backbone, with batch norm after each of the pyramid's convolutions.

    Args:
        backbone: maps images (B, 3, s, s) to (B, C, h, w), see :class:`scd.nn.backbone.FeatureMaps`; it is copied.
        size: side s in pixels of the images.
        channels: of every level.

    Raises:
        UsageError: a stride that is no power of two, which torchvision's RoIAlign does not take.

    NOTE: a backbone without stages (a ViT, any timm model) has its last map as its only level; ViTDet (arXiv
    2203.16527) makes more levels of such a map by strided convolutions.
    """

    def __init__(self, backbone: nn.Module, size: int, channels: int):
        super().__init__()
        self.backbone = copy.deepcopy(backbone).requires_grad_(True).eval()
        with torch.no_grad():
            device = next(self.backbone.parameters()).device
            maps, _ = maps_of_stages(self.backbone, torch.zeros(1, 3, size, size, device=device))
        by_stride = {stride_of(features, size): i for i, features in enumerate(maps)}  # the last one of each stride
        self.strides = sorted(stride for stride in by_stride if stride >= FINEST) or sorted(by_stride)
        self.kept = [by_stride[stride] for stride in self.strides]
        self.fpn = FeaturePyramidNetwork(
            [maps[i].shape[1] for i in self.kept], channels, LastLevelMaxPool(), nn.BatchNorm2d
        )
        self.out_channels = channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Levels "0", "1", … and "pool", each (B, channels, s / stride, s / stride)."""
        maps, _ = maps_of_stages(self.backbone, images)
        return self.fpn(OrderedDict((str(level), maps[i]) for level, i in enumerate(self.kept)))


def stride_of(features: Tensor, size: int) -> int:
    """Pixels of an image of side ``size`` per cell of its map (1, C, h, w)."""
    cells = features.shape[-1]
    stride = 2 ** round(math.log2(size / cells))
    if math.ceil(size / stride) != cells:
        raise UsageError(
            f"a feature pyramid needs strides that are powers of two; the backbone has maps of {cells} x {cells} at "
            f"{size} px"
        )
    return stride


def build_detector(
    backbone: nn.Module,
    classes: int,
    size: int,
    *,
    masks: bool = False,
    channels: int = 32,
    hidden: int = 128,
    box_convs: int = 0,
    mask_convs: int = 2,
    head_norm: str = "group",
    anchor: float | None = None,
    octaves: int = 2,
    roi: int = 5,
    regions: int = 32,
    proposals: int = 64,
    detections: int = 30,
    sides: Sequence[int] = (),
) -> FasterRCNN:
    """A detector over a copy of the backbone; everything after it is drawn from torch's global generator.

    Args:
        backbone: see :class:`Pyramid`.
        classes: C; the detector's labels are 1 … C, 0 is the background.
        size: side in pixels of the square images; never resized, unless ``sides`` says so.
        masks: predict a mask for every box, too (Mask R-CNN).
        channels: of the pyramid and of the convolutions of both heads.
        hidden: width of the fully connected layer of the box head.
        box_convs, mask_convs: 3x3 convolutions in either head.
        head_norm: after each of these: "group" (8 groups, so ``channels`` is a multiple of 8), "batch" (the papers) or
            "none".
        anchor: side in pixels of the smallest anchors; None: a 25th of ``size``, at least 8 (32 px of 800).
        octaves: anchor sides per level, 1 or more.
        roi: cells along the side of a region for the box head, twice as many for the mask head; papers: 7.
        regions: proposals per image that the heads learn from, and half of the anchors that the RPN learns from, which
            are 256 at most; papers: 512.
        proposals: per image that the RPN hands on, of twice as many per level before suppression; papers: 1000.
        detections: boxes per image, the best ones; papers: 100.
        sides: training images get one of these sides at random (scale augmentation), test images ``size``.

    Raises:
        UsageError: an unknown norm, or a backbone that has no pyramid.

    NOTE: with batch norm in the heads, training on a few small batches can give a detector that finds nothing: of its
    training regions a quarter are objects, sampled with the ground truth, while it is tested on proposals.
    NOTE: torchvision's other constants are unchanged: overlap 0.7/0.3 for the RPN's positives and negatives, 0.5
    for the heads', non-maximum suppression at 0.7 and 0.5, scores above 0.05.
    """
    if head_norm not in HEAD_NORMS:
        raise unknown("norm of the heads (head_norm)", head_norm, HEAD_NORMS)
    pyramid = Pyramid(backbone, size, channels)
    anchor = max(8.0, size / 25) if anchor is None else anchor
    levels = [str(level) for level in range(len(pyramid.strides))]

    def pool(side: int) -> MultiScaleRoIAlign:
        level = round(math.log2(pyramid.strides[0]))
        return MultiScaleRoIAlign(levels, side, 2, canonical_scale=CANONICAL * anchor, canonical_level=level)

    anchors = [[anchor * 2 ** (level + part / octaves) for part in range(octaves)] for level in range(len(levels) + 1)]
    options = {
        "num_classes": None,
        "min_size": (*sides, size),
        "max_size": max((*sides, size)),
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
        "size_divisible": pyramid.strides[-1],
        "_skip_resize": not sides,
        "rpn_anchor_generator": AnchorGenerator(tuple(map(tuple, anchors)), (SHAPES,) * len(anchors)),
        "rpn_pre_nms_top_n_train": 2 * proposals,
        "rpn_pre_nms_top_n_test": 2 * proposals,
        "rpn_post_nms_top_n_train": proposals,
        "rpn_post_nms_top_n_test": proposals,
        "rpn_batch_size_per_image": min(256, 2 * regions),
        "box_roi_pool": pool(roi),
        "box_head": FastRCNNConvFCHead((channels, roi, roi), [channels] * box_convs, [hidden], HEAD_NORMS[head_norm]),
        "box_predictor": FastRCNNPredictor(hidden, classes + 1),
        "box_batch_size_per_image": regions,
        "box_detections_per_img": detections,
    }
    if not masks:
        return FasterRCNN(pyramid, **options)
    return MaskRCNN(
        pyramid,
        **options,
        mask_roi_pool=pool(2 * roi),
        mask_head=MaskRCNNHeads(channels, [channels] * mask_convs, 1, HEAD_NORMS[head_norm]),
        mask_predictor=MaskRCNNPredictor(channels, channels, classes + 1),
    )
