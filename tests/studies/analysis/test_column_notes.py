"""What is noted of columns that are not read: names of classes, and groups of images that both splits have."""

import csv
import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Image, Value
from PIL import Image as PillowImage

from scd.data.sources.image_folder import ImageFolder
from scd.data.sources.parquet import Parquet
from scd.data.sources.png import encode_png
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.column_notes import is_group, is_sure
from studies.suite.analysis.image_notes import notes_on_files

TEXTS = (
    "By the column '{0}', which is not read, the label '{1}' is '{2}' in the training split and '{3}' in the test "
    "split ({4} such labels), as if each split had numbered its classes for itself: scored images are then compared "
    "with other classes. If the column names the classes, take it as the label (data.options.columns.label={0})."
)
GROUPS = (
    "By the column '{}'{}, which is not read, {} of the {} scored images belong to groups of training images ({} "
    "groups, such as '{}'): if images of a group show one person, object or scene, scores are too high. Split the "
    "images by this column: all images of a group belong in one split."
)
ANIMALS = ["cat", "dog", "pig"]


def notes_of(images: EvaluationData) -> list[str]:
    return [note for note in notes_on_files(images) if note.startswith("By the column ")]


def parquet(folder, train: dict, test: dict, kinds: dict | None = None, limits: tuple = (None, None), **options):
    """Images of two parquet files with these columns; those of ``kinds`` are of a type of their own."""
    folder.mkdir(exist_ok=True)
    for first, (split, columns) in enumerate((("train", train), ("test", test))):
        count = len(next(iter(columns.values())))
        images = [encode_png(pixels(1000 * first + row)) for row in range(count)]
        dataset = Dataset.from_dict({"image": images, **columns}).cast_column("image", Image())
        for column, kind in (kinds or {}).items():
            dataset = dataset.cast_column(column, kind)
        dataset.to_parquet(folder / f"{split}.parquet")
    source = Parquet(train=folder / "train.parquet", test=folder / "test.parquet", **options)
    return EvaluationData(source, 8, *limits)


def pixels(number: int) -> np.ndarray:
    return np.full((8, 8, 3), number % 251, np.uint8)


def labelled(texts: list[str], rows: int = 12, column: str = "class_name") -> dict:
    return {
        "label": [row % len(texts) for row in range(rows)],
        column: [texts[row % len(texts)] for row in range(rows)],
    }


# ---------------------------------------------------------------- texts of classes


def test_a_column_of_class_names_shows_that_each_split_has_its_own_numbers(tmp_path):
    """As pandas.factorize writes them for each split: accuracies were of other classes."""
    images = parquet(tmp_path, labelled(ANIMALS), labelled(["dog", "cat", "pig"]))
    assert notes_of(images) == [TEXTS.format("class_name", "0", "cat", "dog", 2)]
    assert notes_of(parquet(tmp_path / "same", labelled(ANIMALS), labelled(ANIMALS))) == []
    read = parquet(tmp_path, labelled(ANIMALS), labelled(["dog", "cat", "pig"]), columns={"label": "class_name"})
    assert notes_of(read) == []


@pytest.mark.parametrize(
    ("column", "texts", "noted"),
    [
        ("animal", ["dog", "cat", "pig"], True),  # texts of other training labels
        ("class_name", ["cow", "hen", "owl"], True),
        ("animal", ["cow", "hen", "owl"], False),  # may be anything: one video for each label
        ("class_name", ["Cat", "dog ", "PIG"], False),
        ("class_name", ["cat", "cat", "pig"], False),  # groups of labels
        ("class_name", ["cat", "dog"], False),
    ],
)
def test_other_texts_of_labels(tmp_path, column, texts, noted):
    found = notes_of(parquet(tmp_path, labelled(ANIMALS, column=column), labelled(texts, column=column)))
    assert len(found) == noted


def test_a_few_wrong_texts_are_no_other_numbering(tmp_path):
    train, test = labelled(ANIMALS, 60), labelled(["dog", "cat", "pig"], 60)
    train["class_name"][0] = test["class_name"][3] = "pig"
    assert len(notes_of(parquet(tmp_path / "few", train, test))) == 1
    test["class_name"] = ["pig", "cat", "dog", "dog", "cat", "pig"] * 10
    assert notes_of(parquet(tmp_path / "many", train, test)) == []


