"""Every kind of source opens as the same thing, and what is wrong with a user's data is said in one line."""

import io
import multiprocessing

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow

from scd.data.images import load_images
from scd.data.sources.source import open_source
from scd.errors import DataError, UsageError


def png(size=(20, 20), colour=(10, 20, 30), mode="RGB") -> bytes:
    file = io.BytesIO()
    Pillow.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


def mask_png(size=(20, 20), value=255) -> bytes:
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[:, : size[0] // 2] = value
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_parquet(path, images, **columns):
    """A parquet file of PNG images, with masks, and labels that are numbers or text."""
    features, data = {"image": Image()}, {"image": [{"bytes": image, "path": None} for image in images]}
    for name, values in columns.items():
        is_mask = name == "mask"
        data[name] = [{"bytes": value, "path": None} for value in values] if is_mask else values
        features[name] = Image() if is_mask else Value("string" if isinstance(values[0], str) else "int64")
    Dataset.from_dict(data, features=Features(features)).to_parquet(str(path))
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """A class folder set with train/ and test/: 2 classes, 6 + 4 images."""
    for split, count in (("train", 3), ("test", 2)):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for i in range(count):
                Pillow.new("RGB", (30, 20), (100 * number, i, 0)).save(tmp_path / "pets" / split / name / f"{i}.png")
    return tmp_path / "pets"


# ------------------------------------------------------------------------------------------------ what works


def test_shapes_opens_and_is_cached(monkeypatch, tmp_path):
    monkeypatch.setenv("SCD_CACHE", str(tmp_path))
    options = {"classes": 4, "size": 24, "train": 40, "test": 20, "scale": [0.4, 0.6]}
    source = open_source("shapes", **options)
    assert {split: len(dataset) for split, dataset in source.splits.items()} == {"train": 40, "test": 20}
    assert source.splits["train"].column_names == ["image", "label", "mask", "background"]
    assert source.mask_kind == "binary" and len(source.class_names) == len(source.background_names) == 4
    assert source.splits["train"].features["label"].names == list(source.class_names)
    folders = list((tmp_path / "shapes").iterdir())
    changed = folders[0].stat().st_mtime_ns
    again = open_source("shapes", **options)
    assert again.fingerprint == source.fingerprint and folders[0].stat().st_mtime_ns == changed
    assert open_source("shapes", **{**options, "rho_train": 0.5}).fingerprint != source.fingerprint
    assert not list((tmp_path / "shapes").glob("*.tmp"))


def fill(queue, barrier):
    barrier.wait()
    source = open_source("shapes", train=60, test=20, size=24)
    queue.put((source.fingerprint, int(load_images(source, "train", 24).images.sum())))


def test_two_processes_fill_the_cache_at_once(monkeypatch, tmp_path):
    """Both get the same images and leave one complete folder, no debris."""
    monkeypatch.setenv("SCD_CACHE", str(tmp_path))
    context = multiprocessing.get_context("fork")
    queue, barrier = context.Queue(), context.Barrier(2)
    runs = [context.Process(target=fill, args=(queue, barrier)) for _ in range(2)]
    for run in runs:
        run.start()
    results = [queue.get(timeout=120) for _ in runs]
    for run in runs:
        run.join()
    assert results[0] == results[1]
    for kind in ("shapes", "images"):
        assert len([entry for entry in (tmp_path / kind).iterdir() if entry.is_dir()]) == 1


def test_parquet_by_path_glob_and_folder(tmp_path):
    train = write_parquet(tmp_path / "train.parquet", [png()] * 3, label=[0, 1, 2])
    write_parquet(tmp_path / "test.parquet", [png()] * 2, label=[0, 1])
    by_name = open_source("parquet", train=train, test=str(tmp_path / "te*.parquet"))
    by_folder = open_source(str(tmp_path))
    assert by_folder.name == tmp_path.name and by_name.name == "parquet"
    assert by_name.fingerprint == by_folder.fingerprint  # the content, not the way to it
    assert by_folder.version == by_folder.fingerprint[:8]
    assert {split: len(d) for split, d in by_folder.splits.items()} == {"train": 3, "test": 2}
    write_parquet(tmp_path / "test.parquet", [png()] * 2, label=[1, 1])
    changed = open_source(str(tmp_path))
    assert changed.fingerprint != by_folder.fingerprint
    assert changed.splits["test"]["label"][:] == [1, 1]


def test_columns_are_renamed(tmp_path):
    features = Features({"photo": Image(), "species": Value("string"), "seg": Image(), "other": Value("int64")})
    rows = {
        "photo": [{"bytes": png(), "path": None}] * 3,
        "species": ["b", "a", "b"],
        "seg": [{"bytes": mask_png(), "path": None}] * 3,
        "other": [1, 2, 3],
    }
    file = tmp_path / "x.parquet"
    Dataset.from_dict(rows, features=features).to_parquet(str(file))
    columns = {"image": "photo", "label": "species", "mask": "seg"}
    source = open_source("parquet", train=str(file), columns=columns)
    assert source.splits["train"].column_names == ["image", "label", "mask"]
    assert source.class_names == ("a", "b") and source.splits["train"]["label"][:] == [1, 0, 1]
    images = load_images(source, "train", 20)
    assert images.labels.tolist() == [1, 0, 1] and images.masks.float().mean() == 0.5


def test_string_labels_have_one_numbering_in_all_splits(tmp_path):
    write_parquet(tmp_path / "train.parquet", [png()] * 3, label=["a", "b", "c"])
    write_parquet(tmp_path / "test.parquet", [png()] * 2, label=["c", "b"])
    source = open_source(str(tmp_path))
    assert source.class_names == ("a", "b", "c")
    assert source.splits["test"]["label"][:] == [2, 1]


def test_image_folder_with_splits(folder):
    source = open_source("imagefolder", path=str(folder))
    assert source.name == "pets" and source.class_names == ("cat", "dog")
    assert source.splits["train"]["label"][:] == [0, 0, 0, 1, 1, 1] and len(source.splits["test"]) == 4
    assert open_source(str(folder)).fingerprint == source.fingerprint
    images = load_images(source, "test", 16)
    assert images.images.shape == (4, 3, 16, 16) and images.images[3, :, 8, 8].tolist() == [100, 1, 0]
    (folder / "test").rename(folder / "val")
    assert set(open_source(str(folder)).splits) == {"train", "validation"}


def test_one_folder_is_split_the_same_way_every_time(folder):
    source = open_source("imagefolder", path=str(folder / "train"), test_fraction=0.34)
    assert {split: len(d) for split, d in source.splits.items()} == {"train": 4, "test": 2}
    assert sorted(source.splits["test"]["label"][:]) == [0, 1]  # class by class
    again = open_source("imagefolder", path=str(folder / "train"), test_fraction=0.34)
    assert again.fingerprint == source.fingerprint
    loose = open_source("imagefolder", path=str(folder / "train" / "cat"))
    assert loose.class_names is None and "label" not in loose.splits["train"].column_names


def test_mask_kinds(tmp_path):
    for value, kind in ((255, "binary"), (3, "classes"), (1, "classes")):
        file = write_parquet(tmp_path / f"{value}.parquet", [png()], mask=[mask_png(value=value)])
        source = open_source("parquet", train=file)
        assert source.mask_kind == kind
        assert load_images(source, "train", 20).masks.float().mean() == 0.5
    other = open_source("parquet", train=file, mask_kind="classes", foreground=[0])
    assert load_images(other, "train", 20).masks[0, 0].tolist() == [0] * 10 + [1] * 10
    assert other.fingerprint != source.fingerprint


# ------------------------------------------------------------------------------------------------ what is said


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("shape", {}, "unknown data source 'shape'; did you mean 'shapes'"),
        ("shapes", {"sise": 3}, "unknown option of shapes 'sise'; did you mean 'size'"),
        ("parquet", {}, "name at least one of train=, validation=, test="),
        ("parquet", {"train": "/nowhere/x.parquet"}, "train=/nowhere/x.parquet: no such file"),
        ("parquet", {"train": "/nowhere/*.parquet"}, r"train=/nowhere/\*.parquet: no such file"),
        ("imagefolder", {}, "say where it is, path=FOLDER"),
        ("imagefolder", {"path": "/nowhere/images"}, "no such folder: '/nowhere/images'"),
        ("/nowhere/images", {}, "no such folder: '/nowhere/images'"),
        ("hub", {}, "name the data set, repo=OWNER/NAME"),
    ],
)
def test_bad_names_say_so(name, options, text):
    with pytest.raises(UsageError, match=text):
        open_source(name, **options)


