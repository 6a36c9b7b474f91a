"""Semi-supervised fine-tuning: the whole network with a linear classifier, on a fixed share of the labels.

The protocol of SimCLR (arXiv 2002.05709, appendix B.5) and SwAV (arXiv 2006.09882): classes in equal parts, one list of
images for every method and seed, random resized crops and flips, SGD with momentum 0.9 and without weight decay, top-1
on the test images. The learning rate matters more than the method does, so it is chosen on labelled images that are
held out; the test images are never used for a choice. With 5 labels of a class, one of them is held out: the choice is
then noisy, and a single ``lr`` for all arms may be the better protocol.

NOTE: a cosine schedule (SwAV: a fifth of the rate after 60 and 80 % of the epochs).
NOTE: batch norm without parameters between features and classifier, as in MAE's linear probe (arXiv 2111.06377): one
``head_lr`` then fits features of any scale.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.data.images import ImageSet
from scd.data.loader import MemoryBatches
from scd.data.views import CropSpec, Recipe, ViewMaker
from scd.errors import UsageError
from scd.evaluation.features import evaluation_views, frozen
from scd.evaluation.labels import HELD_OUT, MIN_PER_CLASS, accuracy, check_classes, stratified_part
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.protocol import Context, EvaluationData, Protocol
from scd.method import Batch, Method, ParameterGroup
from scd.nn.features import maps_and_vector
from scd.seeds import derive_seed, generator
from scd.training.optimizers import build_optimizer, set_learning_rate
from scd.training.schedules import cosine
from scd.training.step import take_step

LISTS = 0  # the seed of the lists of labelled and held-out images: one for all runs
CROP = "fine-tuning"  # name of the training view


@dataclass(kw_only=True)
class FineTune(Protocol):
    """Test accuracy of a copy of the backbone that is fine-tuned on a share of the labels.

    Args:
        prefix: before the numbers' names; None: "finetune_" for all labels, "labels10_" for a tenth of them.
        labels: share of the training images whose labels are used, in (0, 1]; at least 5 images of each class.
        epochs: passes over the labelled images.
        least_steps: a lower bound of the training's length, for few labelled images.
        batch: images per step; all of them where there are fewer.
        lr: peak learning rate of the backbone, or several to choose from.
        head_lr: peak learning rate of the classifier.
        weight_decay: on all parameters.
        scale: range of the area of the training crops.

    Raises:
        UsageError: a share outside (0, 1], no learning rate, or a number that is not above 0.
    """

    prefix: str | None = None
    labels: float = 1.0
    epochs: int = 10
    least_steps: int = 200
    batch: int = 64
    lr: Sequence[float] | float = (0.003, 0.01, 0.03)
    head_lr: float = 0.1
    weight_decay: float = 0.0
    scale: Sequence[float] = (0.2, 1.0)

    def __post_init__(self) -> None:
        if not 0 < self.labels <= 1:
            raise UsageError(f"fine-tuning: labels is {self.labels}, a share lies in (0, 1]")
        if not self.rates:
            raise UsageError("fine-tuning: lr names no learning rate")
        for name in ("epochs", "least_steps", "batch", "head_lr"):
            if not getattr(self, name) > 0:
                raise UsageError(f"fine-tuning: {name} is {getattr(self, name)}, it must be above 0")
        if self.prefix is None:
            self.prefix = "finetune_" if self.labels == 1 else f"labels{100 * self.labels:g}_"

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates to choose from, lowest first."""
        return (float(self.lr),) if isinstance(self.lr, (int, float)) else tuple(sorted(self.lr))

    def definitions(self) -> dict[str, Metric]:
        share = f"{100 * self.labels:g} %"
        title = "fine-tuned" if self.labels == 1 else f"{share} of labels"
        used = "all training labels" if self.labels == 1 else f"{share} of the training labels, at least 5 a class"
        return {
            "top1": Metric(
                f"{title}, top-1",
                SHARE,
                "higher",
                "test images whose class the network predicts, backbone and linear classifier fine-tuned as a whole on "
                f"{used}, the same images for every run, classes in equal parts unless all are used; random resized "
                "crops and flips; learning rate chosen on a fifth of the labelled images, then trained on all of them",
            ),
            "lr": Metric(
                f"{title}, chosen learning rate",
                "peak learning rate of the backbone",
                None,
                "the one with the highest accuracy on a fifth of the labelled images, of "
                f"{', '.join(f'{rate:g}' for rate in self.rates)}; at either end the choice may be too narrow",
            ),
            "images": Metric(f"{title}, images", "images", None, "labelled images that the network learns from"),
        }

    def applies(self, data: EvaluationData) -> bool:
        return data.has("label")

    def check(self, data: EvaluationData) -> None:
        check_classes(data.train.labels, data.test.labels, data.train.class_names)

    def measure(self, context: Context) -> dict[str, float]:
        """The numbers.

        Raises:
            UsageError: a loss that is not finite at the chosen learning rate.
        """
        train = context.data.train
        chosen = train.subset(labelled_rows(train.labels, self.labels))
        lr = self.choose(context, chosen)
        network, classes, finite = self.train(context, chosen, lr)
        if not finite:
            raise UsageError(f"fine-tuning: the loss is not finite at lr={lr:g}; lower lr and head_lr")
        return {"top1": self.score(context, network, classes, context.data.test), "lr": lr, "images": len(chosen)}

    def choose(self, context: Context, labelled: ImageSet) -> float:
        """The learning rate with the highest accuracy on a fifth of the labelled images; of equal ones the lowest."""
        if len(self.rates) == 1:
            return self.rates[0]
        held = stratified_part(labelled.labels, HELD_OUT, LISTS)
        kept, held_out = labelled.subset((~held).nonzero()[:, 0]), labelled.subset(held.nonzero()[:, 0])
        scores = []
        for lr in self.rates:
            network, classes, finite = self.train(context, kept, lr)
            scores.append(self.score(context, network, classes, held_out) if finite else -1.0)
        return self.rates[scores.index(max(scores))]

    def train(self, context: Context, labelled: ImageSet, lr: float) -> tuple["Classifier", Tensor, bool]:
        """The fine-tuned network, the label of each of its outputs, and whether every loss was finite.

        NOTE: the optimiser's base rate is 1; the multipliers of the groups are the peak rates.
        """
        device, seed = torch.device(context.device), derive_seed(context.seed, "fine-tuning")
        classes, targets = labelled.labels.unique(return_inverse=True)
        batch = min(self.batch, len(labelled))
        batches = MemoryBatches(replace(labelled, labels=targets), batch, seed, needs=Classifier.needs)
        steps = max(self.least_steps, self.epochs * batches.steps_per_epoch)
        crop = CropSpec(CROP, context.size, scale=tuple(self.scale), photometric="none")
        views = ViewMaker(Recipe(CROP, (crop,)), seed, device, needs=Classifier.needs)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            network = Classifier(context.method.backbone, len(classes), context.size, device, lr, self.head_lr).train()
            optimizer = build_optimizer(network, "sgd", lr=1.0, momentum=0.9, weight_decay=self.weight_decay)
            for step, images in enumerate(batches.iterate(0, steps)):
                set_learning_rate(optimizer, cosine(step / steps))
                outputs = take_step(network, network, views(images, step), optimizer, (step + 1) / steps)
                if not torch.isfinite(outputs["loss"]):
                    return network, classes, False
        return network, classes, True

    def score(self, context: Context, network: "Classifier", classes: Tensor, images: ImageSet) -> float:
        """Share in [0, 1] of un-augmented images whose label the network predicts."""
        with frozen(network):
            found = [
                network.logits(view.images).argmax(1)
                for view in evaluation_views(images.images, context.size, device=context.device)
            ]
        return accuracy(classes[torch.cat(found).cpu()], images.labels)


