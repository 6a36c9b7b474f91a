"""Detection and instance segmentation: Faster or Mask R-CNN, fine-tuned as a whole from the pretrained backbone.

The protocol of MoCo (arXiv 1911.05722, section 4.2) and of the region-level methods after it, at the size of the images
at hand; :data:`RECIPES` has the papers' own sizes. The network: :mod:`scd.nn.detector`.

The defaults were chosen on the embedded scenes at 48 px with resnet_tiny, on training images that were held out: 300
steps of 8 images, where a backbone that had learned to classify was well ahead of random weights.

NOTE: batch norm is in training mode, in the backbone as in the pyramid (MoCo: SyncBN, no layer frozen): frozen
statistics would be those of random weights for the arm without pretraining, and would tie each backbone to the scale
that its own pretraining happened to have. The test uses running means; MoCo takes the statistics anew (precise BN),
which moved the AP of the embedded scenes by 0.002.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import FasterRCNN

from scd.data.loader import BatchOrder
from scd.data.scene_loader import HeldScenes, Scenes, StreamedScenes
from scd.data.scene_set import SceneSet, scenes_once
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError
from scd.evaluation.scenes import scored_split, within
from scd.nn.detector import build_detector
from scd.seeds import derive_seed, generator
from scd.training.optimizers import build_optimizer
from scd.training.schedules import linear_warmup

TESTED_TOGETHER = 16  # images per forward pass of the test

# The papers' protocols as keyword arguments of :class:`Detection`, beside data=; from MoCo's configurations of
# detectron2. NOTE: what differs from these, beside the norm statistics (above):
# - images are the central square of each photograph on a canvas of 800 px, where detectron2 takes the whole photograph
#   at a shorter side of 800; objects outside the square are neither learned nor counted;
# - the networks are torchvision's: smooth L1 with beta 1/9 in both heads (detectron2: L1), RoIAlign without the shift
#   by half a pixel, at most 2000 proposals per level before suppression in training and test (1000 in test);
# - VOC has a pyramid here, the papers' detector is a C4 one (res5 as the box head, batch norm behind it);
#   its AP reads precision at COCO's 101 recalls (the papers: VOC2007's 11), and objects marked as difficult count;
# - one process: batches of 16 on one device, so SyncBN is plain batch norm.
_PAPERS = {
    "channels": 256, "hidden": 1024, "box_convs": 4, "mask_convs": 4, "head_norm": "batch", "anchor": 32,
    "octaves": 1, "roi": 7, "regions": 512, "proposals": 1000, "detections": 100,
}  # fmt: skip
_LARGE = {"train_limit": None, "test_limit": None, "size": 800, "stream": True, "batch": 16, "lr": 0.02}
RECIPES: dict[str, dict[str, Any]] = {
    # Mask R-CNN R50-FPN, train2017 to val2017, 1x: about 12 epochs
    "coco_1x": {
        **_LARGE, "masks": True, "steps": 90_000, "warmup": 1000, "milestones": (60 / 90, 80 / 90),
        "detector": {**_PAPERS, "sides": (640, 672, 704, 736, 768)},
    },
    # Faster R-CNN, trainval 2007 and 2012 to test 2007
    "voc07_12": {
        **_LARGE, "steps": 24_000, "warmup": 100, "milestones": (18 / 24, 22 / 24),
        "detector": {**_PAPERS, "sides": tuple(range(480, 800, 32))},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Detection:
    """A further protocol of a run: fine-tune a detector from the method's backbone, then its AP on the test images.

    Args:
        data: scenes with objects; None: the run's own images, and no number where these have no objects.
        masks: Mask R-CNN, which also gives instance segmentation.
        train_limit, test_limit: at most this many images, see :func:`scd.data.scene_set.load_scenes`.
        size: side in pixels of the square images; None: the run's ``data.size``.
        stream: decode images when they are needed, instead of holding all in memory.
        steps, batch: length of the fine-tuning, images per step.
        lr: peak learning rate of SGD with momentum 0.9.
        weight_decay: on all parameters.
        warmup: steps over which the rate rises linearly from 0.
        milestones: shares of ``steps`` after which the rate falls to a tenth of what it was.
        flip: probability of mirroring a training image left to right.
        detector: options of :func:`scd.nn.detector.build_detector`.

    Raises:
        UsageError: a length or rate that is not above 0.
    """

    data: Source | None = None
    masks: bool = False
    train_limit: int | None = 600
    test_limit: int | None = 300
    size: int | None = None
    stream: bool = False
    steps: int = 300
    batch: int = 8
    lr: float = 0.03
    weight_decay: float = 1e-4
    warmup: int = 30
    milestones: Sequence[float] = (2 / 3, 8 / 9)
    flip: float = 0.5
    detector: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("steps", "batch", "lr"):
            if not getattr(self, name) > 0:
                raise UsageError(f"detection: {name} is {getattr(self, name)}, it must be above 0")

    def __call__(
        self, method: nn.Module, source: Source, config: Mapping[str, Any], device: str | torch.device
    ) -> dict[str, float]:
        """``det_ap``, ``det_ap50``, ``det_ap75``, with masks ``seg_ap`` …, all in [0, 1], and ``det_steps``,
        ``n_det_train``, ``n_det_test``.

        Args:
            method: has ``.backbone`` on ``device``; left as it was found.
            source: the run's own images.
            config: of the run: ``data.size`` is the canvas; ``seed_of.probe`` or else ``seed`` draws the new weights,
                the order, the flips and the regions that are learned from.

        Raises:
            UsageError: a loss that is not finite, a backbone that has no pyramid, scenes that cannot be used.
            DataError: data without objects or without a split to test on.
        """
        data = source if self.data is None else self.data
        split = scored_split(data)
        if self.data is None and "objects" not in data.split(split).column_names:
            return {}
        limits = {"train": self.train_limit, "test": self.test_limit}
        limits = limits if self.data is not None else within(limits, config["data"])
        size = self.size or config["data"]["size"]

        def scenes(name: str, limit: int | None) -> Scenes:
            given = (data, name, size, limit)
            return StreamedScenes(*given) if self.stream else HeldScenes(scenes_once(*given))

        own = config["seed_of"]["probe"]
        return self.measure(
            method.backbone,
            scenes("train", limits["train"]),
            scenes(split, limits["test"]),
            config["seed"] if own is None else own,
            device,
        )

    def measure(
        self, backbone: nn.Module, train: Scenes, test: Scenes, seed: int, device: str | torch.device
    ) -> dict[str, float]:
        """The numbers of one backbone on these scenes, see the call."""
        if not train.class_names:
            raise DataError("detection needs scenes with objects, these have segments only")
        device = torch.device(device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed(seed, "detection"))
            detector = build_detector(backbone, len(train.class_names), train.size, masks=self.masks, **self.detector)
            self.fine_tune(detector.to(device), train, seed)
        rows = torch.arange(len(test)).split(TESTED_TOGETHER)
        tested = ((detect(detector, part.images), targets_of(part, self.masks)) for part in test.parts(rows))
        return {
            **average_precision(tested, self.masks),
            "det_steps": self.steps,
            "n_det_train": len(train),
            "n_det_test": len(test),
        }

    def fine_tune(self, detector: FasterRCNN, scenes: Scenes, seed: int) -> list[float]:
        """Train the whole detector in place; the loss of every step.

        Order and flips come from the seed, the sampled anchors and regions from torch's global generator.
        """
        optimizer = build_optimizer(detector, "sgd", lr=self.lr, momentum=0.9, weight_decay=self.weight_decay)
        device = next(detector.parameters()).device
        draws = generator(seed, "detection", "flips")
        order = BatchOrder(len(scenes), min(self.batch, len(scenes)), derive_seed(seed, "detection"))
        losses = []
        detector.train()
        for step, part in enumerate(scenes.parts(map(order.indices, range(self.steps)))):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * self.factor(step)
            images, targets = mirrored(part, torch.rand(len(part), generator=draws) < self.flip, self.masks)
            targets = [{name: value.to(device) for name, value in target.items()} for target in targets]
            loss = sum(detector(list(images.to(device)), targets).values())
            losses.append(float(loss.detach()))
            if not torch.isfinite(loss):
                raise UsageError(f"detection: the loss of step {step} is {losses[-1]}; lower lr, which is {self.lr:g}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return losses

    def factor(self, step: int) -> float:
        """Learning rate at a step as a factor of the peak: linear warm-up, then a tenth after each milestone."""
        return linear_warmup(step, self.warmup) * 0.1 ** sum(step >= share * self.steps for share in self.milestones)


# ---------------------------------------------------------------- scenes as torchvision takes them


def mirrored(scenes: SceneSet, flips: Tensor, masks: bool) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Images (B, 3, S, S) in [0, 1] and their targets, mirrored left to right where ``flips`` (B,) says so."""
    images, targets = scenes.images.float() / 255, targets_of(scenes, masks)
    side = images.shape[-1]
    for row in flips.nonzero().flatten().tolist():
        images[row] = images[row].flip(-1)
        x0, y0, x1, y1 = targets[row]["boxes"].unbind(dim=1)
        targets[row]["boxes"] = torch.stack([side - x1, y0, side - x0, y1], dim=1)
        if masks:
            targets[row]["masks"] = targets[row]["masks"].flip(-1)
    return images, targets


