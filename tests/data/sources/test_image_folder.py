"""Folders of images, with splits or split here; what is missing is named."""

import re
import shutil

import pytest
from PIL import Image

from scd.data.images import load_images
from scd.data.sources.image_folder import LAYOUT, ImageFolder
from scd.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path):
    """A class folder set with train/ and test/: 2 classes, 6 + 4 images."""
    for split, count in (("train", 3), ("test", 2)):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (30, 20), (100 * number, i, 0)).save(tmp_path / "pets" / split / name / f"{i}.png")
    return tmp_path / "pets"


def test_splits_and_classes_are_folders(folder):
    source = ImageFolder(str(folder))
    assert source.name == "pets" and source.class_names == ("cat", "dog")
    assert source.splits["train"]["label"][:] == [0, 0, 0, 1, 1, 1] and len(source.splits["test"]) == 4
    assert ImageFolder(folder).fingerprints == source.fingerprints
    images = load_images(source, "test", 16)
    assert images.images.shape == (4, 3, 16, 16) and images.images[3, :, 8, 8].tolist() == [100, 1, 0]
    (folder / "test").rename(folder / "val")
    assert set(ImageFolder(folder).splits) == {"train", "validation"}


def test_the_training_split_does_not_depend_on_the_test_split(folder):
    before = ImageFolder(folder)
    (folder / "test" / "ape").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "test" / "ape" / "0.png")
    after = ImageFolder(folder)
    assert after.class_names == ("cat", "dog", "ape")  # training classes keep their numbers
    assert after.fingerprints["train"] == before.fingerprints["train"]
    assert after.fingerprints["test"] != before.fingerprints["test"]
    assert sorted(after.split("test")["label"][:]) == [0, 0, 1, 1, 2]


def test_one_folder_is_split_the_same_way_every_time(folder):
    source = ImageFolder(folder / "train", test_fraction=0.34)
    assert {split: len(d) for split, d in source.splits.items()} == {"train": 4, "test": 2}
    assert sorted(source.splits["test"]["label"][:]) == [0, 1]  # class by class
    assert ImageFolder(folder / "train", test_fraction=0.34).fingerprints == source.fingerprints
    loose = ImageFolder(folder / "train" / "cat")
    assert loose.class_names is None and "label" not in loose.splits["train"].column_names


def test_bad_folders_say_so(tmp_path, folder):
    with pytest.raises(DataError, match="no such folder: '/nowhere/images'"):
        ImageFolder("/nowhere/images")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no images and no train.parquet in"):
        ImageFolder(tmp_path / "nothing")
    (folder / "val").mkdir()
    with pytest.raises(DataError, match=r"no images in '.*val'"):
        ImageFolder(folder)
    with pytest.raises(UsageError, match="test_fraction is 1.0, it must lie strictly between 0 and 1"):
        ImageFolder(folder, test_fraction=1)
    with pytest.raises(DataError, match=r"too few images \(3\) for a test split of 0.1"):
        ImageFolder(folder / "train" / "cat", test_fraction=0.1)


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, 0, 0)).save(path)
    return path


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("Train", "Test", "test"),
        ("training", "testing", "test"),
        ("TRAIN", "eval", "test"),
        ("train", "dev", "validation"),
        ("Training", "valid", "validation"),
    ],
)
def test_usual_names_of_splits(folder, train, other, split):
    """F11: 'Train' and 'Test', or 'training' and 'testing', became two classes."""
    (folder / "train").rename(folder / train)
    (folder / "test").rename(folder / other)
    found = ImageFolder(folder)
    assert {name: len(rows) for name, rows in found.splits.items()} == {"train": 6, split: 4}
    assert found.class_names == ("cat", "dog") and found.notes == ()


def test_two_names_of_one_split_are_an_error(folder):
    picture(folder / "val" / "cat" / "1.png")
    picture(folder / "dev" / "cat" / "1.png")
    with pytest.raises(DataError, match="two names of the validation split, 'dev' and 'val'; keep one"):
        ImageFolder(folder)


def test_hidden_folders_and_other_files_are_no_classes(folder):
    """F10: .ipynb_checkpoints became a class."""
    before = ImageFolder(folder)
    picture(folder / "train" / ".ipynb_checkpoints" / "1.png")
    picture(folder / "train" / "cat" / ".ipynb_checkpoints" / "1-checkpoint.png")
    (folder / "train" / "cat" / "Thumbs.db").touch()
    (folder / "train" / "bird").mkdir()
    after = ImageFolder(folder)
    assert after.class_names == ("cat", "dog") and after.fingerprint == before.fingerprint
    assert after.notes == (
        "Files that are no images, not read (1: 1 .db): 'train/cat/Thumbs.db'.",
        "Hidden names and folders of the system, not read (2): 'train/.ipynb_checkpoints', "
        "'train/cat/.ipynb_checkpoints'.",
        "Folders without images (1): 'train/bird'.",
    )


