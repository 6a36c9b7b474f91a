"""What is noted of masks: those that may be inverted, ids that count as background, and objects that are hidden."""

import io

import numpy as np
import pytest
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PillowImage

from scd.data.sources.columns import read_columns
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.image_notes import notes_on_images
from studies.suite.analysis.mask_notes import notes_on_masks

SPLITS = ("train", "test")


def png(values: np.ndarray) -> dict:
    file = io.BytesIO()
    PillowImage.fromarray(values).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


def photo(seed: int) -> dict:
    return png(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def disc(inside: int, outside: int, border: int | None = None) -> np.ndarray:
    values = np.full((8, 8), outside, np.uint8)
    if border is not None:
        values[2:6, 2:6] = border
    values[3:5, 3:5] = inside
    return values


def data(train: list[np.ndarray], test: list[np.ndarray], objects=None, **options) -> EvaluationData:
    splits = {}
    for split, masks in zip(SPLITS, (train, test), strict=True):
        first = 100 * (split == "test")
        columns = {"image": [photo(first + row) for row in range(len(masks))], "mask": [png(mask) for mask in masks]}
        features = {"image": Image(), "mask": Image()}
        if objects is not None:
            columns["objects"] = [objects] * len(masks)
            features["objects"] = {"bbox": List(List(Value("float32"))), "category": List(Value("int64"))}
            features["objects"] |= {"iscrowd": List(Value("int64"))} if "iscrowd" in objects else {}
        splits[split] = Dataset.from_dict(columns, features=Features(features))
    source = Source(**read_columns("mine", splits, {split: [split] for split in splits}, **options))
    return EvaluationData(source, 8)


WHITE = "white is the object and black the background"


@pytest.mark.parametrize(
    ("mask", "options", "hint"),
    [
        (disc(0, 255), {}, WHITE),
        (disc(255, 0), {}, None),
        (disc(0, 255, border=128), {}, WHITE),
        (disc(0, 1), {"mask_kind": "classes"}, "the right id is the object (data.options.foreground)"),
        (disc(1, 2), {"mask_kind": "classes", "foreground": [1]}, None),
        (
            disc(1, 2),
            {"mask_kind": "classes", "foreground": [2]},
            "the right id is the object (data.options.foreground)",
        ),
        (disc(1, 255, border=0), {"mask_kind": "classes"}, None),  # an unknown border
        (disc(1, 2, border=3), {"mask_kind": "classes"}, None),  # many classes
        (disc(0, 1, border=2), {"mask_kind": "classes"}, "the right id is the object (data.options.foreground)"),
        (disc(2, 0, border=1), {"mask_kind": "classes"}, None),
    ],
)
def test_inverted_masks_are_noted(mask, options, hint):
    """They were trained and scored on without a hint."""
    note = "The object covers most of the border in 3 of the 3 test masks that were looked at, as in inverted masks; "
    usual = [disc(1, 0) if options else disc(255, 0)] * 3
    found = [one for one in notes_on_masks(data(usual, [mask] * 3, **options)) if "border in" in one]
    assert found == ([f"{note}check that {hint}."] if hint else [])


def test_some_objects_that_fill_their_image_are_not_noted():
    masks = [disc(255, 0)] * 2 + [disc(0, 255)] * 2
    assert notes_on_masks(data(masks, masks)) == []
    (first, _) = notes_on_masks(data([*masks, disc(0, 255)], [*masks, disc(0, 255)]))
    assert "in 3 of the 5 training masks" in first


def test_masks_of_which_a_part_may_be_inverted_are_noted():
    """Masks of two tools in one set, of which one writes the object in black."""
    masks = [disc(255, 0)] * 15 + [disc(0, 255)] * 5
    (note,) = of_borders(notes_on_masks(data(masks, [disc(255, 0)] * 3)))
    assert note == (
        "The object covers most of the border in 5 of the 20 training masks that were looked at, as in inverted masks; "
        f"check that {WHITE} in all of them."
    )
    assert of_borders(notes_on_masks(data(masks[1:] * 2, [disc(255, 0)] * 3)))
    assert of_borders(notes_on_masks(data(masks[:-1], masks[:3]))) == []


def of_borders(notes: list[str]) -> list[str]:
    return [note for note in notes if note.startswith("The object covers")]


def test_ids_that_become_background_are_named():
    """The border of a trimap of 1, 2 and 3 was background: it counted as an error of whoever finds the object."""
    masks = [disc(1, 2, border=3)] * 3
    note = (
        "Ids of the masks that count as background, because data.options.foreground does not name them: 2, 3. Only 255 "
        "means unknown; write it in the place of an id that does, such as that of a trimap's border."
    )
    chosen = {"mask_kind": "classes", "foreground": [1]}
    assert note in notes_on_images(data(masks, masks, **chosen))
    masks = [disc(1, 2, border=255)] * 3
    assert notes_on_masks(data(masks, masks, **chosen)) == []
    masks = [disc(1, 0, border=2)] * 3
    assert notes_on_masks(data(masks, masks, mask_kind="classes", foreground=[1, 2])) == []


BOXES = [[2, 2, 4, 4], [3, 3, 2, 2]]


@pytest.mark.parametrize(
    ("objects", "mask", "counted"),
    [
        ({"bbox": BOXES, "category": [0, 0]}, disc(1, 0, border=1), "2 of 4"),
        ({"bbox": BOXES, "category": [0, 0]}, disc(2, 0, border=1), None),
        ({"bbox": BOXES, "category": [0, 0], "iscrowd": [0, 1]}, disc(1, 0, border=1), None),
        ({"bbox": [], "category": []}, disc(0, 0), None),
    ],
)
def test_objects_that_their_map_does_not_show_are_noted(objects, mask, counted):
    """A map of classes beside two objects of one class: every second object was dropped without a note."""
    note = (
        "Objects of which the map of objects shows no pixel, and that are left out: {} in the 2 {} images that were "
        "looked at. A pixel belongs to one object, so that others hide those below them; in maps of your own the k-th "
        "object has the value k, and a map of classes hides objects."
    )
    found = notes_on_masks(data([mask] * 2, [mask] * 2, objects))
    assert found == ([note.format(counted, words) for words in ("training", "test")] if counted else [])


def test_images_without_masks_need_no_note():
    splits = {split: Dataset.from_dict({"image": [photo(1)]}, Features(image=Image())) for split in SPLITS}
    source = Source(**read_columns("mine", splits, {split: [split] for split in splits}))
    assert notes_on_masks(EvaluationData(source, 8)) == []


def test_masks_that_are_all_equal_are_noted():
    """A loop that writes the same mask into every row gives numbers that mean nothing."""
    masks = [np.roll(disc(255, 0), shift, axis=1) for shift in range(4)]
    (note,) = notes_on_masks(data(masks, [masks[0]] * 5))
    assert note == "All 5 test masks that were looked at are equal; check that each image has its own."
    assert notes_on_masks(data(masks, [masks[0]] * 3)) == []


def stripes(*ids: int) -> np.ndarray:
    """Four columns of each id."""
    return np.repeat(np.array([ids], np.uint8), 4, axis=1).repeat(8, axis=0)


def test_ids_that_lie_on_edges_alone_are_noted():
    """Maps of ids that were resized with smoothing: classes between 0 and 12 at every border."""
    smooth = PillowImage.fromarray(stripes(0, 12, 4)).resize((36, 24), PillowImage.Resampling.BILINEAR)
    masks = [np.roll(stripes(0, 12, 4), shift, axis=1) for shift in range(4)]
    assert notes_on_masks(data(masks, masks, mask_kind="classes")) == []
    notes = notes_on_masks(data(*2 * [[np.asarray(smooth)] * 3], mask_kind="classes"))
    for note, words in zip(notes, ("training", "test"), strict=True):
        assert note.startswith(f"Ids of the {words} masks that show on edges between other ids alone, as where masks")
        assert "makes ids that are no classes: 7, 8, 9. Resize" in note


def test_ids_of_the_scored_masks_alone_are_noted():
    """Ids of another numbering in the test split."""
    train, test = [stripes(0, 1, 2), stripes(0, 2, 1)], [stripes(1, 2, 3), stripes(1, 3, 2)]
    (note,) = of_ids(notes_on_masks(data(train, test, mask_kind="classes")))
    assert note == (
        "Ids that many of the 2 test masks that were looked at show, and none of the 2 training masks: 3. Check that "
        "both splits have the same ids."
    )
    rare = [stripes(0, 1, 2)] * 2 + [stripes(0, 2, 1)] * 3 + [stripes(0, 1, 3)]
    assert of_ids(notes_on_masks(data(train, rare, mask_kind="classes"))) == []


def of_ids(notes: list[str]) -> list[str]:
    return [note for note in notes if note.startswith("Ids that many")]


@pytest.mark.parametrize(
    ("box", "noted"),
    [([2, 2, 4, 4], False), ([1, 1, 7, 7], False), ([1.6, 1.6, 3.2, 3.2], True), ([1, 1, 2, 2], True), (None, False)],
)
def test_objects_that_lie_outside_of_their_boxes_are_noted(box, noted):
    """Boxes of another scale than the map. A box that is larger than what is seen of its object is right."""
    values = np.zeros((8, 8), np.uint8)
    values[2:6, 2:6] = 1
    notes = notes_on_masks(data([values] * 2, [values], {"bbox": [box], "category": [0]}))
    assert len(notes) == 2 * noted
    if noted:
        assert notes[0].startswith(
            "Objects of which the map of objects shows more than 10% of the pixels outside of their box: 2 of 2 in the "
            "2 training images that were looked at"
        )


@pytest.mark.parametrize(
    ("empty", "total", "options"),
    [(2, 19, {}), (2, 20, None), (1, 4, None), (2, 4, {"mask_kind": "classes"}), (2, 4, {"mask_kind": "trimap"})],
)
def test_masks_that_show_no_object_are_noted(empty, total, options):
    """Images that nobody has annotated had an IoU of 0, or were skipped, without a word."""
    inside = 1 if options == {"mask_kind": "classes"} else 255
    masks = [np.roll(disc(inside, 0), row, axis=1) for row in range(total - empty)] + [disc(0, 0)] * empty
    full = [np.roll(disc(inside, 0), row, axis=1) for row in range(4)]
    notes = [note for note in notes_on_masks(data(masks, full, **options or {})) if "no object" in note]
    found = f"Masks that show no object: {empty} of the {total} training masks that were looked at. Whatever is found"
    assert len(notes) == (options is not None) and all(note.startswith(found) for note in notes)


@pytest.mark.parametrize(("inside", "noted"), [(0, True), (255, False)])
def test_masks_of_outlines_are_noted(inside, noted):
    """Boundary maps were scored as objects of a few pixels."""
    masks = []
    for row in range(4):
        values = np.zeros((16, 16), np.uint8)
        values[2:14, 2 : 10 + row] = 255
        values[3:13, 3 : 9 + row] = inside
        masks.append(values)
    notes = notes_on_masks(data(masks, masks[:3] + [np.zeros((16, 16), np.uint8)]))
    start = "Masks whose object is less than half of what it surrounds, as outlines are: "
    assert [note.startswith(start) for note in notes] == [True, True] * noted
    assert not noted or "outlines are: 3 of the 4 test masks that were looked at. The inside counts as b" in notes[1]


@pytest.mark.parametrize(("whole", "cut", "noted"), [(8, 0, True), (8, 2, True), (8, 3, False), (7, 0, False)])
def test_masks_that_are_filled_boxes_are_noted(whole, cut, noted):
    """Boxes were scored as shapes of objects."""
    masks = []
    for row in range(whole + cut):
        values = np.zeros((16, 16), np.uint8)
        values[1 : 3 + row % 4, 2:7] = values[9:14, 9:12] = 255
        values[9, 9] = 255 * (row < whole)
        masks.append(values)
    start = f"Masks whose object consists of upright rectangles: {whole} of the {whole + cut} "
    notes = notes_on_masks(data(masks, masks))
    assert [note.startswith(start) for note in notes] == [True, True] * noted


def test_full_masks_are_no_boxes():
    notes = notes_on_masks(data([np.full((16, 16), 255, np.uint8)] * 8, [np.zeros((16, 16), np.uint8)] * 8))
    assert not any("upright rectangles" in note for note in notes)


def test_maps_of_objects_without_a_list_of_them_are_looked_at():
    """Half of the masks were empty, or inverted, and neither a line nor a note said anything of them."""
    empty, cell = disc(0, 0), disc(3, 0)
    notes = notes_on_masks(data([cell, cell, empty, empty], [cell] * 3, mask_kind="instances"))
    assert notes == [
        "Masks that show no object: 2 of the 4 training masks that were looked at. Whatever is found in their images "
        "counts as false, with an IoU of 0, and where objects are needed they are skipped; leave out images that "
        "nobody has annotated."
    ]
    inverted = notes_on_masks(data([disc(0, 4, border=3)] * 3, [cell] * 3, mask_kind="instances"))
    assert len(inverted) == 1 and inverted[0].endswith("as in inverted masks; check that 0 is the background.")


def soft(levels: list[int], border: int = 0) -> np.ndarray:
    """A mask (32, 32) of columns of grey levels, four columns each; ``border`` columns between black and white."""
    values = np.zeros((32, 32), np.uint8)
    for number, level in enumerate(levels):
        values[:, 4 * number : 4 * number + 4] = level
    if border:
        values[:, 16 : 16 + border] = np.linspace(20, 235, border).astype(np.uint8)
    return values


@pytest.mark.parametrize(
    ("masks", "kind", "named"),
    [
        ([soft([0, 0, 63, 126, 189, 252])], "binary", "(63, 126, 189)"),
        ([soft([0, 0, 127, 254])], "binary", "(127)"),
        ([soft([0, 0, 127, 255])], "trimap", None),
        ([soft([0, 60, 128, 255])], "trimap", "(60)"),
        ([soft([0, 0, 255, 255])], "binary", None),
        ([soft([0, 0, 0, 0, 0, 255, 255, 255], border=8)], "binary", None),
        ([np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)], "binary", None),
        ([soft([0, 63, 126])], "classes", None),
    ],
)
def test_levels_of_their_own_between_black_and_white_are_noted(masks, kind, named):
    """CHAOS marks four organs by 63, 126, 189 and 252; two of them counted as background without a word."""
    train = data(masks * 4, masks * 4, mask_kind=kind)
    train.source.splits = {
        split: set_.map(lambda _, n: {"image": png(np.full((32, 32, 3), n, np.uint8))}, with_indices=True)
        for split, set_ in train.source.splits.items()
    }
    notes = [note for note in notes_on_masks(train) if "a level of their own" in note]
    assert len(notes) == (2 if named else 0)
    assert not named or named in notes[0]