def targets_of(scenes: SceneSet, masks: bool) -> list[dict[str, Tensor]]:
    """Per image ``boxes`` (n, 4), ``labels`` (n,) from 1 on and, if asked for, ``masks`` (n, S, S) uint8."""
    targets = [{"boxes": b, "labels": c + 1} for b, c in zip(scenes.boxes, scenes.classes, strict=True)]
    if masks:
        targets = [{**t, "masks": m.to(torch.uint8)} for t, m in zip(targets, scenes.instances, strict=True)]
    return targets


# ---------------------------------------------------------------- detector to numbers


@torch.no_grad()
def detect(detector: FasterRCNN, images: Tensor) -> list[dict[str, Tensor]]:
    """Per image (3, S, S) uint8 what the detector finds, on the CPU: ``boxes`` (n, 4), ``scores`` (n,), ``labels`` (n,)
    and, of a Mask R-CNN, ``masks`` (n, S, S) bool, a pixel's probability being 0.5 or more."""
    device = next(detector.parameters()).device
    found = detector.eval()(list(images.to(device).float() / 255))
    return [
        {name: (value[:, 0] >= 0.5 if name == "masks" else value).cpu() for name, value in one.items()} for one in found
    ]


def average_precision(
    tested: Iterable[tuple[Sequence[dict[str, Tensor]], Sequence[dict[str, Tensor]]]], masks: bool = False
) -> dict[str, float]:
    """COCO's AP, AP50 and AP75 in [0, 1] of boxes as ``det_…`` and, if asked for, of masks as ``seg_…``.

    AP is the mean over overlaps 0.5, 0.55, …, 0.95 and over the classes that the truth shows; precision is read at 101
    recalls, and of an image the 100 best detections count. No keys without any true object.

    Args:
        tested: batches of (found, truth): per image what :func:`detect` gives, and what :func:`targets_of` gives.
    """
    kinds = {"bbox": "det", "segm": "seg"} if masks else {"bbox": "det"}
    metric = MeanAveragePrecision(
        iou_type=tuple(kinds),
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),  # its own have float32's rounding: 0.6 would not reach 0.6
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
        backend="faster_coco_eval",
    )
    for found, truth in tested:
        metric.update(found, [{**one, "masks": one["masks"].bool()} if masks else one for one in truth])
    values = metric.compute()
    prefix = {kind: f"{kind}_" if len(kinds) > 1 else "" for kind in kinds}
    numbers = {
        f"{name}_ap{at.removeprefix('_')}": float(values[f"{prefix[kind]}map{at}"])
        for kind, name in kinds.items()
        for at in ("", "_50", "_75")
    }
    return {name: value for name, value in numbers.items() if value >= 0}  # -1 stands for no true object
