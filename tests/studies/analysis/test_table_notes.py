"""What is noted of tables beside folders of images, and in them, by which both splits show one patient or lesion."""

import csv
import json

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image as PillowImage

from scd.data.sources.image_folder import ImageFolder
from scd.data.sources.parquet import Parquet
from scd.data.sources.png import encode_png
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.image_notes import notes_on_files

GROUPS = (
    "By the column '{}' of {}, which is not read, {} of the {} scored images belong to groups of training images ({} "
    "groups, such as '{}'): if images of a group show one person, object or scene, scores are too high. Split the "
    "images by this column: all images of a group belong in one split."
)


def notes_of(images: EvaluationData) -> list[str]:
    return [note for note in notes_on_files(images) if note.startswith("By the column ")]


def folders(root, by_split: dict[str, list[str]]):
    for split, names in by_split.items():
        for place, name in enumerate(names):
            path = root / split / "ab"[place % 2] / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PillowImage.new("RGB", (8, 8), (9 * place, 0, 0)).save(path)


SPLITS = {"train": [f"ISIC_{k:04}" for k in range(24)], "test": [f"ISIC_{k:04}" for k in range(50, 62)]}
LESIONS = [(f"ISIC_{k:04}", f"HAM_{(k % 50) % 12:04}") for k in (*range(24), *range(50, 62))]


def write_table(path, rows, header=("lesion_id", "image_id", "age"), delimiter=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *((lesion, image, 50) for image, lesion in rows)])


@pytest.mark.parametrize(
    ("name", "delimiter"), [("HAM10000_metadata.csv", ","), ("meta/data.tsv", "\t"), ("../table.csv", ";")]
)
def test_lesions_of_both_splits_by_a_table_are_noted(tmp_path, name, delimiter):
    """Of HAM10000_metadata.csv nothing was said but that it is no image."""
    root = tmp_path / "images"
    folders(root, SPLITS)
    write_table(root / name, LESIONS, delimiter=delimiter)
    where = f"'{name.rpartition('/')[2]}'"
    assert notes_of(EvaluationData(ImageFolder(root), 8)) == [GROUPS.format("lesion_id", where, 12, 12, 12, "HAM_0000")]


def test_tables_in_other_forms(tmp_path):
    """Names with folders of another place and with endings; lines of JSON; and images that a table does not have."""
    folders(tmp_path, SPLITS)
    rows = [{"patient": int(lesion[4:]), "file": f"other/{image}.jpeg"} for image, lesion in LESIONS[:-2]]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert notes_of(EvaluationData(ImageFolder(tmp_path), 8)) == [
        GROUPS.format("patient", "'data.jsonl'", 10, 12, 10, "0")
    ]


def test_names_that_several_images_have_are_told_apart_by_their_folders(tmp_path):
    names = [str(k) for k in range(24)]
    folders(tmp_path, {"train": names, "test": names[:12]})
    rows = [
        (f"{split}/{'ab'[k % 2]}/{k}.png", f"p{k % 12}") for split, n in (("train", 24), ("test", 12)) for k in range(n)
    ]
    write_table(tmp_path / "table.csv", rows, ("patient", "path", "age"))
    assert len(notes_of(EvaluationData(ImageFolder(tmp_path), 8))) == 1
    write_table(tmp_path / "table.csv", [(image.rpartition("/")[2], patient) for image, patient in rows])
    assert notes_of(EvaluationData(ImageFolder(tmp_path), 8)) == []


def test_a_number_of_rows_is_no_name_of_images(tmp_path):
    """Of two columns that fit equally well, the one that is called like names of images is taken."""
    folders(tmp_path, {"train": [str(k) for k in range(24)], "test": [str(k) for k in range(24, 36)]})
    with (tmp_path / "table.csv").open("w") as file:
        file.write("row,image,patient\n")
        for row in range(36):  # listed backwards, so that a row's number is the name of another image
            image = 35 - row
            file.write(f"{row},{image},p{image // 8}\n")
    assert notes_of(EvaluationData(ImageFolder(tmp_path), 8)) == []


@pytest.mark.parametrize(
    ("rows", "header"),
    [
        (LESIONS[:24], ("lesion_id", "image_id", "age")),  # of the training images alone
        ([(image, f"HAM_{k // 2}") for k, (image, _) in enumerate(LESIONS)], ("lesion_id", "image_id", "age")),
        (LESIONS, ("diagnosis", "image_id", "age")),
        ([(f"other_{k}", "HAM_1") for k in range(40)], ("lesion_id", "image_id", "age")),
        ([], ("lesion_id", "image_id", "age")),
    ],
)
def test_harmless_tables(tmp_path, rows, header):
    folders(tmp_path, SPLITS)
    write_table(tmp_path / "data.csv", rows, header)
    (tmp_path / "broken.jsonl").write_text('{"patient": 1}\n{')
    (tmp_path / "list.jsonl").write_text('["patient"]\n')
    assert notes_of(EvaluationData(ImageFolder(tmp_path), 8)) == []


