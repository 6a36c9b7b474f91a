"""Pictures with the maps of networks: where a map lies over its picture, captions, and names of files."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import nn

from scd.evaluation.whole_pictures import network_of
from scd.method import Method
from studies.suite.pages.drawn_pictures import Picture, Subject, panels_of, png_names, write
from studies.suite.pages.picture_maps import GAP, HEAD, WIDTH, palette

RED = (255, 0, 0)
STEP = 4


class RedFinder(Method):
    """An oracle of what is red: the share of red in each position, after a backbone with positions of 4 x 4 pixels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Conv2d(3, 6, STEP, STEP)

    def forward(self, batch):
        raise NotImplementedError

    def saliency(self, view):
        red = (view.images[:, 0] > 1) & (view.images[:, 1] < -1)
        return F.avg_pool2d(red.float(), STEP)


def subject(side=32):
    method = RedFinder()
    return Subject(
        "Red", ("run 1", "supervision: oracle"), "1", method.backbone, network_of(method.backbone, side), method
    )


def disc(size, centre, radius):
    """A grey picture with a red disc."""
    image = Image.new("RGB", size, (90, 120, 110))
    x, y = centre
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=RED)
    return image


def prepared(path, size):
    """The picture of a file, with annotations that mark nothing."""
    picture = Picture(path, f"{path.stem}.png", size)
    picture.annotated = {
        "rbd": np.zeros((8, 8), np.float32),
        "felzenszwalb": np.zeros((8, 8), int),
        "selective_search": np.zeros((0, 4), np.float32),
    }
    return picture


def overlap(values, image):
    """Intersection over union of the drawn map and the disc of a picture (h, w, 3)."""
    truth = (image[:, :, 0] > 180) & (image[:, :, 1] < 80)
    marked = values >= 0.5
    return (marked & truth).sum() / (marked | truth).sum()


@pytest.mark.parametrize(
    ("size", "centre", "radius"),
    [((320, 200), (260, 50), 36), ((200, 320), (50, 250), 36), ((256, 256), (70, 180), 40), ((60, 60), (44, 14), 10)],
)
def test_the_map_lies_over_the_disc_in_the_png(size, centre, radius, tmp_path):
    path = tmp_path / "disc.png"
    disc(size, centre, radius).save(path)
    picture = prepared(path, size)
    picture.panels = panels_of(subject(), picture)
    out = tmp_path / "out"
    out.mkdir()
    shown = write(picture, out, 480)
    drawn = np.asarray(Image.open(out / "disc.png").convert("RGB"))
    width, height = shown.size
    column = max(width, WIDTH)
    here = drawn[HEAD : HEAD + height, GAP : GAP + width]
    left = GAP + 4 * (column + GAP)  # after picture, RBD, segments and boxes
    colours = drawn[HEAD : HEAD + height, left : left + width].reshape(-1, 1, 3).astype(int)
    values = np.abs(colours - palette().astype(int)).sum(axis=2).argmin(axis=1).reshape(height, width) / 255
    assert overlap(values, here) > 0.7
    assert width / height == pytest.approx(size[0] / size[1], rel=0.01)


@pytest.mark.parametrize("value", [3, 6, 8])
def test_the_map_lies_over_the_disc_of_a_turned_picture(value, tmp_path):
    upright = disc((320, 200), (260, 50), 36)
    stored = upright.transpose({3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90,
                                8: Image.Transpose.ROTATE_270}[value])  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = value
    path = tmp_path / "turned.png"
    stored.save(path, exif=exif)
    picture = prepared(path, (320, 200))
    ((panel, values), *_) = panels_of(subject(), picture)
    assert values.shape == (8, 13) and panel.title == "Red"  # 32 px high, 52 px wide
    drawn = F.interpolate(values[None, None], (200, 320), mode="bilinear")[0, 0].numpy()
    assert overlap(drawn, np.asarray(upright)) > 0.7


def test_captions_say_what_was_done(tmp_path):
    path = tmp_path / "disc.png"
    disc((320, 200), (260, 50), 36).save(path)
    picture = prepared(path, (320, 200))
    (own, values), (cut, _) = panels_of(subject(), picture)
    assert own.lines[0] == "the method's own map"
    assert own.lines[1] == f"13 x 8 positions, values {float(values.min()):.2f} to {float(values.max()):.2f}"
    assert own.lines[2:] == ("run 1", "supervision: oracle", "resized to 52 x 32 px (shorter side 32 px), not cropped")
    assert cut.title == "TokenCut, Red" and cut.lines[0] == "cut of the feature maps" and own.group == cut.group == "1"
    out = tmp_path / "out"
    out.mkdir()
    picture.panels = [(own, values), (cut, None)]
    shown = write(picture, out, 100)
    assert shown.lines == ("320 x 200 px, upright", "drawn at 100 x 62 px") and shown.size == (100, 62)
    first, second = shown.groups
    assert [panel.title for panel, _ in first] == ["Picture", "RBD", "Felzenszwalb", "Selective search"]
    assert [bool(source) for _, source in second] == [True, False]
    assert write(picture, out, 0).lines[1] == "drawn at its own size"


def test_a_method_without_a_map_for_the_picture_says_why(tmp_path):
    path = tmp_path / "disc.png"
    disc((64, 64), (20, 20), 10).save(path)
    method = RedFinder()
    method.saliency = lambda view: None
    given = Subject("Oracle", (), "1", method.backbone, network_of(method.backbone, 32), method)
    (own, values), _ = panels_of(given, prepared(path, (64, 64)))
    assert values is None and own.lines[0].startswith("its own map needs the true mask")
    plain = Subject("exported", (), "1", method.backbone, network_of(method.backbone, 32))
    ((cut, values),) = panels_of(plain, prepared(path, (64, 64)))
    assert cut.title == "TokenCut, exported" and set(values.unique().tolist()) <= {0.0, 1.0}


def test_pngs_have_names_of_their_own():
    files = [Path("a/cat.jpg"), Path("a/Cat.png"), Path("b/cat.jpg"), Path("dog.jpg"), Path("c/a/cat.jpg")]
    assert png_names(files) == ["a-cat.jpg.png", "a-Cat.png.png", "b-cat.jpg.png", "dog.png", "a-cat.jpg-2.png"]
