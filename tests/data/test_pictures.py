"""Pictures of any size, mode and orientation, whole, as a network sees them."""

import numpy as np
import pytest
import torch
from PIL import Image

from scd.data.pictures import canvas, find_pictures, read_picture, seen_size, whole_picture
from scd.data.recipes import centre_view
from scd.errors import DataError, UsageError

ORIENTATION = 0x0112


def ramp(width, height):
    """A picture whose red channel grows with x and whose green channel with y."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=2).round().astype(np.uint8))


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("size", "side", "step", "expected"),
    [
        ((640, 427), 24, 4, (36, 24)),
        ((427, 640), 24, 4, (24, 36)),
        ((500, 500), 30, 4, (30, 30)),  # a square stays one, whether the step divides its side or not
        ((101, 100), 24, 4, (24, 24)),
        ((10, 7), 224, 32, (320, 224)),
        ((1, 1), 16, 4, (16, 16)),
    ],
)
def test_the_shorter_side_is_that_of_the_network_and_the_aspect_ratio_stays(size, side, step, expected):
    seen = seen_size(size, side, step)
    assert (seen.width, seen.height) == expected and not seen.is_squeezed
    assert seen.words == f"resized to {expected[0]} x {expected[1]} px (shorter side {side} px), not cropped"


def test_a_very_long_picture_is_squeezed_and_the_words_say_so():
    assert (seen_size((4000, 1000), 16, 4).width, seen_size((4000, 1000), 16, 4).is_squeezed) == (64, False)
    seen = seen_size((9000, 10), 16, 4)
    assert (seen.width, seen.height, seen.is_squeezed) == (64, 16, True)
    assert seen.words == "resized to 64 x 16 px (aspect ratio not kept), not cropped"
    tall = seen_size((10, 9000), 16, 4)
    assert (tall.width, tall.height) == (16, 64)


def test_a_network_of_squares_sees_a_squeezed_picture():
    seen = seen_size((640, 427), 24, 4, square=True)
    assert (seen.width, seen.height, seen.is_squeezed) == (24, 24, True)
    assert not seen_size((64, 64), 24, 4, square=True).is_squeezed


def test_a_square_picture_is_what_an_evaluation_sees(tmp_path):
    picture = ramp(24, 24)
    view = whole_picture(picture, seen_size(picture.size, 24, 4))
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None]
    assert torch.equal(view.images, centre_view(pixels, 24))
    assert view.rectangles.tolist() == [[0, 0, 1, 1]] and view.flips.tolist() == [False]


def test_x_and_y_stay_where_they_are():
    picture = ramp(300, 120)
    images = whole_picture(picture, seen_size(picture.size, 24, 4)).images[0]
    assert images.shape == (3, 24, 60)
    red, green = images[0], images[1]
    assert (red.diff(dim=1) > 0).all() and red.diff(dim=0).abs().max() < 1e-6
    assert (green.diff(dim=0) > 0).all() and green.diff(dim=1).abs().max() < 1e-6
    square = canvas(picture, 8)
    assert square.shape == (1, 3, 8, 8) and square.dtype is torch.uint8
    assert (square[0, 0].int().diff(dim=1) > 0).all() and (square[0, 1].int().diff(dim=0) > 0).all()


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P", "CMYK", "I;16"])
def test_pictures_of_every_mode_are_read(mode, tmp_path):
    path = tmp_path / ("picture.jpg" if mode == "CMYK" else "picture.png")
    if mode == "I;16":
        Image.fromarray(np.linspace(0, 65535, 60 * 40).reshape(40, 60).astype(np.uint16)).save(path)
    else:
        ramp(60, 40).convert(mode).save(path)
    found = read_picture(path)
    assert (found.mode, found.size) == ("RGB", (60, 40))
    assert np.asarray(found).std() > 20


@pytest.mark.parametrize("value", range(1, 9))
def test_pictures_are_upright(value, tmp_path):
    upright = ramp(60, 40)
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[value]  # the transposition that undoes the turn
    stored = upright if back is None else upright.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[ORIENTATION] = value
    stored.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(np.asarray(read_picture(tmp_path / "turned.png")), np.asarray(upright))


def test_what_is_no_picture_is_named_in_one_line(tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"^'.*notes.jpg': the image cannot be decoded \(not an image"):
        read_picture(tmp_path / "notes.jpg")
    ramp(60, 40).save(tmp_path / "cut.png")
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"^'.*cut.png': the image cannot be decoded"):
        read_picture(tmp_path / "cut.png")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match=r"^'.*float.tif': the image holds floats"):
        read_picture(tmp_path / "float.tif")


def test_a_folder_gives_its_pictures_in_order_and_says_what_is_left_out(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/2.PNG", "a.png", "c.png"):
        ramp(6, 4).save(tmp_path / name, "PNG")
    (tmp_path / "text.txt").write_text("text")
    results = tmp_path / "maps"
    results.mkdir()
    ramp(6, 4).save(results / "a.png")
    found, notes = find_pictures(tmp_path, results)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.png", "b/2.PNG", "c.png"]
    assert any("text.txt" in note for note in notes) and any("maps" in note for note in notes)
    assert len(find_pictures(tmp_path, tmp_path / "elsewhere")[0]) == 4
    assert find_pictures(tmp_path / "text.txt") == ([tmp_path / "text.txt"], [])  # its reading will say what it is


def test_paths_without_pictures_end_in_one_line(tmp_path):
    with pytest.raises(UsageError, match="there is no picture or folder '.*none'; give the path"):
        find_pictures(tmp_path / "none")
    with pytest.raises(UsageError, match="the folder '.*' has no pictures; put .jpg, .png or .tif files into it"):
        find_pictures(tmp_path)
    (tmp_path / "text.txt").write_text("text")
    with pytest.raises(UsageError, match="has no pictures; it has 1 file of another kind; put"):
        find_pictures(tmp_path)
