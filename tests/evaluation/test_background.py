"""Mixed-background sets: every pixel's origin, deterministic donors of the right class, holes filled by the nearest."""

import pytest
import torch
from tiny_evaluation import ChannelMethod, context_of, object_source, objects, source_of

from scd.data.images import ImageSet
from scd.data.masks import UNKNOWN
from scd.errors import DataError, UsageError
from scd.evaluation import background
from scd.evaluation.background import BackgroundReliance, choose_donors, fill_holes, mixed_sets
from scd.evaluation.linear import Linear


def image_set(n, size=12, classes=4, seed=0):
    """Noise images with one rectangle each as mask; image i belongs to class i mod ``classes``."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)
    corners = torch.randint(0, size // 2, (n, 2), generator=generator)
    masks = torch.zeros(n, size, size, dtype=torch.uint8)
    for mask, (row, column) in zip(masks, corners.tolist(), strict=True):
        mask[row : row + size // 3, column : column + size // 2] = 1
    names = tuple(f"class{c}" for c in range(classes))
    return ImageSet(images, labels=torch.arange(n) % classes, masks=masks, class_names=names, backgrounds=None)


def slow_fill(image, mask):
    """All squared distances from every hole pixel to every background pixel; ties allowed: a set of colours each."""
    outside = (mask == 0).nonzero()
    colours = {}
    for row, column in (mask > 0).nonzero().tolist():
        distance = (outside[:, 0] - row) ** 2 + (outside[:, 1] - column) ** 2
        nearest = outside[distance == distance.min()]
        colours[row, column] = {tuple(image[:, r, c].tolist()) for r, c in nearest.tolist()}
    return colours


def test_holes_take_the_nearest_background_pixel():
    images = image_set(6)
    filled = fill_holes(images.images, images.masks)
    for before, after, mask in zip(images.images, filled, images.masks, strict=True):
        assert torch.equal(after[:, mask == 0], before[:, mask == 0])
        for (row, column), colours in slow_fill(before, mask).items():
            assert tuple(after[:, row, column].tolist()) in colours


def test_an_image_without_object_is_its_own_background():
    images = image_set(2)
    assert torch.equal(fill_holes(images.images, torch.zeros_like(images.masks)), images.images)


def test_every_pixel_comes_from_the_object_or_from_its_donor():
    train, test = image_set(40), image_set(20, seed=1)
    sets = mixed_sets(train, test)
    assert sets.foregrounds.tolist() == list(range(20))
    assert torch.equal(sets.labels, test.labels)
    filled = fill_holes(train.images, train.masks)
    for mixed, donors in ((sets.same, sets.donors_same), (sets.other, sets.donors_other)):
        assert mixed.dtype == torch.uint8
        for i, donor in enumerate(donors.tolist()):
            inside = test.masks[i] == 1
            assert torch.equal(mixed[i][:, inside], test.images[i][:, inside])
            assert torch.equal(mixed[i][:, ~inside], filled[donor][:, ~inside])


def test_unknown_pixels_are_neither_pasted_nor_kept_in_a_background():
    train, test = image_set(40), image_set(20, seed=1)
    for part in (train, test):
        part.masks[:, -1] = UNKNOWN
    sets = mixed_sets(train, test)
    filled = fill_holes(train.images, train.masks)
    for i, donor in enumerate(sets.donors_same.tolist()):
        assert torch.equal(sets.same[i][:, -1], filled[donor][:, -1])
        row = train.images[donor][:, -1]
        assert not torch.equal(filled[donor][:, -1], row)
    only_unknown = image_set(20, seed=1)
    only_unknown.masks[:] = UNKNOWN
    with pytest.raises(DataError, match="no test image has both an object and a background in its mask"):
        mixed_sets(train, only_unknown)


def test_donors_are_of_the_same_and_of_another_class():
    train = image_set(200, classes=5)
    labels = torch.arange(2000) % 5
    same, other = choose_donors(train, labels)
    assert torch.equal(train.labels[same], labels)
    assert (train.labels[other] != labels).all()
    pairs = torch.zeros(5, 5).index_put_((labels, train.labels[other]), torch.ones(2000), accumulate=True)
    assert (pairs.flatten()[pairs.flatten() > 0] > 60).all() and int((pairs > 0).sum()) == 20  # 100 expected each
    assert len(same.unique()) > 190  # all images are used, not the first of each class


def test_the_sets_are_always_the_same_and_made_once(monkeypatch):
    train, test = image_set(40), image_set(20, seed=1)
    first = mixed_sets(train, test)
    torch.manual_seed(123)
    assert mixed_sets(image_set(40), image_set(20, seed=1)) is first
    background._CACHE.clear()
    again = mixed_sets(train, test)
    assert again is not first and torch.equal(again.same, first.same) and torch.equal(again.other, first.other)
    other_data = mixed_sets(train, image_set(20, seed=2))
    assert not torch.equal(other_data.same, first.same)


def test_empty_and_full_masks_are_left_out_as_objects_and_full_ones_as_donors():
    train, test = image_set(40), image_set(20, seed=1)
    train.masks[:30] = 1
    test.masks[3] = 0
    test.masks[7] = 1
    sets = mixed_sets(train, test)
    assert sets.foregrounds.tolist() == [i for i in range(20) if i not in (3, 7)]
    assert int(torch.cat([sets.donors_same, sets.donors_other]).min()) >= 30


def test_the_number_of_objects_can_be_limited():
    train, test = image_set(40), image_set(60, seed=1)
    sets = mixed_sets(train, test, limit=15)
    assert len(sets.same) == len(sets.labels) == 15
    assert len(sets.labels.unique()) == 4  # drawn from all test images, not the first ones


def test_what_cannot_be_mixed_is_said():
    train, test = image_set(40), image_set(8, seed=1)
    unmasked = ImageSet(train.images, labels=train.labels, masks=None, class_names=None, backgrounds=None)
    with pytest.raises(DataError, match="the training images have no masks or no labels"):
        mixed_sets(unmasked, test)
    with pytest.raises(DataError, match="the test images have no masks or no labels"):
        mixed_sets(train, unmasked)
    covered = image_set(40)
    covered.masks[covered.labels == 2] = 1
    with pytest.raises(DataError, match="no training image of class 'class2' has any background"):
        mixed_sets(covered, test)
    test.masks[:] = 1
    with pytest.raises(DataError, match="no test image has both an object and a background"):
        mixed_sets(train, test)


# ---------------------------------------------------------------- protocol

MIXED = {"mixed_same_top1", "mixed_rand_top1", "bg_gap", "n_mixed"}


def test_a_network_that_ignores_the_background_has_no_gap():
    numbers = BackgroundReliance()(context_of(ChannelMethod(0), object_source(), 16))
    assert set(numbers) == MIXED | {"background_top1"} and numbers["n_mixed"] == 80
    assert numbers["mixed_same_top1"] == numbers["mixed_rand_top1"] == 1 and numbers["bg_gap"] == 0


def test_a_network_that_sees_the_background_only_fails_on_other_backgrounds():
    numbers = BackgroundReliance()(context_of(ChannelMethod(2), object_source(correlated=True), 16))
    assert numbers["background_top1"] == numbers["mixed_same_top1"] == numbers["bg_gap"] == 1
    assert numbers["mixed_rand_top1"] == 0  # always the background of another class


def test_class_and_background_are_told_apart_when_they_are_independent():
    sees_object, sees_background = (
        BackgroundReliance()(context_of(ChannelMethod(channel), object_source(correlated=False), 16))
        for channel in (0, 2)
    )
    assert sees_object["background_top1"] < 0.6 and sees_background["background_top1"] == 1


def test_it_uses_the_probe_of_the_linear_protocol():
    context = context_of(ChannelMethod(0), object_source(), 16)
    BackgroundReliance()(context)
    assert any("linear probe" in str(key[0]) for key in context.known)
    known = len(context.known)
    Linear()(context)
    assert len(context.known) == known


@pytest.mark.parametrize(
    ("missing", "expected"),
    [(("mask",), {"background_top1"}), (("background",), MIXED), (("label",), {"background_top1"})],
)
def test_either_half_is_left_out_without_its_input(missing, expected):
    context = context_of(ChannelMethod(0, 2), object_source(leave_out=missing), 16)
    assert set(BackgroundReliance()(context)) == expected
    context = context_of(ChannelMethod(0, 2), object_source(leave_out=("background", "mask")), 16)
    assert not BackgroundReliance().applies(context.data) and BackgroundReliance()(context) == {}


def test_what_cannot_be_mixed_is_found_before_training():
    train = objects(200, 0, True)
    train.backgrounds[train.backgrounds == 1] = 0
    train.backgrounds[:4] = 1
    data = context_of(ChannelMethod(0), source_of(train=train, test=objects(80, 1, True)), 16).data
    with pytest.raises(DataError, match="background class 1 has 4 training images and 20 test images"):
        BackgroundReliance().check(data)
    covered = objects(200, 0, True)
    covered.masks[covered.labels == 2] = 1
    data = context_of(ChannelMethod(0), source_of(train=covered, test=objects(80, 1, True)), 16).data
    with pytest.raises(DataError, match="no training image of class 'class2' has any background"):
        BackgroundReliance().check(data)


def test_the_number_of_objects_is_an_option():
    protocol = BackgroundReliance(objects=10)
    assert protocol(context_of(ChannelMethod(0), object_source(), 16))["n_mixed"] == 10
    assert "at most 10" in protocol.metrics["n_mixed"].definition
    with pytest.raises(UsageError, match="1 object or more, not 0"):
        BackgroundReliance(objects=0)
