"""Masks, maps and copies beside images, and class folders that are parts of one set."""

import numpy as np
import pytest
from PIL import Image

from scd.data.sources.image_folder import ImageFolder
from scd.data.sources.paired_files import are_numbered, folders_of_equal_names, look, parts_of
from scd.errors import DataError


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def photo(seed, size=(24, 16)):
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def mask(seed):
    return photo(seed).convert("L").point(lambda value: 255 * (value > 120))


def depth(seed):
    return photo(1000 + seed).convert("L")


NAMES = (
    "{}_L {}_matte {}_seg0 {}_labelIds {}_annotation {}_bw {}.mask mask_{} seg_{} {}_maskcrop {}_gtFine_color {}_alpha "
    "{}_fg {}_masks {}_pred {}_s"
).split()


def write_pairs(folder, name, second, image="im{:03d}.jpg", count=8):
    for place, label in enumerate(("cat", "dog")):
        for number in range(count):
            file = image.format(number)
            save(folder / label / file, photo(100 * place + number))
            stem, ending = file.rsplit(".", 1)
            save(folder / label / (name.format(stem) + ".png"), second(100 * place + number))


@pytest.mark.parametrize("name", [*NAMES, "{}"])
@pytest.mark.parametrize("image", ["im{:03d}.jpg", "{}.jpg"])
def test_masks_beside_images_are_refused_under_any_name(tmp_path, name, image):
    """They counted as further images of each class."""
    write_pairs(tmp_path, name, mask, image)
    with pytest.raises(
        DataError, match=r"(looks like a mask or map of '.*' beside it|its image) \(16 such files\); take"
    ):
        ImageFolder(tmp_path)


def test_depth_beside_images_is_refused(tmp_path):
    write_pairs(tmp_path, "{}_depth", depth)
    with pytest.raises(DataError, match="im000_depth.png' looks like a mask or map of 'im000.jpg'"):
        ImageFolder(tmp_path)


def test_several_masks_of_an_image_whose_name_has_a_text_of_its_own(tmp_path):
    """As in Cityscapes, where no name is the beginning of another one; here in a folder without classes."""
    for number in range(8):
        save(tmp_path / f"aachen_{number}_leftImg8bit.png", photo(number))
        for kind in ("color", "labelIds", "instanceIds"):
            save(tmp_path / f"aachen_{number}_gtFine_{kind}.png", mask(number))
    with pytest.raises(DataError, match="looks like a mask or map of 'aachen_0_leftImg8bit.png'"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize("name", ["{}_2", "{} (2)", "{}-1"])
def test_numbered_copies_are_images(tmp_path, name):
    write_pairs(tmp_path, name, photo)
    assert ImageFolder(tmp_path).notes == ()


def test_mirrored_copies_are_images_and_noted(tmp_path):
    write_pairs(tmp_path, "{}_flip", lambda seed: photo(seed).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    (note,) = ImageFolder(tmp_path).notes
    assert note == (
        "Images beside others of the same name, which count as images of their own (16): 'im000_flip.png' beside "
        "'im000.jpg'."
    )


def test_a_few_names_that_begin_alike_are_no_pairs(tmp_path):
    for place, label in enumerate(("cat", "dog")):
        for number in range(20):
            save(tmp_path / label / f"{number}.png", photo(100 * place + number))
        save(tmp_path / label / "3_old.png", mask(3))
    assert ImageFolder(tmp_path).notes == ()


def write_folders(folder, first, second, names="{:03d}", count=12):
    for place, (name, draw) in enumerate((first, second)):
        stem = names if isinstance(names, str) else names[place]
        for number in range(count):
            save(folder / name / f"{stem.format(number)}.png", draw(number))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("rgb", "alpha"),
        ("leftImg8bit", "gtFine"),
        ("photos", "trimaps"),
        ("X", "Y"),
        ("im", "lbl"),
        ("CameraRGB", "CameraSeg"),
    ],
)
@pytest.mark.parametrize("names", ["{}", "{:03d}", ("a_{}_leftImg8bit", "a_{}_gtFine_labelIds"), ("{}", "mask_{}")])
def test_folders_of_images_and_masks_are_no_classes(tmp_path, first, second, names):
    """'alpha' became a class beside 'rgb'."""
    write_folders(tmp_path, (first, photo), (second, mask), names)
    with pytest.raises(DataError, match="are no classes, but images and their masks or maps, .* 12 equal names of fil"):
        ImageFolder(tmp_path)


def test_folders_of_images_and_depth_in_splits_are_no_classes(tmp_path):
    for split in ("train", "test"):
        write_folders(tmp_path / split, ("rgb", photo), ("depth", depth))
    with pytest.raises(DataError, match="'depth' and 'rgb' in '.*test' are no classes"):
        ImageFolder(tmp_path)


def test_grey_images_and_masks_are_no_classes(tmp_path):
    write_folders(tmp_path, ("scans", depth), ("lesions", mask))
    with pytest.raises(DataError, match="are no classes"):
        ImageFolder(tmp_path)


def test_two_versions_of_one_picture_are_noted(tmp_path):
    """HR and LR became two classes without a word."""
    write_folders(tmp_path, ("HR", photo), ("LR", lambda seed: photo(seed).resize((12, 8))))
    assert ImageFolder(tmp_path).notes == (
        f"Folders 'HR' and 'LR' of '{tmp_path.name}' hold the same pictures under the same names (12); they count as "
        "classes.",
    )


