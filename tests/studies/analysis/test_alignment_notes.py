"""What is noted of masks that do not lie on what their images show."""

import re

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from torch import Tensor

from scd.data.images import ImageSet
from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis import alignment_notes
from studies.suite.analysis.alignment_notes import (
    FEWEST_OWN,
    TURNS,
    notes_on_alignment,
    notes_on_edges_of_masks,
    notes_on_turned_copies,
    small,
)
from studies.suite.planning.assembly import open_data
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.protocols import evaluation_data

SIDE, COUNT = 24, 40


def scenes(count: int = COUNT, seed: int = 0, contrast: float = 90.0, centred: bool = False) -> ImageSet:
    """Rectangles of one colour, somewhere off the centre, before blurred noise; with exact masks."""
    draws = np.random.default_rng(seed)
    images, masks = [], []
    for _ in range(count):
        pixels = np.kron(draws.normal(110, 20, (6, 6, 3)), np.ones((4, 4, 1)))
        high, wide = draws.integers(5, 11, 2)
        top, left = draws.integers(1, SIDE - high - 1), draws.integers(1, SIDE - wide - 1)
        if centred:
            high, wide, top, left = 10, 10, 7, 7
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[top : top + high, left : left + wide] = 1
        pixels[mask == 1] += contrast * draws.choice([-1, 1], 3)
        images.append(pixels.clip(0, 255).astype(np.uint8).transpose(2, 0, 1))
        masks.append(mask)
    return ImageSet(torch.from_numpy(np.stack(images)), masks=torch.from_numpy(np.stack(masks)))


def with_masks(found: ImageSet, masks: Tensor) -> ImageSet:
    return ImageSet(found.images, masks=masks.contiguous())


@pytest.mark.parametrize("count", [16, COUNT])
def test_masks_that_lie_on_their_objects_are_not_noted(count):
    for seed in range(5):
        assert notes_on_edges_of_masks(scenes(count, seed), "training") == []
        assert notes_on_edges_of_masks(scenes(count, seed, contrast=30), "training") == []
        assert notes_on_edges_of_masks(scenes(30, seed, contrast=8), "training") == [], "objects that hardly stand out"


@pytest.mark.parametrize("name", TURNS)
def test_masks_that_were_turned_are_noted_with_the_turn(name):
    """Masks that were written from the bottom row, as plotting and map libraries do, were read without a word."""
    found = scenes()
    back = {"turned by 90 degrees": "turned by 270 degrees", "turned by 270 degrees": "turned by 90 degrees"}
    (note,) = notes_on_edges_of_masks(with_masks(found, TURNS[back.get(name, name)](found.masks)), "training")
    assert f"training masks that were compared fit their images better if the masks are {name}: check that" in note


def test_masks_of_other_images_are_noted():
    """Two lists that were sorted differently, without names of files in the rows."""
    found = scenes(60)
    (note,) = notes_on_edges_of_masks(with_masks(found, found.masks.roll(7, 0)), "scored")
    assert note.startswith(
        "The edges of the scored masks fit their own images no better than the masks of other images"
    )
    assert "check that each image has its own mask, with the place and the scale of what it shows." in note


