"""Labels of all splits: one numbering by name, and one line for labels that are none."""

import numpy as np
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from scd.data.sources.labels import number_labels
from scd.errors import DataError


def column(values, names=None) -> Dataset:
    """A column of labels: numbers with names, or what Arrow makes of the values."""
    if names:
        return Dataset.from_dict({"label": values}, features=Features(label=ClassLabel(names=names)))
    return Dataset(pa.table({"label": values}))


def numbers(found, split):
    return found.splits[split]["label"][:]


def test_numbers_with_names_are_aligned_by_name():
    """F3: the numbers of the files were compared, so that a separable set had an accuracy of 0."""
    found = number_labels("x", {"train": column([0, 1, 0], ["a", "b"]), "test": column([0, 1, 1, 2], ["b", "a", "c"])})
    assert found.names == ("a", "b", "c")
    assert numbers(found, "train") == [0, 1, 0] and numbers(found, "test") == [1, 0, 0, 2]
    assert found.splits["test"].features["label"].names == ["a", "b", "c"]


def test_large_numbers_are_renumbered():
    """F19: everything allocated memory up to the largest label."""
    found = number_labels("x", {"train": column([3_000_000_000, 1_440_764, 9]), "test": column([1_440_764, 10])})
    assert found.names == ("9", "1440764", "3000000000", "10") and found.plain
    assert numbers(found, "train") == [2, 1, 0] and numbers(found, "test") == [1, 3]


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        (pa.array([0.0, 2.0, 10.0]), ("0", "2", "10"), [0, 1, 2]),
        (pa.array([True, False]), ("false", "true"), [1, 0]),
        (pa.array(["007", "7", "10"]), ("007", "10", "7"), [0, 2, 1]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ("a", "b"), [1, 0, 1]),
        (pa.array(["b", "a"], pa.large_string()), ("a", "b"), [1, 0]),
        (pa.array([2**63 + 5, 7], pa.uint64()), ("7", str(2**63 + 5)), [1, 0]),
    ],
)
def test_kinds_of_labels(values, names, expected):
    dataset = Dataset(pa.table({"label": values.cast(pa.string()) if pa.types.is_dictionary(values.type) else values}))
    found = number_labels("x", {"train": dataset})
    assert found.names == names and numbers(found, "train") == expected


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (pa.array(["a", None, "b"]), r"'x' train row 1: no label \(1 of 3 rows have none\)"),
        (pa.array(["a", "b", ""]), r"'x' train row 2: no label \(1 of 3 rows have none\)"),
        (pa.array([0.0, float("nan"), None]), r"'x' train row 1: no label \(2 of 3 rows have none\)"),
        (pa.array([0, -1, 1]), r"'x' train row 1: no label \(1 of 3 rows have none\)"),
        (pa.array([0, 1, -2]), "'x' train row 2: label -2; classes are 0 or more, and -1 means no label"),
        (pa.array([0.0, 0.5]), "'x' train row 1: label 0.5 is not a whole number"),
        (pa.array([[0], [1, 2]]), "'x' train: column 'label' holds .*list.*, not one class for each image"),
        (pa.array([{"id": 1}, {"id": 2}]), "column 'label' holds struct.*; name another column with data.options.col"),
        (pa.array([b"a", b"b"]), "column 'label' holds binary"),
    ],
)
def test_what_is_no_label_is_named_by_split_and_row(values, text):
    """F18: text, null, NaN and lists ended in tracebacks."""
    with pytest.raises(DataError, match=text) as raised:
        number_labels("x", {"train": column(values)})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("hidden", [pa.array([-1, -1]), pa.array([None, None], pa.string()), pa.nulls(2), None])
def test_a_split_without_any_label_has_no_column_of_labels(hidden):
    """F2: a test split of -1, or without the column, is unlabelled; the training labels stay."""
    test = column(hidden) if hidden is not None else Dataset(pa.table({"other": [1, 2]}))
    found = number_labels("x", {"train": column(pa.array([1, 0])), "test": test})
    assert "label" not in found.splits["test"].column_names and numbers(found, "train") == [1, 0]
    assert found.notes == ["The test images have no labels."]


