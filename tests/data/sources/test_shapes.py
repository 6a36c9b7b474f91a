"""The generator of single objects: exact masks, balanced classes, known correlation, fixed by version and seed."""

import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from scd.data.crops import RECTANGLE_DRAWS, sample_rectangles
from scd.data.images import load_images
from scd.data.sources.drawing import CHUNK
from scd.data.sources.shapes import VERSION, Shapes, ShapesOptions, render
from scd.errors import UsageError

SMALL = {"classes": 4, "size": 24, "train": 40, "test": 20, "scale": [0.4, 0.6]}


@pytest.fixture(scope="module")
def rendered():
    return render(ShapesOptions(), "train", 500)


def test_images_are_fixed_by_version_and_seed():
    """What the generator draws: a change of these numbers must come with a new VERSION (the cache's key)."""
    options = ShapesOptions(classes=10, size=48, scale=(0.35, 0.75), clutter=3)
    fixed = render(options, "train", 250)
    digest = hashlib.sha256(fixed.labels.tobytes() + fixed.backgrounds.tobytes()).hexdigest()
    assert (VERSION, digest[:16]) == ("1", "9c9150108a08ea36")
    assert (fixed.masks[:4] > 0).sum(axis=(1, 2)).tolist() == pytest.approx([564, 290, 281, 287], abs=2)
    assert fixed.images[:4].mean(axis=(1, 2, 3)).tolist() == pytest.approx([108.87, 112.0, 132.42, 106.82], abs=0.1)
    np.testing.assert_array_equal(render(options, "train", 100).images, fixed.images[:100])  # nested
    np.testing.assert_array_equal(render(options, "train", 251).images[:250], fixed.images)
    assert not np.array_equal(render(replace(options, seed=1), "train", 250).labels, fixed.labels)
    assert not np.array_equal(render(options, "test", 250).labels, fixed.labels)


def test_shapes_and_ranges(rendered):
    assert rendered.images.shape == (500, 48, 48, 3) and rendered.images.dtype == np.uint8
    assert rendered.masks.shape == (500, 48, 48) and set(np.unique(rendered.masks)) == {0, 255}
    assert np.bincount(rendered.labels).tolist() == [50] * 10
    assert rendered.backgrounds.min() == 0 and rendered.backgrounds.max() == 9


def test_masks_are_exact(rendered):
    """Outside the mask the image is, bit by bit, the background without objects; inside it nearly always differs."""
    empty = render(ShapesOptions(), "train", 500, with_objects=False)
    inside = rendered.masks > 0
    np.testing.assert_array_equal(rendered.images[~inside], empty.images[~inside])
    assert (rendered.images[inside] != empty.images[inside]).any(axis=1).mean() > 0.99
    np.testing.assert_array_equal(rendered.masks, empty.masks)


def test_object_extent_follows_scale():
    for low, high in ((0.35, 0.75), (0.2, 0.2), (0.6, 0.6)):
        masks = render(ShapesOptions(scale=(low, high)), "train", 500).masks > 0
        diameter = 2 * np.sqrt(masks.mean(axis=(1, 2)) / np.pi)  # of the disc of equal area
        assert diameter.mean() == pytest.approx((low + high) / 2, abs=0.02)
        assert diameter.min() > low - 0.06 and diameter.max() < high + 0.06


def test_objects_survive_crops():
    """Nine of ten crops of area 0.2 to 1 show the object, on at least 5 % of their pixels."""
    masks = render(ShapesOptions(), "train", 500).masks > 0
    draws = torch.rand(500, RECTANGLE_DRAWS, generator=torch.Generator().manual_seed(0))
    rectangles = (sample_rectangles(draws, (0.2, 1.0), (3 / 4, 4 / 3)).numpy() * 48).round().astype(int)
    share = [mask[y0:y1, x0:x1].mean() for mask, (x0, y0, x1, y1) in zip(masks, rectangles, strict=True)]
    assert (np.array(share) > 0.05).mean() > 0.9


def test_background_correlation():
    """rho 0: independent; rho 1: always the partner; between: P(partner) = rho + (1 - rho) / classes."""
    for rho in (0.0, 0.5, 1.0):
        options = ShapesOptions(rho_train=rho, rho_test=0.0, classes=5, size=16, clutter=0)
        train, test = (render(options, split, 4000) for split in ("train", "test"))
        expected = rho + (1 - rho) / 5
        assert (train.labels == train.backgrounds).mean() == pytest.approx(expected, abs=0.025)
        assert (test.labels == test.backgrounds).mean() == pytest.approx(0.2, abs=0.025)
        assert np.bincount(test.backgrounds, minlength=5).min() > 650


def test_rho_and_clutter_change_nothing_else():
    """Arms that differ in one knob share every other pixel: same outlines, same objects."""
    plain = render(ShapesOptions(clutter=0), "train", CHUNK)
    cluttered = render(ShapesOptions(clutter=6), "train", CHUNK)
    correlated = render(ShapesOptions(clutter=0, rho_train=1.0), "train", CHUNK)
    inside = plain.masks > 0
    for other in (cluttered, correlated):
        np.testing.assert_array_equal(plain.masks, other.masks)
        np.testing.assert_array_equal(plain.labels, other.labels)
        np.testing.assert_array_equal(plain.images[inside], other.images[inside])
    changed = (plain.images != cluttered.images).any(axis=3)
    assert 0.01 < changed.mean() < 0.2
    assert not np.array_equal(plain.images[~inside], correlated.images[~inside])


