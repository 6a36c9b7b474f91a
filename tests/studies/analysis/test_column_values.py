"""Names of images that a column of text says, and notes on them."""

import numpy as np
import pytest
from datasets import Dataset, Image

from scd.data.sources.parquet import Parquet
from scd.data.sources.png import encode_png
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.dependence_notes import notes_on_dependence
from studies.suite.analysis.image_notes import notes_on_files
from studies.suite.analysis.name_notes import used_files, used_paths


def parquet(folder, form: str, columns: tuple[str, ...] = ("filename",), path: str = "", labels: bool = True):
    """Images of 24 groups, three of each in the training split, with their names in columns of text.

    Args:
        form: of the names, with the number of the group, that of the image in it, and the class.
        path: the form of the names that are kept with the images; "": none.
    """
    folder.mkdir(exist_ok=True)
    for split, places in (("train", (0, 1, 2)), ("test", (3,))):
        rows = [(group, place) for group in range(24) for place in places]
        names = {"number": [row[0] for row in rows]} if labels else {}
        pixels = [np.full((8, 8, 3), 8 * group + place, np.uint8) for group, place in rows]
        cells = [{**encode_png(one), "path": path.format(k) or None} for k, one in enumerate(pixels)]
        for column in columns:
            names[column] = [form.format(group, place, "abc"[group % 3], split=split) for group, place in rows]
        if labels:
            names["label"] = ["abc"[group % 3] for group in names.pop("number")]
        Dataset.from_dict({"image": cells, **names}).cast_column("image", Image()).to_parquet(
            folder / f"{split}.parquet"
        )
    return EvaluationData(Parquet(train=folder / "train.parquet", test=folder / "test.parquet"), 8)


def notes_of(images: EvaluationData) -> list[str]:
    return [note for note in notes_on_files(images) if note.startswith("By their names")]


VERSIONS, SERIES, FOLDERS = "are changed versions of", "belong to series of", "are in folders of"


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("/storage/disk1/{split}/{2}/IMG_{0}_jpg.rf.{1}0123456789abcdef.jpg", VERSIONS),
        ("IMG_{0}_rot{1}.jpg", VERSIONS),
        ("C:\\{split}\\IMG_{0}_rot{1}.jpg", VERSIONS),
        ("{split}/IMG_{0}_rot{1}.jpg", VERSIONS),
        ("images/video{0:02}_frame{1:04}.jpg", SERIES),
        ("patient{0:05}/study1/view{1}_frontal.jpg", FOLDERS),
        ("sub-{0:03}/ses-1/slice_07{1}.png", FOLDERS),
    ],
)
@pytest.mark.parametrize("column", ["filename", "Path", "image_file_path"])
@pytest.mark.parametrize("path", ["", "{}.jpg"])
def test_notes_on_names_that_a_column_of_text_holds(tmp_path, form, text, column, path):
    """Names were read from the column of the images alone, where many sets have none or a number."""
    (note,) = notes_of(parquet(tmp_path, form, (column,), path))
    assert text in note and "24 of the 24 scored images" in note


@pytest.mark.parametrize(
    ("form", "column"),
    [
        ("{2}_{split}_{0}{1}.jpg", "filename"),
        ("{2}/{0}{1}.jpg", "filename"),
        ("video{0:02}_frame{1:04}", "filename"),  # no names of files
        ("video{0:02}.jpg", "filename"),  # several rows of one name
        ("video{0:02}_frame{1:04}.png", "mask_file"),
        ("https://host/video{0:02}_frame{1:04}.jpg", "url"),
        ("{split}{0:03}/{1}.jpg", "filename"),
        ("{split}_{0:03}/{1}.jpg", "filename"),
        ("img{0:03}/{1}.jpg", "filename"),  # parts of a set
    ],
)
def test_other_columns_of_text(tmp_path, form, column):
    assert notes_of(parquet(tmp_path, form, (column,))) == []


