"""What masks hold: one reading for the decision and for the pixels, for every way in which people store masks."""

import io

import numpy as np
import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from scd.data.cache import content_hash
from scd.data.decoding import ORIENTATION
from scd.data.images import load_images
from scd.data.masks import UNKNOWN, find_kind, foreground, read_mask, rows_looked_at
from scd.data.scene_set import load_scenes
from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError

HALF = np.zeros((24, 24), bool)
HALF[:, :12] = True


def stored(image: Image.Image, kind: str = "PNG", **options) -> dict:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return {"bytes": file.getvalue(), "path": None}


def grey(pixels: np.ndarray, kind: str = "PNG", **options) -> dict:
    return stored(Image.fromarray(pixels), kind, **options)


def palette(indices: np.ndarray, colours: list[tuple[int, int, int]]) -> dict:
    image = Image.fromarray(indices.astype(np.uint8))
    image = image.convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette([level for colour in colours for level in colour])
    return stored(image)


def split_of(masks: list[dict | None], side: int = 24) -> Dataset:
    image = encode_png(np.full((side, side, 3), 90, np.uint8))
    features = Features(image=ImageFeature(), mask=ImageFeature())
    return Dataset.from_dict({"image": [image] * len(masks), "mask": masks}, features=features)


def source_of(masks: list[dict | None], test: list[dict] | None = None, **options) -> Source:
    cells = {"train": masks, **({"test": test} if test else {})}
    splits = {split: split_of(some) for split, some in cells.items()}
    contents = {split: content_hash([str(cell) for cell in some]) for split, some in cells.items()}
    return Source(**read_columns("mine", splits, contents, **options))


def seen(masks: list[dict], **options) -> tuple[str, np.ndarray]:
    """The kind of a set, and its masks (N, S, S)."""
    source = source_of(masks, **options)
    return source.mask_kind, load_images(source, "train", 24).masks.numpy()


def with_border(levels: list[int]) -> np.ndarray:
    """White left, black right, and some columns of other levels between."""
    out = np.where(HALF, 255, 0).astype(np.uint8)
    out[:, 12 : 12 + len(levels)] = levels
    return out


# ---------------------------------------------------------------- binary masks, as people store them


def soft_jpeg(quality: int = 75) -> dict:
    y, x = np.indices((24, 24))
    return grey(
        np.where(HALF & ((x - 12) ** 2 + (y - 12) ** 2 < 300), 255, 0).astype(np.uint8), "JPEG", quality=quality
    )


def turned(pixels: np.ndarray) -> dict:
    """Stored on its side, with the orientation that turns it upright."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return stored(Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90), exif=exif)


BINARY = {
    "black and white": grey(np.where(HALF, 255, 0).astype(np.uint8)),
    "1 bit": grey(HALF),
    "16 bits": grey(np.where(HALF, 65535, 0).astype(np.uint16)),
    "palette, white first": palette(~HALF, [(255, 255, 255), (0, 0, 0)]),
    "palette, black first": palette(HALF, [(0, 0, 0), (255, 255, 255)]),
    "grey in RGB": grey(np.where(HALF, 255, 0).astype(np.uint8)[..., None].repeat(3, axis=2)),
    "opaque RGBA": grey(np.dstack([np.where(HALF, 255, 0)] * 3 + [np.full((24, 24), 255)]).astype(np.uint8)),
    "alpha of a white picture": grey(np.dstack([np.full((24, 24, 3), 255), np.where(HALF, 255, 0)]).astype(np.uint8)),
    "alpha of a black picture": grey(np.dstack([np.zeros((24, 24, 3)), np.where(HALF, 255, 0)]).astype(np.uint8)),
    "soft borders": grey(with_border([250, 190, 100, 30, 5])),
    "turned by EXIF": turned(np.where(HALF, 255, 0).astype(np.uint8)),
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_masks_cover_their_half(name):
    """F5: of a black and white palette the kind was guessed from colours and the pixels were read as indices."""
    kind, masks = seen([BINARY[name]] * 2)
    assert kind == "binary"
    expected = HALF.copy()
    if name == "soft borders":
        expected[:, 12:14] = True  # 250 and 190 lie above 127
    np.testing.assert_array_equal(masks[0], expected)


@pytest.mark.parametrize("quality", [20, 50, 75])
def test_jpeg_borders_are_cut_at_127(quality):
    """F6: up to 64 grey levels counted as class ids, and everything above 0 as the object."""
    cell = soft_jpeg(quality)
    pixels = np.asarray(Image.open(io.BytesIO(cell["bytes"])))
    assert 2 < len(np.unique(pixels)) and set(np.unique(pixels)) & set(range(1, 255))
    kind, masks = seen([cell])
    assert kind == "binary"
    np.testing.assert_array_equal(masks[0], pixels > 127)
    saved_again = seen([grey(pixels)])
    assert saved_again[0] == "binary" and (saved_again[1] == masks).all()


def test_a_grey_jpeg_in_colour_is_grey():
    pixels = np.where(HALF, 255, 0).astype(np.uint8)[..., None].repeat(3, axis=2)
    kind, masks = seen([grey(pixels, "JPEG", quality=60)])
    assert kind == "binary" and 0.45 < masks.mean() < 0.55


# ---------------------------------------------------------------- ids, unknown pixels


def test_0_and_1_are_kept():
    kind, masks = seen([grey(HALF.astype(np.uint8))])
    assert kind == "classes"
    np.testing.assert_array_equal(masks[0], HALF)


def test_colour_palettes_are_read_by_index():
    """VOC's palette: the void border is 255, and unknown."""
    indices = np.where(HALF, 12, 0)
    indices[:, 11:13] = 255
    kind, masks = seen([palette(indices, [(k, 255 - k, 7) for k in range(256)])])
    assert kind == "classes"
    expected = HALF.astype(np.uint8)
    expected[:, 11:13] = UNKNOWN
    np.testing.assert_array_equal(masks[0], expected)