def test_named_classes_that_the_file_does_not_name_are_found():
    broken = column(np.array([0, 1]), ["a", "b", "c"])
    table = pa.table({"label": pa.array([0, 7])})
    with pytest.raises(DataError, match="row 1: label 7, but the column names 3 classes"):
        number_labels("x", {"train": Dataset(table, info=broken.info)})


@pytest.mark.parametrize(
    ("train", "test", "text"),
    [
        (["cat", "dog"], [0, 1], "'x': the labels of train are names and those of test numbers; give both in one form"),
        ([0, 1], ["0", "01"], "the labels of train are numbers and those of test names"),
        (["Cat", "dog"], ["cat"], "label 'cat' of test is written 'Cat' in train; write both alike"),
        (["new york"], ["New_York"], "label 'New_York' of test is written 'new york' in train"),
        (["caf\u00e9"], ["cafe\u0301"], r"is written '.*' in train with other Unicode characters \(NFC and NFD\)"),
        (["0", "1"], ["0.0", "1.0"], "label '0.0' of test is written '0' in train; write both alike"),
        (["007"], ["7"], "label '7' of test is written '007' in train"),
    ],
)
def test_classes_that_cannot_be_aligned(train, test, text):
    with pytest.raises(DataError, match=text):
        number_labels("x", {"train": column(pa.array(train)), "test": column(pa.array(test))})


def test_names_beside_plain_numbers_are_aligned_only_where_both_say_the_same():
    digits = [str(number) for number in range(3)]
    found = number_labels("x", {"train": column([2, 1, 0], digits), "test": column(pa.array([0, 2]))})
    assert found.names == ("0", "1", "2") and numbers(found, "test") == [0, 2]
    with pytest.raises(DataError, match="names and those of test numbers"):  # is 1 the class '1' or the second one?
        number_labels("x", {"train": column([0, 1], ["1", "2"]), "test": column(pa.array([1, 1]))})


def test_a_class_of_another_split_alone_comes_last():
    found = number_labels("x", {"train": column(pa.array(["m", "z"])), "test": column(pa.array(["a", "m"]))})
    assert found.names == ("m", "z", "a") and numbers(found, "test") == [2, 0]


def test_backgrounds_follow_the_same_rules():
    table = Dataset.from_dict({"background": ["sea", "land"]}, features=Features(background=Value("string")))
    found = number_labels("x", {"train": table}, "background")
    assert found.names == ("land", "sea") and found.splits["train"]["background"][:] == [1, 0]


# ---------------------------------------------------------------- text that means no label


@pytest.mark.parametrize("empty", ["", " ", "\t", None])
def test_empty_text_is_no_label(empty):
    """' ' was a class of its own."""
    found = number_labels(
        "x", {"train": column(pa.array(["a", "b"])), "test": column(pa.array([empty] * 2, pa.string()))}
    )
    assert found.names == ("a", "b") and "label" not in found.splits["test"].column_names
    with pytest.raises(DataError, match=r"'x' train row 1: no label \(2 of 3 rows have none\)"):
        number_labels("x", {"train": column(pa.array(["a", empty, empty], pa.string()))})


@pytest.mark.parametrize("train", [pa.array(["0", "1"]), pa.array([0, 1]), pa.array(["cat", "dog"])])
@pytest.mark.parametrize("minus_one", ["-1", " -1", "-1.0"])
def test_a_split_of_minus_one_as_text_has_no_labels(train, minus_one):
    """The error was "label '-1' of test is written '1' in train"."""
    found = number_labels("x", {"train": column(train), "test": column(pa.array([minus_one] * 3))})
    assert "label" not in found.splits["test"].column_names and len(found.names) == 2
    assert found.notes == ["The test images have no labels."]


