"""PASCAL VOC's folders: boxes from 0, filled maps, segments with an ignored border; missing files are named."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from datasets import Image as ImageFeature
from PIL import Image

from scd.data.decoding import ORIENTATION
from scd.data.scene_set import load_scenes
from scd.data.sources.instance_maps import PERCENT, UPPER_LEFT
from scd.data.sources.voc import CLASSES, DIFFICULT, Voc, colour_of
from scd.errors import DataError, UsageError

SIZE = "<size><width>{}</width><height>{}</height></size>"
DOG, CAR = CLASSES.index("dog"), CLASSES.index("car")


def xml(*objects, size="<size><width>20</width></size>"):
    """An annotation of (class, xmin, ymin, xmax, ymax, difficult) in VOC's pixels, which count from 1."""
    parts = [
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d, hard in objects
    ]
    return f"<annotation>{size}{''.join(parts)}</annotation>"


@pytest.fixture
def devkit(tmp_path):
    """VOC2007 with two images in trainval and one in test; the first also has segments."""
    root = tmp_path / "VOCdevkit"
    year = root / "VOC2007"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main", "ImageSets/Segmentation", "SegmentationClass"):
        (year / folder).mkdir(parents=True)
    rows = {
        "000001": xml(("car", 1, 1, 20, 20, 0), ("dog", 6, 6, 10, 15, 0)),
        "000002": xml(),
        "000003": xml(("dog", 3, 5, 8, 9, 0)),
    }
    for name, text in rows.items():
        (year / "Annotations" / f"{name}.xml").write_text(text)
        Image.new("RGB", (20, 20), (int(name) * 50, 0, 0)).save(year / "JPEGImages" / f"{name}.jpg")
    (year / "ImageSets" / "Main" / "trainval.txt").write_text("000001\n000002\n")
    (year / "ImageSets" / "Main" / "test.txt").write_text("000003\n")
    for split in ("train", "val"):
        (year / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("000001\n")
    segments = np.zeros((20, 20), np.uint8)
    segments[4:16, 4:16], segments[5:15, 5:15] = 255, DOG + 1
    palette = Image.fromarray(segments, "P")
    palette.putpalette([c for k in range(256) for c in (k, 255 - k, 0)])
    palette.save(year / "SegmentationClass" / "000001.png")
    return root


def opened(root, **options):
    return Voc(root, **{"train": ["2007/trainval"], "test": ["2007/test"], **options})


def test_boxes_count_from_0_and_the_map_shows_them_filled(devkit):
    source = opened(devkit)
    loaded = load_scenes(source, "train", 20)
    assert loaded.classes[0].tolist() == [CAR, DOG] and loaded.class_names == CLASSES
    assert loaded.boxes[0].tolist() == [[0, 0, 20, 20], [5, 5, 10, 15]]
    small = np.zeros((20, 20), bool)
    small[5:15, 5:10] = True  # VOC's corners 6..10 and 6..15 belong to the box
    assert (loaded.instances[0][1].numpy() == small).all() and (loaded.instances[0][0].numpy() == ~small).all()
    assert loaded.dropped == {"image without objects": 1} and loaded.boxes[1].shape == (0, 4)
    assert load_scenes(source, "test", 20).boxes[0].tolist() == [[2, 4, 8, 9]]


def test_difficult_objects_that_count_are_noted(devkit):
    """VOC's own scores leave them out; nothing said that these do not."""
    assert opened(devkit).notes == ()
    write_difficult(devkit)
    assert opened(devkit).notes == (f"train: {DIFFICULT}: 1.",)
    assert opened(devkit, difficult=False).notes == ()


def write_difficult(devkit):
    text = xml(("car", 1, 1, 20, 20, 0), ("dog", 6, 6, 10, 15, 1))
    (devkit / "VOC2007" / "Annotations" / "000001.xml").write_text(text)


def test_difficult_objects_can_be_left_out(devkit):
    write_difficult(devkit)
    source = opened(devkit, difficult=False)
    assert load_scenes(source, "train", 20).classes[0].tolist() == [CAR]
    assert source.fingerprint != opened(devkit).fingerprint


def test_segments_are_class_ids_with_an_ignored_border(devkit):
    source = opened(devkit, task="segmentation", train=["2007/train"], test=["2007/val"])
    loaded = load_scenes(source, "train", 20)
    assert loaded.semantic.unique().tolist() == [0, DOG + 1, 255] and loaded.classes[0].tolist() == []
    assert (loaded.semantic[0, 5:15, 5:15] == DOG + 1).all() and loaded.semantic[0, 4, 4] == 255


def saved(devkit, values, palette=None):
    """Segments of the image 000001, saved in the place of the fixture's."""
    picture = Image.fromarray(np.uint8(values), "P" if palette else None)
    if palette:
        picture.putpalette(palette)
    picture.save(devkit / "VOC2007" / "SegmentationClass" / "000001.png")


@pytest.mark.parametrize(
    ("values", "colours", "text"),
    [
        (
            [[0, 255]],
            None,
            "hold 0, 255 alone, where 0 is the background and 255 the ignored border: there is one class",
        ),
        ([[0, 38]], None, "000001.png' holds the class 38; VOC has 0 to 20, and 255 for borders"),
        (
            [[0, 1]],
            [0, 0, 0, 192, 128, 128],
            r"gives the class 1 the colour \[192, 128, 128\], which is VOC's of the class 15. Image tools renumber",
        ),
    ],
)
def test_segments_that_are_no_classes_of_voc_are_refused(devkit, values, colours, text):
    """Masks of 0 and 255 gave an mIoU of 100, renumbered palettes that of other classes."""
    saved(devkit, values, colours)
    with pytest.raises(DataError, match=text):
        opened(devkit, task="segmentation", train=["2007/train"], test=["2007/val"])


def test_segments_in_colour_are_refused_when_they_are_opened(devkit):
    saved(devkit, np.full((20, 20, 3), (192, 128, 128)))
    with pytest.raises(DataError, match=r"000001.png' is a coloured picture \(RGB\)"):
        opened(devkit, task="segmentation", train=["2007/train"], test=["2007/val"])


def test_vocs_own_palette_is_known():
    """Colours of the development kit's VOClabelcolormap: background, aeroplane, person, tvmonitor."""
    colours = {0: [0, 0, 0], 1: [128, 0, 0], 15: [192, 128, 128], 20: [0, 64, 128]}
    assert {number: colour_of(number) for number in colours} == colours


def test_another_annotation_is_another_source(devkit):
    before = opened(devkit).fingerprints
    assert opened(devkit).fingerprints == before
    (devkit / "VOC2007" / "Annotations" / "000003.xml").write_text(xml(("dog", 3, 5, 9, 9, 0)))
    after = opened(devkit).fingerprints
    assert after["test"] != before["test"] and after["train"] == before["train"]
    moved = devkit.rename(devkit.parent / "a place, with (signs)")
    assert opened(moved).fingerprints == after  # the content, not the place
    assert load_scenes(opened(moved), "test", 20).boxes[0].tolist() == [[2, 4, 9, 9]]


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        ("ImageSets/Main/test.txt", None, r"cannot read the set '.*test.txt': No such file"),
        ("JPEGImages/000003.jpg", None, r"the image '.*000003.jpg' is listed but does not exist"),
        ("Annotations/000003.xml", None, r"cannot read the annotations '.*000003.xml': No such file"),
        ("Annotations/000003.xml", "<annotation>", r"'.*000003.xml' is not XML"),
        ("Annotations/000003.xml", xml(("wolf", 1, 1, 2, 2, 0)), "object 0: 'wolf' is none of VOC's 20 classes"),
        ("Annotations/000003.xml", xml(("dog", "", 1, 2, 2, 0)), "its bndbox needs xmin, ymin, xmax and ymax"),
        (
            "Annotations/000003.xml",
            xml(("dog", "nan", 1, 2, 2, 0)),
            "object 0: its bndbox is nan, 1, 2, 2; it needs fin",
        ),
        ("Annotations/000003.xml", xml(("dog", 9, 1, 2, 2, 0)), "object 0: its bndbox is 9, 1, 2, 2; it needs finite"),
        (
            "Annotations/000003.xml",
            xml(("dog", 3, 5, 8, 9, 0), size=SIZE.format(20, 30)),
            "is 20x20, its annotations are for a picture of 20x30",
        ),
        ("Annotations/000003.xml", xml(size=SIZE.format("x", 30)), r"000003.xml': its size is not in pixels"),
        (
            "Annotations/000003.xml",
            xml(("dog", 0.1, 0.2, 0.5, 0.6, 0)),
            "the boxes of '.*VOC2007' are shares of the image; VOC's are in pixels",
        ),
        ("JPEGImages/000003.jpg", "no image", r"'.*000003.jpg' cannot be decoded \(not an image"),
    ],
)
def test_bad_files_are_named(devkit, file, text, error):
    path = devkit / "VOC2007" / file
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=error):
        opened(devkit)