def test_bad_folders_say_so(tmp_path, folder):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no images and no train.parquet in"):
        open_source(str(tmp_path / "nothing"))
    (folder / "val").mkdir()
    with pytest.raises(DataError, match=r"no images in '.*val'"):
        open_source(str(folder))
    with pytest.raises(UsageError, match="test_fraction is 1.0, it must lie strictly between 0 and 1"):
        open_source("imagefolder", path=str(folder), test_fraction=1)


def test_bad_parquet_says_so(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"not a parquet file")
    with pytest.raises(DataError, match=r"cannot read parquet \(.*train.parquet\)"):
        open_source(str(tmp_path))
    file = write_parquet(tmp_path / "ok.parquet", [png()], label=[0])
    with pytest.raises(UsageError, match="use the name parquet with train="):
        open_source(file)
    with pytest.raises(DataError, match="has no column 'photo'; its columns: image, label; name yours with columns="):
        open_source("parquet", train=file, columns={"image": "photo"})
    with pytest.raises(UsageError, match="unknown column 'pixels'"):
        open_source("parquet", train=file, columns={"pixels": "image"})
    with pytest.raises(UsageError, match="unknown option of this data source 'trian'; did you mean 'train'"):
        open_source("parquet", train=file, trian=file)
    with pytest.raises(UsageError, match="unknown mask_kind 'soft'; valid: binary, classes, instances"):
        open_source("parquet", train=file, mask_kind="soft")
    with pytest.raises(UsageError, match="unknown split of 'parquet' 'test'; valid: train"):
        open_source("parquet", train=file).split("test")
    no_image = tmp_path / "n.parquet"
    Dataset.from_dict({"picture": [1], "label": [0]}).to_parquet(str(no_image))
    with pytest.raises(DataError, match="has no column 'image'; its columns: picture, label"):
        open_source("parquet", train=str(no_image))
    with pytest.raises(DataError, match="column 'label' of 'parquet' holds Value.*, not images"):
        open_source("parquet", train=str(no_image), columns={"image": "label"})
    with pytest.raises(UsageError, match="uses one column twice"):
        open_source("parquet", train=file, columns={"image": "image", "mask": "image"})


