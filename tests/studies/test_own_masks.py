"""A user's own masks and pixels through the command line: the right numbers, or one line before anything is trained.

The share of the true mask, which the saliency protocol prints as the IoU of the whole image, tells how masks were read.
"""

import io
import json

import numpy as np
import pandas
import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from scd.data.decoding import ORIENTATION
from scd.data.sources.coco import Coco
from scd.data.sources.parquet import Parquet
from scd.data.sources.voc import Voc
from studies.__main__ import main

QUICK = ["tier=smoke", "seeds=1", "axes.budgets=[epochs]", "launcher.workers=0"]
LEFT = np.zeros((24, 24), bool)
LEFT[:, :8] = True

pytestmark = pytest.mark.usefixtures("no_figures")


def studies(tmp_path, *words):
    """The exit code of the command line with a store and an output folder of the test."""
    return main(["multicrop", *QUICK, *words, "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")])


def stored(image: Image.Image, kind: str = "PNG", **options) -> dict:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return {"bytes": file.getvalue(), "path": None}


def black_and_white_palette() -> dict:
    """Index 0 is white."""
    image = Image.fromarray((~LEFT).astype(np.uint8)).convert("P")
    image.putdata((~LEFT).astype(int).ravel().tolist())
    image.putpalette([255, 255, 255, 0, 0, 0])
    return stored(image)


def levels(left: int, middle: int, right: int) -> dict:
    return stored(Image.fromarray(np.repeat(np.array([[left, middle, right]], np.uint8), 8, axis=1).repeat(24, axis=0)))


MASKS = {
    "palette": (black_and_white_palette(), 1 / 3),
    "0 and 1": (levels(1, 0, 0), 1 / 3),
    "trimap": (levels(255, 128, 0), 1 / 2),
    "void": (levels(3, 255, 0), 1 / 2),
}


def write_masks(folder, mask: dict, rows: int = 20, empty: dict | None = None) -> None:
    """Images that are stored upside down, with these masks after as many empty ones as were looked at once."""
    folder.mkdir()
    random, exif = np.random.default_rng(0), Image.Exif()
    exif[ORIENTATION] = 3
    empty = empty or stored(Image.fromarray(np.zeros((24, 24), np.uint8)))
    for split, cells in (("train", [empty] * 16 + [mask] * rows), ("test", [mask] * rows)):
        pixels = [np.where(LEFT[..., None], 250, random.integers(0, 99, (24, 24, 3))).astype(np.uint8) for _ in cells]
        images = [stored(Image.fromarray(one[::-1, ::-1].copy()), exif=exif) for one in pixels]
        features = Features(image=ImageFeature(), mask=ImageFeature())
        dataset = Dataset.from_dict({"image": images, "mask": cells}, features=features)
        dataset.to_parquet(str(folder / f"{split}.parquet"))


@pytest.mark.parametrize("kind", MASKS)
def test_masks_are_read_as_they_were_drawn(tmp_path, kind):
    """F5, F6 and F8: palettes were empty, void and unknown borders were the object, photographs lay upside down."""
    mask, share = MASKS[kind]
    write_masks(tmp_path / "masks", mask)
    protocols = "evaluation.protocols=[saliency]"
    assert studies(tmp_path, "arms=scd", f"data={tmp_path / 'masks'}", protocols) == 0
    runs = pandas.read_csv(tmp_path / "out" / "records" / "multicrop-masks-smoke-arms-scd-budgets-epochs.csv")
    assert runs["saliency_iou_whole"].tolist() == [pytest.approx(share)]


def refused(tmp_path, capsys, *words) -> str:
    """The one line that a command prints which trains nothing."""
    assert studies(tmp_path, "arms=random", *words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and not list((tmp_path / "store").rglob("*.json"))
    return lines[0]


def test_masks_of_several_meanings_ask(tmp_path, capsys):
    write_masks(tmp_path / "masks", levels(20, 255, 0))
    capsys.readouterr()
    line = refused(tmp_path, capsys, f"data={tmp_path / 'masks'}")
    assert "hold the values 0, 20, 255, which does not tell what they mean" in line
    assert line.endswith("data.options.mask_kind=binary|trimap|classes|instances")


def test_an_unwritable_cache_is_blamed(tmp_path, capsys, monkeypatch):
    """F15: a traceback, or the parquet was blamed."""
    (tmp_path / "data").mkdir()
    Parquet.example(tmp_path / "data")
    capsys.readouterr()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "file" / "cache"))
    line = refused(tmp_path, capsys, f"data={tmp_path / 'data'}")
    assert line.startswith("error: cannot write the cache ") and line.endswith("set SCD_CACHE to another folder")