def test_wrong_options_say_what_is_right(devkit):
    with pytest.raises(UsageError, match="unknown task of VOC 'detect'; did you mean 'detection'"):
        opened(devkit, task="detect")
    with pytest.raises(UsageError, match="'trainval' is not of the form YEAR/SET"):
        opened(devkit, train=["trainval"])
    with pytest.raises(UsageError, match="name at least one set in train and one in test"):
        opened(devkit, test=[])
    (devkit / "VOC2007" / "SegmentationClass" / "000001.png").unlink()
    with pytest.raises(DataError, match=r"'.*000001.png' is missing, the segments of 000001"):
        opened(devkit, task="segmentation", train=["2007/train"], test=["2007/val"])


# ---------------------------------------------------------------- what other tools write


def test_replaced_pixels_are_another_set(devkit):
    """F4: files of one size were one content."""
    for name in ("000001", "000002", "000003"):
        Image.new("RGB", (20, 20), (9, 9, 9)).save(devkit / "VOC2007" / "JPEGImages" / f"{name}.jpg")
    before, file = opened(devkit).fingerprints, devkit / "VOC2007" / "JPEGImages" / "000003.jpg"
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    after = opened(devkit).fingerprints
    assert after["test"] != before["test"] and after["train"] == before["train"]


@pytest.mark.parametrize("size", ["", SIZE.format(0, 0), SIZE.format(20, 20), SIZE.format("20.0", " 20 ")])
def test_sizes_may_be_missing_or_0(devkit, size):
    (devkit / "VOC2007" / "Annotations" / "000003.xml").write_text(xml(("dog", 3, 5, 8, 9, 0), size=size))
    assert load_scenes(opened(devkit), "test", 20).boxes[0].tolist() == [[2, 4, 8, 9]]


