"""A user's own images through the command line: the right numbers, or one line before anything is trained.

Images of two classes that differ in brightness alone are told apart by any network, so an accuracy below 1 means that
labels are wrong.
"""

import os
import re
import shutil

import numpy as np
import pandas
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PillowImage
from pyarrow import parquet

from scd.data.sources.png import encode_png
from studies.__main__ import main
from studies.suite.planning.command_line import resolve_settings

QUICK = ["tier=smoke", "seeds=1", "arms=random", "launcher.workers=0"]
KNN = ["evaluation.protocols=[{preset: knn, k: 3}]"]
BOTH = ["evaluation.protocols=[{preset: knn, k: 3}, linear]"]


def pixels(light: bool, number: int) -> np.ndarray:
    """A dark or a light image of noise."""
    low = 190 if light else 10
    return np.random.default_rng(number).integers(low, low + 50, (16, 16, 3), dtype=np.uint8)


def write_parquet(path, labels, feature, lights=None, first=0):
    """Rows of dark and light images, by turns, with their labels."""
    lights = lights or [number % 2 == 1 for number in range(len(labels))]
    images = [encode_png(pixels(light, first + number)) for number, light in enumerate(lights)]
    columns, features = {"image": images}, {"image": Image()}
    if feature is not None:
        columns["label"], features["label"] = list(labels), feature
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns, features=Features(features)).to_parquet(str(path))


def write_folder(folder, classes, count, first=0):
    """``count`` images in each class folder; the classes are dark and light by turns."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for image in range(count):
            picture = PillowImage.fromarray(pixels(number % 2 == 1, first + 100 * number + image))
            picture.save(folder / name / f"{image}.png")


def studies(tmp_path, *words, study="multicrop"):
    """The exit code of the command line with a store and an output folder of the test."""
    return main([study, *QUICK, *words, "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")])


def page_of(tmp_path, name):
    """A page's text and the numbers of its first run."""
    out = tmp_path / "out"
    runs = pandas.read_csv(out / "records" / f"{name}.csv")
    assert (runs["status"] == "done").all()
    return (out / f"{name}.md").read_text(encoding="utf-8"), runs.iloc[0]


pytestmark = pytest.mark.usefixtures("no_figures")

# ---------------------------------------------------------------- labels


def test_large_numbers_and_a_test_split_without_labels(tmp_path, capsys):
    """F2 and F19: ids like WordNet's are renumbered; validation is scored where the test images have no labels."""
    data, ids = tmp_path / "birds", [1_440_764, 3_000_000_000]
    write_parquet(data / "train.parquet", ids * 10, Value("int64"))
    write_parquet(data / "val.parquet", ids[::-1] * 5, Value("int64"), [True, False] * 5, first=50)
    write_parquet(data / "test.parquet", [-1] * 6, Value("int64"), first=90)
    assert studies(tmp_path, f"data={data}", *BOTH) == 0
    text, numbers = page_of(tmp_path, "multicrop-birds-smoke-arms-random")
    assert numbers["knn_top1"] == numbers["linear_top1"] == 1 and numbers["n_test"] == 10
    notes = ("The test images have no labels.", "The validation images are scored, because test images have no labels.")
    errors = capsys.readouterr().err
    for note in notes:
        assert f"**Note on the data:** {note}" in text and f"note: {note}\n" in errors


def test_classes_that_the_splits_name_in_another_order(tmp_path):
    """F3: top-1 was 0 on a separable set."""
    data = tmp_path / "order"
    write_parquet(data / "train.parquet", [0, 1] * 10, ClassLabel(names=["dark", "light"]))
    write_parquet(data / "test.parquet", [1, 0] * 5, ClassLabel(names=["light", "dark"]), first=50)
    assert studies(tmp_path, f"data={data}", *KNN) == 0
    text, numbers = page_of(tmp_path, "multicrop-order-smoke-arms-random")
    assert numbers["knn_top1"] == 1 and "Note on the data" not in text