class Classifier(Method):
    """A copy of a backbone, its pooled features, batch norm without parameters and a linear layer.

    Args:
        backbone: on ``device``; left as it is.
        classes: number of classes.
        size: side in pixels of the images to come.
        lr, head_lr: multipliers of the learning rate for the backbone and for the linear layer.
    """

    needs = frozenset({"labels"})
    supervision = "labels"

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        size: int,
        device: torch.device | str = "cpu",
        lr: float = 1.0,
        head_lr: float = 1.0,
    ):
        super().__init__()
        self.backbone = copy.deepcopy(backbone).requires_grad_(True)
        with frozen(self.backbone):
            features = maps_and_vector(self.backbone(torch.zeros(1, 3, size, size, device=device)))[1]
        self.norm = nn.BatchNorm1d(features.shape[1], affine=False).to(device)
        self.head = nn.Linear(features.shape[1], classes).to(device)
        self.multipliers = lr, head_lr

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy of the batch's one view."""
        (view,) = batch.views.values()
        return {"loss": F.cross_entropy(self.logits(view.images), batch.labels)}

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, 3, s, s)."""
        return self.head(self.norm(maps_and_vector(self.backbone(images))[1].float()))

    def parameter_groups(self) -> list[ParameterGroup]:
        parts = (self.backbone, self.head)
        return [
            ParameterGroup(list(part.parameters()), lr_multiplier=multiplier)
            for part, multiplier in zip(parts, self.multipliers, strict=True)
        ]


def labelled_rows(labels: Tensor, share: float) -> Tensor:
    """Sorted row numbers of the images whose labels are used: the same for every run, and nested (1 % is in 10 %).

    The same number of each class, ``share`` of all images over the number of classes, at least 5 and at most all of the
    class; a share of 1 is all images, whatever their classes.

    Args:
        labels: (N,) int64.
        share: in (0, 1].
    """
    if share == 1:
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=generator(LISTS, "labels"))
    classes = labels.unique()
    each = max(MIN_PER_CLASS, round(share * len(labels) / len(classes)))
    return torch.cat([order[labels[order] == c][:each] for c in classes]).sort().values