def test_images_with_other_endings_and_listed_twice(devkit):
    year = devkit / "VOC2007"
    Image.new("RGB", (20, 20)).save(year / "JPEGImages" / "000003.png")
    (year / "JPEGImages" / "000003.jpg").unlink()
    (year / "ImageSets" / "Main" / "test.txt").write_text("000003\n000003  1\n")
    source = opened(devkit)
    assert len(source.split("test")) == 1 and source.notes == ("test: Images that are listed twice and count once: 1.",)


def test_boxes_that_begin_at_0_are_noted(devkit):
    (devkit / "VOC2007" / "Annotations" / "000003.xml").write_text(xml(("dog", 0, 5.5, 8, 9.25, 0)))
    source = opened(devkit)
    assert load_scenes(source, "test", 20).boxes[0].tolist() == [[0, 4.5, 8, 9.25]]
    assert source.notes[-1].startswith("test: Boxes that begin at 0 or below, where VOC's pixels count from 1")


def test_boxes_belong_to_the_upright_picture(devkit):
    """F8: the picture lay on its side. The box covers what is white."""
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = 8
    upright = Image.fromarray(pixels)
    file = devkit / "VOC2007" / "JPEGImages" / "000003.jpg"
    upright.transpose(Image.Transpose.ROTATE_270).save(file, exif=exif, quality=95)
    annotation = devkit / "VOC2007" / "Annotations" / "000003.xml"
    annotation.write_text(xml(("dog", 1, 1, 10, 10, 0), size=SIZE.format(20, 10)))
    loaded = load_scenes(opened(devkit), "test", 10)
    assert loaded.boxes[0].tolist() == [[0, 0, 5, 10]]
    assert (loaded.images[0][:, loaded.instances[0][0]] > 240).float().mean() > 0.9
    annotation.write_text(xml(("dog", 1, 1, 10, 10, 0), size=SIZE.format(10, 20)))
    with pytest.raises(DataError, match="is stored as 10x20 and turned to 20x10 by its EXIF orientation"):
        opened(devkit)


