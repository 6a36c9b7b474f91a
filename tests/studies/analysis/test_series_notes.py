"""Videos of which both splits have frames: of images without labels, and of scenes in COCO's format."""

import json

import numpy as np
import pytest
from datasets import Dataset, Features, Image
from PIL import Image as PillowImage

from scd.data.sources.coco import Coco
from scd.data.sources.columns import read_columns
from scd.data.sources.png import encode_png
from scd.data.sources.source import Source
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.image_notes import notes_on_images
from studies.suite.analysis.series_notes import notes_on_shared_videos

NOTE = (
    "By their names, {} of the {} scored images belong to videos or series of training images (such as {}): if images"
)


def unlabelled(train: list[str], test: list[str]) -> EvaluationData:
    splits = {}
    for split, names in (("train", train), ("test", test)):
        cells = [{**encode_png(np.zeros((8, 8, 3), np.uint8)), "path": name} for name in names]
        splits[split] = Dataset.from_dict({"image": cells}, features=Features(image=Image()))
    return EvaluationData(Source(**read_columns("mine", splits, {split: [split] for split in splits})), 8)


def names(form: str, *numbers: int) -> list[str]:
    return [form.format(number) for number in numbers]


@pytest.mark.parametrize(
    ("train", "test", "pair"),
    [
        (names("frame_{:04}.png", 1, 2, 3), names("frame_{:04}.png", 4, 5), "'frame_0004.png' and 'frame_0001.png'"),
        (
            names("train/MOT-02/img1/{:06}.jpg", 1, 2),
            names("test/MOT-02/img1/{:06}.jpg", 3),
            "'test/MOT-02/img1/000003.jpg'",
        ),
        (names("a/M1/img{:06}.jpg", 1, 2), names("a/M1/img{:06}.jpg", 4, 5) + ["b/c.png"], "'a/M1/img000004.jpg'"),
        (  # frames of an uploaded video, as Roboflow exports them
            names("farm_mp4-{0}_jpg.rf.{0:032x}.jpg", 1, 2, 3),
            names("farm_mp4-{0}_jpg.rf.{0:032x}.jpg", 14, 15),
            "'farm_mp4-14_jpg.rf.0000000000000000000000000000000e.jpg' and 'farm_mp4-1_jpg.rf.",
        ),
        (
            names("frame{0}_jpg.rf.{0:032x}.jpg", 1, 2, 3),
            names("frame{0}_jpg.rf.{0:032x}.jpg", 14, 15),
            "'frame14_jpg.rf.0000000000000000000000000000000e.jpg' and 'frame1_jpg.rf.",
        ),
        (names("farm.mp4#t={}.5.jpg", 1, 2, 3), names("farm.mp4#t={}.5.jpg", 4, 5), "'farm.mp4#t=4.5.jpg' and"),  # VoTT
        (names("farm_mp{}.jpg", 1, 2, 3), names("farm_mp{}.jpg", 4, 5), None),
        (names("uav{}_1.jpg", 1, 2, 3), names("uav{}_2.jpg", 1, 2, 3), None),  # two images of each: too short
        (names("uav{}_1.jpg", 1, 1, 2, 2, 3, 3), names("uav{}_2.jpg", 1, 2, 3), "'uav1_2.jpg' and 'uav1_1.jpg'"),
        (  # tiles of three pictures, as SAHI and DOTA's kit name them
            names("P{}_0_0_8_8.jpg", 1, 2, 3) + names("P{}_0_8_8_16.jpg", 1, 2, 3),
            names("P{}_8_0_16_8.jpg", 1, 2, 3),
            "'P1_8_0_16_8.jpg' and 'P1_0_0_8_8.jpg'",
        ),
        (
            names("P{}__1__0___824.jpg", 1, 2, 3) + names("P{}__1__0___1648.jpg", 1, 2, 3),
            names("P{}__1__824___0.jpg", 1, 2, 3),
            "'P1__1__824___0.jpg' and 'P1__1__0___824.jpg'",
        ),
        (names("P{}_0_0_8_8.jpg", 1, 2, 3), names("P{}_0_0_8_8.jpg", 4, 5, 6), None),
        (names("IMG_2019_05_{:02}.jpg", 1, 2, 3), names("IMG_2019_06_{:02}.jpg", 1, 2, 3), None),
        (names("frame_{:04}.png", 1, 2, 3), names("other_{}.png", 4, 5) + ["frame_0005.png"], None),  # a few alone
        (names("video1_{}.png", 1, 2, 3), names("video2_{}.png", 4, 5), None),
        (names("train2017/{:012}.jpg", 9, 25, 30), names("val2017/{:012}.jpg", 139, 285), None),
        (names("VOC2007/JPEGImages/{:06}.jpg", 5, 7, 9), [*names("VOC2007/JPEGImages/{:06}.jpg", 1, 2)], None),
        (names("2007_{:06}.jpg", 5, 7, 9), names("2007_{:06}.jpg", 1, 2), None),
        (names("ILSVRC2012_test_{:08}.jpg", 4, 22, 23), names("ILSVRC2012_test_{:08}.jpg", 3, 5), None),  # DUTS
        (names("image_{:04}.jpg", 1, 2, 3), names("image_{:04}.jpg", 4, 5), None),  # flowers
        (names("IMG_{:04}.jpg", 1, 2, 3), names("IMG_{:04}.jpg", 4, 5), None),
        (names("train/images/{}.jpg", 1, 2, 3), names("test/images/{}.jpg", 4, 5), None),
        (
            [name for breed in ("pug", "boxer", "beagle") for name in names(breed + "_{}.jpg", 1, 2)],
            [name for breed in ("pug", "boxer", "beagle") for name in names(breed + "_{}.jpg", 3, 4)],
            None,
        ),
        (
            [name for word in ("n01440764", "n02102040", "n03000684") for name in names(word + "_{}.jpg", 1, 2)],
            [name for word in ("n01440764", "n02102040", "n03000684") for name in names(word + "_{}.jpg", 3, 4)],
            None,
        ),
    ],
)
def test_videos_of_which_both_splits_have_images_are_noted(train, test, pair):
    """Nothing was said where there are no classes in whose folders series are looked for."""
    notes = notes_on_shared_videos(unlabelled(train, test))
    assert len(notes) == (pair is not None)
    if pair:
        count = len([name for name in test if name != "b/c.png"])
        start, _, end = NOTE.format(count, len(test), pair).partition(pair)
        assert notes[0].startswith(start + pair) and end in notes[0]


@pytest.mark.parametrize(("other", "noted"), [("MOT17-02/img1", True), ("MOT17-04/img1", False), ("images", False)])
def test_videos_in_folders_of_coco_are_noted(tmp_path, other, noted):
    """The names of its files in the cache have no folders."""
    Coco.example(tmp_path)
    for split, first, folder in (("train", 0, "MOT17-02/img1"), ("test", 8, other)):
        content = json.loads((tmp_path / f"{split}.json").read_text())
        for image in content["images"]:
            old, image["file_name"] = image["file_name"], f"{folder}/{first + image['id']:06d}.png"
            new = tmp_path / split / image["file_name"]
            new.parent.mkdir(parents=True, exist_ok=True)
            PillowImage.open(tmp_path / split / old).save(new)
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    source = Coco(tmp_path / "train", tmp_path / "train.json", tmp_path / "test", tmp_path / "test.json")
    pair = "'MOT17-02/img1/000008.png' and 'MOT17-02/img1/000000.png'"
    notes = [note for note in notes_on_images(EvaluationData(source, 24)) if "videos" in note]
    assert len(notes) == noted
    if noted:
        assert notes[0].startswith(NOTE.format(4, 4, pair))
