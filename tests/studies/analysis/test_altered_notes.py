"""What is noted of scored images that look like altered copies of training images."""

import io
import zlib

import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from PIL import Image as PillowImage
from PIL import ImageEnhance

from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.altered_notes import (
    are_alike,
    like_partners,
    notes_on_altered_copies,
    notes_on_trained_copies,
)
from studies.suite.analysis.image_notes import notes_on_images, notes_on_trained_sources

SIDE = 32


def picture(seed: int) -> PillowImage.Image:
    """Smooth shapes of random colours: noise of 6 x 6 pixels, enlarged."""
    pixels = np.random.default_rng(seed).integers(0, 200, (6, 6, 3), dtype=np.uint8)
    return PillowImage.fromarray(pixels).resize((SIDE, SIDE), PillowImage.Resampling.BICUBIC)


def saved_again(image: PillowImage.Image) -> PillowImage.Image:
    file = io.BytesIO()
    image.save(file, "jpeg", quality=60)
    return PillowImage.open(file).convert("RGB")


def with_banner(image: PillowImage.Image) -> PillowImage.Image:
    pixels = np.array(image)
    pixels[-SIDE // 8 :] = 255
    return PillowImage.fromarray(pixels)


def with_bar(image: PillowImage.Image) -> PillowImage.Image:
    """The central square of a picture with a bar added below, as of a site of stock photographs."""
    whole = PillowImage.new("RGB", (SIDE, SIDE + 3), (20, 20, 20))
    whole.paste(image)
    return whole.crop((0, 2, SIDE, SIDE + 2))


ALTERED = {
    "with a bar": with_bar,
    "saved again": saved_again,
    "mirrored": lambda image: image.transpose(PillowImage.Transpose.FLIP_LEFT_RIGHT),
    "turned by 90 degrees": lambda image: image.transpose(PillowImage.Transpose.ROTATE_90),
    "turned by 180 degrees": lambda image: image.transpose(PillowImage.Transpose.ROTATE_180),
    "upside down": lambda image: image.transpose(PillowImage.Transpose.FLIP_TOP_BOTTOM),
    "turned by 270 degrees": lambda image: image.transpose(PillowImage.Transpose.ROTATE_270),
    "transposed": lambda image: image.transpose(PillowImage.Transpose.TRANSPOSE),
    "transposed the other way": lambda image: image.transpose(PillowImage.Transpose.TRANSVERSE),
    "cropped": lambda image: image.crop((3, 3, SIDE - 3, SIDE - 3)).resize((SIDE, SIDE)),
    "covered": with_banner,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


def data(train: list[PillowImage.Image], test: list[PillowImage.Image]) -> EvaluationData:
    splits, content = {}, {}  # content: by which images are kept in the cache
    for split, images in (("train", train), ("test", test)):
        cells = [encode_png(np.asarray(one)) for one in images]
        splits[split] = Dataset.from_dict({"image": cells}).cast_column("image", Image())
        content[split] = [zlib.crc32(b"".join(cell["bytes"] for cell in cells))]
    return EvaluationData(Source(**read_columns("mine", splits, content)), SIDE)


NOTE = "By their pixels, {} of the {} scored images that were compared look like altered copies of training images"


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_altered_copies_are_noted_whatever_their_names(change):
    """All test images were training images, saved again with another brightness or a banner, without a word."""
    train = [picture(seed) for seed in range(40)]
    copies = [saved_again(change(image)) for image in train[:10]]
    (note,) = notes_on_altered_copies(data(train, copies))
    assert note.startswith(NOTE.format(10, 10)) and "partly covered): if they are copies" in note


def test_other_images_are_not_noted():
    train, test = [picture(seed) for seed in range(40)], [picture(seed) for seed in range(100, 140)]
    assert notes_on_altered_copies(data(train, test)) == []
    copies = [saved_again(train[0]), saved_again(train[1])]
    assert notes_on_altered_copies(data(train, [*test, *copies[:1]])) == []  # one in forty
    assert notes_on_altered_copies(data(train, [*test[:30], *copies]))[0].startswith(NOTE.format(2, 32))


def icon(seed: int) -> PillowImage.Image:
    """Noise on white."""
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[8:24, 8:24] = np.random.default_rng(seed).integers(0, 60, (16, 16, 3))
    return PillowImage.fromarray(pixels)


def test_images_that_all_look_alike_are_not_noted():
    """Icons on white: training images look as much like each other."""
    images = data([icon(seed) for seed in range(20)], [icon(seed) for seed in range(50, 60)])
    assert are_alike(images.train.images, images.test.images).all() and notes_on_altered_copies(images) == []


def test_images_without_contrast_are_like_none():
    flat = torch.full((3, 3, SIDE, SIDE), 90, dtype=torch.uint8)
    flat[..., : SIDE // 2] += 2  # as noise of a camera in the dark
    assert not are_alike(flat, flat).any()


def test_an_image_is_not_compared_with_itself():
    pixels = torch.stack([torch.from_numpy(np.array(picture(seed))).permute(2, 0, 1) for seed in (1, 2, 1)])
    assert are_alike(pixels, pixels, torch.arange(3)).tolist() == [True, False, True]


def test_copies_that_were_noted_already_are_not_noted_again():
    train = [picture(seed) for seed in range(40)]
    notes = notes_on_images(data(train, train[:4]))
    assert any("are training images, too" in note for note in notes) and not any("altered" in note for note in notes)


def test_versions_that_a_random_split_dealt_to_both_splits_are_noted():
    """As many training images as scored ones had an altered copy among the training images, and nothing was said."""
    versions = [
        [picture(seed), saved_again(ALTERED["brighter"](picture(seed))), ALTERED["cropped"](picture(seed))]
        for seed in range(20)
    ]
    test = [found[number % 3] for number, found in enumerate(versions)]
    train = [one for number, found in enumerate(versions) for one in found[: number % 3] + found[number % 3 + 1 :]]
    (note,) = notes_on_altered_copies(data(train, test))
    assert "of the training images look so much like another one: if they are copies or frames of one scene" in note


def test_more_altered_copies_than_equal_ones_are_noted():
    train = [picture(seed) for seed in range(40)]
    altered = [saved_again(ALTERED["brighter"](image)) for image in train[4:16]]
    notes = notes_on_images(data(train, [*train[:2], *altered]))
    assert any("2 of the 14 scored images are training images, too" in note for note in notes)
    assert any(note.startswith(NOTE.format(14, 14)) for note in notes)


def test_partners_are_counted():
    pixels = torch.stack([torch.from_numpy(np.array(picture(seed))).permute(2, 0, 1) for seed in (1, 1, 2, 3)])
    assert like_partners(pixels, pixels[[0, 2]]).tolist() == [2, 1]
    assert like_partners(pixels, pixels[[0, 2]], torch.tensor([0, 2])).tolist() == [1, 0]


def test_scored_images_of_another_source_among_the_training_images_are_noted():
    """The scenes of a study held those that another folder had annotated for the scores."""
    train, others = [picture(seed) for seed in range(40)], [picture(seed) for seed in range(100, 120)]
    (note,) = notes_on_trained_copies(data(train, others), data(others, train[:8] + others[:2]))
    assert note == (
        "By their pixels, 8 of the 10 scored images that were compared are training images of 'mine' or altered copies "
        "of them: scores are too high. Take them out of one of the two."
    )
    assert notes_on_trained_copies(data(train, others), data(train, others)) == []
    icons = data([icon(seed) for seed in range(20)], [icon(seed) for seed in range(50, 60)])
    assert notes_on_trained_copies(icons, icons) == [], "images of one kind"


def test_scored_images_among_those_of_other_runs_are_noted():
    """Object-centric images that held the annotated scenes which were scored."""
    train, others = [picture(seed) for seed in range(40)], [picture(seed) for seed in range(100, 120)]
    own, objects, scored = data(others[:4], others[4:]), data(train, others), data(others, train[:8])
    config = {"fingerprints": dict(objects.source.fingerprints)}
    (note,) = notes_on_trained_sources([own, objects, scored], [config])
    assert note.startswith("By their pixels, 8 of the 8 scored images that were compared are training images of 'mine'")
    assert notes_on_trained_sources([own, objects, scored], [{"fingerprints": {}}, {}]) == []
