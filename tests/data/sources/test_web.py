"""The generator of images as from the web: exact shares, the long tail, near-duplicates, and a clean test set."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from scd.data.images import load_images
from scd.data.sources.drawing import CHUNK
from scd.data.sources.foreign import DOMAINS, paint_foreign
from scd.data.sources.shapes import Shapes
from scd.data.sources.web import KINDS, VERSION, Composition, Web, WebOptions, render, tailed, whole_numbers
from scd.errors import UsageError

SMALL = WebOptions(size=24, train=300, test=20, classes=5, rho_train=0.8)


@pytest.fixture(scope="module")
def rendered():
    return render(SMALL)


def test_images_are_fixed_by_version_and_seed(rendered):
    """What the generator draws: a change of these numbers must come with a new VERSION (the cache's key)."""
    composition = Composition.of(SMALL)
    digest = hashlib.sha256(b"".join(part.astype(np.int64).tobytes() for part in composition)).hexdigest()
    assert (VERSION, digest[:16]) == ("1", "8f2dc9d30c9db8a0")
    assert rendered.images[:4].mean(axis=(1, 2, 3)).tolist() == pytest.approx([88.29, 101.51, 115.34, 125.83], abs=0.1)


def test_shares_are_exact_and_the_total_stays():
    for train, duplicates in ((300, 0.2), (301, 0.5), (7, 0.0)):
        options = replace(SMALL, train=train, duplicates=duplicates)
        composition, copies = Composition.of(options), round(duplicates * train)
        assert (len(composition.kinds), len(composition.copied)) == (train - copies, copies)
        assert sorted(composition.order) == list(range(train))
        for kind, share in zip(range(4), (0.4, 0.3, 0.1, 0.2), strict=True):
            assert abs((composition.kinds == kind).sum() - share * len(composition.kinds)) < 1
    assert whole_numbers([1, 1, 1], 2).tolist() == [1, 1, 0] and whole_numbers([0.3, 0.7], 10).tolist() == [3, 7]


def test_one_kind_alone_can_be_asked_for():
    for name in ("scenes", "backgrounds", "foreign"):
        shares = {**dict.fromkeys(("scenes", "backgrounds", "foreign"), 0.0), name: 1.0}
        found = render(replace(SMALL, train=12, duplicates=0.0, **shares))
        assert found.masks.any(axis=(1, 2)).all() == (name == "scenes") == found.masks.any()


def test_the_tail_is_a_power_of_the_rank():
    rng = np.random.default_rng(0)
    counts = np.bincount(tailed(10, 1.0, 2929, rng))  # 2929 = 1000 (1 + 1/2 + ... + 1/10), rounded
    np.testing.assert_allclose(counts, 1000 / np.arange(1, 11), atol=1)
    assert np.bincount(tailed(10, 0.0, 100, rng)).tolist() == [10] * 10
    labels = tailed(10, 2.0, 1000, rng)
    assert (np.diff(labels) < 0).any() and np.bincount(labels)[0] / np.bincount(labels)[9] == pytest.approx(
        100, rel=0.1
    )


def test_object_centric_images_show_the_long_tail(monkeypatch):
    """The classes that are drawn, seen where they are painted."""
    from scd.data.sources import web

    seen, paint = [], web.place_objects
    monkeypatch.setattr(
        web, "place_objects", lambda rng, labels, own: (seen.append(labels), paint(rng, labels, own))[1]
    )
    render(replace(SMALL, scenes=0.0, tail=2.0))
    composition = Composition.of(replace(SMALL, scenes=0.0))
    assert np.bincount(seen[0]).tolist() == whole_numbers([1, 1 / 4, 1 / 9, 1 / 16, 1 / 25], len(seen[0])).tolist()
    assert len(seen[0]) == (composition.kinds == 0).sum()


def test_the_background_is_the_partner_as_often_as_asked(monkeypatch):
    from scd.data.sources import web

    seen, paint, place = [], web.paint_backgrounds, web.place_objects
    monkeypatch.setattr(
        web, "paint_backgrounds", lambda rng, grounds, own: (seen.append(grounds), paint(rng, grounds, own))[1]
    )
    monkeypatch.setattr(
        web, "place_objects", lambda rng, labels, own: (seen.append(labels), place(rng, labels, own))[1]
    )
    render(replace(SMALL, train=1000, scenes=0.0, backgrounds=0.0, foreign=0.0, rho_train=0.8))
    assert (seen[0] == seen[1]).mean() == pytest.approx(0.8 + 0.2 / 5, abs=0.04)


def test_scenes_go_beyond_a_chunk_and_have_several_objects():
    from scipy.ndimage import label

    options = replace(SMALL, train=CHUNK + 10, scenes=1.0, backgrounds=0.0, foreign=0.0, duplicates=0.0, size=32)
    found = render(options)
    assert len({image.tobytes() for image in found.images}) == CHUNK + 10
    assert np.mean([label(mask)[1] for mask in found.masks]) > 1.5


def test_masks_are_where_an_object_is(rendered):
    composition = Composition.of(SMALL)
    kinds = np.concatenate([composition.kinds, composition.kinds[composition.copied]])[composition.order]
    has_object = rendered.masks.any(axis=(1, 2))
    assert has_object[kinds < 2].all() and not has_object[kinds >= 2].any()
    assert len(KINDS) == 4 and not rendered.masks.all(axis=(1, 2)).any()


def test_near_duplicates_are_slightly_changed_copies(rendered):
    composition = Composition.of(SMALL)
    different = len(composition.kinds)
    place = composition.order.argsort()  # where each image is in the data set
    centre = slice(2, -2)
    for number, source in enumerate(composition.copied):
        copy, original = (rendered.images[place[row]].astype(float) for row in (different + number, source))
        assert not np.array_equal(copy, original)
        best = min(
            _apart(np.roll(original, (dy, dx), axis=(0, 1))[centre, centre], copy[centre, centre])
            for dy in (-1, 0, 1) for dx in (-1, 0, 1)
        )  # fmt: skip
        assert best < 0.02  # a factor apart
        areas = [rendered.masks[place[row]].sum() for row in (different + number, source)]
        assert abs(areas[0] - areas[1]) <= 3 * 24
    others = [_apart(rendered.images[i].astype(float), rendered.images[i + 1].astype(float)) for i in range(20)]
    assert np.median(others) > 0.1


def _apart(one, other):
    """Relative distance of two images but for a factor, where neither is cut off."""
    kept = (one < 240) & (other < 240) & (one > 0) & (other > 0)
    if kept.sum() < 50:
        return 0.0
    factor = (one * other)[kept].sum() / (one * one)[kept].sum()
    return np.abs(factor * one - other)[kept].mean() / 255 if 0.85 < factor < 1.15 else 1.0


def test_domains_take_turns_and_look_different():
    images = paint_foreign(lambda name: np.random.default_rng(len(name)), 30, 24)
    assert len(DOMAINS) == 3 and images.shape == (30, 24, 24, 3) and np.isfinite(images).all()
    page, static, blocks = (images[i::3] for i in range(3))
    fine = [np.abs(np.diff(part, axis=2)).mean() for part in (page, static, blocks)]
    assert len({round(float(value), 3) for value in fine}) == 3 and fine[2] == min(fine)
    assert page.mean() > 0.5


def test_the_test_images_are_those_of_shapes_and_training_images_have_no_label():
    options = {"classes": 3, "size": 24, "train": 16, "test": 12, "rho_train": 0.5, "rho_test": 0.25, "seed": 4}
    web, clean = Web(**options), Shapes(**options)
    found, expected = (load_images(source, "test", 24) for source in (web, clean))
    assert (found.images == expected.images).all() and (found.labels == expected.labels).all()
    assert set(web.split("train").column_names) == {"image", "mask"} and web.class_names == clean.class_names
    assert load_images(web, "train", 24).labels is None
    assert "scene" in web.description and "near-duplicates" in web.description


def test_options_are_part_of_the_fingerprint_of_the_split_that_they_change():
    def fingerprints(**changes):
        return Web(**{"classes": 3, "size": 24, "train": 12, "test": 4, **changes}).fingerprints

    first = fingerprints()
    for name, value in {
        "scenes": 0.2, "backgrounds": 0.2, "foreign": 0.1, "tail": 0.5, "duplicates": 0.1, "rho_train": 0.5,
        "scene_objects": [3, 3], "scene_regions": [1, 1], "scene_scale": [0.3, 0.4],
    }.items():  # fmt: skip
        changed = fingerprints(**{name: value})
        assert changed["train"] != first["train"], name
        assert (changed["test"] == first["test"]) or name == "rho_train"
    changed = fingerprints(test=5)
    assert changed["train"] == first["train"] and changed["test"] != first["test"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scenes": 1.1}, "scenes is 1.1, a share lies in"),
        ({"scenes": 0.5, "foreign": 0.6}, "are more than 1"),
        ({"duplicates": 1}, "some images must be different ones"),
        ({"tail": -1}, "tail is -1"),
        ({"classes": 1}, "classes is 1"),
        ({"scene_objects": [3, 2]}, "objects is"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_drawn(options, text):
    with pytest.raises(UsageError, match=text):
        Web.check_options(**options)