def test_numbers_with_names_are_texts(tmp_path):
    train, test = ({"label": [0, 1] * 6, "species": numbers * 6} for numbers in ([0, 1], [1, 0]))
    images = parquet(tmp_path, train, test, {"species": ClassLabel(names=["cat", "dog"])})
    assert notes_of(images) == [TEXTS.format("species", "0", "cat", "dog", 2)]


def test_a_text_for_each_row_is_none_of_classes(tmp_path):
    """Each label of a split with one image for each class has one text, whatever the column holds."""
    train, test = labelled(ANIMALS, 3, "caption"), labelled(["dog", "cat", "pig"], 3, "caption")
    assert notes_of(parquet(tmp_path, train, test)) == []


# ---------------------------------------------------------------- groups of images


def grouped(column: str, values: list, classes: int = 3) -> dict:
    found = {column: values}
    return {"label": [place % classes for place in range(len(values))], **found} if classes else found


@pytest.mark.parametrize("kind", ["string", "int64", "float64"])
@pytest.mark.parametrize("classes", [3, 0])
def test_patients_of_both_splits_are_noted(tmp_path, kind, classes):
    """Nothing was said but that there is a column that is not read."""
    train, test = [k // 3 for k in range(36)], list(range(6, 18))  # 12 patients; 6 of them in the test split
    images = parquet(
        tmp_path,
        grouped("patient_id", train, classes),
        grouped("patient_id", test, classes),
        {"patient_id": Value(kind)},
    )
    assert notes_of(images) == [GROUPS.format("patient_id", "", 6, 12, 6, "10")]
    apart = grouped("patient_id", [value + 100 for value in test], classes)
    assert notes_of(parquet(tmp_path / "apart", grouped("patient_id", train, classes), apart)) == []


@pytest.mark.parametrize(
    ("column", "train", "test", "noted"),
    [
        ("source_image", [f"{k // 2}.jpg" for k in range(24)], [f"{k}.jpg" for k in range(12)], True),
        ("video", [f"clip_{k % 5}" for k in range(20)], [f"clip_{k % 5}" for k in range(10)], True),
        ("case", [str(k) for k in range(24)], [str(k) for k in range(12)], False),  # the rows of each split, numbered
        ("patient", ["", "nan", "-1", "None"] * 6, ["", "nan", "-1", "None"] * 3, False),
        ("subject", ["a", "b", "c"] * 8, ["a", "b", "c"] * 4, False),  # no more than classes
        ("lesion", [f"L{k // 2}" for k in range(24)], ["L0", *[f"M{k}" for k in range(11)]], False),
        ("lesion", [f"L{k // 2}" for k in range(24)], ["L0", "L1", *[f"M{k}" for k in range(10)]], True),
        ("location", [str(k % 12) for k in range(48)], [str(k) for k in range(12)], True),
        ("location", [str(k % 9) for k in range(48)], [str(k % 9) for k in range(12)], False),  # few
        ("location", [str(k % 12) for k in range(48)], [str(k) for k in range(6, 18)], False),  # half of them
        ("source", [f"site {chr(97 + k % 12)}" for k in range(48)], [f"site {chr(97 + k)}" for k in range(12)], False),
        ("scene", [f"S{k % 10}" for k in range(48)], [f"S{k % 10}" for k in range(12)], True),
        ("patient_age", [str(k // 2) for k in range(24)], [str(k) for k in range(12)], False),
        ("image_id", [str(k // 2) for k in range(24)], [str(k) for k in range(12)], False),
        ("city", [f"c{k // 2}" for k in range(24)], [f"c{k}" for k in range(12)], False),
    ],
)
def test_which_columns_are_of_groups(tmp_path, column, train, test, noted):
    assert len(notes_of(parquet(tmp_path, grouped(column, train), grouped(column, test)))) == noted


def test_values_of_many_classes_may_be_kinds_of_images(tmp_path):
    """Twelve cameras and eight classes."""
    train, test = (grouped("camera", [f"C{k % 12}" for k in range(count)], 8) for count in (48, 24))
    assert notes_of(parquet(tmp_path, train, test)) == []


def test_the_column_that_joins_most_images_is_named(tmp_path):
    """And of two such columns the one with fewer values: all videos of a patient belong in one split."""
    train = {**grouped("video", [f"v{k // 2}" for k in range(24)]), "patient": [f"p{k // 4}" for k in range(24)]}
    test = {**grouped("video", [f"v{k}" for k in range(12)]), "patient": [f"p{k // 2}" for k in range(12)]}
    assert notes_of(parquet(tmp_path, train, test)) == [GROUPS.format("patient", "", 12, 12, 6, "p0")]


def test_limits_are_respected(tmp_path):
    """Without labels the first rows are used: those whose patients are in one split."""
    train = grouped("patient", [f"p{k // 2}" for k in range(24)], 0)
    test = grouped("patient", [f"q{k // 2}" for k in range(8)] + [f"p{k}" for k in range(8)], 0)
    assert len(notes_of(parquet(tmp_path, train, test))) == 1
    assert notes_of(parquet(tmp_path, train, test, limits=(24, 8))) == []


def test_backgrounds_and_pictures_are_no_groups(tmp_path):
    train, test = (grouped("location", [f"L{k % 12}" for k in range(count)]) for count in (48, 12))
    assert len(notes_of(parquet(tmp_path, train, test))) == 1
    assert notes_of(parquet(tmp_path, train, test, columns={"background": "location"})) == []
    train, test = (grouped("source_image", [encode_png(pixels(k % 6)) for k in range(count)]) for count in (24, 12))
    assert notes_of(parquet(tmp_path / "pairs", train, test, {"source_image": Image()})) == []


def test_columns_beside_files_that_rows_name(tmp_path):
    """Paths and numbers take the place of the columns of images and labels."""
    for split, count in (("train", 24), ("test", 12)):
        for row in range(count):
            PillowImage.new("RGB", (8, 8), (row, 0, 0)).save(tmp_path / f"{split}{row}.png")
        columns = {
            "image": [f"{split}{row}.png" for row in range(count)],
            **grouped("patient", [f"p{row % 12}" for row in range(count)]),
        }
        Dataset.from_dict(columns).to_parquet(tmp_path / f"{split}.parquet")
    source = Parquet(train=tmp_path / "train.parquet", test=tmp_path / "test.parquet")
    assert notes_of(EvaluationData(source, 8)) == [GROUPS.format("patient", "", 12, 12, 12, "p0")]


def test_splits_in_parts(tmp_path):
    parquet(tmp_path, grouped("patient", [f"p{k // 2}" for k in range(24)]), grouped("patient", ["p1", "q2", "q3"]))
    parquet(tmp_path / "b", grouped("patient", [f"q{k // 2}" for k in range(24)]), grouped("patient", ["r1"]))
    parts = [tmp_path / "train.parquet", tmp_path / "b" / "train.parquet"]
    images = EvaluationData(Parquet(train=parts, test=tmp_path / "test.parquet"), 8)
    assert notes_of(images) == [GROUPS.format("patient", "", 3, 3, 3, "p1")]


@pytest.mark.parametrize(
    "column", ["patientid", "PatientID", "Patient ID", "patient_no", "case", "original_filename", "wsi-id", "videoId"]
)
def test_names_of_groups(column):
    assert is_group(column) and is_sure(column)


@pytest.mark.parametrize(
    "column", ["scene_type", "videos", "caseload", "valid", "file_name", "source_width", "id", "12"]
)
def test_other_names(column):
    assert not is_group(column)


# ---------------------------------------------------------------- tables beside folders


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
    where = f" of '{name.rpartition('/')[2]}'"
    assert notes_of(EvaluationData(ImageFolder(root), 8)) == [GROUPS.format("lesion_id", where, 12, 12, 12, "HAM_0000")]


def test_tables_in_other_forms(tmp_path):
    """Names with folders of another place and with endings; lines of JSON; and images that a table does not have."""
    folders(tmp_path, SPLITS)
    rows = [{"patient": int(lesion[4:]), "file": f"other/{image}.jpeg"} for image, lesion in LESIONS[:-2]]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert notes_of(EvaluationData(ImageFolder(tmp_path), 8)) == [
        GROUPS.format("patient", " of 'data.jsonl'", 10, 12, 10, "0")
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
        cells = [{**encode_png(pixels(k)), "path": f"{name}.png"} for k, name in enumerate(names)]
        Dataset.from_dict({"image": cells}).to_parquet(tmp_path / f"{split}.parquet")
    source = Parquet(train=tmp_path / "train.parquet", test=tmp_path / "test.parquet")
    assert notes_of(EvaluationData(source, 8)) == []