def test_the_hub_without_a_network_says_what_to_do(monkeypatch):
    """HF_HUB_OFFLINE is set for all tests; the text names the files and the option that work instead."""
    with pytest.raises(DataError, match="cannot get 'nobody/nothing' from the hub") as caught:
        open_source("hub", repo="nobody/nothing")
    text = str(caught.value)
    assert "put train.parquet and test.parquet into a folder and use data=FOLDER" in text and "\n" not in text


def test_an_unwritable_cache_says_so(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot write the cache .* set SCD_CACHE to another folder"):
        open_source("shapes", train=10, test=10, size=16)


# ------------------------------------------------------------------------------------------------ real sets


@pytest.mark.parametrize(
    ("name", "mask_kind", "classes"),
    [
        ("duts_tr_labelled", "binary", 19),
        ("ecssd", "binary", None),
        ("flowers17_seg", "binary", 17),
        ("coco_mini", "instances", None),
        ("coco_unlabelled", None, None),
        ("camvid", "classes", None),
        ("tiny_imagenet16", None, 16),
        ("cifar10", None, 10),
    ],
)
def test_real_sets(real_data, name, mask_kind, classes):
    if not (real_data / name).is_dir():
        pytest.skip(f"{name} is not in SCD_REAL_DATA")
    source = open_source(str(real_data / name))
    assert source.name == name and source.mask_kind == mask_kind
    assert (source.class_names and len(source.class_names)) == classes
    images = load_images(source, "train", 32, limit=64)
    assert images.images.shape == (64, 3, 32, 32) and images.images.float().std() > 20
    assert (images.masks is not None) == (mask_kind is not None)
    if mask_kind:
        assert 0.02 < images.masks.float().mean() < 0.98