def test_the_same_names_are_noted_unless_they_are_numbers(tmp_path):
    write_folders(tmp_path / "a", ("real", photo), ("fake", lambda seed: photo(500 + seed)), "{}")
    assert ImageFolder(tmp_path / "a").notes == ()
    write_folders(tmp_path / "b", ("real", photo), ("fake", lambda seed: photo(500 + seed)), "img_{}")
    assert ImageFolder(tmp_path / "b").notes == ()
    for number, word in enumerate(("house", "tree", "road", "bird", "sun", "moon")):
        save(tmp_path / "c" / "real" / f"{word}.jpg", photo(number))
        save(tmp_path / "c" / "fake" / f"{word}.jpg", photo(500 + number))
    (note,) = ImageFolder(tmp_path / "c").notes
    assert note == (
        "Folders 'fake' and 'real' of 'c' hold files of the same names (6), as parts of one set do; they count as "
        "classes."
    )


def test_grey_and_coloured_classes_of_other_shapes_stay_classes(tmp_path):
    """Drawings beside photographs, both numbered from 0: their shapes show that they are no pairs."""
    write_folders(tmp_path, ("photo", photo), ("sketch", lambda seed: depth(seed).resize((16 + seed, 16))))
    found = ImageFolder(tmp_path)
    assert found.class_names == ("photo", "sketch")
    assert [note for note in found.notes if "hold files of the same names (12)" in note]


def test_grey_and_coloured_images_in_both_classes_stay_classes(tmp_path):
    write_folders(tmp_path, ("cat", lambda s: depth(s) if s % 2 else photo(s)), ("dog", lambda s: photo(50 + s)))
    assert ImageFolder(tmp_path).notes == ()


def test_many_classes_of_the_same_names_are_not_compared(tmp_path):
    for place in range(5):
        write_folders(tmp_path, (f"c{place}", photo), ("masks", mask), "{}")
    assert len(ImageFolder(tmp_path).class_names) == 6


def test_six_folders_of_images_and_masks_are_no_classes(tmp_path):
    """As in ISIC2018 under other names: more than four folders were not compared, and the masks were trained on."""
    for first, (images, masks) in ((0, ("A", "D")), (100, ("B", "E")), (200, ("C", "F"))):
        for number in range(first, first + 8):
            save(tmp_path / images / f"ISIC_{number:07d}.jpg", photo(number))
            save(tmp_path / masks / f"ISIC_{number:07d}_segmentation.png", mask(number))
    with pytest.raises(
        DataError, match="'A' and 'D' in .* are no classes, but images and their masks or maps, .* 8 eq"
    ):
        ImageFolder(tmp_path)


@pytest.mark.parametrize("names", ["{}", "{:03d}x{}"])
def test_images_and_four_kinds_of_masks_are_no_classes(tmp_path, names):
    for kind in ("photos", "ex", "he", "ma", "se"):
        for number in range(8):
            file = names.format(number, "abcdefgh"[number])
            save(tmp_path / kind / f"{file}.png", (photo if kind == "photos" else mask)(number))
    with pytest.raises(DataError, match="'ex', 'he', 'ma', 'se' and 'photos' in '.*' are no classes, .* 8 equal names"):
        ImageFolder(tmp_path)


def test_many_classes_of_unlike_names_are_classes(tmp_path):
    """Neither drawings among photographs, nor a class in black and white, nor sizes that differ make parts of a set."""
    for place in range(6):
        for number in range(6 + 6 * (place == 5)):
            draw = mask if place == 4 else depth if place == 5 else photo
            save(tmp_path / f"c{place}" / f"img_{number}.png", draw(10 * place + number))
    found = ImageFolder(tmp_path)
    assert len(found.class_names) == 6 and "are no classes" not in " ".join(found.notes)


def test_groups_of_folders_by_their_names(tmp_path):
    texts = {"a": "abcdefghij", "b": "klmno", "c": "abcdefghi", "d": "klmno", "e": "pq", "f": "abcde"}
    letters = {folder: dict.fromkeys(text, tmp_path) for folder, text in texts.items()}
    assert folders_of_equal_names(letters) == [["a", "c"], ["b", "d"]]


def test_broken_images_are_named_where_they_are_read(tmp_path):
    for label in ("cat", "dog"):
        for number in range(6):
            save(tmp_path / label / f"{number}.png", photo(number, (9 + number, 7)))
            (tmp_path / label / f"{number}.png").write_bytes(b"broken")
    assert look(tmp_path / "cat" / "0.png") is None
    assert ImageFolder(tmp_path).class_names == ("cat", "dog")


def test_common_texts_of_names_are_left_out(tmp_path):
    files = [tmp_path / name for name in ("aachen_0_gtFine_labelIds.png", "bochum_1_gtFine_labelIds.png")]
    assert list(parts_of(files)) == ["aachen_0", "bochum_1"]
    assert list(parts_of([tmp_path / "mask_a.png", tmp_path / "mask_b.png"])) == ["a", "b"]
    assert list(parts_of([tmp_path / "1.png", tmp_path / "11.png"])) == ["1", "11"]
    assert are_numbered(["im1", "im2", "im3", "w"]) and not are_numbered(["a", "b"])