@pytest.mark.parametrize("train", [["0", "-1", "1"], ["0.0", "-1.0", "1.0"]])
def test_minus_one_among_digits_as_text_is_no_label(train):
    """It was a class of its own, and the test images of class '1' could not be read."""
    with pytest.raises(DataError, match=r"'x' train row 1: no label \(1 of 3 rows have none\)"):
        number_labels("x", {"train": column(pa.array(train)), "test": column(pa.array(["0", "1"]))})


def test_minus_one_beside_names_or_other_negative_numbers_is_a_class():
    for names in (["cat", "-1", "-1"], ["-2", "-1", "-1", "0", "1"]):
        found = number_labels("x", {"train": column(pa.array(names)), "test": column(pa.array(names[:1]))})
        assert set(found.names) == set(names)
        assert found.notes == ["Labels that may mean 'no label' and count as classes: '-1' (2 rows)."]


@pytest.mark.parametrize("name", ["NA", "n/a", "None", "none", "NULL", "NaN", "<NA>", " nan "])
def test_names_that_may_mean_no_label_are_classes_with_a_note(name):
    """They were classes without a word."""
    text = {"train": column(pa.array(["cat", name, name])), "test": column(pa.array([name, "cat"]))}
    numbered = {"train": column([0, 1, 1], ["cat", name]), "test": column([1, 0], ["cat", name])}
    for splits in (text, numbered):
        found = number_labels("x", splits)
        assert sorted(found.names) == sorted(["cat", name]) and len(found.splits["train"]) == 3
        assert found.notes == [f"Labels that may mean 'no label' and count as classes: '{name.strip()}' (3 rows)."]


def test_names_that_contain_such_words_are_not_noted():
    names = pa.array(["nano", "nonesuch", "Namibia", "annul", "x-1", "0-1"])
    assert number_labels("x", {"train": column(names)}).notes == []


def test_a_doubtful_background_is_noted_in_its_own_words():
    table = Dataset.from_dict({"background": ["none", "land"]}, features=Features(background=Value("string")))
    notes = number_labels("x", {"train": table}, "background").notes
    assert notes == ["Backgrounds that may mean 'no background' and count as classes: 'none' (1 row)."]


@pytest.mark.parametrize("empty", [pa.array([-1, -1]), pa.array(["", "-1"]), pa.array([None, " "]), pa.nulls(2)])
def test_a_column_that_holds_no_label_at_all_is_noted(empty):
    """The column was taken away without a word."""
    found = number_labels("x", {"train": column(empty), "test": column(empty)})
    assert found.names is None and found.splits["train"].column_names == []
    assert found.notes == ["No image has a label: all 4 rows are empty or -1."]


# ---------------------------------------------------------------- names that are almost alike


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A", "A-"),
        ("5", "-5"),
        ("5.0", "-5"),
        ("12", "1-2"),
        ("t5", "t-5"),
        ("at 5", "at -5"),
        ("A+", "A-"),
        ("0", "-"),
    ],
)
def test_hyphens_that_tell_names_apart(one, other):
    """'A-' and 'A', or '-5' and '5', were called one class, or almost alike."""
    found = number_labels("x", {"train": column(pa.array([one, "z"])), "test": column(pa.array([other, one]))})
    assert found.names == (*sorted([one, "z"]), other) and found.notes == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1-2", "1_2"),
        ("class 1", "class-1"),
        ("A -", "a-"),
        ("-5", "-05"),
        ("x-ray", "x ray"),
        ("0", "00"),
        ("x", "-x"),
    ],
)
def test_spellings_of_one_name(one, other):
    found = number_labels("x", {"train": column(pa.array([one, other, "z"]))})
    (note,) = found.notes
    assert note.startswith("Names of labels that are almost alike count as different classes (1): ")
    with pytest.raises(DataError, match="write both alike"):
        number_labels("x", {"train": column(pa.array([one, "z"])), "test": column(pa.array([other]))})
