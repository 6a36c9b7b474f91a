"""The scene generator: maps, boxes and classes agree, and images are fixed by version and seed."""

import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest

from scd.data.images import load_images
from scd.data.sources.scenes import VERSION, Scenes, ScenesOptions, boxes_of, render
from scd.errors import UsageError

SMALL = {"size": 32, "train": 40, "test": 12}


@pytest.fixture(scope="module")
def rendered():
    return render(ScenesOptions(), "train", 250)


@pytest.fixture(scope="module")
def source():
    return Scenes(**SMALL)


def test_images_are_fixed_by_version_and_seed(rendered):
    """What the generator draws: a change of these numbers must come with a new VERSION (the cache's key)."""
    digest = hashlib.sha256(rendered.classes.tobytes() + rendered.grounds.tobytes()).hexdigest()
    assert (VERSION, digest[:16]) == ("1", "a8f777bfc0af5e6b")
    assert rendered.images[:4].mean(axis=(1, 2, 3)).tolist() == pytest.approx([110.35, 118.93, 120.5, 95.54], abs=0.1)


def test_the_first_images_do_not_depend_on_how_many_follow():
    options = ScenesOptions(size=24)
    short, longer = render(options, "train", 100), render(options, "train", 251)
    for field in ("images", "instances", "semantic", "classes", "grounds"):
        np.testing.assert_array_equal(getattr(longer, field)[:100], getattr(short, field))
    assert len(longer.images) == 251 and not np.array_equal(longer.images[250], longer.images[0])
    for other in (render(options, "test", 10), render(replace(options, seed=2), "train", 10)):
        assert not np.array_equal(other.instances, short.instances[:10])


def test_semantic_map_agrees_with_instances_and_regions(rendered):
    """Every pixel by loops: an object's pixel has its class, any other a class of one of the image's regions."""
    for i in range(60):
        things = rendered.instances[i] > 0
        assert (rendered.semantic[i][things] == rendered.classes[i][rendered.instances[i][things] - 1]).all()
        seen = set((rendered.semantic[i][~things].astype(int) - 10).tolist())
        assert seen <= set(rendered.grounds[i][rendered.grounds[i] >= 0].tolist())
    assert (rendered.semantic[rendered.instances == 0] >= 10).all()


def test_numbers_of_objects_and_regions_follow_their_ranges(rendered):
    number = (rendered.classes >= 0).sum(axis=1)
    np.testing.assert_array_equal(number, rendered.instances.max(axis=(1, 2)))  # all visible, none skipped
    assert np.bincount(number, minlength=7)[2:].min() > 25 and number.min() == 2 and number.max() == 6
    regions = (rendered.grounds >= 0).sum(axis=1)
    assert np.bincount(regions).min() == 0 and np.bincount(regions)[1:].min() > 60
    assert all(len(set(row[row >= 0])) == k for row, k in zip(rendered.grounds, regions, strict=True))
    assert np.bincount(rendered.classes[rendered.classes >= 0]).min() > 60  # all ten classes


def test_every_region_is_visible_and_borders_divide_the_image():
    """Without objects: as many background classes as regions, the smallest at least 0.3^2 of the image."""
    options = ScenesOptions(objects=(1, 1), scale=(0.1, 0.1), regions=(3, 3), clutter=0)
    made = render(options, "test", 100)
    for semantic, grounds in zip(made.semantic, made.grounds, strict=True):
        shares = [(semantic == 10 + ground).mean() for ground in grounds]
        assert min(shares) > 0.07 and sum(shares) > 0.98


def test_at_least_a_quarter_of_every_object_stays_visible():
    """An object's whole area is known from the same images with one object only."""
    crowded = ScenesOptions(objects=(7, 7), scale=(0.4, 0.5), size=24)
    made = render(crowded, "train", 250)
    number = (made.classes >= 0).sum(axis=1)
    assert 2 < number.mean() < 7 and number.min() >= 1  # some are left out, and the number says so
    first = render(replace(crowded, objects=(1, 1)), "train", 250).instances == 1
    visible = ((made.instances == 1) & first).sum(axis=(1, 2)) / first.sum(axis=(1, 2))
    assert 0.25 <= visible.min() < 0.4 and visible.mean() < 0.9  # covered, but never by more than three quarters
    assert not ((made.instances == 1) & ~first).any()