def test_void_of_class_ids_is_unknown():
    pixels = np.where(HALF, 3, 0).astype(np.uint8)
    pixels[:2] = 255
    kind, masks = seen([grey(pixels)])
    assert kind == "classes" and (masks[0, :2] == UNKNOWN).all() and (masks[0, 2:] == HALF[2:]).all()
    void = "Mask pixels of the value 255 are unknown and count for nothing."
    ids = "The masks hold class ids, and every id above 0 counts as the object; data.options.foreground names others."
    assert source_of([grey(pixels)]).notes == (void, ids)
    assert ids not in source_of([grey(pixels)], foreground=[3]).notes
    _, chosen = seen([grey(pixels)], foreground=[255])
    assert (chosen[0, :2] == 1).all() and not chosen[0, 2:].any()


def test_trimaps_have_unknown_borders():
    source = source_of([grey(with_border([128, 128]))])
    masks = load_images(source, "train", 24).masks
    assert source.mask_kind == "trimap" and (masks[0, :, 12:14] == UNKNOWN).all()
    assert (masks[0, :, :12] == 1).all() and not masks[0, :, 14:].any()
    assert source.notes == ("Mask pixels of the value 128 are unknown and count for nothing.",)


def test_ids_of_16_bits_stay_apart():
    """More than 255 instances or classes; and the semantic maps of scenes see the same numbers."""
    pixels = np.where(HALF, 300, 0).astype(np.uint16)
    pixels[:, 20:] = 7
    kind, masks = seen([grey(pixels)])
    assert kind == "classes" and (masks[0] == (pixels > 0)).all()
    values = read_mask(grey(pixels), "mask", 0, "mine", "instances")
    np.testing.assert_array_equal(values, pixels)


def test_scenes_and_images_read_one_palette_alike():
    cells = [palette(HALF, [(0, 0, 0), (255, 255, 255)])]
    source = source_of(cells, mask_kind="classes")
    assert load_scenes(source, "train", 24).semantic[0].unique().tolist() == [0, 1]
    assert (load_images(source, "train", 24).masks[0].numpy() == HALF).all()


# ---------------------------------------------------------------- the decision


def test_empty_masks_decide_nothing():
    """F6: sixteen empty masks made a set of 0 and 1 binary, and all of its masks empty."""
    empty, some = grey(np.zeros((24, 24), np.uint8)), grey(HALF.astype(np.uint8))
    kind, masks = seen([empty] * 40 + [some])
    assert kind == "classes" and masks.any(axis=(1, 2)).tolist() == [False] * 40 + [True]
    for one in (empty, grey(np.full((24, 24), 255, np.uint8))):
        with pytest.raises(
            UsageError, match="the masks of 'mine' train hold the values .*data.options.mask_kind=binary"
        ):
            source_of([one] * 20)
    assert source_of([empty] * 20, mask_kind="binary").mask_kind == "binary"


def test_the_whole_set_is_looked_at():
    assert rows_looked_at(16_384) == list(range(16_384))
    rows = rows_looked_at(100_000)
    assert len(rows) == 16_384 and rows[0] == 0 and rows[-1] == 99_999 and max(np.diff(rows)) <= 7