DOG_BOX = xml(("dog", 3, 5, 8, 9, 0))
CAPITALS = DOG_BOX.replace("object>", "Object>").replace("name>", "Name>").replace("bndbox>", "BndBox>")


@pytest.mark.parametrize(
    "text",
    [
        DOG_BOX.replace("<annotation>", '<annotation xmlns="http://x.org/a">'),
        DOG_BOX.replace("<annotation>", '<v:annotation xmlns:v="a">').replace("</annotation>", "</v:annotation>"),
        CAPITALS,
        '<?xml version="1.0" encoding="latin-1"?><!-- of a tool -->' + DOG_BOX,
        DOG_BOX.replace("</object>", "<part><name>head</name><bndbox><xmin>3</xmin></bndbox></part></object>"),
    ],
)
def test_namespaces_and_capitals_are_read(devkit, text):
    """No object was found, and nothing was said."""
    (devkit / "VOC2007" / "Annotations" / "000003.xml").write_text(text)
    loaded = load_scenes(opened(devkit), "test", 20)
    assert loaded.boxes[0].tolist() == [[2, 4, 8, 9]] and loaded.classes[0].tolist() == [DOG]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            f"<annotations>{DOG_BOX}</annotations>",
            r"000003.xml' holds <annotations>; VOC's files hold one <annotation>",
        ),
        (
            DOG_BOX.replace("<object>", "<objects><object>").replace("</object>", "</object></objects>"),
            "an object or a box in <objects> would be missed; VOC's are <object> with <bndbox>, directly in",
        ),
        (DOG_BOX.replace("object>", "item>"), "an object or a box in <item> would be missed"),
        (
            DOG_BOX.replace("<bndbox>", "<bndbox><xmin>1</xmin></bndbox><bndbox>"),
            "object 0: it has 2 <bndbox>; write one",
        ),
        (
            DOG_BOX.replace("<name>", "<name>cat</name><name>"),
            "000003.xml' object 0: it has 2 <name>; write one <object>",
        ),
        (DOG_BOX.replace("<xmin>", "<xmin>1</xmin><xmin>"), "object 0: it has 2 <bndbox/xmin>"),
        (
            '<?xml version="1.0" encoding="GBK"?>' + DOG_BOX,
            r"000003.xml' has an encoding that cannot be read \(multi-byte.*\); save it as UTF-8",
        ),
        (
            '<?xml version="1.0" encoding="none"?>' + DOG_BOX,
            r"000003.xml' has an encoding that cannot be read \(unknown encoding: none\); save it as UTF-8",
        ),
        (xml(), r"'test' of '.*VOCdevkit' holds no object \(images: 1\); check its sets and annotations"),
    ],
)
def test_what_hides_objects_is_refused(devkit, text, error):
    """Such files gave no object, or the first of two boxes and names."""
    (devkit / "VOC2007" / "Annotations" / "000003.xml").write_text(text)
    with pytest.raises(DataError, match=error):
        opened(devkit)


def test_a_split_of_difficult_objects_or_of_no_images_is_refused(devkit):
    year = devkit / "VOC2007"
    (year / "Annotations" / "000003.xml").write_text(xml(("dog", 3, 5, 8, 9, 1)))
    with pytest.raises(DataError, match=r"'test' of .* holds no object that is not marked as difficult \(images: 1\)"):
        opened(devkit, difficult=False)
    assert len(opened(devkit).split("test")) == 1
    (year / "ImageSets" / "Main" / "test.txt").write_text("\n")
    with pytest.raises(DataError, match="2007/test of '.*VOCdevkit' lists no image; give sets with images"):
        opened(devkit)


# ---------------------------------------------------------------- sets


def with_images(devkit, *names):
    """More images, each with a dog."""
    year = devkit / "VOC2007"
    for name in names:
        (year / "Annotations" / f"{name}.xml").write_text(DOG_BOX)
        Image.new("RGB", (20, 20), (0, 9, 0)).save(year / "JPEGImages" / f"{name}.jpg")


def listing(devkit, text, encoding="utf-8"):
    """The set 2007/test."""
    (devkit / "VOC2007" / "ImageSets" / "Main" / "test.txt").write_text(text, encoding=encoding)


def names_of(source):
    """The files of the split test."""
    rows = source.split("test").cast_column("image", ImageFeature(decode=False))
    return [Path(row["image"]["path"]).name for row in rows]


