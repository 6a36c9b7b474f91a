"""What is noted of the names of classes: images without a known class, numbers for "no label", and groups."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PillowImage

from scd.data.sources.coco import Coco
from scd.data.sources.columns import read_columns
from scd.data.sources.image_folder import ImageFolder
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.class_notes import may_be_unknown, notes_on_class_names
from studies.suite.analysis.image_notes import notes_on_images
from studies.suite.analysis.results import data_lines
from studies.suite.planning.command_line import load_study, resolve_settings
from studies.suite.planning.resolve import resolve

UNKNOWN = "Classes whose names may mean that the class of their images is not known, and that count as classes: {}."
NO_OBJECT = "Classes whose names may mean that there is no object of a known class, and that count as classes: {}."
APART = "Labels that stand apart from {}, and count as classes: {}. Such numbers often mean 'no label'; if "
GROUPS = "Classes that are called like groups of images, by one word and a number ({} of {}): {}. If they are groups"


def rows(labels: list, kind: str = "string") -> EvaluationData:
    """The same labels in both splits."""
    splits = {}
    for first, split in enumerate(("train", "test")):
        seeds = range(1000 * first, 1000 * first + len(labels))
        cells = [encode_png(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)) for seed in seeds]
        dataset = Dataset.from_dict({"image": cells, "label": labels})
        splits[split] = dataset.cast_column("image", Image()).cast_column("label", Value(kind))
    return EvaluationData(Source(**read_columns("mine", splits, {split: [split] for split in splits})), 8)


def write(folder, names, count=5):
    for place, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            PillowImage.new("RGB", (8, 8), (9 * place, 9 * number, 0)).save(folder / name / f"{number}.png")


@pytest.mark.parametrize(
    "name",
    [
        "no_label", "_unlabeled", "Unlabelled images", "UNKNOWN", "unknown species", "cat_unsure", "pred", "unsure",
        "other?", "cat?", "BACKGROUND_Google", "257.clutter", "ambiguous", "to_check", "to be checked", "misc", "Misc.",
        "NoLabel", "not-annotated", "Others", "notSure", "un-labeled", "don't know", "99_unidentified",
        "bg", "void--ego-vehicle", "invalid_face", "face (ignored)",
    ],
)  # fmt: skip
def test_names_of_unknown_classes(name):
    assert may_be_unknown(name)


@pytest.mark.parametrize(
    "name",
    [
        "no_mask", "without_mask", "normal", "negative", "mother", "label", "labeled", "checkerboard",
        "background noise", "no", "not_food", "classic", "predator", "reviewer", "sorted", "clear sky", "mixed",
        "another", "nano", "12", "?!", "known", "tag",
        "good", "devoid", "ignorance",
    ],
)  # fmt: skip
def test_other_names_are_classes(name):
    assert not may_be_unknown(name)


def test_classes_of_unlabelled_images_are_noted(tmp_path):
    """They were trained on and scored as classes, inside given splits as well, beyond the first 20 names as well."""
    names = [f"k{chr(97 + k)}" for k in range(21)]
    for split in ("train", "test"):
        write(tmp_path / split, [*names, "zz_unlabeled"])
    (note,) = notes_on_images(EvaluationData(ImageFolder(tmp_path), 8))[:1]
    assert note.startswith(UNKNOWN.format("'zz_unlabeled' (10 images)"))
    assert notes_on_class_names(EvaluationData(ImageFolder(tmp_path / "train"), 8))[0].endswith(
        "'zz_unlabeled' (5 images). If these are no classes, leave out their folders (data.locations.left_out=[FOLDER])"
        " or rows."
    )


def test_text_labels_of_unlabelled_images_are_noted_once():
    (note,) = notes_on_class_names(rows(["cat", "dog", "unknown", "To_Check"] * 3))
    assert note.startswith(UNKNOWN.format("'To_Check' (6 images), 'unknown' (6 images)"))
    assert notes_on_class_names(rows(["cat", "none"] * 3)) == []  # of which the source has a note
    assert notes_on_class_names(rows(["cat", "dog"] * 3)) == []


def test_a_dry_run_has_the_note(tmp_path):
    """It decodes no image."""
    write(tmp_path, ["cat", "dog", "no_label"], count=8)
    study = load_study("multicrop")
    settings = resolve_settings("multicrop", ["tier=smoke", "seeds=1", "arms=random", f"data={tmp_path}"])
    notes = data_lines(settings, resolve(study.plan(settings)), decode=False)
    assert any(UNKNOWN.format("'no_label' (8 images)") in note for note in notes)


@pytest.mark.parametrize(
    ("name", "noted"),
    [
        ("empty", True),
        ("No finding", True),
        ("no_animal", True),
        ("blank", True),
        ("good", True),
        ("normal_cell", False),
    ],
)
def test_categories_of_images_without_objects_are_noted(tmp_path, name, noted):
    """Camera traps: an 'empty' image had a box of the whole picture, and a detector was to find it."""
    Coco.example(tmp_path)
    for split in ("train", "test"):
        file = tmp_path / f"{split}.json"
        file.write_text(file.read_text().replace('"dark"', f'"{name}"'))
    source = Coco(tmp_path / "train", tmp_path / "train.json", tmp_path / "test", tmp_path / "test.json")
    notes = notes_on_class_names(EvaluationData(source, 8))
    assert len(notes) == noted and all(note.startswith(NO_OBJECT.format(f"'{name}' (6 objects)")) for note in notes)
    assert notes_on_class_names(rows([name, "dog"] * 4)) == []  # a class of images


def test_categories_of_unknown_objects_are_noted(tmp_path):
    Coco.example(tmp_path)
    places = {"images": "train", "annotations": "train.json", "test_images": "test", "test_annotations": "test.json"}
    for split in ("train", "test"):
        file = tmp_path / places["annotations" if split == "train" else "test_annotations"]
        file.write_text(file.read_text().replace('"dark"', '"unknown"').replace('"light"', '"void"'))
    source = Coco(**{name: tmp_path / place for name, place in places.items()})
    assert any("'void', which count as objects of a class" in note for note in source.notes)
    (note,) = notes_on_class_names(EvaluationData(source, 8))
    assert note.startswith(NO_OBJECT.format("'unknown' (6 objects)")) and note.endswith(", remove them.")


@pytest.mark.parametrize(
    ("labels", "rest", "listed"),
    [
        ([0, 1, 2, 255], "the other labels, 0 to 2", "255 (8 images)"),
        ([0, 1, 2, 999], "the other labels, 0 to 2", "999 (8 images)"),
        ([1, 2, 3, 65535], "the other labels, 1 to 3", "65535 (8 images)"),
        ([0, 1, 4, 99], "the other labels, 0 to 4", "99 (8 images)"),
        ([0, 1, 254, 255], "the other labels, 0 to 1", "254 (8 images), 255 (8 images)"),
        ([0, 1, 2, 40], "the other labels, 0 to 2", "40 (8 images)"),
        ([*range(98), 99], "the other labels, 0 to 97", "99 (8 images)"),
        (["0", "1", "-100"], "the other labels, 0 to 1", "-100 (8 images)"),
        (["cat", "dog", "255"], "the other labels, which are names", "255 (8 images)"),
        ([0, 255], None, None),  # of two classes, as written by a program for masks
        (list(range(100)), None, None),
        ([0, 1, 2, 3, 9], None, None),
        ([3, 17, 255], None, None),  # some classes of many
        ([20, 21, 22, 255], None, None),  # some neighbours of many
        ([0, 10, 20, 30], None, None),
        ([0, 1, 2, 500, 501, 502], None, None),
        (["cat", "dog", "7"], None, None),
        (["a", "b", "99", "100", "255"], None, None),
    ],
)
def test_numbers_that_stand_apart_are_noted(labels, rest, listed):
    """255 and 999 were a class like others."""
    notes = notes_on_class_names(rows(labels * 4, "string" if isinstance(labels[-1], str) else "int64"))
    assert len(notes) == (listed is not None)
    if listed:
        assert notes[0].startswith(APART.format(rest, listed))


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["patient_000", "patient_001", "patient_002"], 3),
        (["100CANON", "101CANON"], 2),
        (["subject01", "subject02", "misc_dir"], 2),
        (["video_0001", "video_0002"], 2),
        (["session 2", "session 3"], 2),
        (["my_part1", "my_part2"], 0),  # of which the source has a note
        (["2019-03-01", "2019-03-02_1"], 2),
        (["sub-01_ses-1", "sub-01_ses-2"], 2),
        (["n01440764", "n01443537"], 0),
        (["class_0", "class_1"], 0),
        (["c0", "c1"], 0),
        (["001.Black_footed_Albatross", "002.Laysan_Albatross"], 0),
        (["0", "1", "2"], 0),
        (["person1", "person2"], 0),
        (["patient_1", "cat", "dog"], 0),
        (["image", "video"], 0),
        (["fold_1", "cat", "dog", "fold_2"], 0),
        (["f16_fighter", "b52_bomber"], 0),
    ],
)
def test_classes_that_are_groups_are_noted(tmp_path, names, count):
    """A patient, a video or a folder of a camera became a class each."""
    write(tmp_path, names)
    notes = notes_on_class_names(EvaluationData(ImageFolder(tmp_path), 8))
    assert len(notes) == bool(count)
    if count:
        shown = ", ".join(f"'{name}'" for name in names[:count])
        assert notes[0].startswith(GROUPS.format(count, len(names), shown))


@pytest.mark.parametrize("form", ["a mapping of lists", "a list of mappings"])
def test_categories_are_counted_in_both_forms_of_objects(form):
    category = ClassLabel(names=["cat", "unknown"])
    cells = [encode_png(np.full((8, 8, 3), 30 * number, np.uint8)) for number in range(4)]
    boxes, categories = [[0, 0, 2, 2], [4, 4, 2, 2]], [0, 1]
    if form == "a mapping of lists":
        kind = {"bbox": List(List(Value("float32"))), "category": List(category)}
        objects = {"bbox": boxes, "category": categories}
    else:
        kind = List({"bbox": List(Value("float32")), "category": category})
        objects = [{"bbox": box, "category": number} for box, number in zip(boxes, categories, strict=True)]
    masks = [encode_png(np.pad(np.full((2, 2), 1, np.uint8), ((0, 6), (0, 6))))] * 4
    features = Features({"image": Image(), "mask": Image(), "objects": kind})
    splits = {
        split: Dataset.from_dict({"image": cells, "mask": masks, "objects": [objects] * 4}, features=features)
        for split in ("train", "test")
    }
    images = EvaluationData(Source(**read_columns("mine", splits, {split: [split] for split in splits})), 8)
    (note,) = notes_on_class_names(images)
    assert note.startswith(NO_OBJECT.format("'unknown' (8 objects)"))