@pytest.mark.parametrize(
    ("train", "test", "text"),
    [
        (pa.array(["a", None] * 8), pa.array(["a", "b"] * 3), "'birds' train row 1: no label (8 of 16 rows have none)"),
        (pa.array([0.0, float("nan")] * 8), pa.array([0, 1] * 3), "'birds' train row 1: no label"),
        (pa.array([-1, 1] * 8), pa.array([-1, 1] * 3), "'birds' train row 0: no label"),
        (pa.array(["a", "b"] * 8), pa.array([0, 1] * 3), "the labels of train are names and those of test numbers"),
        (pa.array([[0], [1]] * 8), pa.array([[0], [1]] * 3), "column 'label' holds list"),
        (pa.array([7] * 16), pa.array([7] * 6), "kNN needs two classes, the training set shows 1"),
    ],
)
def test_labels_that_are_refused(tmp_path, capsys, train, test, text):
    """F18: text, null, NaN and numbers ended in tracebacks, or in accuracies that are none."""
    for split, labels in (("train", train), ("test", test)):
        images = pa.array([encode_png(pixels(number % 2 == 1, number)) for number in range(len(labels))])
        (tmp_path / "birds").mkdir(exist_ok=True)
        parquet.write_table(pa.table({"image": images, "label": labels}), tmp_path / "birds" / f"{split}.parquet")
    assert studies(tmp_path, f"data={tmp_path / 'birds'}", *KNN) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line


# ---------------------------------------------------------------- folders


