"""What is noted of columns that are not read: names of classes, and groups of images that both splits have."""

import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PillowImage

from scd.data.sources.coco import Coco
from scd.data.sources.parquet import Parquet
from scd.data.sources.png import encode_png
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.column_notes import notes_on_columns
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


def parquet(
    folder, train: dict, test: dict, kinds: dict | None = None, limits: tuple = (None, None), names: str | None = None,
    **options,
):  # fmt: skip
    """Images of two parquet files with these columns; those of ``kinds`` are of a type of their own.

    Args:
        names: the column that is kept as the names of the images.
    """
    folder.mkdir(exist_ok=True)
    for first, (split, columns) in enumerate((("train", train), ("test", test))):
        count = len(next(iter(columns.values())))
        images = [encode_png(pixels(1000 * first + row)) for row in range(count)]
        for image, name in zip(images, columns.get(names, ()), strict=False):
            image["path"] = name
        columns = {column: values for column, values in columns.items() if column != names}
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


def test_texts_that_are_part_of_another_column(tmp_path):
    train, test = (
        {"label": [k % 3 for k in range(12)], "info": [{"animal": texts[k % 3], "k": k} for k in range(12)]}
        for texts in (ANIMALS, ["dog", "cat", "pig"])
    )
    (note,) = notes_of(parquet(tmp_path, train, test))
    assert note.startswith("By the column 'info.animal', which is not read, the label '0' is 'cat' in the training ")
    assert note.endswith("If the column names the classes, write it as a column of its own and take it as the label.")


NAMES = (
    "By the names of the image files{}, the label '1' is 'dog' in the training split and 'pig' in the test split (2 "
    "such labels), as if each split had numbered its classes for itself: scored images are then compared with other "
    "classes. Check the labels."
)


def named(form: str, animals: list[str], first: int, rows: int = 12) -> dict:
    """Labels with names of files."""
    places = range(rows)
    return {
        "label": [k % 3 for k in places],
        "file": [form.format(animals[k % 3], k + first, "test" if first else "train") for k in places],
    }


@pytest.mark.parametrize(
    "form",
    ["{}_{:04}.jpg", "{1:04}-{0}.png", "IMG{1}_{0}_3.jpg", "{2}_{0}_{1}.jpg", "n0{0}1_{1}.JPEG"],
)
@pytest.mark.parametrize("column", [True, False])
def test_names_of_files_show_that_each_split_has_its_own_numbers(tmp_path, form, column):
    """The class was told by the names of files alone, in a column of text or in that of the images."""
    found = []
    for folder, animals in (("own", ["cat", "pig", "dog"]), ("same", ["cat", "dog", "pig"])):
        columns = named(form, ["cat", "dog", "pig"], 0), named(form, animals, 500)
        images = parquet(tmp_path / folder, *columns, names=None if column else "file")
        found.append([note for note in notes_on_files(images) if "numbered its classes" in note])
    (note,), same = found
    assert note.replace("n dog", "dog").replace("n pig", "pig") == NAMES.format("")
    assert same == []


def test_folders_in_a_second_column_of_names(tmp_path):
    train, test = named("{2}/{0}/{1:04}.jpg", ANIMALS, 0), named("{2}/{0}/{1:04}.jpg", ["cat", "pig", "dog"], 500)
    own = [
        {"label": part["label"], "kept": part["file"], "file": [f"IMG_{k}.jpg" for k in range(12)]}
        for part in (train, test)
    ]
    notes = [note for note in notes_on_files(parquet(tmp_path, *own)) if "numbered its classes" in note]
    assert notes == [NAMES.format(" in the column 'kept'")]


def test_the_folders_of_the_names_of_the_images_are_noted_once(tmp_path):
    train, test = named("{2}/{0}/{1:04}.jpg", ANIMALS, 0), named("{2}/{0}/{1:04}.jpg", ["cat", "pig", "dog"], 500)
    (note,) = [note for note in notes_on_files(parquet(tmp_path, train, test)) if "numbered its classes" in note]
    assert note.startswith("The images in folders called 'dog' have the label '1' in the training split and '2' in ")


def test_classes_with_codes_of_numbers(tmp_path):
    """As those of WordNet are called."""
    codes = ["n01440764", "n02102040", "n03000684"]
    train, test = named("{}_{}.JPEG", codes, 0), named("{}_{}.JPEG", [codes[0], codes[2], codes[1]], 500)
    (note,) = [note for note in notes_on_files(parquet(tmp_path, train, test)) if "numbered its classes" in note]
    assert "the label '1' is 'n02102040' in the training split and 'n03000684' in the test split" in note