def test_broken_files_of_voc_and_coco_are_named(tmp_path, capsys):
    """F16, F17 and F21: tracebacks, and a broken image that was said to be an error of the cache."""
    for kind in (Voc, Coco):
        (tmp_path / kind.__name__).mkdir()
        kind.example(tmp_path / kind.__name__)
    voc, coco = tmp_path / "Voc", tmp_path / "Coco"
    (voc / "VOC2007" / "JPEGImages" / "000003.jpg").write_bytes(b"broken")
    sets = ["data.options.train=[2007/trainval]", "data.options.test=[2007/test]"]
    line = refused(tmp_path, capsys, "data=voc", f"data.locations.root={voc}", *sets)
    assert line.endswith("000003.jpg' cannot be decoded (not an image, or of an unknown format)")
    content = json.loads((coco / "train.json").read_text())
    content["annotations"][2]["segmentation"] = {"size": [16, 16], "counts": [3, 4]}
    (coco / "train.json").write_text(json.dumps(content))
    places = {"images": "train", "annotations": "train.json", "test_images": "test", "test_annotations": "test.json"}
    words = [f"data.locations.{name}={coco / place}" for name, place in places.items()]
    line = refused(tmp_path, capsys, "data=coco", *words)
    assert "train.json' annotation 102: its segmentation cannot be drawn (its run lengths cover 7 pixels" in line


SALIENCY = "evaluation.protocols=[saliency]"


@pytest.mark.parametrize(
    ("mask", "words", "text"),
    [
        (levels(1, 3, 2), [], r"any background: all ids above 0 are the object; say which are: data.options.foregr"),
        (levels(1, 3, 2), ["data.options.foreground=[7]"], "any object: the ids 7 are the object; say which are"),
        (levels(1, 3, 2), ["data.options.mask_kind=instances"], "mask_kind=classes data.options.foreground=[1]"),
        (levels(255, 255, 255), ["data.options.mask_kind=binary"], "any background; check that white is the object"),
        (levels(0, 0, 0), ["data.options.mask_kind=binary"], "any object; check that white is the object"),
    ],
)
def test_masks_of_one_thing_alone_are_refused(tmp_path, capsys, mask, words, text):
    """Masks without a 0, such as trimaps of 1, 2 and 3, gave an IoU of 1."""
    write_masks(tmp_path / "masks", mask, empty=mask, rows=16)
    capsys.readouterr()
    line = refused(tmp_path, capsys, f"data={tmp_path / 'masks'}", *words, SALIENCY)
    assert "no mask of 'masks' test shows " in line and text in line


def test_ids_without_a_background_are_read_where_the_object_is_named(tmp_path, capsys):
    write_masks(tmp_path / "masks", levels(1, 3, 2), empty=levels(1, 3, 2), rows=16)
    words = ["arms=scd", f"data={tmp_path / 'masks'}", "data.options.foreground=[1]", SALIENCY]
    assert studies(tmp_path, *words) == 0
    (record,) = (tmp_path / "out" / "records").glob("*.csv")
    assert pandas.read_csv(record)["saliency_iou_whole"].tolist() == [pytest.approx(1 / 3)]
    note = "Ids of the masks that count as background, because data.options.foreground does not name them: 2, 3."
    assert f"note: {note} Only 255 means unknown" in capsys.readouterr().err


def test_inverted_masks_are_said(tmp_path, capsys):
    """Masks whose object is black were scored without a hint."""
    black = np.zeros((24, 24), bool)
    black[8:16, 8:16] = True
    inverted = stored(Image.fromarray(np.where(black, 0, 255).astype(np.uint8)))
    write_masks(tmp_path / "masks", inverted, empty=inverted, rows=16)
    assert studies(tmp_path, "arms=random", f"data={tmp_path / 'masks'}", SALIENCY) == 0
    note = "The object covers most of the border in 16 of the 16 test masks that were looked at, as in inverted masks;"
    assert f"note: {note} check that white is the object" in capsys.readouterr().err
    (page,) = (tmp_path / "out").glob("multicrop*.md")
    assert f"**Note on the data:** {note}" in page.read_text(encoding="utf-8")


def test_masks_of_numpy_are_named(tmp_path, capsys):
    """The refusal said that no masks were found."""
    file = io.BytesIO()
    np.save(file, LEFT)
    mask = {"bytes": file.getvalue(), "path": None}
    write_masks(tmp_path / "masks", mask, empty=mask, rows=4)
    capsys.readouterr()
    line = refused(tmp_path, capsys, f"data={tmp_path / 'masks'}", SALIENCY)
    assert line.endswith("row 0: the mask cannot be decoded (an array of NumPy; save it as PNG)")