def test_a_folder_as_people_have_it_twice_from_inside(tmp_path, monkeypatch, capsys):
    """F9 to F12: usual names of splits, a class behind a link, hidden and other files, and the suite's own output."""
    data = tmp_path / "my pets"
    write_folder(data / "Training", ["cat"], 10)
    write_folder(tmp_path / "elsewhere", ["", "dog"], 10)  # the second class is light
    (data / "Training" / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    write_folder(data / "Testing", ["cat", "dog"], 4, first=50)
    write_folder(data / "Training" / ".ipynb_checkpoints", ["", "cat"], 1)
    (data / "Testing" / "cat" / "Thumbs.db").touch()
    monkeypatch.chdir(data)
    for words in (["data=."], ["data=."]):
        assert main(["multicrop", *QUICK, *words, *BOTH]) == 0
        runs = pandas.read_csv(data / "reports" / "records" / "multicrop-my-pets-smoke-arms-random.csv")
        assert runs["knn_top1"].eq(1).all() and runs["n_train"].eq(20).all() and runs["n_test"].eq(8).all()
        assert len(list((data / "runs" / "pretraining").glob("[!.]*"))) == 1
        (data / "reports" / "figures").mkdir(exist_ok=True)
        PillowImage.new("RGB", (9, 9)).save(data / "reports" / "figures" / "drawn.png")
    text = (data / "reports" / "multicrop-my-pets-smoke-arms-random.md").read_text(encoding="utf-8")
    assert "Files that are no images, not read (1: 1 .db): 'Testing/cat/Thumbs.db'." in text
    assert "not read (1): 'Training/.ipynb\\_checkpoints'." in text
    assert "- **Read as:** training: 20 images; 2 classes by the names of folders (images): 'cat' 10, 'dog' 10." in text
    assert "[records/multicrop-my-pets-smoke-arms-random.csv](records/multicrop-my-pets-smoke-arms-random.csv)" in text


def test_classes_of_folders_are_named_before_the_training(tmp_path, capsys):
    """They stood on the page alone, after the training: two kinds of folders were trained on as classes."""
    write_folder(tmp_path / "pets" / "train", ["cat", "dog"], 8)
    write_folder(tmp_path / "pets" / "test", ["cat", "dog"], 2, first=50)
    words = ["multicrop", *QUICK, f"data={tmp_path / 'pets'}", *KNN, "--store", str(tmp_path / "store")]
    assert main([*words, "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert capsys.readouterr().err == (
        "read as training: 16 images; 2 classes by the names of folders (images): 'cat' 8, 'dog' 8.\n"
        "read as test: 4 images; 2 classes by the names of folders (images): 'cat' 2, 'dog' 2.\n"
        "images were not decoded: notes on pixels, masks and labels come before the training\n"
    )


def test_a_folder_of_several_deep_folders_ends_in_one_line(tmp_path, capsys):
    """Kaggle's castings lie in two folders, each below one of its own name: a traceback."""
    for split in ("train", "test"):
        write_folder(tmp_path / "castings" / "data" / "data" / split, ["good", "bad"], 4)
    write_folder(tmp_path / "castings" / "512" / "512", ["good", "bad"], 4)
    assert studies(tmp_path, f"data={tmp_path / 'castings'}", *KNN) == 2
    (line,) = capsys.readouterr().err.splitlines()
    meant = tmp_path / "castings" / "data" / "data"
    assert re.fullmatch(rf"error: '.*png' lies too deep for a class folder; give the .* such as data={meant}", line)


def test_icons_whose_shape_lies_in_their_transparency_are_refused(tmp_path, capsys):
    """Every image became one colour without a word."""
    write_folder(tmp_path / "icons" / "train", ["cat", "dog"], 8)
    write_folder(tmp_path / "icons" / "test", ["cat", "dog"], 2, first=50)
    for number, file in enumerate(sorted((tmp_path / "icons" / "train").glob("*/*.png"))):
        icon = PillowImage.new("RGBA", (16, 16), (200, 9 * number, 30, 0))
        icon.putpixel((3, number), (200, 9 * number, 30, 255))
        icon.save(file)
    assert studies(tmp_path, f"data={tmp_path / 'icons'}", *KNN) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "16 of the 16 training images that were looked at have one colour alone, and what they show lies in" in line
    assert not list((tmp_path / "store" / "pretraining").glob("[!.]*"))


def test_scored_images_that_are_training_images_are_said(tmp_path, capsys):
    """Nothing said that a test folder repeats training images."""
    write_folder(tmp_path / "pets" / "train", ["cat", "dog"], 8)
    write_folder(tmp_path / "pets" / "test", ["cat", "dog"], 2, first=50)
    shutil.copy(tmp_path / "pets" / "train" / "cat" / "3.png", tmp_path / "pets" / "test" / "cat" / "again.png")
    assert studies(tmp_path, f"data={tmp_path / 'pets'}/", *KNN) == 0
    note = "1 of the 5 scored images are training images, too: accuracies are too high."
    picture = tmp_path / "store" / "as_read" / "multicrop-pets-smoke-arms-random.png"
    assert f"note: {note}\nshown as read in {picture}\n" in capsys.readouterr().err
    assert PillowImage.open(picture).format == "PNG"
    assert f"**Note on the data:** {note}" in page_of(tmp_path, "multicrop-pets-smoke-arms-random")[0]


def test_what_names_and_labels_say_is_on_the_command_line_and_on_the_page(tmp_path, capsys):
    """Turned versions of training images, a list of a split, and images that are there twice: nothing was said."""
    write_folder(tmp_path / "pets", ["cat", "dog"], 12)
    for kind in ("cat", "dog"):
        for number in range(12):
            file = tmp_path / "pets" / kind / f"{number}.png"
            with PillowImage.open(file) as image:
                image.rotate(90).save(file.with_stem(f"{number}_rot90"))
            shutil.copy(file, file.with_stem(f"again{number}x"))
    (tmp_path / "pets" / "train-test-split.txt").write_text("1 0\n")
    assert studies(tmp_path, f"data={tmp_path / 'pets'}", *KNN) == 0
    errors, page = capsys.readouterr().err, page_of(tmp_path, "multicrop-pets-smoke-arms-random")[0]
    for text in (
        "of the 14 scored images are changed versions of a training image (such as",
        "Files that may list the images of splits are not read (1): 'train-test-split.txt'.",
        "of the 58 training images repeat an earlier one of them, which are trained on more often than others.",
    ):
        assert text in errors and text in page


def test_copies_and_images_of_two_classes_are_said(tmp_path):
    """Nothing said that training images were mirrored into the test folder, or were in two classes."""
    pets = tmp_path / "pets"
    write_folder(pets / "train", ["cat", "dog"], 8)
    write_folder(pets / "test", ["cat", "dog"], 2, first=50)
    PillowImage.open(pets / "train" / "cat" / "3.png").transpose(PillowImage.Transpose.FLIP_LEFT_RIGHT).save(
        pets / "test" / "cat" / "mirrored.png"
    )
    shutil.copy(pets / "train" / "cat" / "5.png", pets / "train" / "dog" / "also.png")
    assert studies(tmp_path, f"data={pets}", *KNN) == 0
    text = page_of(tmp_path, "multicrop-pets-smoke-arms-random")[0]
    note = "**Note on the data:**"
    assert f"{note} 1 of the 5 scored images are nearly equal to a training image or to its mirror" in text
    assert f"{note} 2 of the 17 training images equal an image of another class." in text


def test_columns_are_named_one_by_one(tmp_path):
    """The README's words were refused, since a run has the other columns as well."""
    write_parquet(tmp_path / "birds" / "train.parquet", [0, 1] * 10, Value("int64"))
    write_parquet(tmp_path / "birds" / "test.parquet", [0, 1] * 5, Value("int64"), first=50)
    for name in ("train", "test"):
        path = tmp_path / "birds" / f"{name}.parquet"
        Dataset.from_parquet(str(path)).rename_columns({"image": "img", "label": "kind"}).to_parquet(str(path))
    words = ["data.options.columns.image=img", "data.options.columns.label=kind"]
    assert studies(tmp_path, f"data={tmp_path / 'birds'}", *words, *KNN) == 0
    (page,) = (tmp_path / "out" / "records").glob("*.csv")
    assert pandas.read_csv(page)["knn_top1"].tolist() == [1.0, 1.0]


def test_a_word_that_is_given_twice_is_refused(tmp_path, capsys):
    """The last one won without a word."""
    assert studies(tmp_path, "data=cifar10", "data=shapes") == 2
    assert capsys.readouterr().err == "error: data is given twice, as cifar10 and as shapes; give it once\n"


def test_axes_of_embedded_images_are_refused(tmp_path, capsys):
    """An axis that only embedded images have was ignored without a word."""
    write_folder(tmp_path / "pets" / "train", ["cat", "dog"], 8)
    write_folder(tmp_path / "pets" / "test", ["cat", "dog"], 2, first=50)
    assert studies(tmp_path, f"data={tmp_path / 'pets'}", "axes.rho=[0.5]") == 2
    text = "error: axes.rho sets rho_train of embedded images, and 'pets' has no such option; leave it out\n"
    assert capsys.readouterr().err == text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda data: write_folder(data / "train", [""], 1),
            "the image '.*/train/0.png' lies beside the class folde",
        ),
        (lambda data: write_folder(data / "train" / "cat", ["", "young"], 1), "'.*cat/0.png'|'.*young/0.png' lies too"),
        (
            lambda data: (data / "train" / "bird").symlink_to("gone"),
            "'.*/train/bird' is a link to 'gone', which doe",
        ),
        (lambda data: (data / "test" / "cat").rename(data / "test" / "Cat"), "label 'Cat' of test is written 'cat' in"),
        (lambda data: write_folder(data / "test", ["ape"], 1), "class 'ape' has 0 training images and 1 test images"),
        (lambda data: (data / "test").rename(data / "holdout"), "'holdout' is the name of no split"),
        (lambda data: (data / "train" / "cat" / "0.png").write_bytes(b""), "row 0 .*cat/0.png.: the image cannot be d"),
        (lambda data: write_folder(data, [os.fsdecode(b"train/caf\xe9")], 1), "which is not UTF-8; rename it"),
    ],
)
def test_folders_that_are_refused(tmp_path, capsys, change, text):
    data = tmp_path / "pets"
    write_folder(data / "train", ["cat", "dog"], 8)
    write_folder(data / "test", ["cat", "dog"], 2, first=50)
    change(data)
    assert studies(tmp_path, f"data={data}", *KNN) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(text, line), line
    assert not list((tmp_path / "store" / "pretraining").glob("[!.]*"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["data.locations.left_out=[borken]"], "left_out: 'borken' is no folder of '.*pets'"),
        (
            ["data.options.test_fraction=0.5"],
            "test_fraction splits a folder without splits, but '.*pets' has train and t",
        ),
    ],
)
def test_words_that_do_nothing_are_refused(tmp_path, capsys, words, text):
    """A typo left out no folder, and a fraction of a folder with splits was ignored, without a word."""
    write_folder(tmp_path / "pets" / "train", ["cat", "dog"], 8)
    write_folder(tmp_path / "pets" / "test", ["cat", "dog"], 2, first=50)
    assert studies(tmp_path, f"data={tmp_path / 'pets'}", *words, *KNN) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(text, line), line