def test_object_centric_form_is_one_object_of_known_class_on_one_ground(source):
    crowded = source
    source = Scenes(objects=[1, 1], scale=[0.3, 0.6], regions=[1, 1], **SMALL)
    images = load_images(source, "train", 32)
    assert images.class_names == source.class_names and len(images.class_names) == 10
    assert source.fingerprint != crowded.fingerprint == Scenes(**SMALL).fingerprint
    for row, record in enumerate(source.split("train")):
        assert record["objects"]["category"] == [record["label"]] == [int(images.labels[row])]
        semantic, things = np.asarray(record["semantic"]), np.asarray(record["mask"]) > 0
        assert set(semantic[things]) == {record["label"]} and set(semantic[~things]) == {10 + record["background"]}
    labels = render(ScenesOptions(objects=(1, 1)), "train", 250).classes[:, 0]
    assert np.bincount(labels).tolist() == [25] * 10
    diameter = 2 * np.sqrt((images.masks.numpy() > 0).mean(axis=(1, 2)) / np.pi)
    assert 0.25 < diameter.min() and diameter.max() < 0.65


def test_columns_of_the_source(source):
    assert source.mask_kind == "binary" and len(source.background_names) == 10
    assert "label" not in source.split("train").column_names
    assert {split: len(d) for split, d in source.splits.items()} == {"train": 40, "test": 12}
    for record in source.split("test"):
        instances, objects = np.asarray(record["instances"]), record["objects"]
        np.testing.assert_array_equal(np.asarray(record["mask"]), np.where(instances > 0, 255, 0))
        assert objects["iscrowd"] == [0] * instances.max() and len(objects["category"]) == instances.max()
        for k, (x, y, w, h) in enumerate(objects["bbox"]):  # exact: from the pixels' coordinates
            rows, columns = np.nonzero(instances == k + 1)
            assert (x, y, x + w, y + h) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_options_of_the_test_split_leave_the_training_split_alone(source):
    other = Scenes(**{**SMALL, "test": 5})
    assert (
        set(Scenes.test_options) == {"test", "rho_test"} and other.fingerprints["train"] == source.fingerprints["train"]
    )
    assert other.fingerprints["test"] != source.fingerprints["test"]


def test_each_split_depends_on_its_own_options_and_the_shared_ones():
    plain = ScenesOptions()
    changes = {
        "train": {"train": 7, "rho_train": 0.5},
        "test": {"test": 7, "rho_test": 0.5},
        "both": {
            "classes": 5,
            "size": 32,
            "objects": (1, 2),
            "scale": (0.2, 0.3),
            "clutter": 0,
            "regions": (1, 1),
            "seed": 7,
        },
    }
    assert {name for part in changes.values() for name in part} == {field.name for field in fields(ScenesOptions)}
    for whose, options in changes.items():
        for name, value in options.items():
            changed = replace(plain, **{name: value})
            for split in ("train", "test"):
                assert (changed.of_split(split) != plain.of_split(split)) == (whose in (split, "both")), (name, split)


def test_boxes_of_absent_objects_are_empty():
    instances = np.zeros((1, 5, 6), np.uint8)
    instances[0, 2:4, 5] = 2
    assert boxes_of(instances, 3)[0].tolist() == [[0, 0, 0, 0], [5, 2, 1, 2], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"classes": 26}, "classes is 26, it must lie in 2 to 25"),
        ({"size": 8}, "size is 8, it must be at least 16 pixels"),
        ({"test": 0}, "train=3000 and test=0 must be at least 1"),
        ({"objects": 3}, "objects is 3, it needs two numbers, the smallest and the largest"),
        ({"objects": (2, 3.5)}, "it needs two numbers"),
        ({"objects": (0, 2)}, r"objects is \(0, 2\), it needs 1 <= low <= high <= 200"),
        ({"scale": (0.5, 0.3)}, r"scale is \(0.5, 0.3\), it needs 0 < low <= high <= 1"),
        ({"scale": (0.05, 0.3)}, "scale 0.05 of 48 pixels is less than 3 pixels across"),
        ({"clutter": -1}, "clutter is -1, it must be 0 or more"),
        ({"classes": 2}, r"regions is \(1, 3\), it needs 1 <= low <= high <= classes=2"),
    ],
)
def test_bad_options_say_so(options, text):
    with pytest.raises(UsageError, match=text):
        Scenes(**options)


def test_the_background_follows_the_objects_with_the_probability_that_is_asked_for():
    for objects, regions in (((1, 1), (1, 1)), ((2, 4), (1, 3))):
        options = ScenesOptions(size=24, objects=objects, regions=regions)
        free, tied = (render(replace(options, rho_train=rho), "train", 250) for rho in (0.0, 1.0))
        assert (free.grounds[:, 0] == free.classes[:, 0]).mean() < 0.35
        assert (tied.grounds[:, 0] == tied.classes[:, 0]).mean() > 0.98  # the first object is hardly ever left out
        np.testing.assert_array_equal(free.instances, tied.instances)
        for row in tied.grounds:
            assert len(set(row[row >= 0])) == (row >= 0).sum()
    np.testing.assert_array_equal(
        render(options, "test", 50).images, render(replace(options, rho_train=1.0), "test", 50).images
    )
    with pytest.raises(UsageError, match="rho_train is 2"):
        ScenesOptions(rho_train=2)
