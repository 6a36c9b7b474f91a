"""What is noted of ids that are no classes: numbers of objects, and an id 0 that may mean unlabelled."""

import numpy as np
import pytest
from datasets import Dataset, Features, Image

from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.mask_notes import notes_on_masks


def strips(*ids: int, zero: int = 0) -> np.ndarray:
    """Eight rows of 24 pixels: strips of each id, after so many columns of 0."""
    values = np.array(ids, np.uint8)[np.arange(24) * len(ids) // 24][None].repeat(8, axis=0)
    values[:, :zero] = 0
    return values


def noted(masks: list[np.ndarray], text: str, **options) -> list[str]:
    columns = {"image": [encode_png(np.zeros((8, 24, 3), np.uint8))] * len(masks), "mask": list(map(encode_png, masks))}
    splits = dict.fromkeys(
        ("train", "test"), Dataset.from_dict(columns, features=Features(image=Image(), mask=Image()))
    )
    source = Source(**read_columns("mine", splits, {split: [split] for split in splits}, **options))
    return [note for note in notes_on_masks(EvaluationData(source, 8)) if text in note]


@pytest.mark.parametrize(
    ("masks", "shown"),
    [
        ([(0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 1)], "1 shows in 4 of the 4 that were looked at, 3 in 1"),
        ([(0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 0), (0, 1, 3)], "1 shows in 4 of the 4 that were looked at, 3 in 2"),
        ([(0, 1), (0, 1, 2), (0, 1, 2), (0, 1)], None),  # an organ and its tumours
        ([(0, 1, 2, 3)] * 4, None),  # all classes in every image
        ([(0, 1), (0, 2), (0, 3), (0, 1, 2)], None),  # classes
        ([(0, 1, 3), (0, 1, 3), (0, 1, 2, 3), (0, 1)], None),
        ([(0, 1, 2, 4), (0, 1, 2, 4), (0, 1, 3), (0, 1, 2, 3)], None),  # gaps in most images
        ([(0, 1), (0, 1, 2), (0, 1, 2, 4), (0, 1)], None),  # ids of no numbering
        ([(0, 1), (0, 1, 2), (0, 1, 2, 3)], None),  # too few to tell
    ],
)
def test_ids_that_number_the_objects_of_each_image_are_noted(masks, shown):
    """Masks of DAVIS: the mean IoU of the first, second and third object of all images was on the page."""
    notes = noted([strips(*ids) for ids in masks], "may number the objects", mask_kind="classes")
    assert len(notes) == (2 if shown else 0)
    for note, words in zip(notes, ("training", "test"), strict=False):
        assert note.startswith(f"The ids of the {words} masks may number the objects of each image from 1 and be no ")
        assert shown in note and "say data.options.mask_kind=instances" in note


@pytest.mark.parametrize(
    ("masks", "count"),
    [
        ([strips(3, 5, 8, zero=2)] * 3, "6 of the 6"),
        ([strips(3, 5, 8, zero=2)] * 2 + [strips(3, 5)] * 2, "4 of the 8"),
        ([strips(3, 5, 8, zero=3)] * 3, None),  # an eighth of the pixels, as a class may have
        ([strips(3, 5, 8, zero=2)] + [strips(3, 5)] * 2, None),  # a rare class
        ([strips(3, 3, zero=2)] * 3, None),  # an object that fills its image, and the background
        ([strips(3, 255, zero=2)] * 3, None),
        ([strips(0, 0, 3, 5)] * 3, None),  # a background
    ],
)
def test_an_id_0_that_may_mean_unlabelled_is_noted(masks, count):
    """ADE20K: what is of no class was a class of the mean IoU."""
    notes = noted(masks, "The id 0 shows", mask_kind="classes")
    assert len(notes) == (count is not None)
    if count:
        assert notes[0].startswith(f"The id 0 shows in {count} masks that were looked at, and on ")
        assert notes[0].endswith("if it means unlabelled, write 255 in its place.")


def test_the_remedy_for_numbers_of_objects_works():
    masks = [strips(0, 1), strips(0, 1, 2), strips(0, 1, 2, 3), strips(0, 1)]
    assert noted(masks, "", mask_kind="instances") == []
