"""Labels of a probe: which images are held out, whether the classes allow a probe, and accuracies."""

from collections.abc import Sequence

import torch
from torch import Tensor

from scd.errors import DataError
from scd.seeds import generator

HELD_OUT = 0.2  # share of the training images on which a probe's setting is chosen
MIN_PER_CLASS = 5  # the smallest class of which a held-out fifth is one image


def stratified_part(labels: Tensor, share: float, seed: int) -> Tensor:
    """Mask (N,), True for a share of each class (at least one image of it), drawn from the seed."""
    order = torch.randperm(len(labels), generator=generator(seed, "probe", "held-out"))
    part = torch.zeros(len(labels), dtype=torch.bool)
    for c in labels.unique():
        members = order[labels[order] == c]
        part[members[: max(1, round(share * len(members)))]] = True
    return part


def held_out_part(count: int, seed: int) -> Tensor:
    """Mask (count,), True for the fifth of the images on which a penalty is chosen, drawn from the seed.

    Raises:
        DataError: fewer than two images.
    """
    if count < 2:
        raise DataError(f"a probe of scenes needs at least 2 training images, there are {count}")
    return stratified_part(torch.zeros(count, dtype=torch.int64), HELD_OUT, seed)


def check_classes(
    train_labels: Tensor,
    test_labels: Tensor,
    class_names: Sequence[str] | None = None,
    kind: str = "class",
    least: int = MIN_PER_CLASS,
    name: str = "a linear probe",
) -> None:
    """Check that a classifier can be trained and scored. A class that neither set shows is no error.

    Args:
        kind: what the classes are of, for the message.
        least: training images that each class needs.
        name: of the classifier, for the message.

    Raises:
        DataError: a class with too few training images, a test class without training images, or a single class.
    """
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    in_train, in_test = (torch.bincount(labels.cpu(), minlength=classes) for labels in (train_labels, test_labels))
    for c in range(classes):
        if 0 < in_train[c] < least or (in_train[c] == 0 and in_test[c] > 0):
            which = f"'{class_names[c]}'" if class_names else c
            needed = f"{least} training image{'s' if least > 1 else ''}"
            raise DataError(
                f"{kind} {which} has {int(in_train[c])} training images and {int(in_test[c])} test images; "
                f"{name} needs at least {needed} of it (raise the limit on training images or leave the {kind} out)"
            )
    if int((in_train > 0).sum()) < 2:
        raise DataError(f"{name} needs two {kind}es, the training set shows {int((in_train > 0).sum())}")


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share in [0, 1] of labels (N,) that are predicted correctly."""
    return float((predicted == labels.to(predicted.device)).double().mean())


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Mean over the classes in ``labels`` of the share in [0, 1] of each that is predicted correctly."""
    labels = labels.to(predicted.device)
    return sum(accuracy(predicted[labels == c], labels[labels == c]) for c in labels.unique()) / len(labels.unique())