@pytest.mark.parametrize(
    ("stray", "text"),
    [
        ("train/stray.png", "the image '.*train/stray.png' lies beside the class folders of '.*train' .1 such images."),
        (
            "train/cat/more/1.png",
            "'.*train/cat/more/1.png' lies too deep for a class folder of '.*train'; expected F",
        ),
        (
            "train/masks/cat/1.png",
            "lies too deep .*; 'masks' may mean masks or images: these are given as parquet files",
        ),
        ("holdout/more/deep/1.png", None),
    ],
)
def test_images_in_other_places_are_named(folder, stray, text):
    """F11: one stray image, or a second level, dropped the labels silently."""
    path = picture(folder / stray)
    if text is None:
        assert ImageFolder(folder).notes == ("Images beside train and test, not read (1): 'holdout/more/deep/1.png'.",)
        return
    with pytest.raises(DataError, match=text):
        ImageFolder(folder)
    path.unlink()
    assert ImageFolder(folder).class_names == ("cat", "dog")


def test_a_folder_of_images_beside_many_images_is_named(tmp_path):
    for number in range(5):
        picture(tmp_path / f"{number}.png")
    picture(tmp_path / "originals" / "1.png")
    with pytest.raises(DataError, match="the folder '.*originals' lies beside the 5 images of"):
        ImageFolder(tmp_path)


def test_one_folder_of_all_images_is_no_label(tmp_path):
    """Every image had the class 'photos', and kNN an accuracy of 1."""
    for number in range(5):
        picture(tmp_path / "photos" / f"{number}.png", number)
    found = ImageFolder(tmp_path)
    assert found.class_names is None and not found.labelled
    assert found.notes == ("All images lie in folders called 'photos', which is no label.",)


def test_a_class_called_train(tmp_path):
    """F11: a class 'train' beside 'bus' was taken for the training split."""
    for name in ("train", "bus", "car"):
        for number in range(5):
            picture(tmp_path / name / f"{number}.png", number)
    found = ImageFolder(tmp_path)
    assert found.class_names == ("bus", "car", "train") and {len(rows) for rows in found.splits.values()} == {12, 3}
    picture(tmp_path / "test" / "1.png")
    with pytest.raises(DataError, match="'.*bus' holds images beside the splits train and test, which have no class f"):
        ImageFolder(tmp_path)


def test_an_unknown_name_beside_a_split_is_named(folder):
    (folder / "test").rename(folder / "holdout")
    with pytest.raises(DataError, match="has train, and 'holdout' is the name of no split; name the folders train and"):
        ImageFolder(folder)


def test_each_split_has_labels_of_its_own_or_none(folder):
    """F2: a test split without class folders removed the training labels."""
    for path in sorted((folder / "test").glob("*/*.png")):
        path.rename(folder / "test" / f"{path.parent.name}{path.name}")
    for name in ("cat", "dog"):
        (folder / "test" / name).rmdir()
    found = ImageFolder(folder)
    assert found.splits["train"]["label"][:] == [0, 0, 0, 1, 1, 1] and found.splits["test"].column_names == ["image"]
    assert found.notes == ("The test images have no labels.",)


