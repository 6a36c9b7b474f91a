"""What is noted of a part that all images of one class share."""

import numpy as np
import pytest
from datasets import Dataset, Image

from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.tag_notes import notes_on_tags

SIDE = 32


def data(tagged: tuple[str, ...], count: int = 6, lacking: int = 0, size: int = 3) -> EvaluationData:
    """Three classes of noise; the images of some, but for the first ``lacking``, have a tag of ``size`` pixels."""
    splits = {}
    for first, split in enumerate(("train", "test")):
        cells, labels = [], []
        for place, name in enumerate("abc"):
            for row in range(count):
                pixels = np.random.default_rng([first, place, row]).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                if name in tagged and row >= lacking:
                    pixels[-size - 1 : -1, 2 : 2 + size] = (250, 250, 10)
                cells.append(encode_png(pixels))
                labels.append(name)
        splits[split] = Dataset.from_dict({"image": cells, "label": labels}).cast_column("image", Image())
    identity = {split: [split, *tagged, count, lacking, size] for split in splits}
    return EvaluationData(Source(**read_columns("mine", splits, identity)), SIDE)


@pytest.mark.parametrize(
    ("options", "noted"),
    [
        ({"tagged": ("b",)}, True),
        ({"tagged": ()}, False),
        ({"tagged": ("a", "b", "c")}, False),  # of all: a frame, or a background
        ({"tagged": ("b",), "lacking": 1}, False),
        ({"tagged": ("b",), "count": 5}, False),  # too few to tell
        ({"tagged": ("b",), "size": 2}, False),  # 4 of 1,024 pixels
    ],
)
def test_tags_of_one_class_are_noted(options, noted):
    """The images of horses had the tag of one photographer, and a network saw the tag."""
    notes = notes_on_tags(data(**options))
    assert notes == (
        [
            "Classes whose training images all share a part that others lack, as a tag or a logo at one place: 'b' "
            "(0.9% of the image). A network may learn it in the place of what the images show; cover it, or leave "
            "these images out."
        ]
        if noted
        else []
    )
