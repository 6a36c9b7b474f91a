"""Parquet files by path, glob and list; a file that cannot be used is named."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pillow

from scd.data.images import load_images
from scd.data.sources.parquet import Parquet
from scd.data.sources.png import encode_png
from scd.errors import DataError, UsageError


def write(path, labels=None, images=None, masks=None) -> str:
    """A parquet file of grey images, with labels that are numbers or text, and masks."""
    count = len(labels or images or masks)
    features, data = {"image": Image()}, {"image": images or [encode_png(np.full((20, 20, 3), 9, np.uint8))] * count}
    if labels is not None:
        data["label"], features["label"] = labels, Value("string" if isinstance(labels[0], str) else "int64")
    if masks is not None:
        data["mask"], features["mask"] = masks, Image()
    Dataset.from_dict(data, features=Features(features)).to_parquet(str(path))
    return str(path)


def half_mask(value: int) -> dict:
    """A PNG of 20 x 20 whose left half has this value."""
    return encode_png(np.repeat(np.array([[value, 0]], np.uint8), 10, axis=1).repeat(20, axis=0))


def test_files_by_path_glob_and_list(tmp_path):
    train = write(tmp_path / "train.parquet", [0, 1, 2])
    test = write(tmp_path / "test.parquet", [0, 1])
    by_path = Parquet(train=train, test=test)
    by_glob = Parquet(train=tmp_path / "tr*.parquet", test=[test])
    assert by_path.name == "parquet" and by_path.fingerprints == by_glob.fingerprints  # the content, not the way to it
    assert by_path.version == by_path.fingerprint[:8]
    assert {split: len(d) for split, d in by_path.splits.items()} == {"train": 3, "test": 2}
    both = Parquet(train=[train, test])
    assert both.split("train")["label"][:] == [0, 1, 2, 0, 1]


def test_a_changed_file_changes_the_fingerprint_of_its_split_alone(tmp_path):
    train, test = write(tmp_path / "train.parquet", ["a", "b"]), write(tmp_path / "test.parquet", ["b"])
    before = Parquet(train=train, test=test)
    write(tmp_path / "test.parquet", ["a", "c"])
    after = Parquet(train=train, test=test)
    assert after.fingerprints["train"] == before.fingerprints["train"]
    assert after.fingerprints["test"] != before.fingerprints["test"] and after.fingerprint != before.fingerprint
    assert after.split("test")["label"][:] == [0, 2] and after.split("train")["label"][:] == [0, 1]
    assert Parquet(train=train).fingerprints["train"] == before.fingerprints["train"]


def test_the_name_is_for_reports_and_no_part_of_the_identity(tmp_path):
    file = write(tmp_path / "x.parquet", [0])
    named = Parquet(train=file, name="birds")
    assert named.name == "birds" and named.fingerprint == Parquet(train=file).fingerprint


def test_options_of_reading_change_every_fingerprint(tmp_path):
    train, test = (write(tmp_path / f"{split}.parquet", masks=[half_mask(3)] * 2) for split in ("train", "test"))
    plain, given = Parquet(train=train, test=test), Parquet(train=train, test=test, foreground=[0])
    for split in ("train", "test"):
        assert plain.fingerprints[split] != given.fingerprints[split]
    assert load_images(given, "train", 20).masks[0, 0].tolist() == [0] * 10 + [1] * 10


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "name at least one of train=, validation=, test="),
        ({"train": "/nowhere/x.parquet"}, "train=/nowhere/x.parquet: no such file"),
        ({"train": "/nowhere/*.parquet"}, r"train=/nowhere/\*.parquet: no such file"),
    ],
)
def test_missing_files_say_so(options, text):
    with pytest.raises(UsageError, match=text):
        Parquet(**options)


def pictures(path, **columns) -> str:
    """A parquet file as other tools write it: encoded images and columns of any Arrow type."""
    count = len(next(iter(columns.values())))
    pixels = pa.array([encode_png(np.full((20, 20, 3), 9, np.uint8))] * count)
    pq.write_table(pa.table({"image": pixels, **columns}), path)
    return str(path)


def test_labels_that_are_stored_as_a_dictionary(tmp_path):
    """pandas' categories ended in a traceback."""
    train = pictures(tmp_path / "train.parquet", label=pa.array(["b", "a", "b"]).dictionary_encode())
    test = pictures(tmp_path / "test.parquet", label=pa.array(["b"]))
    found = Parquet(train=train, test=test)
    assert found.class_names == ("a", "b") and found.split("train")["label"][:] == [1, 0, 1]
    assert found.split("test")["label"][:] == [1] and len(load_images(found, "train", 8)) == 3