def test_masks_of_another_scale_are_noted():
    """Boxes of the original pictures beside pictures of half their size: masks lie in the upper left quarter."""
    found = scenes(120)
    halved = torch.zeros_like(found.masks)
    halved[:, : SIDE // 2, : SIDE // 2] = found.masks[:, ::2, ::2]
    assert notes_on_edges_of_masks(with_masks(found, halved), "training")


def test_frames_of_one_scene_are_compared_once():
    """Frames of eight videos were taken for so many images, and masks that are right for wrong ones."""
    found = scenes(15)
    frames = ImageSet(found.images.repeat(8, 1, 1, 1), masks=found.masks.flip(-2).repeat(8, 1, 1))
    assert len(small(frames)[0]) == 15
    (note,) = notes_on_edges_of_masks(frames, "training")
    assert int(re.search(r"of the (\d+) training masks", note)[1]) <= 15


def test_one_mask_of_a_fixed_camera_is_compared_once():
    found = scenes(30)
    assert len(small(with_masks(found, found.masks[:1].repeat(30, 1, 1)))[0]) == 1
    assert len(small(found)[0]) > 20


def test_few_masks_and_objects_in_the_centre_are_not_judged():
    few = scenes(11)
    assert notes_on_edges_of_masks(with_masks(few, few.masks.flip(-2)), "training") == []
    dealt = scenes(FEWEST_OWN - 1)
    assert notes_on_edges_of_masks(with_masks(dealt, dealt.masks.roll(5, 0)), "training") == []
    assert notes_on_edges_of_masks(scenes(centred=True), "training") == []
    nothing = scenes()
    assert notes_on_edges_of_masks(with_masks(nothing, torch.zeros_like(nothing.masks)), "training") == []


@pytest.mark.parametrize("block", [alignment_notes.BLOCK, 5])
@pytest.mark.parametrize("name", TURNS)
def test_turned_copies_with_the_masks_of_the_originals_are_noted(name, block, monkeypatch):
    """Half of the images were mirrored or turned, and their masks were not."""
    monkeypatch.setattr(alignment_notes, "BLOCK", block)
    found, turn = scenes(20), TURNS[name]
    images = torch.cat([found.images, turn(found.images[:8])])
    kept = ImageSet(images, masks=torch.cat([found.masks, found.masks[:8]]))
    (note,) = notes_on_turned_copies(kept, "training")
    count = int(note.split()[3])
    assert 5 <= count <= 8, "objects in the centre cover themselves"
    assert note.startswith(
        f"By their pixels, {count} of the 28 training images that were compared are mirrored or turned"
    )
    assert (
        notes_on_turned_copies(ImageSet(images, masks=torch.cat([found.masks, turn(found.masks[:8])])), "train") == []
    )


def test_copies_whose_objects_look_the_same_after_the_turn_are_not_noted():
    found = scenes(20, centred=True)
    images = torch.cat([found.images, found.images.flip(-1)])
    assert notes_on_turned_copies(ImageSet(images, masks=found.masks.repeat(2, 1, 1)), "training") == []


def test_turned_copies_with_masks_of_their_own_are_not_noted():
    found = scenes(20)
    images = torch.cat([found.images, found.images[:8].flip(-1)])
    masks = torch.cat([found.masks, torch.ones_like(found.masks[:8])])
    assert notes_on_turned_copies(ImageSet(images, masks=masks), "training") == []


def test_images_that_are_their_own_mirror_images_are_not_noted():
    found = scenes(20)
    half = found.images[..., : SIDE // 2]
    images = torch.cat([half, half.flip(-1)], dim=-1).repeat(2, 1, 1, 1)
    assert notes_on_turned_copies(ImageSet(images, masks=found.masks.repeat(2, 1, 1)), "training") == []


def test_one_wrong_copy_alone_is_not_noted():
    found = scenes(20, seed=1)
    images = torch.cat([found.images, found.images[:1].flip(-2)])
    assert notes_on_turned_copies(ImageSet(images, masks=torch.cat([found.masks, found.masks[:1]])), "training") == []


def test_the_notes_are_of_both_splits():
    """From the cells of a column of images to the note."""
    found, splits, content = scenes(), {}, {}
    for split, masks in (("train", found.masks), ("test", found.masks.flip(-2))):
        cells = {
            "image": [encode_png(image.permute(1, 2, 0).numpy()) for image in found.images],
            "mask": [encode_png(255 * mask.numpy()) for mask in masks],
        }
        splits[split] = (
            Dataset.from_dict(cells).cast_column("image", ImageFeature()).cast_column("mask", ImageFeature())
        )
        content[split] = ["scored masks upside down", split]
    (note,) = notes_on_alignment(EvaluationData(Source(**read_columns("mine", splits, content)), SIDE))
    assert "scored masks that were compared fit their images better if the masks are mirrored top to bottom" in note


@pytest.mark.parametrize("name", ["duts_tr_labelled", "flowers17_seg", "ecssd", "coco_mini", "camvid"])
def test_real_masks_are_not_noted_until_they_are_turned(name, real_data, tmp_path):
    settings = resolve_settings("multicrop", ["tier=smoke", f"data={real_data / name}"], tmp_path, tmp_path, "")
    images = evaluation_data(settings.base, open_data(settings.base["data"], settings.locations))
    assert notes_on_alignment(images) == []
    if name == "camvid":  # frames of a few videos, of which one each is compared
        return
    for found in (images.train, images.test):
        (note,) = notes_on_edges_of_masks(with_masks(found, found.masks.flip(-2)), "training")
        assert "if the masks are mirrored top to bottom" in note
