"""Background reliance: test objects pasted onto backgrounds of the same and of another class.

The construction of ImageNet-9's Mixed-Same and Mixed-Rand sets (Xiao et al. 2021, Noise or Signal), for any images with
masks and labels: the object keeps its pixels and its place, the rest comes from a training image whose own object has
been painted over.

NOTE: ImageNet-9 tiles a background strip over the hole; here each pixel of the hole takes the nearest background pixel.
NOTE: backgrounds come from training images, those on which the probe is fitted; they are never test pixels.
NOTE: the sets are the same for every run, arm and seed of one pair of data sets, so that differences between runs come
from the runs alone.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from scd.data.images import ImageSet
from scd.data.masks import is_object
from scd.errors import DataError, UsageError
from scd.evaluation.features import extract
from scd.evaluation.labels import accuracy, check_classes
from scd.evaluation.linear import LinearProbe, check_penalties, class_probe, fit_linear_probe
from scd.evaluation.logistic import L2_GRID
from scd.evaluation.metric import SHARE, SHARE_DIFFERENCE, Metric
from scd.evaluation.protocol import Context, EvaluationData, Protocol
from scd.seeds import generator

MIX_SEED = 0
MAX_OBJECTS = 2000
_CACHE: "OrderedDict[str, MixedSets]" = OrderedDict()
_CACHE_SIZE = 2


@dataclass(kw_only=True)
class BackgroundReliance(Protocol):
    """How much a linear probe relies on the background, and what the features keep of it.

    The mixed sets need labels and masks, ``background_top1`` needs background classes; either is left out without them.

    Args:
        objects: at most this many test objects in the mixed sets.
        l2: penalties to choose from, see :class:`scd.evaluation.linear.Linear`.

    Raises:
        UsageError: no objects, no penalty, or a penalty that is not above 0.
    """

    objects: int = MAX_OBJECTS
    l2: Sequence[float] = L2_GRID

    def __post_init__(self) -> None:
        check_penalties(self.l2)
        if self.objects < 1:
            raise UsageError(f"mixed backgrounds need 1 object or more, not {self.objects}")

    def definitions(self) -> dict[str, Metric]:
        return {
            "mixed_same_top1": Metric(
                "mixed-same top-1",
                SHARE,
                "higher",
                "the linear probe on test objects pasted onto backgrounds of training images of the same class",
            ),
            "mixed_rand_top1": Metric(
                "mixed-rand top-1",
                SHARE,
                "higher",
                "the linear probe on the same test objects pasted onto backgrounds of training images of a random "
                "other class",
            ),
            "bg_gap": Metric(
                "background gap",
                SHARE_DIFFERENCE,
                "lower",
                "mixed-same minus mixed-rand top-1; 0 for a model that ignores the background; read it beside "
                "mixed-same, since a weak model has a small gap too",
            ),
            "background_top1": Metric(
                "background-class top-1",
                SHARE,
                None,
                "a second linear probe, fitted like the first, that predicts the background's class: what the features "
                "keep of the background, which is not bad in itself",
            ),
            "n_mixed": Metric(
                "mixed images",
                "images",
                None,
                f"test objects in the mixed sets, the same in both, at most {self.objects}; those whose mask is empty "
                "or covers everything are left out",
            ),
        }

    def applies(self, data: EvaluationData) -> bool:
        return can_mix(data) or data.has("background")

    def check(self, data: EvaluationData) -> None:
        if can_mix(data):
            data.check_masks("train")
            data.check_masks("test")
            check_classes(data.train.labels, data.test.labels, data.train.class_names)
            _, labels = usable_foregrounds(data.train, data.test, self.objects)
            choose_donors(data.train, labels)
        if data.has("background"):
            check_classes(data.train.backgrounds, data.test.backgrounds, kind="background class")

    def measure(self, context: Context) -> dict[str, float]:
        data, numbers = context.data, {}
        if can_mix(data):
            numbers |= self.mixed_numbers(context, class_probe(context, self.l2, "train"))
        if data.has("background"):
            probe = fit_linear_probe(context.features("train"), data.train.backgrounds, context.seed, self.l2)
            numbers["background_top1"] = accuracy(probe.predict(context.features("test")), data.test.backgrounds)
        return numbers

    def mixed_numbers(self, context: Context, probe: LinearProbe) -> dict[str, float]:
        """The probe's accuracy on the two mixed sets, and their gap."""
        sets = mixed_sets(context.data.train, context.data.test, self.objects)
        same, other = (
            accuracy(
                probe.predict(extract(context.method.backbone, images, context.size, device=context.device)),
                sets.labels,
            )
            for images in (sets.same, sets.other)
        )
        return {
            "mixed_same_top1": same,
            "mixed_rand_top1": other,
            "bg_gap": same - other,
            "n_mixed": len(sets.labels),
        }


def can_mix(data: EvaluationData) -> bool:
    """Whether the images have what mixed sets need."""
    return data.has("label") and data.has("mask")