def test_a_column_of_structs_is_no_column_of_labels(tmp_path):
    nested = pa.array([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    file = pictures(tmp_path / "train.parquet", label=nested, kind=pa.array(["a", "b"]))
    with pytest.raises(DataError, match="column 'label' holds struct.*; name another column with data.options.columns"):
        Parquet(train=file)
    assert Parquet(train=file, columns={"label": "kind"}).class_names == ("a", "b")


def test_parts_of_a_split_must_name_their_classes_alike(tmp_path):
    """The names of the first part were taken for all of them."""
    files = []
    for number, names in enumerate((["a", "b"], ["b", "a"])):
        features = Features(image=Image(), label=ClassLabel(names=names))
        rows = {"image": [encode_png(np.full((20, 20, 3), 9, np.uint8))], "label": [0]}
        files.append(str(tmp_path / f"{number}.parquet"))
        Dataset.from_dict(rows, features=features).to_parquet(files[-1])
    with pytest.raises(DataError, match="are one split, but name the classes of 'label' differently"):
        Parquet(train=files)
    found = Parquet(train=files[0], test=files[1])
    assert (found.split("train")["label"][:], found.split("test")["label"][:]) == ([0], [1])


def test_bad_files_say_so(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"not a parquet file")
    with pytest.raises(DataError, match=r"cannot read parquet \(.*train.parquet\)"):
        Parquet(train=tmp_path / "train.parquet")
    file = write(tmp_path / "ok.parquet", [0])
    with pytest.raises(DataError, match="'parquet' has no column 'photo'; its columns: image, label; name yours with"):
        Parquet(train=file, columns={"image": "photo"})
    with pytest.raises(UsageError, match="unknown split of 'parquet' 'test'; valid: train"):
        Parquet(train=file).split("test")
    no_image = tmp_path / "n.parquet"
    Dataset.from_dict({"picture": [1], "label": [0]}).to_parquet(str(no_image))
    with pytest.raises(DataError, match="has no column 'image'; its columns: picture, label"):
        Parquet(train=no_image)


def test_a_glob_finds_all_parts_of_a_split(tmp_path):
    """Parts that had not been fetched were missing without a word."""
    for number in (0, 2):
        write(tmp_path / f"train-{number:05d}-of-00003-0123456789abcdef.parquet", [0])
    with pytest.raises(DataError, match=r"train: '.*' lacks 1 of the 3 parts of this split \(00001\); fetch them"):
        Parquet(train=tmp_path / "train-*.parquet")
    write(tmp_path / "train-00001-of-00003-0123456789abcdef.parquet", [0])
    assert len(Parquet(train=tmp_path / "train-*.parquet").split("train")) == 3
    one = Parquet(train=[tmp_path / "train-00000-of-00003-0123456789abcdef.parquet"])  # named one by one
    assert len(one.split("train")) == 1


def test_files_without_rows_and_columns_of_one_name(tmp_path):
    """The texts were those of the library: a batch size of 0, a field that matches twice."""
    rows = pa.table({"image": [b""], "label": [1]})
    pq.write_table(rows.slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="empty.parquet' has no rows"):
        Parquet(train=tmp_path / "empty.parquet")
    twice = pa.Table.from_arrays([*rows.columns, rows.column("label")], names=["image", "label", "label"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="twice.parquet' has 3 columns, of which two are called 'label'; keep one"):
        Parquet(train=tmp_path / "twice.parquet")


def test_images_that_the_file_only_names_are_part_of_the_identity(tmp_path):
    """F4: a parquet file of paths stayed the same when the images did not."""
    paths = [str(tmp_path / f"{number}.bmp") for number in range(3)]
    for path in paths:
        Pillow.new("RGB", (20, 20), (9, 9, 9)).save(path)
    for column in (paths, [{"bytes": None, "path": path} for path in paths]):
        Dataset.from_dict({"image": column}).to_parquet(str(tmp_path / "train.parquet"))
        before = Parquet(train=tmp_path / "train.parquet")
        assert load_images(before, "train", 20).images.max() == 9
        Pillow.new("RGB", (20, 20), (200, 9, 9)).save(paths[1])
        after = Parquet(train=tmp_path / "train.parquet")
        assert before.fingerprint != after.fingerprint
        assert load_images(after, "train", 20).images.amax(dim=(1, 2, 3)).tolist() == [9, 200, 9]
        Pillow.new("RGB", (20, 20), (9, 9, 9)).save(paths[1])
    Dataset.from_dict({"image": [*paths, "https://example.org/a.png"]}).to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(
        DataError, match="train row 3: the image 'https://example.org/a.png' is not a file of this machine"
    ):
        Parquet(train=tmp_path / "train.parquet")


def test_an_image_cell_without_bytes_and_path_is_named(tmp_path):
    """F25: an AttributeError."""
    cells = [encode_png(np.zeros((20, 20, 3), np.uint8)), {"bytes": None, "path": None}]
    file = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": cells}), file)
    with pytest.raises(DataError, match="'parquet' row 1: no image"):
        load_images(Parquet(train=file), "train", 20)


def write_names(folder, paths, labels=None):
    """A parquet file of paths to images."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {"image": paths, "label": labels or [0, 1] * (len(paths) // 2)}
    Dataset.from_dict(data).to_parquet(str(folder / "train.parquet"))
    return folder / "train.parquet"


def write_pictures(folder, value, count=4):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Pillow.new("RGB", (8, 8), (value, number, 0)).save(folder / f"{number}.png")


NAMES = [f"images/{number}.png" for number in range(4)]


def test_relative_paths_start_at_the_folder_of_the_parquet_file(tmp_path, monkeypatch):
    """Where the working directory held other images of the same names, these were read without a word."""
    file = write_names(tmp_path / "mine", NAMES)
    write_pictures(tmp_path / "mine" / "images", 200)
    write_pictures(tmp_path / "other" / "images", 10)
    monkeypatch.chdir(tmp_path / "other")
    found = Parquet(train=file)
    assert found.notes == () and found.splits["train"].column_names == ["image", "label"]
    assert load_images(found, "train", 8).images[:, 0].unique().tolist() == [200]
    monkeypatch.chdir(tmp_path / "mine")
    assert Parquet(train="train.parquet").fingerprint == found.fingerprint
    whole = write_names(tmp_path / "whole", [str(tmp_path / "mine" / name) for name in NAMES])
    assert load_images(Parquet(train=whole), "train", 8).images[:, 0].unique().tolist() == [200]


def test_relative_paths_from_the_working_directory_are_noted(tmp_path, monkeypatch):
    file = write_names(tmp_path / "tables", NAMES)
    write_pictures(tmp_path / "images", 10)
    monkeypatch.chdir(tmp_path)
    found = Parquet(train=file)
    assert found.notes == (
        "Training files named by relative paths are read from the working directory: the folder of the parquet file "
        "does not hold them.",
    )
    assert load_images(found, "train", 8).images[:, 0].unique().tolist() == [10]


def test_a_relative_path_to_no_file_says_where_it_starts(tmp_path, monkeypatch):
    file = write_names(tmp_path / "mine", NAMES)
    monkeypatch.chdir(tmp_path)
    text = "'parquet' train row {}: the image 'images/{}.png' is not a file of this machine; a relative path starts at "
    text += f"the folder of the parquet file, here '{tmp_path / 'mine'}'"
    with pytest.raises(DataError, match=re.escape(text.format(0, 0))):
        Parquet(train=file)
    write_pictures(tmp_path / "mine" / "images", 9, count=3)
    write_pictures(tmp_path / "images", 9)  # the paths of a column start at one folder
    with pytest.raises(DataError, match=re.escape(text.format(3, 3))):
        Parquet(train=file)