def test_sets_of_one_class_leave_out_the_images_without_it(devkit):
    """All images were read, also those with -1."""
    with_images(devkit, "000004", "000005", "000006", "000007")
    listing(devkit, "000003 -1\n000004  1\n000005  0\n000006 -1\n000007 -1\n")
    source = opened(devkit)
    assert names_of(source) == ["000004.jpg", "000005.jpg"]
    assert source.notes == ("test: Images that their set marks with -1 and that are left out: 3.",)
    (devkit / "VOC2007" / "ImageSets" / "Main" / "dog_test.txt").write_text("000003 -1\n000004 -1\n000006  1\n")
    both = opened(devkit, test=["2007/test", "2007/dog_test"])
    assert names_of(both) == ["000004.jpg", "000005.jpg", "000006.jpg"]
    assert both.notes == ("test: Images that their set marks with -1 and that are left out: 2.",)


def test_names_may_hold_spaces(devkit):
    """The first word was read, the name of another image."""
    with_images(devkit, "000003 (2)", "a b", "a 1")
    listing(devkit, "000003 (2)\na b 1\na 1\n")
    assert names_of(opened(devkit)) == ["000003 (2).jpg", "a b.jpg", "a 1.jpg"]


def test_a_byte_order_mark_is_no_part_of_a_name(devkit):
    listing(devkit, "000003\n", encoding="utf-8-sig")
    assert names_of(opened(devkit)) == ["000003.jpg"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "000003\n000003 2\n",
            r"test.txt' line 2: there is no image '000003 2' in JPEGImages; a line is the name of an image without the "
            "ending, and in sets of one class -1, 0 or 1 after it",
        ),
        ("000003.jpg\n", "test.txt' line 1: '000003.jpg'; write the names of images without the ending .jpg"),
        ("\n000003.jpg  1\n", "test.txt' line 2: '000003.jpg'; write the names of images without the ending .jpg"),
        ("a b.jpg\n", "test.txt' line 1: 'a b.jpg'; write the names of images without the ending .jpg"),
        (
            "a b 1\n",
            "test.txt' line 1: 'a b 1' is the name of an image, and also that of another one, 'a b', with the mark 1; "
            "rename one of them",
        ),
        (
            "000003 -1\n",
            "2007/test of '.*VOCdevkit' lists no image, and marks 1 with -1; give sets with images",
        ),
    ],
)
def test_lines_without_one_meaning_are_named(devkit, text, error):
    with_images(devkit, "a b", "a b 1")
    listing(devkit, text)
    with pytest.raises(DataError, match=error):
        opened(devkit)