def test_bad_files_are_named(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(5):
        (tmp_path / "a" / f"{i}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"row 0 \(.*\.png\): the image cannot be decoded"):
        load_images(ImageFolder(tmp_path), "train", 8)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("images", "masks"), "are no classes, but parts of one data set"),
        (("JPEGImages", "SegmentationClass", "SegmentationObject"), "are no classes, but parts of one data set"),
        (("DUTS-TR-Image", "DUTS-TR-Mask"), "are no classes, but parts of one data set"),
        (("train2017", "val2017"), "look like splits, not classes"),
        (("training_set", "test_set"), "look like splits, not classes"),
        (("cars_train", "cars_test"), "look like splits, not classes"),
        (("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"), "but parts of one data set"),
        (("DUTS-TR-Input", "DUTS-TR-Truth", "DUTS-TE-Input", "DUTS-TE-Truth"), "but parts of one data set"),
    ],
)
def test_folders_that_are_no_classes_are_refused(tmp_path, names, text):
    """Images and masks, or two splits, used to become two classes."""
    write_classes(tmp_path, names)
    with pytest.raises(DataError, match=text):
        ImageFolder(tmp_path)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("labeled", "unlabeled", "test"), "'labeled', 'test', 'unlabeled'"),
        (("train", "unlabeled"), "'train', 'unlabeled'"),
        (("train", "heldout"), "'heldout', 'train'"),
        (("train", "held_out"), "'held_out', 'train'"),
        (("gallery", "probe", "test"), "'gallery', 'probe', 'test'"),
        (("query", "gallery"), "'gallery', 'query'"),
        (("bounding_box_train", "bounding_box_test", "query"), "'bounding_box_test', 'bounding_box_train', 'query'"),
        (("cat", "dog", "test"), "'test' beside 'cat', 'dog'"),
        (("photos_train", "photos_val", "extra"), "'photos_train', 'photos_val' beside 'extra'"),
    ],
)
def test_splits_beside_other_folders_are_refused(tmp_path, names, splits):
    """They became classes without a word."""
    write_classes(tmp_path, names)
    text = f"imagefolder: {splits} in '{tmp_path}' would be classes, but are names of splits; name the folders that"
    with pytest.raises(DataError, match=re.escape(text)):
        ImageFolder(tmp_path)


@pytest.mark.parametrize(
    ("names", "noted"),
    [
        (("bus", "train"), "'train'"),
        (("invalid", "valid"), "'valid'"),
        (("test tube", "train station", "vest"), None),
        (("labeled", "unlabeled"), "'labeled', 'unlabeled'"),
        (("gallery", "museum"), None),
        (("board", "dev_board", "test_board"), None),
    ],
)
def test_classes_with_names_of_splits(tmp_path, names, noted):
    write_classes(tmp_path, names)
    found = ImageFolder(tmp_path)
    assert found.class_names == names
    note = f"Folders that count as classes, although their names may mean splits: {noted}."
    assert [one for one in found.notes if "may mean splits" in one] == ([note] if noted else [])


