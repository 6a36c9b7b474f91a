"""Semi-supervised fine-tuning: the whole network with a linear classifier, on a fixed share of the labels.

The protocol of SimCLR (arXiv 2002.05709, appendix B.5) and SwAV (arXiv 2006.09882): classes in equal parts, one list of
images for every method and seed, random resized crops and flips, SGD with momentum 0.9 and without weight decay, top-1
on the test images. The learning rate decides more than the method does, so it is chosen on labelled images that are
held out; the test images choose nothing. Where there are 5 labels of a class, one of them is held out: the choice is
noisy then, and a single ``lr`` for all arms may be the better protocol.

NOTE: a cosine schedule (SwAV: a fifth of the rate after 60 and 80 % of the epochs).
NOTE: batch norm without parameters between features and classifier, as in MAE's linear probe (arXiv 2111.06377): one
``head_lr`` then fits features of any scale.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.data.images import ImageSet, load_images
from scd.data.loader import MemoryBatches
from scd.data.recipes import centre_view
from scd.data.sources.source import Source
from scd.data.views import CropSpec, Recipe, ViewMaker
from scd.errors import UsageError
from scd.evaluation.features import frozen
from scd.evaluation.linear import HELD_OUT, MIN_PER_CLASS, accuracy, check_classes, stratified_part
from scd.evaluation.scenes import scored_split, within
from scd.nn.features import maps_and_vector
from scd.seeds import derive_seed, generator
from scd.training.schedules import cosine

LISTS = 0  # the seed of the lists of labelled and held-out images: one for all runs
TESTED_TOGETHER = 256


@dataclass(frozen=True)
class FineTune:
    """A further protocol of a run: fine-tune a copy of the backbone on a share of the labels, then its test accuracy.

    Args:
        labels: share of the training images whose labels are used, in (0, 1]; at least 5 images of each class.
        data: labelled images; None: the run's own, and no number where these have no labels.
        epochs: passes over the labelled images.
        least_steps: a lower bound for the training, which few labelled images would end too early.
        batch: images per step, at most all that there are.
        lr: peak learning rates of the backbone to choose from; one of them is taken as it is.
        head_lr: peak learning rate of the classifier.
        weight_decay: on all parameters.
        scale: range of the area of the training crops.
        train_limit, test_limit: at most this many images, see :func:`scd.data.images.load_images`.
        prefix: of the numbers' names; None: "finetune_" for all labels, "labels10_" for a tenth of them.

    Raises:
        UsageError: a share outside (0, 1], or no learning rate.
    """

    labels: float = 1.0
    data: Source | None = None
    epochs: int = 10
    least_steps: int = 200
    batch: int = 64
    lr: Sequence[float] | float = (0.003, 0.01, 0.03)
    head_lr: float = 0.1
    weight_decay: float = 0.0
    scale: Sequence[float] = (0.2, 1.0)
    train_limit: int | None = None
    test_limit: int | None = None
    prefix: str | None = None

    def __post_init__(self):
        if not 0 < self.labels <= 1:
            raise UsageError(f"fine-tuning: labels is {self.labels}, a share lies in (0, 1]")
        if not self.rates:
            raise UsageError("fine-tuning: lr names no learning rate")

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates to choose from, lowest first."""
        return (float(self.lr),) if isinstance(self.lr, (int, float)) else tuple(sorted(self.lr))

    @property
    def name(self) -> str:
        """What stands before the numbers' names."""
        if self.prefix is not None:
            return self.prefix
        return "finetune_" if self.labels == 1 else f"labels{100 * self.labels:g}_"

    def __call__(
        self, method: nn.Module, source: Source, config: Mapping[str, Any], device: str | torch.device
    ) -> dict[str, float]:
        """``finetune_top1`` in [0, 1], ``finetune_lr`` and ``finetune_images``, under :attr:`name`.

        Args:
            method: has ``.backbone`` on ``device``; left as it was found.
            source: the run's own images.
            config: of the run: ``data.size`` is the canvas, ``evaluation.size`` the view; ``seed_of.probe`` or else
                ``seed`` draws the classifier's weights, the order and the crops.

        Raises:
            UsageError: a loss that is not finite at the chosen learning rate.
            DataError: a class with fewer than 5 training images, or no split to evaluate on.
        """
        data = source if self.data is None else self.data
        limits = {"train": self.train_limit, "test": self.test_limit}
        limits = limits if self.data is not None else within(limits, config["data"])
        split, canvas, own = scored_split(data), config["data"]["size"], config["seed_of"]["probe"]
        train = load_images(data, "train", canvas, limits["train"])
        test = load_images(data, split, canvas, limits["test"])
        if train.labels is None or test.labels is None:
            return {}
        seed = config["seed"] if own is None else own
        return self.measure(method.backbone, train, test, config["evaluation"]["size"], seed, device)

    def measure(
        self,
        backbone: nn.Module,
        train: ImageSet,
        test: ImageSet,
        size: int,
        seed: int,
        device: str | torch.device = "cpu",
    ) -> dict[str, float]:
        """The numbers of one backbone on these labelled images, see the call."""
        check_classes(train.labels, test.labels, train.class_names)
        chosen = train.subset(labelled_rows(train.labels, self.labels))
        lr = self.choose(backbone, chosen, size, seed, device)
        network, classes, finite = self.train(backbone, chosen, lr, size, seed, device)
        if not finite:
            raise UsageError(f"fine-tuning: the loss is not finite at lr={lr:g}; lower lr and head_lr")
        return {
            f"{self.name}top1": self.score(network, classes, test, size, device),
            f"{self.name}lr": lr,
            f"{self.name}images": len(chosen),
        }

    def choose(
        self, backbone: nn.Module, labelled: ImageSet, size: int, seed: int, device: str | torch.device
    ) -> float:
        """The learning rate with the highest accuracy on a fifth of the labelled images; of equal ones the lowest."""
        if len(self.rates) == 1:
            return self.rates[0]
        held = stratified_part(labelled.labels, HELD_OUT, LISTS)
        kept, held_out = labelled.subset((~held).nonzero()[:, 0]), labelled.subset(held.nonzero()[:, 0])
        scores = []
        for lr in self.rates:
            network, classes, finite = self.train(backbone, kept, lr, size, seed, device)
            scores.append(self.score(network, classes, held_out, size, device) if finite else -1.0)
        return self.rates[scores.index(max(scores))]

    def train(
        self, backbone: nn.Module, labelled: ImageSet, lr: float, size: int, seed: int, device: str | torch.device
    ) -> tuple[nn.Module, Tensor, bool]:
        """The fine-tuned network, the label of each of its outputs, and whether every loss was finite."""
        device = torch.device(device)
        classes, targets = labelled.labels.unique(return_inverse=True)
        own = derive_seed(seed, "fine-tuning")
        batch = min(self.batch, len(labelled))
        batches = MemoryBatches(labelled, batch, own)
        steps = max(self.least_steps, self.epochs * batches.steps_per_epoch)
        crop = CropSpec("fine-tuning", size, scale=tuple(self.scale), photometric="none")
        views = ViewMaker(Recipe("fine-tuning", (crop,)), own, device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(own)
            network = Classifier(backbone, len(classes), size, device).train()
            optimizer = torch.optim.SGD(
                [
                    {"params": network.backbone.parameters(), "peak": lr},
                    {"params": network.head.parameters(), "peak": self.head_lr},
                ],
                lr=lr,
                momentum=0.9,
                weight_decay=self.weight_decay,
            )
            for step, part in enumerate(batches.iterate(0, steps)):
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * cosine(step / steps)
                logits = network(views(part.images, step)[crop.name].images)
                loss = F.cross_entropy(logits, targets[part.indices].to(device))
                if not torch.isfinite(loss):
                    return network, classes, False
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return network, classes, True

    def score(
        self, network: nn.Module, classes: Tensor, images: ImageSet, size: int, device: str | torch.device
    ) -> float:
        """Share in [0, 1] of un-augmented images whose label the network gives."""
        with frozen(network):
            found = [
                network(centre_view(part.to(device), size)).argmax(1) for part in images.images.split(TESTED_TOGETHER)
            ]
        return accuracy(classes[torch.cat(found).cpu()], images.labels)


class Classifier(nn.Module):
    """A copy of a backbone, its pooled features, batch norm without parameters and a linear layer."""

    def __init__(self, backbone: nn.Module, classes: int, size: int, device: torch.device):
        super().__init__()
        self.backbone = copy.deepcopy(backbone).requires_grad_(True)
        with frozen(self.backbone):
            features = maps_and_vector(self.backbone(torch.zeros(1, 3, size, size, device=device)))[1]
        self.norm = nn.BatchNorm1d(features.shape[1], affine=False).to(device)
        self.head = nn.Linear(features.shape[1], classes).to(device)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, 3, s, s)."""
        return self.head(self.norm(maps_and_vector(self.backbone(images))[1].float()))


def labelled_rows(labels: Tensor, share: float) -> Tensor:
    """Sorted row numbers of the images whose labels are used: the same for every run, and nested (1 % is in 10 %).

    As many of each class, ``share`` of all images over the number of classes, at least 5 and at most all of the class;
    a share of 1 is all images, whatever their classes.

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