def test_images_that_are_split_by_a_hash(tmp_path):
    folders(tmp_path, {".": [f"ISIC_{k:04}" for k in range(60)]})
    write_table(tmp_path / "data.csv", [(f"ISIC_{k:04}", f"HAM_{k // 4}") for k in range(60)])
    (note,) = notes_of(EvaluationData(ImageFolder(tmp_path), 8))
    assert note.startswith("By the column 'lesion_id' of 'data.csv', which is not read, ")


def test_a_table_beside_one_of_many_folders_names_it(tmp_path):
    folders(tmp_path / "skin", SPLITS)
    write_table(tmp_path / "moles.csv", LESIONS)
    write_table(tmp_path / "moles_test" / "data.csv", LESIONS)
    assert notes_of(EvaluationData(ImageFolder(tmp_path / "skin"), 8)) == []
    write_table(tmp_path / "skin_metadata.csv", LESIONS)
    (note,) = notes_of(EvaluationData(ImageFolder(tmp_path / "skin"), 8))
    assert "'lesion_id' of 'skin_metadata.csv'" in note


def test_images_whose_files_are_not_there_have_no_tables(tmp_path, monkeypatch):
    """Names that the cells of a parquet file keep are those of files of another machine."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "data.csv", LESIONS)
    for split, names in SPLITS.items():
        cells = [{**encode_png(np.full((8, 8, 3), k, np.uint8)), "path": f"{name}.png"} for k, name in enumerate(names)]
        Dataset.from_dict({"image": cells}).to_parquet(tmp_path / f"{split}.parquet")
    source = Parquet(train=tmp_path / "train.parquet", test=tmp_path / "test.parquet")
    assert notes_of(EvaluationData(source, 8)) == []


def per_split(names: bool = False) -> dict[str, list[tuple[str, str]]]:
    """Names of images with a lesion, for each split; the names of both may be the same."""
    found = {"train": [(f"ISIC_{k:04}", f"HAM_{k % 12:04}") for k in range(24)]}
    return found | {"test": [(f"ISIC_{k + 50 * (not names):04}", f"HAM_{k:04}") for k in range(12)]}


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("{}/metadata.csv", "'test/metadata.csv' and 'train/metadata.csv'"),
        ("{}.csv", "'test.csv' and 'train.csv'"),
        ("{}/data.jsonl", "'test/data.jsonl' and 'train/data.jsonl'"),
        ("meta/{}.tsv", "'test.tsv' and 'train.tsv'"),
    ],
)
@pytest.mark.parametrize("names", [False, True])
def test_a_table_for_each_split_is_joined_with_the_other_one(tmp_path, name, where, names):
    """A table of both was noted, and nothing was said of two; each split may name its images anew."""
    rows = per_split(names)
    folders(tmp_path, {split: [image for image, _ in found] for split, found in rows.items()})
    for split, found in rows.items():
        path = tmp_path / name.format(split)
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".jsonl":
            lines = [json.dumps({"lesion_id": lesion, "file_name": f"{image}.png"}) for image, lesion in found]
            path.write_text("\n".join(lines))
        else:
            extra = () if split == "train" else ("age",)  # the test table has no classes
            write_table(path, found, ("lesion_id", "image_id", *(extra or ("label",))), "\t" if "tsv" in name else ",")
    (note,) = notes_of(EvaluationData(ImageFolder(tmp_path), 8))
    assert note == GROUPS.format("lesion_id", where, 12, 12, 12, "HAM_0000")


def test_lesions_of_one_split_each_in_two_tables(tmp_path):
    folders(tmp_path, SPLITS)
    for split, names in SPLITS.items():
        write_table(tmp_path / split / "metadata.csv", [(name, f"{split}_{k // 2}") for k, name in enumerate(names)])
    assert notes_of(EvaluationData(ImageFolder(tmp_path), 8)) == []


def test_tables_with_other_groups_are_not_joined(tmp_path):
    folders(tmp_path, SPLITS)
    write_table(tmp_path / "train.csv", LESIONS[:24])
    write_table(tmp_path / "test.csv", LESIONS[24:], ("patient", "image_id", "age"))
    assert notes_of(EvaluationData(ImageFolder(tmp_path), 8)) == []


@pytest.mark.parametrize(("parent", "noted"), [("imgs", True), ("cars", False)])
def test_a_table_two_folders_above(tmp_path, parent, noted):
    """State Farm's driver_imgs_list.csv beside imgs/train; above another folder it may be of another set."""
    root = tmp_path / "mine" / parent / "train"
    folders(root, {".": [f"img_{k:04}" for k in range(60)]})
    rows = [(f"img_{k:04}.png", f"p{k // 6}") for k in range(60)]
    write_table(tmp_path / "mine" / "driver_imgs_list.csv", rows, ("subject", "img", "age"))
    found = notes_of(EvaluationData(ImageFolder(root), 8))
    assert len(found) == noted
    assert all(note.startswith("By the column 'subject' of 'driver_imgs_list.csv', which") for note in found)
