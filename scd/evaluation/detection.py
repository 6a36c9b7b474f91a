"""Detection and instance segmentation: Faster or Mask R-CNN, fine-tuned as a whole from the pretrained backbone.

The protocol of MoCo (arXiv 1911.05722, section 4.2) and of the region-level methods after it, at the size of the images
at hand. The papers' own settings are ``detection_coco_1x`` and ``detection_voc07_12`` in ``studies/conf/protocol``. The
network: :mod:`scd.nn.detector`.

The defaults were chosen on the embedded scenes at 48 px with resnet_tiny, on held-out training images: 300 steps of 8
images, where a backbone that had learned to classify was clearly better than random weights.

NOTE: batch norm is in training mode, in the backbone as in the pyramid (MoCo: SyncBN, no layer frozen): frozen
statistics would be those of random weights for the arm without pretraining, and would tie each backbone to the scale of
its own pretraining. The test uses running means; MoCo computes the statistics anew (precise BN), which moved the AP of
the embedded scenes by 0.002.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import FasterRCNN

from scd.data.loader import BatchOrder
from scd.data.scene_loader import HeldScenes, Scenes, StreamedScenes
from scd.data.scene_set import SceneSet
from scd.errors import DataError, UsageError, unknown
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.protocol import Context, EvaluationData, Protocol
from scd.evaluation.scenes import holds_instances
from scd.nn.detector import build_detector
from scd.seeds import derive_seed, generator
from scd.training.optimizers import build_optimizer, set_learning_rate
from scd.training.schedules import linear_warmup
from scd.training.step import take_step

TESTED_TOGETHER = 16  # images per forward pass of the test
DETECTOR_OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(build_detector).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name != "masks"
}
KINDS = {
    "det": ("box", "boxes found by {detector}"),
    "seg": ("mask", "masks found by Mask R-CNN"),
}
OVERLAPS = {
    "ap": ("AP", "mean over overlaps (IoU) of 0.5, 0.55, ..., 0.95"),
    "ap50": ("AP50", "at an overlap (IoU) of 0.5"),
    "ap75": ("AP75", "at an overlap (IoU) of 0.75"),
}


@dataclass(kw_only=True)
class Detection(Protocol):
    """AP on the test images of a detector that is fine-tuned from the method's backbone.

    The images of a run that have no objects are left out; images that this protocol names itself must have them.

    Args:
        canvas: side in pixels of the square images; None for that of the run.
        masks: Mask R-CNN, with AP of masks as well.
        stream: decode images when they are needed, instead of holding all in memory; the run's limit of training images
            for probes does not hold then.
        steps, batch: length of the fine-tuning, images per step.
        lr: peak learning rate of SGD with momentum 0.9.
        weight_decay: on all parameters.
        warmup: steps over which the rate rises linearly from 0.
        milestones: shares of ``steps`` after which the rate falls to a tenth of its value.
        flip: probability of mirroring a training image left to right.
        detector: options of :func:`scd.nn.detector.build_detector`.

    Raises:
        UsageError: a length, limit or rate that is not above 0, or an option that the detector does not have.
    """

    train_limit: int | None = 600
    test_limit: int | None = 300
    masks: bool = False
    stream: bool = False
    steps: int = 300
    batch: int = 8
    lr: float = 0.03
    weight_decay: float = 1e-4
    warmup: int = 30
    milestones: Sequence[float] = (2 / 3, 8 / 9)
    flip: float = 0.5
    detector: Mapping[str, Any] = field(default_factory=dict)

    def own_data(self, data: EvaluationData) -> EvaluationData:
        return super().own_data(data.streamed if self.stream else data)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "lr"):
            if not getattr(self, name) > 0:
                raise UsageError(f"detection: {name} is {getattr(self, name)}, it must be above 0")
        for name in ("train_limit", "test_limit"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"detection: {name} is {getattr(self, name)}, it must be at least 1")
        for name in self.detector:
            if name not in DETECTOR_OPTIONS:
                raise unknown("option of the detector", name, DETECTOR_OPTIONS)

    def definitions(self) -> dict[str, Metric]:
        detections = {**DETECTOR_OPTIONS, **self.detector}["detections"]
        trained = (
            f"backbone and detector fine-tuned as a whole, then the {detections} best detections of each test image, "
            "COCO's metric with 101 recalls"
        )
        detector = "Mask R-CNN" if self.masks else "Faster R-CNN"
        metrics = {
            f"{kind}_{key}": Metric(
                f"{adjective} {label}",
                SHARE,
                "higher",
                f"average precision of {what.format(detector=detector)}, {at}, mean over classes; {trained}",
            )
            for kind, (adjective, what) in KINDS.items()
            if kind == "det" or self.masks
            for key, (label, at) in OVERLAPS.items()
        }
        return metrics | {
            "det_steps": Metric("detector steps", "steps", None, "steps of the detector's fine-tuning"),
            "n_det_train": Metric("detector's training images", "images", None, "scenes that the detector learns from"),
            "n_det_test": Metric("detector's test images", "images", None, "scenes that the detector is tested on"),
        }

    def applies(self, data: EvaluationData) -> bool:
        return self.data is not None or "objects" in data.columns(data.split)

    def check(self, data: EvaluationData) -> None:
        for split in ("train", data.split):
            if "objects" not in data.columns(split):
                raise DataError(f"detection needs scenes with objects, '{data.source.name}' {split} has none")
            if not holds_instances(data, split):
                raise DataError(
                    f"detection needs a map of the objects beside their boxes, '{data.source.name}' {split} has none: "
                    "a column mask, in which the pixels of the k-th object are k"
                )

    def measure(self, context: Context) -> dict[str, float]:
        """The numbers.

        Raises:
            UsageError: a loss that is not finite, a backbone that has no pyramid, scenes that cannot be used.
        """
        data, device = context.data, torch.device(context.device)
        if self.stream:
            train = StreamedScenes(data.source, "train", data.canvas, data.train_limit)
            test = StreamedScenes(data.source, data.split, data.canvas, data.test_limit)
        else:
            train, test = HeldScenes(data.train_scenes), HeldScenes(data.test_scenes)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed(context.seed, "detection"))
            detector = build_detector(
                context.method.backbone, len(train.class_names), train.size, masks=self.masks, **self.detector
            )
            self.fine_tune(detector.to(device), train, context.seed)
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

        def model(batch: tuple[Tensor, list[dict[str, Tensor]]]) -> dict[str, Tensor]:
            images, targets = batch
            targets = [{name: value.to(device) for name, value in target.items()} for target in targets]
            return {"loss": sum(detector(list(images.to(device)), targets).values())}

        detector.train()
        for step, part in enumerate(scenes.parts(map(order.indices, range(self.steps)))):
            set_learning_rate(optimizer, self.factor(step))
            batch = mirrored(part, torch.rand(len(part), generator=draws) < self.flip, self.masks)
            loss = take_step(model, detector, batch, optimizer, (step + 1) / self.steps)["loss"]
            losses.append(float(loss.detach()))
            if not torch.isfinite(loss):
                raise UsageError(f"detection: the loss of step {step} is {losses[-1]}; lower lr, which is {self.lr:g}")
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
    """Detections in each image (3, S, S) uint8, on the CPU.

    ``boxes`` (n, 4), ``scores`` (n,), ``labels`` (n,) and, of a Mask R-CNN, ``masks`` (n, S, S) bool, True where a
    pixel's probability is 0.5 or more.
    """
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