@pytest.mark.parametrize(
    "masks",
    [
        [grey(np.where(HALF, 20, 0).astype(np.uint8)), grey(np.where(HALF, 255, 0).astype(np.uint8))],  # 0, 20, 255
        [grey(np.where(HALF, 128, 0).astype(np.uint8))],  # a trimap without objects, or grey objects
        [grey(HALF.astype(np.uint8)), grey(np.where(HALF, 255, 0).astype(np.uint8))],  # 0/1 and 0/255
        [grey(np.linspace(0, 250, 24).astype(np.uint8)[None].repeat(24, axis=0))],  # a soft map
        [palette(HALF + 2 * HALF.T, [(0, 0, 0), (128, 128, 128), (255, 255, 255), (255, 255, 255)])],
        [grey(np.where(HALF, 90, 0).astype(np.uint8), "JPEG")],  # ids in JPEG
    ],
)
def test_ambiguous_sets_ask(masks):
    with pytest.raises(UsageError, match=r"which does not tell what they mean; say what they are: data.options.mask_k"):
        source_of(masks)


def test_splits_must_not_contradict_each_other():
    binary, ids = grey(np.where(HALF, 255, 0).astype(np.uint8)), grey(HALF.astype(np.uint8))
    text = r"train look like binary \(the values 0, 255\), those of test like classes \(the values 0, 1\); say what"
    with pytest.raises(UsageError, match=text):
        source_of([binary], [ids])
    empty = grey(np.zeros((24, 24), np.uint8))
    assert source_of([binary], [empty]).mask_kind == "binary"
    assert source_of([binary], [ids], mask_kind="classes").mask_kind == "classes"


def test_masks_against_the_given_kind_are_named():
    """0/1 masks read above 127 were empty without a word."""
    source = source_of([grey(np.where(HALF, 255, 0).astype(np.uint8)), grey(HALF.astype(np.uint8))], mask_kind="binary")
    with pytest.raises(
        DataError, match="'mine' row 1: the mask has the values 0 to 1, for binary masks it needs 0 to 255"
    ):
        load_images(source, "train", 24)


def test_a_decision_is_kept(monkeypatch):
    split = split_of([grey(HALF)])
    assert find_kind("mine", {"train": split}, {"train": "kept"}) == ("binary", [])
    monkeypatch.setattr("scd.data.masks.open_cell", lambda *_: pytest.fail("decoded again"))
    assert find_kind("mine", {"train": split}, {"train": "kept"}) == ("binary", [])


def test_masks_that_are_missing_or_broken_are_named_when_they_are_used():
    source = source_of([grey(HALF), None, {"bytes": b"no image", "path": None}])
    assert source.mask_kind == "binary"
    with pytest.raises(DataError, match="'mine' row 1: no mask"):
        load_images(source, "train", 24)


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (
            grey(np.dstack([np.where(HALF, 200, 0), np.zeros((24, 24, 2))]).astype(np.uint8)),
            r"coloured picture \(RGB\)",
        ),
        (
            grey(np.dstack([with_border([])] * 3 + [np.where(HALF.T, 255, 0)]).astype(np.uint8)),
            "one thing by its grey levels and another by its transparency",
        ),
        (grey(HALF.astype(np.float32), "TIFF"), "holds floats"),
    ],
)
def test_masks_without_one_reading_are_refused(mask, text):
    """Colour-coded ids, for example of COCO's panoptic format, became grey levels."""
    with pytest.raises(DataError, match=f"'mine' row 0: the mask .*{text}"):
        source_of([mask])


def test_a_coloured_palette_is_no_binary_mask():
    source = source_of([palette(HALF, [(0, 0, 0), (128, 0, 0)])], mask_kind="binary")
    with pytest.raises(DataError, match=r"row 0: the mask is a coloured picture"):
        load_images(source, "train", 24)


def test_foreground_by_kind():
    values = np.array([[0, 1, 127, 128, 200, 255]])
    assert foreground(values, "binary", None, "m").tolist() == [[0, 0, 0, 1, 1, 1]]
    assert foreground(values, "trimap", None, "m").tolist() == [[0, 0, 2, 2, 1, 1]]
    assert foreground(values, "classes", None, "m").tolist() == [[0, 1, 1, 1, 1, 2]]
    assert foreground(values, "classes", (1, 200), "m").tolist() == [[0, 1, 0, 0, 1, 2]]
    assert foreground(values, "instances", None, "m").tolist() == [[0, 1, 1, 1, 1, 1]]