def test_classes_inside_a_split_may_have_any_name(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        write_classes(tmp_path / split, ("test", "unlabeled"))
    assert ImageFolder(tmp_path).class_names == ("test", "unlabeled")


def test_classes_by_the_names_of_folders_are_named(tmp_path):
    write_classes(tmp_path, ("test tube", "Red", "red"))
    source = ImageFolder(tmp_path)
    assert source.description.endswith(", 3 classes by the names of folders: 'Red', 'red', 'test tube'")
    assert "Names of labels that are almost alike count as different classes (1): 'Red' and 'red'." in source.notes


def write_classes(folder, names):
    for place, name in enumerate(names):
        (folder / name).mkdir()
        for number in range(6):
            Image.new("RGB", (8, 8), (40 * place, number, 0)).save(folder / name / f"{number}.png")


@pytest.mark.parametrize("name", ["0_mask", "0_mask_1", "0-gt", "mask_0", "0.mask", "0_masks", "0_matte", "0_labelIds"])
def test_masks_beside_their_images_are_refused(folder, name):
    """They counted as further images of the class."""
    shutil.copy(folder / "train" / "cat" / "0.png", folder / "train" / "cat" / f"{name}.png")
    with pytest.raises(DataError, match=rf"cat/{name}.png' is a mask beside its image \(1 such files\)"):
        ImageFolder(folder)


def test_a_class_called_masks_is_noted(tmp_path):
    write_classes(tmp_path, ("cat", "dog", "masks"))
    assert any(note.endswith("may mean masks or images: 'masks'.") for note in ImageFolder(tmp_path).notes)


def test_faces_with_and_without_a_mask_are_classes(tmp_path):
    write_classes(tmp_path, ("with_mask", "without_mask"))
    assert ImageFolder(tmp_path).class_names == ("with_mask", "without_mask")


def test_a_folder_without_splits_says_how_its_test_images_are_chosen(tmp_path):
    ImageFolder.example(tmp_path)
    assert "by a hash" not in ImageFolder(tmp_path).description
    alone = ImageFolder(tmp_path / "train")
    assert alone.description.startswith(
        "images of the folder train, whose test images are chosen by a hash of their na"
    )


@pytest.mark.parametrize(("names", "is_noted"), [(("part1", "part2"), True), (("class1", "class2"), False)])
def test_parts_of_one_set_that_count_as_classes_are_noted(tmp_path, names, is_noted):
    ImageFolder.example(tmp_path)
    first, second, *_ = sorted((tmp_path / "train").iterdir())
    (tmp_path / "set").mkdir()
    for source, name in zip((first, second), names, strict=True):
        shutil.copytree(source, tmp_path / "set" / name)
    said = any("differ in a number alone" in note for note in ImageFolder(tmp_path / "set").notes)
    assert said == is_noted


def test_a_fraction_for_a_folder_that_has_splits_is_refused(folder):
    """It was ignored without a word."""
    text = (
        f"imagefolder: test_fraction splits a folder without splits, but '{folder}' has train and test; leave it out, "
    )
    with pytest.raises(UsageError, match=re.escape(f"{text}or give data={folder / 'train'} to split that folder")):
        ImageFolder(folder, test_fraction=0.5)
    assert set(ImageFolder(folder, test_fraction=None).splits) == {"train", "test"}


def test_classes_without_a_test_image_are_named(tmp_path):
    """Scores were of the larger classes alone, and nothing said so."""
    train = tmp_path / "pets" / "train"
    train.mkdir(parents=True)
    write_classes(train, ("cat", "dog"))
    for name in ("rare", "b", "c"):
        picture(train / name / "1.png")
    found = ImageFolder(train)
    assert found.class_names == ("b", "c", "cat", "dog", "rare")
    assert found.notes == ("Classes without a test image (3): 'b', 'c', 'rare'. Scores are of the others.",)
    for name in ("cat", "dog"):  # splits of one's own are not judged
        picture(tmp_path / "pets" / "test" / name / "1.png", 7)
    assert ImageFolder(tmp_path / "pets").notes == ()


def test_a_folder_called_none_is_a_class_with_a_note(tmp_path):
    write_classes(tmp_path, ("cat", "none"))
    found = ImageFolder(tmp_path)
    assert found.class_names == ("cat", "none")
    assert found.notes == ("Labels that may mean 'no label' and count as classes: 'none' (6 rows).",)


@pytest.mark.parametrize("wrapper", ["dataset", "a/b", "images"])
def test_a_folder_around_the_data_set_is_named(tmp_path, folder, wrapper):
    """The error named an image that lies too deep, and not the folder to give."""
    meant = tmp_path / "root" / wrapper
    shutil.copytree(folder, meant)
    picture(tmp_path / "root" / "docs" / "figure.png")
    with pytest.raises(DataError, match=rf"lies too deep for a class folder of .*; give data={meant}$"):
        ImageFolder(tmp_path / "root")
    assert ImageFolder(meant).class_names == ("cat", "dog")
    shutil.rmtree(tmp_path / "root" / "docs")
    shutil.rmtree(meant / "test")
    with pytest.raises(DataError, match=rf"; give data={meant / 'train'}$"):
        ImageFolder(tmp_path / "root")


def test_no_folder_is_named_where_several_may_be_meant(tmp_path, folder):
    for name in ("first", "second"):
        shutil.copytree(folder, tmp_path / "root" / name)
    with pytest.raises(DataError, match=rf"lies too deep .*; expected {re.escape(LAYOUT)}$"):
        ImageFolder(tmp_path / "root")
    for name in ("cat/old", "cat/young", "dog"):  # two levels of classes, and one
        picture(tmp_path / "levels" / name / "1.png")
    with pytest.raises(DataError, match=rf"lies too deep .*; expected {re.escape(LAYOUT)}$"):
        ImageFolder(tmp_path / "levels")


def test_pages_and_frames_that_are_not_read_are_counted(folder):
    """The further pages were left out without a word."""
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 99)]
    for place in ("train/cat/a.tif", "train/dog/b.gif", "test/dog/c.webp"):
        frames[0].save(folder / place, save_all=True, append_images=frames[1:])
    frames[0].save(folder / "train" / "cat" / "single.gif")
    found = ImageFolder(folder)
    assert found.notes == ("Files with several pages or frames, of which the first is read: 3.",)
    assert len(found.splits["train"]) == 9
    assert load_images(found, "train", 8).images.shape[0] == 9


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        (
            "train/data-00000-of-00001.arrow",
            "files of save_to_disk are not read; write train.parquet and test.parquet w",
        ),
        ("default/train/0000.parquet", "name the files: data=parquet data.locations.train=FILE"),
        ("train-000000.tar", "unpack the archives"),
    ],
)
def test_folders_of_other_files_say_what_to_do(tmp_path, file, advice):
    """The refusal said that there are no images in 'train'."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"x")
    text = f"imagefolder: no images in '{tmp_path}', which holds '{file}': {advice}"
    with pytest.raises(DataError, match=re.escape(text)):
        ImageFolder(tmp_path)
    picture(tmp_path / "train" / "cat" / "1.png")
    picture(tmp_path / "test" / "cat" / "1.png", 9)
    assert "Files that are no images, not read" in ImageFolder(tmp_path).notes[0]