def test_sets_that_are_not_utf_8_are_named(devkit):
    """PowerShell writes UTF-16."""
    listing(devkit, "000003\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"the set '.*test.txt' is no text in UTF-8 \(.*\); save it as UTF-8"):
        opened(devkit)


def test_an_empty_set_of_segments_is_refused(devkit):
    (devkit / "VOC2007" / "ImageSets" / "Segmentation" / "val.txt").write_text("")
    with pytest.raises(DataError, match="2007/val of '.*VOCdevkit' lists no image; give sets with images"):
        opened(devkit, task="segmentation", train=["2007/train"], test=["2007/val"])


# ---------------------------------------------------------------- annotations and their images


def name_files(devkit, names):
    """A set of these images, whose <filename> is that of the values."""
    with_images(devkit, *names)
    for name, written in names.items():
        text = DOG_BOX.replace("<annotation>", f"<annotation><filename>{written}</filename>")
        (devkit / "VOC2007" / "Annotations" / f"{name}.xml").write_text(text)
    listing(devkit, "".join(f"{name}\n" for name in names))


def test_annotations_that_name_another_file_are_counted(devkit):
    name_files(devkit, {"000003": "000004.jpg", "000004": "000003.jpg", "000005": "000005.jpg", "000006": "gone.jpg",
                        "000007": "", "000008": "000008.jpg"})  # fmt: skip
    note = "test: Annotations whose <filename> names another file: 3 of 6."
    assert opened(devkit).notes == (note,)


@pytest.mark.parametrize("written", ["000003.png", r"C:\data\set 1\000003.JPG", "/home/me/000003.jpeg", "000003", " "])
def test_folder_and_ending_of_a_named_file_say_nothing(devkit, written):
    name_files(devkit, {"000003": written})
    assert opened(devkit).notes == ()


def test_names_with_dots_and_capitals_are_the_same(devkit):
    name_files(devkit, {"Photo.a": "photo.a.JPG", "b.1": "b.1"})
    assert opened(devkit).notes == ()


def test_annotations_of_other_images_are_refused(devkit):
    """Labels of images that were exchanged belong to no picture of theirs."""
    name_files(devkit, {"000003": "000004.png", "000004": "x/000005.jpg", "000005": "000005.jpg"})
    text = (
        "'test' of '.*VOCdevkit': the <filename> of 2 of 3 annotations is that of another image in JPEGImages, so the "
        "annotations belong to other images; give each file of annotations the name of its image"
    )
    with pytest.raises(DataError, match=text):
        opened(devkit)
    name_files(devkit, {"000003": "4.png", "000004": "5.jpg", "000005": "6.jpg"})  # images that were renamed
    assert opened(devkit).notes == ("test: Annotations whose <filename> names another file: 3 of 3.",)


def test_objects_that_are_there_twice_count_once(devkit):
    dogs = [("dog", 3, 5, 8, 9, 0), ("dog", 3, 5, 8, 9, 0), ("dog", 3, 5, 8, 9, 1), ("dog", 3, 5, 8, 10, 0)]
    (devkit / "VOC2007" / "Annotations" / "000003.xml").write_text(xml(*dogs, ("car", 3, 5, 8, 9, 0)))
    source = opened(devkit)
    assert source.split("test")[0]["objects"]["bbox"] == [[2, 4, 6, 5], [2, 4, 6, 6], [2, 4, 6, 5]]
    assert source.split("test")[0]["objects"]["category"] == [DOG, DOG, CAR]
    assert source.notes == ("test: Objects that are annotated twice and count once: 2.",)


def test_images_without_objects_and_boxes_in_percent_are_noted(devkit):
    with_images(devkit, "000004", "000005")
    for name in ("000004", "000005"):
        (devkit / "VOC2007" / "Annotations" / f"{name}.xml").write_text(xml())
    listing(devkit, "000003\n000004\n000005\n")
    (note,) = opened(devkit).notes
    assert note.startswith("test: Images without objects, which count as negatives: 2 of 3. Leave out those")
    listing(devkit, "000003\n")
    boxes = [("dog", 1 + 4 * k, 1, 20 + 4 * k, 100, 0) for k in range(20)]
    (devkit / "VOC2007" / "Annotations" / "000003.xml").write_text(xml(*boxes))
    Image.new("RGB", (160, 200)).save(devkit / "VOC2007" / "JPEGImages" / "000003.jpg")
    assert opened(devkit).notes == (f"test: {PERCENT}",)


def test_images_that_were_enlarged_after_they_were_annotated_are_noted(devkit):
    listing(devkit, "000003\n")
    boxes = [("dog", 1 + k, 1, 60 + k, 50, 0) for k in range(20)]
    (devkit / "VOC2007" / "Annotations" / "000003.xml").write_text(xml(*boxes))
    Image.new("RGB", (160, 100)).save(devkit / "VOC2007" / "JPEGImages" / "000003.jpg")
    assert opened(devkit).notes == (f"test: {UPPER_LEFT.format(20)}",)


# ---------------------------------------------------------------- segments that do not keep ids


def grey_png(bits, values):
    """A PNG of one row of grey values with few bits a pixel, as its specification says; Pillow writes none."""
    row = "".join(f"{value:0{bits}b}" for value in values)
    row += "0" * (-len(row) % 8)
    head = struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0)
    data = zlib.compress(b"\0" + int(row, 2).to_bytes(len(row) // 8, "big"))
    chunks = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    packed = [
        struct.pack(">I", len(one)) + kind + one + struct.pack(">I", zlib.crc32(kind + one)) for kind, one in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(("bits", "factor"), [(2, 85), (4, 17)])
def test_grey_segments_of_few_bits_are_refused(devkit, bits, factor):
    """The class 1 arrived as 17."""
    file = devkit / "VOC2007" / "SegmentationClass" / "000001.png"
    file.write_bytes(grey_png(bits, [0, 1, 0]))
    assert np.asarray(Image.open(file)).max() == factor  # what Pillow makes of it
    text = f"000001.png' is a grey PNG of {bits} bits a pixel, whose ids would be read {factor} times as large; save it"
    with pytest.raises(DataError, match=text):
        opened(devkit, task="segmentation", train=["2007/train"], test=["2007/val"])


def test_segments_of_few_bits_with_a_palette_and_of_one_bit_keep_their_ids(devkit):
    file = devkit / "VOC2007" / "SegmentationClass" / "000001.png"
    file.write_bytes(grey_png(1, [0, 1, 0]))
    opened(devkit, task="segmentation", train=["2007/train"], test=["2007/val"])
    picture = Image.fromarray(np.uint8([[0, 1, 3]]), "P")
    picture.putpalette([c for number in range(4) for c in colour_of(number)])
    picture.save(file)
    assert file.read_bytes()[24] == 2  # bits a pixel
    source = opened(devkit, task="segmentation", train=["2007/train"], test=["2007/val"])
    assert np.asarray(source.split("train")[0]["mask"]).tolist() == [[0, 1, 3]]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_segments_that_are_jpeg_are_refused(devkit, mode):
    """Their borders held the classes between those on both sides."""
    file = devkit / "VOC2007" / "SegmentationClass" / "000001.png"
    Image.fromarray(np.uint8([[0, 15]]).repeat(8, 0).repeat(8, 1)).convert(mode).save(file, "JPEG")
    with pytest.raises(DataError, match="000001.png' is a JPEG, whatever its ending; JPEG keeps no class ids: use the"):
        opened(devkit, task="segmentation", train=["2007/train"], test=["2007/val"])


ANGLE = "<attributes><attribute><name>rotation</name><value>{}</value></attribute></attributes>"


@pytest.mark.parametrize(
    ("extra", "note"),
    [
        ("<deleted>1</deleted>", "marked as deleted, as LabelMe keeps them, which are left out: 1."),
        ("<deleted>0</deleted>", None),
        (
            "<attributes><attribute><name>difficult</name><value>true</value></attribute></attributes>",
            "marked as difficult and count like others (data.options.difficult=false leaves them out): 1.",
        ),
        (
            ANGLE.format("30.0"),
            "Boxes with a rotation (attributes.rotation) and without a segmentation, which are taken",
        ),
        (ANGLE.format("0.0"), None),
        ("<ignore>1</ignore>", "have another mark of this kind (ignore, outside, group_of) and count like others: 1."),
        (ANGLE.replace("rotation", "outside").format("true"), "have another mark of this kind"),
        ("<ignore>0</ignore>", None),
        ("<invalid>1</invalid>", "have another mark of this kind"),
        ("<confidence>0.07</confidence>", "Objects with a score below 0.5, as those of a detector, which count like"),
        ("<confidence>0.9</confidence><score>high</score>", None),
        (
            "<polygon><x1>6</x1><y1>6</y1><x2>10</x2><y2>6</y2><x3>8</x3><y3>15</y3></polygon>",
            "Objects with a <polygon>, which is not read: their box is drawn filled: 1.",
        ),
        (ANGLE.format("180"), None),
        (ANGLE.replace("rotation", "age").format("30"), None),
        ("<pose>Left</pose><truncated>1</truncated><occluded>1</occluded>", None),
    ],
)
def test_deleted_objects_are_left_out_and_what_is_not_read_is_noted(devkit, extra, note):
    """They were read as objects like others, without a word."""
    text = xml(("car", 1, 1, 20, 20, 0), ("dog", 6, 6, 10, 15, 0)).replace(
        "<name>dog</name>", f"<name>dog</name>{extra}"
    )
    (devkit / "VOC2007" / "Annotations" / "000001.xml").write_text(text)
    source = opened(devkit)
    assert len(source.notes) == (note is not None)
    assert note is None or (source.notes[0].startswith("train: ") and note in source.notes[0])
    assert len(source.split("train")[0]["objects"]["category"]) == 2 - extra.startswith("<deleted>1")


def test_a_split_whose_objects_are_all_deleted_is_refused(devkit):
    text = xml(("dog", 3, 5, 8, 9, 0)).replace("</name>", "</name><deleted>1</deleted>")
    (devkit / "VOC2007" / "Annotations" / "000003.xml").write_text(text)
    with pytest.raises(DataError, match=r"holds no object \(images: 1, objects marked as deleted: 1\); check its sets"):
        opened(devkit)
