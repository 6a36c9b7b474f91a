"""Scored images that look like the training images of the neighbouring numbers, as frames of one recording do."""

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as PillowImage

from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.image_notes import notes_on_images
from studies.suite.analysis.neighbour_notes import notes_on_neighbours

SIDE = 24


def shapes(seed: int) -> PillowImage.Image:
    """Smooth shapes of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return PillowImage.fromarray(pixels).resize((SIDE, SIDE), PillowImage.Resampling.BICUBIC)


def frames(count: int, turns: bool, form: str) -> list[tuple[str, str, np.ndarray]]:
    """Label, name and pixels of images of two classes: one object that turns, or independent photographs."""
    found = []
    for label in range(2):
        for k in range(count):
            image = shapes(label).rotate(320 * k / count) if turns else shapes(100 + count * label + k)
            noise = np.random.default_rng(k).normal(0, 2, (SIDE, SIDE, 3))
            pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
            found.append(("ab"[label], form.format(k), pixels))
    return found


def data(images: list[tuple[str, str, np.ndarray]], labels: bool = True, every: int = 4) -> EvaluationData:
    splits, content = {}, {}
    for split in ("train", "test"):
        rows = [row for k, row in enumerate(images) if (k % every == every - 1) == (split == "test")]
        columns = {"image": [{**encode_png(pixels), "path": name} for _, name, pixels in rows]}
        types = {"image": Image()}
        if labels:
            columns["label"], types["label"] = [label for label, _, _ in rows], Value("string")
        splits[split] = Dataset.from_dict(columns, features=Features(types))
        content[split] = [split, str(images[0][1]), str(labels), str(float(images[1][2].mean()))]
    return EvaluationData(Source(**read_columns("mine", splits, content)), SIDE)


@pytest.mark.parametrize(
    ("form", "pair"),
    [("r0_{}.png", "'r0_15.png'"), ("{}_100.png", "'15_100.png'"), ("r0_{0}_jpg.rf.{0:08}ab.png", "'r0_15_jpg.rf.")],
)
def test_frames_of_one_rotation_are_noted(form, pair):
    """Fruits-360: one series per class, every fourth frame of which is scored."""
    notes = notes_on_neighbours(data(frames(40, True, form)))
    assert len(notes) == 1
    assert notes[0].startswith("By their pixels, ")
    assert f"of the 20 scored images are more like the training image of the nearest number (such as {pair}" in notes[0]


@pytest.mark.parametrize("labels", [True, False])
def test_numbered_photographs_are_not_noted(labels):
    assert notes_on_images(data(frames(40, False, "image_{:04}.png"), labels)) == []


def test_series_of_few_images_are_not_compared():
    assert notes_on_neighbours(data(frames(10, True, "r0_{}.png"))) == []


def test_images_whose_numbers_lie_outside_of_the_training_numbers_are_not_noted():
    """Later frames of a turn in the test split, as where a recording was cut once."""
    images = frames(40, True, "r0_{}.png")
    cut = [row for row in images if int(row[1][3:-4]) < 30], [row for row in images if int(row[1][3:-4]) >= 30]
    mixed = [row for group in zip(cut[0][::3], cut[0][1::3], cut[0][2::3], cut[1], strict=True) for row in group]
    assert notes_on_neighbours(data(mixed)) == []


def test_images_that_all_look_alike_are_not_noted():
    images = [
        (label, name, np.clip(np.asarray(shapes(0)) + np.random.default_rng(k).normal(0, 9, (SIDE, SIDE, 3)), 0, 255))
        for k, (label, name, _) in enumerate(frames(40, False, "image_{:04}.png"))
    ]
    assert notes_on_neighbours(data([(label, name, pixels.astype(np.uint8)) for label, name, pixels in images])) == []