def test_several_objects_leave_the_first_and_the_background_as_they_are():
    """Further objects are painted over what is there; they are of the image's class and join the mask."""
    one = render(ShapesOptions(scale=(0.2, 0.3)), "train", CHUNK)
    three = render(ShapesOptions(scale=(0.2, 0.3), objects=3), "train", CHUNK)
    np.testing.assert_array_equal(one.labels, three.labels)
    np.testing.assert_array_equal(one.masks & three.masks, one.masks)
    outside = three.masks == 0
    np.testing.assert_array_equal(one.images[outside], three.images[outside])
    assert 1.7 < three.masks.mean() / one.masks.mean() < 3


def test_colour_statistics_are_ambiguous():
    """The mean colour of an image says little about its class: nearest class mean stays below three times chance."""
    train, test = (render(ShapesOptions(), split, 1000) for split in ("train", "test"))
    x, y = (part.images.reshape(1000, -1, 3).mean(axis=1) for part in (train, test))
    means = np.stack([x[train.labels == k].mean(axis=0) for k in range(10)])
    nearest = ((y[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert 0.1 < (nearest == test.labels).mean() < 0.3


# ---------------------------------------------------------------- as a source


def test_the_source_shows_what_is_drawn():
    source = Shapes(**SMALL)
    assert {split: len(dataset) for split, dataset in source.splits.items()} == {"train": 40, "test": 20}
    assert source.splits["train"].column_names == ["image", "label", "mask", "background"]
    assert source.mask_kind == "binary" and len(source.class_names) == len(source.background_names) == 4
    assert source.splits["train"].features["label"].names == list(source.class_names)
    for split, count in (("train", 40), ("test", 20)):
        images, drawn = load_images(source, split, 24), render(ShapesOptions(**SMALL), split, count)
        np.testing.assert_array_equal(images.images.permute(0, 2, 3, 1).numpy(), drawn.images)
        np.testing.assert_array_equal(images.masks.numpy() * 255, drawn.masks)
        np.testing.assert_array_equal(images.labels.numpy(), drawn.labels)
        np.testing.assert_array_equal(images.backgrounds.numpy(), drawn.backgrounds)


def test_it_is_drawn_once(monkeypatch, tmp_path):
    monkeypatch.setenv("SCD_CACHE", str(tmp_path))
    source = Shapes(**SMALL)
    folders = sorted(entry for entry in (tmp_path / "shapes").iterdir() if entry.is_dir())
    assert [folder.name for folder in folders] == sorted(source.fingerprints.values())
    changed = [folder.stat().st_mtime_ns for folder in folders]
    assert Shapes(**SMALL).fingerprint == source.fingerprint
    assert [folder.stat().st_mtime_ns for folder in folders] == changed


def test_options_of_the_test_split_leave_the_training_split_alone():
    before, after = Shapes(**SMALL), Shapes(**{**SMALL, "test": 10, "rho_test": 1.0})
    assert set(Shapes.test_options) == {"test", "rho_test", "probe", "rho_probe"}
    probed = Shapes(**{**SMALL, "probe": 10, "rho_probe": 1.0})
    assert {split: probed.fingerprints[split] for split in before.fingerprints} == before.fingerprints
    assert after.fingerprints["train"] == before.fingerprints["train"]
    assert after.fingerprints["test"] != before.fingerprints["test"]


def test_each_split_depends_on_its_own_options_and_the_shared_ones():
    plain = ShapesOptions()
    changes = {
        "train": {"train": 7, "rho_train": 0.5},
        "test": {"test": 7, "rho_test": 0.5},
        "probe": {"probe": 7, "rho_probe": 0.5},
        "both": {"classes": 5, "size": 32, "scale": (0.2, 0.3), "clutter": 0, "objects": 2, "seed": 7},
    }
    assert {name for part in changes.values() for name in part} == {field.name for field in fields(ShapesOptions)}
    for whose, options in changes.items():
        for name, value in options.items():
            changed = replace(plain, **{name: value})
            for split in ("train", "test", "probe"):
                assert (changed.of_split(split) != plain.of_split(split)) == (whose in (split, "both")), (name, split)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"classes": 1}, "classes is 1, it must lie in 2 to 25"),
        ({"classes": 26}, "classes is 26"),
        ({"size": 8}, "size is 8, it must be at least 16 pixels"),
        ({"train": 0}, "train=0 and test=2000 must be at least 1"),
        ({"rho_test": 1.2}, r"rho_test is 1.2, a probability lies in \[0, 1\]"),
        ({"scale": [0.7, 0.3]}, r"scale is \(0.7, 0.3\), it needs 0.1 <= low <= high <= 1"),
        ({"clutter": -1}, "clutter is -1, it must be 0 or more"),
        ({"objects": 0}, "objects is 0, it must be at least 1"),
    ],
)
def test_bad_options_say_so(options, text):
    with pytest.raises(UsageError, match=text):
        Shapes(**options)


def test_images_for_probes_are_further_images_with_a_correlation_of_their_own():
    source = Shapes(classes=4, size=16, train=40, test=8, probe=40, rho_train=1.0, rho_probe=0.0)
    train, probe = (source.split(name) for name in ("train", "probe"))
    assert train["label"] == train["background"] and probe["label"] != probe["background"]
    assert "probe" not in Shapes(classes=4, size=16, train=40, test=8).splits
