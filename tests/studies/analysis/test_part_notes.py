"""Parts of names that show a patient, slide or video shared by training and scored images, and names that are times."""

import random
import re

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value

from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.image_notes import notes_on_files
from studies.suite.analysis.part_notes import time_of

LETTERS, HEX, ANY = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789abcdef", "0123456789abcdefghijXYZ"


def data(train: list[str], test: list[str], labels: bool = True) -> EvaluationData:
    """Black images by their names; a folder in front of a name is a label."""
    splits = {}
    for split, paths in (("train", train), ("test", test)):
        black = encode_png(np.zeros((4, 4, 3), np.uint8))
        columns = {"image": [{**black, "path": path} for path in paths]}
        types = {"image": Image()}
        if labels:
            columns["label"], types["label"] = [path.split("/")[0] for path in paths], Value("string")
        splits[split] = Dataset.from_dict(columns, features=Features(types))
    return EvaluationData(Source(**read_columns("mine", splits, {split: [split] for split in splits})), 4)


def dealt(names: list[str], labels: bool = True) -> EvaluationData:
    """Every fourth name in the test split."""
    return data([name for k, name in enumerate(names) if k % 4 != 3], names[3::4], labels)


def code(numbers: random.Random, letters: str, length: int) -> str:
    return "".join(numbers.choices(letters, k=length))


def in_groups(form: str, groups: int = 12, of_each: int = 8) -> list[str]:
    """Names of a form: ``group`` and ``id`` are codes, ``number`` counts the groups, ``label`` is one of two, ``x`` is
    one of a few numbers, and ``count`` counts the images of a label."""
    numbers, names = random.Random(0), []
    for group in range(groups):
        of_group = code(numbers, HEX, 16)
        names += [
            form.format(
                group=of_group,
                number=group,
                label="ab"[group % 2],
                id=code(numbers, ANY, 14),
                random=code(numbers, LETTERS, 12),
                uuid="-".join(code(numbers, HEX, length) for length in (8, 4, 4, 4, 12)),
                x=50 * numbers.randrange(8),
                site=("CM", "G4", "AA")[group % 3],
                image=image,
                count=group // 2 * of_each + image,
            )
            for image in range(of_each)
        ]
    return names


NOTED = [
    ("{label}/blk-{random}-TCGA-{site}-47{number:02}-01Z-00-DX1.png", r"TCGA-\w\w-47\d\d"),  # Kather's MSI
    ("{label}/{id}_CRC-Prim-HE-{number:02}_0{image:02}.tif_Row_{x}_Col_{x}.tif", r"CRC-Prim-HE-\d\d"),
    ("{label}/205{number:02}{image:03}_{group}_MG_L_CC_ANON.png", r"[0-9a-f]{16}"),  # INbreast
    ("{label}/{id}_P{number:02}_left.png", r"P\d\d"),
    ("{label}/{id}_7712{number:02}_left.png", r"7712\d\d"),
]


@pytest.mark.parametrize(("form", "part"), NOTED)
def test_a_part_inside_of_names_that_both_splits_share_is_noted(form, part):
    """Series were looked for at the start of names alone."""
    notes = notes_on_files(dealt(in_groups(form)))
    assert len(notes) == 1
    assert notes[0].startswith("By their names, 24 of the 24 scored images ")
    assert re.search(rf"in common with several training images \(such as '{part}' in '\S+' and '\S+'\)", notes[0])


def test_a_word_for_a_group_needs_no_part_that_tells_images_apart():
    notes = notes_on_files(dealt(in_groups("patient_{number}_{x}_left.png"), labels=False))
    assert len(notes) == 1
    assert re.search(r"such as '(patient_\d+)' in '\1_\d+_left.png' and '\1_\d+_left.png'", notes[0])


@pytest.mark.parametrize("word", ["n", "row", "thing"])
def test_another_word_needs_one(word):
    assert notes_on_files(dealt(in_groups(word + "_{number}_{x}_left.png"), labels=False)) == []


