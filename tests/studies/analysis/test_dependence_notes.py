"""What is noted of scored images that show one thing several times, where intervals are over these images."""

from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.dependence_notes import (
    TOO_SHORT,
    notes_on_dependence,
    notes_on_versions,
    notes_on_videos,
)

SIDE = 24


def picture(seed: int) -> np.ndarray:
    """Noise of 6 x 6 pixels, enlarged."""
    pixels = np.random.default_rng(seed).integers(0, 200, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def data(test: list[np.ndarray], folder: Path, **columns: list[str]) -> EvaluationData:
    """Rows of parquet files, with further columns of the scored split."""
    splits = {}
    for split, pixels, more in (("train", [picture(900 + n) for n in range(8)], {}), ("test", test, columns)):
        cells = {"image": [encode_png(one) for one in pixels], "label": [n % 2 for n in range(len(pixels))], **more}
        features = {"image": ImageFeature(), "label": ClassLabel(names=["cat", "dog"])}
        features |= {name: Value("string") for name in more}
        Dataset.from_dict(cells, features=Features(features)).to_parquet(folder / f"{split}.parquet")
        splits[split] = Dataset.from_parquet(str(folder / f"{split}.parquet"), cache_dir=str(folder / "cache"))
    content = {split: [str(folder), split] for split in splits}
    return EvaluationData(Source(**read_columns("mine", splits, content)), SIDE)


def test_versions_of_scored_images_are_noted():
    """80 images of 18 originals gave an interval that excluded 0, which the 18 alone did not."""
    names = [f"cats/{cat}{end}.jpg" for cat in (511, 512, 513) for end in ("", "_aug0", "_aug1", "_flip")]
    (note,) = notes_on_versions(names, by_class=True)
    assert note == (
        "By their names, the 12 scored images are versions of 3 images (such as '511.jpg' and '511_aug0.jpg'). "
        "Intervals over test images take them as independent and are too short; score one image of each."
    )


@pytest.mark.parametrize(
    "names",
    [
        [f"cats/cat_{number}.jpg" for number in range(12)],
        [f"cats/{number}.jpg" for number in range(20)] + ["cats/3_flip.jpg"],
        [f"{folder}/1.jpg" for folder in ("cats", "dogs", "pigs")],
        [f"cats/{number}_aug.jpg" for number in range(12)],
        [f"cats/{number}.{end}" for number in range(6) for end in ("jpg", "png")],
    ],
    ids=["numbers", "one version", "one name in several classes", "one version each", "two formats"],
)
def test_images_of_their_own_are_not_noted(names):
    assert notes_on_versions(names, by_class=True) == []


def test_frames_of_videos_are_noted():
    names = [f"video{video}_frame{frame:03d}.png" for video in (3, 4) for frame in range(10)]
    (note,) = notes_on_videos(names)
    start = "By their names, 20 of the 20 scored images are frames of 2 videos (such as 'video3', 10 images)."
    assert note == f"{start} {TOO_SHORT}"
    for name in ("dog_{}.png", "block7_{}.png"):
        assert notes_on_videos([name.format(number) for number in range(20)]) == []


def test_images_of_one_patient_are_noted(tmp_path):
    """All images of a patient are in one split, as they should be; there are 4 patients for 24 scored images."""
    images = data([picture(n) for n in range(24)], tmp_path, patient_id=[f"p{n % 4}" for n in range(24)])
    (note,) = notes_on_dependence(images)
    assert note == (
        f"By the column 'patient_id', which is not read, 24 of the 24 scored images are of 4 groups. {TOO_SHORT}"
    )


def test_images_of_one_patient_alone_are_noted(tmp_path):
    (note,) = notes_on_dependence(data([picture(n) for n in range(24)], tmp_path, patient_id=["p7"] * 24))
    assert "24 of the 24 scored images are of 1 group." in note


def test_one_image_of_each_patient_is_not_noted(tmp_path):
    images = data([picture(n) for n in range(24)], tmp_path, patient_id=[f"p{n}" for n in range(24)])
    assert notes_on_dependence(images) == []


def test_altered_copies_among_the_scored_images_are_noted(tmp_path):
    """Versions whose names are hashes."""
    test = [picture(n) for n in range(12)]
    brighter = [(one + 30).astype(np.uint8) for one in test[:6]]
    (note,) = notes_on_dependence(data([*test, *brighter], tmp_path))
    assert note == (
        "By their pixels, 12 of the 18 scored images that were compared look like altered copies of other scored "
        f"images. {TOO_SHORT}"
    )