def test_a_folder_inside_the_data_is_left_out_by_its_name(tmp_path, capsys):
    """The name was looked for in the working directory alone; the store inside the data stays left out as well."""
    data = tmp_path / "pets"
    write_folder(data, ["cat", "dog"], 10)
    write_folder(data / "broken", ["cat"], 3)
    words = [f"data={data}", "data.locations.left_out=[broken]", *KNN, "--store", str(data / "runs"), "--out"]
    for _ in range(2):
        assert main(["multicrop", *QUICK, *words, str(tmp_path / "out")]) == 0
        text, numbers = page_of(tmp_path, "multicrop-pets-smoke-arms-random")
        assert numbers["n_train"] == 16 and numbers["n_test"] == 4 and numbers["knn_top1"] == 1
    assert "Folders left out (2): 'broken', 'runs'." in text


# ---------------------------------------------------------------- names of pages


def test_two_folders_of_one_name_do_not_share_a_page(tmp_path, capsys):
    """F20: the page of the second folder replaced that of the first."""
    for place, count in (("a", 8), ("b", 10)):
        write_parquet(tmp_path / place / "shapes" / "train.parquet", [0, 1] * count, Value("int64"))
        write_parquet(tmp_path / place / "shapes" / "test.parquet", [0, 1] * 3, Value("int64"), first=50)
    page = "multicrop-shapes-smoke-arms-random"  # and not multicrop-smoke-arms-random, the page of the embedded shapes
    assert studies(tmp_path, f"data={tmp_path}/a/shapes", *KNN) == 0
    assert page_of(tmp_path, page)[1]["n_train"] == 16
    capsys.readouterr()
    assert studies(tmp_path, f"data={tmp_path}/b/shapes", *KNN) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"page '{page}' in" in line and "is of other images called 'shapes'; give yours another title" in line
    assert page_of(tmp_path, page)[1]["n_train"] == 16
    titled = resolve_settings("multicrop", ["tier=smoke", f"data={tmp_path}/b/shapes", "data.title=others"])
    assert titled.page == "multicrop-others-smoke"
    (tmp_path / "a").rename(tmp_path / "moved")  # the same images elsewhere are the same page
    assert studies(tmp_path, f"data={tmp_path}/moved/shapes", *KNN) == 0


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("Vögel #1 50% [x] | `y`\n$z$", "multicrop-Vögel-1-50-x-y-z-smoke-arms-random"),
        ("n" * 245, "multicrop-" + "n" * 40 + "-200dc215-smoke-arms-random"),
    ],
)
def test_unusual_names_of_folders(tmp_path, name, page):
    """F22: a long name could not be written; spaces made links that are no links."""
    write_parquet(tmp_path / name / "train.parquet", [0, 1] * 8, Value("int64"))
    write_parquet(tmp_path / name / "test.parquet", [0, 1] * 3, Value("int64"), first=50)
    assert studies(tmp_path, f"data={tmp_path / name}", *KNN) == 0
    text, _ = page_of(tmp_path, page)
    index = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]*)\)", text + index):
        assert re.fullmatch(r"[\w./%-]+|#[\w-]+", target), target


@pytest.mark.parametrize(("name", "text"), [("${x}", "contains '${', which no conf"), ("???", "data.title=NAME")])
def test_names_that_a_configuration_cannot_hold(tmp_path, capsys, name, text):
    write_folder(tmp_path / name, ["cat", "dog"], 3)
    assert studies(tmp_path, f"data={tmp_path / name}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line