def test_ids_of_videos_are_noted_without_labels():
    """FLIR: five videos, of which the id is no number."""
    names = in_groups("video-{group}-frame-{image:06}-{id}.jpg", groups=5)
    notes = notes_on_files(dealt(names, labels=False))
    assert len(notes) == 1
    assert "By their names, 10 of the 10 scored images have a part" in notes[0]
    assert re.search(r"such as '([0-9a-f]{16})' in 'video-\1-frame-00000\d-\w+.jpg' and 'video-\1-", notes[0])


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize(
    "form",
    [
        "{label}/{uuid}.jpg",
        "{label}/{id}_{label}_{count}.jpg",
        "{label}/{id}_Row_{x}_Col_{x}.jpg",
        "{label}/{id}_row{x}_512px.jpg",
        "{label}/{id}_{x}px_{x}x480.jpg",
        "{label}/{x}_1_3_{id}.jpg",  # UTKFace: ages
        "{label}/n014{number:05}_{id}.jpg",  # classes of WordNet
        "{label}/{id}_201904{number:02}.jpg",
        "{label}/{id} 2019-04-1{image} at 3.{x}.PM.jpg",
        "{label}/{id}_{group}_{id}_extra.jpg{id}",  # as many forms as images
    ],
)
def test_ordinary_parts_of_names_are_not_noted(form, labels):
    names = in_groups(form)
    if form.endswith("{id}"):
        names = [f"{name}{'_x' * (k % 5)}.jpg" for k, name in enumerate(names)]
    assert [note for note in notes_on_files(dealt(names, labels)) if "part of the name" in note] == []


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("{:012}.jpg", "{:012}.jpg"),
        ("cat_{:03}.jpg", "cat_{:03}.jpg"),
        ("image_{:04}.jpg", "image_{:04}.jpg"),
        ("{0}_{0}.png", "{0}_{0}.png"),
        ("ILSVRC2012_test_{:08}.jpg", "ILSVRC2012_test_{:08}.jpg"),
    ],
)
def test_numbers_alone_are_not_noted(train, test):
    names = [train.format(number) for number in range(1, 61)], [test.format(number) for number in range(61, 80)]
    assert notes_on_files(data(*names, labels=False)) == []


def test_numbers_that_begin_anew_in_each_split_are_not_noted():
    numbers = random.Random(0)
    train, test = ([f"a/{code(numbers, ANY, 14)}_thing_{k}.jpg" for k in range(20)] for _ in range(2))
    train += [f"b/{code(numbers, ANY, 14)}_thing_{k}.jpg" for k in range(20)]
    test += [f"b/{code(numbers, ANY, 14)}_thing_{k}.jpg" for k in range(20)]
    assert notes_on_files(data(train, test)) == []


def test_groups_of_one_split_are_not_noted():
    names = in_groups("{label}/{id}_P{number:02}_left.png")
    assert notes_on_files(data(names[:72], names[72:])) == []


def test_a_part_that_names_the_class_is_not_noted():
    names = in_groups("P{number:02}/{id}_P{number:02}_left.png")
    assert notes_on_files(dealt(names)) == []


# ---------------------------------------------------------------- times

START = 1478019952686311006


@pytest.mark.parametrize(("form", "unit"), [("{}.jpg", 1), ("left_{}.jpg", 1), ("{}.png", 10**3), ("{}.png", 10**6)])
def test_names_that_are_times_between_training_images_are_noted(form, unit):
    names = [form.format((START + 66_000_000 * k) // unit) for k in range(40)]
    notes = notes_on_files(dealt(names, labels=False))
    assert len(notes) == 1
    pair = f"(such as '{names[3]}' and '{names[2]}')"
    assert f"10 of the 10 scored images were taken at most 0.2 s from a training image {pair}" in notes[0]


def test_names_with_a_date_and_a_time_are_noted():
    names = [f"center_2016_12_01_13_30_{k // 10:02}_{k % 10}00.jpg" for k in range(40)]
    assert "10 of the 10 scored images were taken at most 0.3 s" in notes_on_files(dealt(names, labels=False))[0]


@pytest.mark.parametrize(
    "names",
    [
        [str(START + 10 * 10**9 * k) for k in range(40)],  # ten seconds apart: photographs
        [f"IMG_20190412_15{k:02}12" for k in range(40)],
        [str(4_294_967_296 + k) for k in range(40)],  # beyond the years of photographs
        [str(10**11 + k) for k in range(40)],  # twelve digits
        [f"{k:012}" for k in range(40)],
    ],
)
def test_other_numbers_and_times_far_apart_are_not_noted(names):
    assert notes_on_files(dealt([f"{name}.jpg" for name in names], labels=False)) == []


def test_drives_of_one_split_each_are_not_noted():
    names = [f"{START + 66_000_000 * k}.jpg" for k in range(40)]
    assert notes_on_files(data(names[:30], names[30:], labels=False)) == []


@pytest.mark.parametrize(
    ("stem", "time"),
    [
        ("1478019952686311006", START),
        ("1478019952.5", 1478019952_500_000_000),
        ("1478019952500", 1478019952_500_000_000),
        ("20161101_170552_500", 1478019952_500_000_000),
        ("cam front 2016-11-01 17.05.52", 1478019952_000_000_000),
        ("vlcsnap-2021-01-04-10h20m16s174", 1609755616_174_000_000),
        ("20160230_170552", None),
        ("1478019952_12", None),
        ("12345678901", None),
    ],
)
def test_times_of_names(stem, time):
    assert time_of(stem) == time