@pytest.mark.parametrize("animals", [["cow", "hen", "owl"], ["cat", "cat", "cat"]])
def test_other_words_of_names_are_no_classes(tmp_path, animals):
    train, test = named("{}_{:04}.jpg", ANIMALS, 0), named("{}_{:04}.jpg", animals, 500)
    assert [note for note in notes_on_files(parquet(tmp_path, train, test)) if "numbered its" in note] == []


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
        ("eid", [str(1000 + 79 * k) for k in range(12)], [str(1000 + 79 * k) for k in range(12)], True),  # two eyes
        ("eid", [str(1000 + 79 * k) for k in range(12)], [str(1000 + 79 * k) for k in range(7, 19)], False),  # few
        ("product_id", [str(k // 2) for k in range(24)], [str(k) for k in range(12)], True),
        ("product", ["shoe", "hat", "bag", "tie"] * 6, ["shoe", "hat", "bag", "tie"] * 3, False),
        ("plant", [f"kind {chr(97 + k % 12)}" for k in range(24)], [f"kind {chr(97 + k)}" for k in range(12)], False),
        ("mouse", [f"M{k // 2}" for k in range(24)], [f"M{k}" for k in range(12)], True),
        ("author", [f"Ann {chr(97 + k // 2)}" for k in range(24)], [f"Ann {chr(97 + k)}" for k in range(12)], True),
        ("Plate", [f"W{k // 2}" for k in range(24)], [f"W{k}" for k in range(12)], True),
        *(
            (
                column,
                [str(397 + 17 * (k // 6 * 3 + k % 3)) for k in range(72)],
                [str(397 + 17 * k) for k in range(36)],
                n,
            )
            for column, n in (
                ("image_id", True),
                ("id", True),
                ("uid", True),
                ("metadata_id", True),
                ("synset", False),
                ("taxon_id", False),
                ("species_id", False),
                ("label_id", False),
                ("category_id", False),
                ("class_id", False),
                ("license_id", False),
                ("age", False),
                ("image_size", False),
                ("date", False),
                ("name", False),
                ("index", False),
            )
        ),
        ("filename", [f"{k // 6 * 3 + k % 3:03}.jpg" for k in range(72)], [f"{k:03}.jpg" for k in range(18)], False),
        ("filename", [f"{k // 3:03}.jpg" for k in range(72)], [f"{k // 3:03}.jpg" for k in range(36)], False),
        ("image_id", ["7", *[str(400 + 9 * k) for k in range(35)]], [str(400 + 9 * k) for k in range(12)], False),
    ],
)
def test_which_columns_are_of_groups(tmp_path, column, train, test, noted):
    assert len(notes_of(parquet(tmp_path, grouped(column, train), grouped(column, test)))) == noted


def test_patients_with_images_of_several_classes_may_be_few(tmp_path):
    """Four drivers and four classes: names of classes have one label each."""
    train, test = ([f"p{k // 3 % 4}" for k in range(count)] for count in (48, 24))
    assert len(notes_of(parquet(tmp_path, grouped("subject", train, 4), grouped("subject", test, 4)))) == 1
    train, test = ([f"p{k % 4}" for k in range(count)] for count in (48, 24))
    assert notes_of(parquet(tmp_path / "names", grouped("subject", train, 4), grouped("subject", test, 4))) == []
    train, test = (["dawn", "noon", "dusk", "rain"] * count for count in (12, 6))
    kinds = grouped("video", sorted(train), 4), grouped("video", sorted(test), 4)
    assert notes_of(parquet(tmp_path / "kinds", *kinds)) == []


def test_a_well_is_one_of_a_plate(tmp_path):
    """Each plate has the same wells, of which sites are numbered."""
    first, second = ({"plate": [f"P{k // 12 + shift}" for k in range(48)]} for shift in (0, 4))
    for columns in (first, second):
        columns["well"] = [f"B{k % 12}" for k in range(48)]
        columns["site"] = [f"{k % 12}" for k in range(48)]
        columns["label"] = [k % 3 for k in range(48)]
    assert notes_of(parquet(tmp_path / "plates", first, second)) == []
    twice = {column: [value for value in values for _ in range(2)] for column, values in first.items()}
    assert notes_of(parquet(tmp_path / "sites", twice, first)) == [
        GROUPS.format("plate + well", "", 48, 48, 48, "P0/B0")
    ]


def test_columns_of_columns_are_looked_into(tmp_path):
    train, test = ([{"patient_id": f"p{k}", "age": k} for k in range(count) for _ in range(2)] for count in (12, 6))
    images = parquet(tmp_path, grouped("metadata", train), grouped("metadata", test))
    assert notes_of(images) == [GROUPS.format("metadata.patient_id", "", 12, 12, 6, "p0")]
    train, test = ([{"patient": {"age": f"p{k}"}} for k in range(count) for _ in range(2)] for count in (12, 6))
    assert notes_of(parquet(tmp_path / "age", grouped("metadata", train), grouped("metadata", test))) == []


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


def test_videos_of_cocos_images_are_noted(tmp_path):
    """Names are hashes, and the entries of the images say which video they are of, as in TAO; nothing was said."""
    Coco.example(tmp_path)
    for split in ("train", "test"):
        content = json.loads((tmp_path / f"{split}.json").read_text())
        for number, image in enumerate(content["images"]):
            image |= {"video_id": f"v{number % 4}", "frame_id": number, "width_of_lens": 5}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    source = Coco(tmp_path / "train", tmp_path / "train.json", tmp_path / "test", tmp_path / "test.json")
    (note,) = notes_on_columns(EvaluationData(source, 24))
    assert note.startswith(
        "By the column 'images.video_id', which is not read, 4 of the 4 scored images belong to groups of training "
        "images (4 groups, such as 'v0')"
    )


@pytest.mark.parametrize(("form", "order", "count"), [
    ("ISIC_{}", 1, 12), ("{}.jpg of ISIC", 1, 0), ("ISIC_{}", 0, 0), ("{}", 1, 0), ("{}.jpg", 1, 12), ("{}.jpg", 0, 0),
])  # fmt: skip
def test_rows_that_name_the_image_of_another_row_are_noted(form, order, count, tmp_path):
    """Files sorted by name beside labels in the order of a table: labels were those of other images."""
    for split, first in (("train", 0), ("test", 50)):
        names = [f"ISIC_{first + n}" if "ISIC" in form else str(first + n) for n in range(12)]
        cells = {
            "image": [
                {**encode_png(np.full((4, 4, 3), n, np.uint8)), "path": f"{name}.png"} for n, name in enumerate(names)
            ],
            "label": [n % 2 for n in range(12)],
            "image_id": [form.format(first + (n + order) % 12) for n in range(12)],
        }
        features = {"image": Image(), "label": ClassLabel(names=["cat", "dog"]), "image_id": Value("string")}
        Dataset.from_dict(cells, features=Features(features)).to_parquet(tmp_path / f"{split}.parquet")
    images = EvaluationData(Parquet(tmp_path / "train.parquet", tmp_path / "test.parquet", name="mine"), 8)
    notes = [note for note in notes_on_columns(images) if "another image" in note]
    assert len(notes) == (2 if count else 0)
    if count:
        form = form.removesuffix(".jpg")
        assert notes[0] == (
            "By the column 'image_id', which is not read, 12 of the 12 training rows are of another image than their "
            f"own (such as '{form.format(1)}' in the row of '{form.format(0)}'), as where images and their table were "
            "sorted differently: labels may be those of other images."
        )


@pytest.mark.parametrize("renamed", [False, True])
def test_further_columns_of_images_are_noted(renamed, tmp_path):
    """Pairs of signatures, of which the label says whether one person wrote both; one of the two was trained on."""
    first = "picture" if renamed else "image"
    for split, start in (("train", 0), ("test", 50)):
        pixels = [np.full((4, 4, 3), start + n, np.uint8) for n in range(12)]
        cells = {first: list(map(encode_png, pixels)), "reference": [encode_png(255 - one) for one in pixels]}
        features = Features({first: Image(), "reference": Image(), "label": ClassLabel(names=["forged", "genuine"])})
        rows = Dataset.from_dict({**cells, "label": [n % 2 for n in range(12)]}, features=features)
        rows.to_parquet(tmp_path / f"{split}.parquet")
    columns = {"image": first} if renamed else None
    source = Parquet(tmp_path / "train.parquet", tmp_path / "test.parquet", name="mine", columns=columns)
    assert notes_on_columns(EvaluationData(source, 8)) == [
        "Columns of further images, which are not read: 'reference'. If a label is of several images, as of a pair, or "
        "a mask is among them, the numbers are of something else."
    ]