@dataclass(frozen=True)
class MixedSets:
    """The same test objects on two backgrounds.

    Args:
        same, other: (M, 3, S, S) uint8, background from a training image of the object's class, of another class.
        labels: (M,) int64, the objects' classes.
        foregrounds: (M,) int64, the objects' indices in the test set.
        donors_same, donors_other: (M,) int64, the backgrounds' indices in the training set.
    """

    same: Tensor
    other: Tensor
    labels: Tensor
    foregrounds: Tensor
    donors_same: Tensor
    donors_other: Tensor


def mixed_sets(train: ImageSet, test: ImageSet, limit: int = MAX_OBJECTS) -> MixedSets:
    """Mixed-same and mixed-rand images of a pair of data sets, kept in memory for further runs of this process.

    Foregrounds are the first ``limit`` test images, in an order drawn once, whose mask covers some but not all of the
    image; any training image with some background may give it. For mixed-rand the other class is drawn uniformly, then
    one of its images.

    Raises:
        DataError: no masks or labels, no usable foreground, or a class without any background to take.
    """
    key = _content_key(train, test, limit)
    if key not in _CACHE:
        _CACHE[key] = make_mixed_sets(train, test, limit)
        if len(_CACHE) > _CACHE_SIZE:
            _CACHE.popitem(last=False)
    _CACHE.move_to_end(key)
    return _CACHE[key]


def make_mixed_sets(train: ImageSet, test: ImageSet, limit: int) -> MixedSets:
    """The sets of :func:`mixed_sets`, without the cache."""
    foregrounds, labels = usable_foregrounds(train, test, limit)
    donors_same, donors_other = choose_donors(train, labels)
    needed, index = torch.cat([donors_same, donors_other]).unique(return_inverse=True)
    backgrounds = fill_holes(train.images[needed], train.masks[needed])[index]
    objects = test.images[foregrounds]
    inside = is_object(test.masks[foregrounds])[:, None]  # (M, 1, S, S)
    same, other = (torch.where(inside, objects, part) for part in backgrounds.split(len(labels)))
    return MixedSets(same, other, labels, foregrounds, donors_same, donors_other)


def usable_foregrounds(train: ImageSet, test: ImageSet, limit: int = MAX_OBJECTS) -> tuple[Tensor, Tensor]:
    """Indices (M,) and labels (M,) of the test objects to paste."""
    for name, part in (("training", train), ("test", test)):
        if part.masks is None or part.labels is None:
            raise DataError(f"the {name} images have no masks or no labels; mixed backgrounds need both")
    order = torch.randperm(len(test), generator=generator(MIX_SEED, "mixed", "foregrounds"))
    usable = is_object(test.masks).flatten(1).any(dim=1) & ~test.masks.bool().flatten(1).all(dim=1)
    foregrounds = order[usable[order]][:limit].sort().values
    if len(foregrounds) == 0:
        raise DataError(
            "no test image has both an object and a background in its mask: data.options.foreground=[1] says which "
            "class ids are the object"
        )
    return foregrounds, test.labels[foregrounds]


def choose_donors(train: ImageSet, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Training images (M,), (M,) that give the background: of the same class, of a uniformly drawn other class."""
    has_background = ~train.masks.bool().flatten(1).all(dim=1)
    donors = {int(c): (has_background & (train.labels == c)).nonzero()[:, 0] for c in train.labels.unique()}
    donors = {c: images for c, images in donors.items() if len(images)}
    for c in labels.unique().tolist():
        if c not in donors:
            name = f"'{train.class_names[c]}'" if train.class_names else c
            raise DataError(f"no training image of class {name} has any background to paste objects on")
    if len(donors) < 2:
        raise DataError("mixed backgrounds need training images of two classes")
    classes = torch.tensor(sorted(donors))
    draws = torch.rand(3, len(labels), generator=generator(MIX_SEED, "mixed", "donors"), dtype=torch.float64)
    own = torch.searchsorted(classes, labels)
    step = 1 + (draws[0] * (len(classes) - 1)).long()  # to any class but the own one
    others = classes[(own + step) % len(classes)]
    pick = [
        [donors[c][int(draw * len(donors[c]))] for c, draw in zip(wanted.tolist(), row.tolist(), strict=True)]
        for wanted, row in ((labels, draws[1]), (others, draws[2]))
    ]
    return torch.tensor(pick[0]), torch.tensor(pick[1])


def fill_holes(images: Tensor, masks: Tensor) -> Tensor:
    """Images (N, 3, S, S) whose masked pixels have the colour of the nearest (Euclidean) pixel outside the mask.

    Args:
        images: uint8.
        masks: (N, S, S); the hole is where > 0 (object or unknown), and never the whole image.
    """
    filled = images.clone().numpy()
    for image, hole in zip(filled, masks.numpy() > 0, strict=True):
        if hole.any():
            rows, columns = distance_transform_edt(hole, return_distances=False, return_indices=True)
            image[:, hole] = image[:, rows[hole], columns[hole]]
    return torch.from_numpy(filled)


def _content_key(train: ImageSet, test: ImageSet, limit: int) -> str:
    """Hash of everything that the sets depend on."""
    digest = hashlib.blake2b(str(limit).encode())
    for part in (train, test):
        for tensor in (part.images, part.masks, part.labels):
            if tensor is not None:
                digest.update(str(tuple(tensor.shape)).encode())
                digest.update(np.ascontiguousarray(tensor.numpy()))
    return digest.hexdigest()
