"""Copies that differ in some pixels, and images of several classes, are counted."""

from io import BytesIO

import numpy as np
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from tiny_evaluation import objects, source_of
from torch import Tensor

from scd.data.images import ImageSet
from scd.data.sources.source import Source
from scd.errors import DataError
from scd.evaluation import copies
from scd.evaluation.copies import in_several_classes, near_copies, notes_on_copies
from scd.evaluation.protocol import EvaluationData


def photographs(count: int, seed: int) -> Tensor:
    """Smooth random images, as like one another as photographs are."""
    generator = torch.Generator().manual_seed(seed)
    light, tint = (torch.rand(count, channels, 6, 6, generator=generator) for channels in (1, 3))
    coarse = 0.8 * light + 0.2 * tint
    return torch.nn.functional.interpolate(coarse * 255, size=40, mode="bicubic").clamp(0, 255).round().byte()


def saved_again(image: Tensor, quality: int = 80) -> Tensor:
    """The image after it was saved as JPEG."""
    file = BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


def test_copies_that_were_saved_again_or_mirrored_are_found():
    train, test = photographs(30, seed=0), photographs(12, seed=1)
    assert near_copies(train, test) == 0
    test[0] = saved_again(train[7])
    test[1] = train[3].flip(-1)
    test[2] = saved_again(train[29].flip(-1))
    test[3] = train[5]
    assert near_copies(train, test) == 3, "equal images are not counted here"


def test_mirror_images_are_found_in_large_sets(monkeypatch):
    monkeypatch.setattr(copies, "PAIRS", 10)
    train, test = photographs(30, seed=0), photographs(12, seed=1)
    test[0], test[1], test[2] = saved_again(train[7]), train[3].flip(-1), train[4]
    assert near_copies(train, test) == 1


def test_a_broken_image_is_named_before_anything_is_trained():
    """Without labels it was found after the training: the error was taken for that of a set that is too large."""
    pictures = [{"bytes": b"no picture", "path": None}] * 4
    rows = Dataset.from_dict({"image": pictures}, features=Features(image=ImageFeature()))
    source = Source("mine", {"train": rows, "test": rows}, {"train": "0", "test": "1"})
    with pytest.raises(DataError, match="'mine' row 0: the image cannot be decoded"):
        notes_on_copies(EvaluationData(source, 8))


def test_images_without_content_are_no_copies_of_one_another():
    grey = torch.full((3, 3, 40, 40), 100, dtype=torch.uint8)
    assert near_copies(grey, grey + 1) == 0
    dots = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)  # two photographs of the night sky
    dots[0, :, 5, 5], dots[1, :, 30, 20] = 255, 255
    assert near_copies(dots[:1], dots[1:]) == 0


def test_equal_images_of_several_classes():
    images = photographs(8, seed=2)
    images[4], images[6], images[7] = images[0], images[0], images[1]
    labels = torch.tensor([0, 1, 2, 3, 1, 2, 0, 1])
    assert in_several_classes(ImageSet(images, labels)) == 3, "rows 0, 4 and 6; rows 1 and 7 are of one class"
    images[4, 0, 1, 1] ^= 1
    assert in_several_classes(ImageSet(images, labels)) == 0


def test_images_without_labels_are_compared_as_well():
    """Nothing was said where the images had no labels."""
    train, test = objects(12, 0, True), objects(8, 1, True)
    test.images[3] = train.images[7]
    found = notes_on_copies(EvaluationData(source_of(("label",), train=train, test=test), 16))
    assert "1 of the 8 scored images are training images, too: scores are too high." in found
    labelled = notes_on_copies(EvaluationData(source_of(train=train, test=test), 16))
    assert not any("are training images, too" in note for note in labelled), "EvaluationData.overlap counts these"