def test_names_of_the_images_themselves_come_first(tmp_path):
    images = parquet(tmp_path, "video{0:02}_frame{1:04}.jpg", ("filename",), "photo_{}.jpg")
    assert used_files(images)[1][:2] == ["photo_0.jpg", "photo_1.jpg"]
    assert notes_of(images) == []
    images = parquet(tmp_path / "folder", "video{0:02}_frame{1:04}.jpg", ("filename",), "photos_a/{}.jpg")
    assert used_files(images)[1][:2] == ["photos_a/0.jpg", "photos_a/1.jpg"]


def test_a_column_that_is_called_like_files_is_preferred(tmp_path):
    images = parquet(tmp_path, "video{0:02}_frame{1:04}.jpg", ("caption", "filename"))
    folder = tmp_path / "other"
    for split in ("train", "test"):
        folder.mkdir(exist_ok=True)
        rows = Dataset.from_parquet(str(tmp_path / f"{split}.parquet"), cache_dir=str(tmp_path / "cache"))
        captions = [f"{k}.jpg" for k in range(len(rows))]
        rows.remove_columns("caption").add_column("caption", captions).to_parquet(folder / f"{split}.parquet")
    other = EvaluationData(Parquet(train=folder / "train.parquet", test=folder / "test.parquet"), 8)
    assert used_files(other) == used_files(images)


def test_labels_take_the_place_of_folders_that_are_no_classes(tmp_path):
    """Versions and series are looked for in each class; "images/1.jpg" of two classes are two images."""
    for form, path in (
        ("{2}/{0}{1}.jpg", "a/03.jpg"),
        ("{0}{1}.jpg", "0/03.jpg"),
        ("test/{0}{1}.jpg", "test/0/03.jpg"),
        ("images/{0}{1}.jpg", "images/0/03.jpg"),
    ):
        images = parquet(tmp_path / form[1].replace("}", ""), form)
        assert used_paths(images)[1][0] == path
    images = parquet(tmp_path / "none", "{0}{1}.jpg", labels=False)
    assert used_paths(images)[1][0] == used_files(images)[1][0] == "03.jpg"


def test_folders_that_count_anew_or_are_classes_are_not_noted(tmp_path):
    assert notes_of(parquet(tmp_path / "all", "{0:03}/{1}.jpg")) != []
    images = parquet(tmp_path / "anew", "{0:03}/{1}.jpg")
    rows = Dataset.from_parquet(str(tmp_path / "anew" / "test.parquet"), cache_dir=str(tmp_path / "cache"))
    rows.select(range(20)).to_parquet(tmp_path / "anew" / "fewer.parquet")
    fewer = Parquet(train=tmp_path / "anew" / "train.parquet", test=tmp_path / "anew" / "fewer.parquet")
    assert notes_of(EvaluationData(fewer, 8)) == []
    assert notes_of(parquet(tmp_path / "classes", "00{2}7/{0}{1}.jpg")) == []
    assert images.has("label")


def test_scored_frames_of_a_video_that_a_column_names_are_dependent(tmp_path):
    images = parquet(tmp_path, "video{0:02}_frame{1:04}.jpg")
    swapped = Parquet(train=tmp_path / "test.parquet", test=tmp_path / "train.parquet")
    (note,) = notes_on_dependence(EvaluationData(swapped, 8))
    assert note.startswith("By their names, 72 of the 72 scored images are frames of 24 videos (such as 'video00', 3 ")
    assert used_files(images)[0][0] == "video00_frame0000.jpg"


def test_files_that_are_called_like_their_class_are_no_series(tmp_path):
    """ "18 of 18 scored images belong to series" was said of a set whose labels were right."""
    assert notes_of(parquet(tmp_path, "", (), "daisy_{:04}.jpg")) == []
    for split, first in (("train", 0), ("test", 500)):
        names = ["daisy", "iris", "pansy"]
        cells = [
            {**encode_png(np.full((8, 8, 3), k, np.uint8)), "path": f"{names[k % 3]}_{first + k:04}.jpg"}
            for k in range(48 if split == "train" else 18)
        ]
        rows = {"image": cells, "label": [names[k % 3] for k in range(len(cells))]}
        Dataset.from_dict(rows).cast_column("image", Image()).to_parquet(tmp_path / f"{split}.parquet")
    images = EvaluationData(Parquet(train=tmp_path / "train.parquet", test=tmp_path / "test.parquet"), 8)
    assert notes_of(images) == []
