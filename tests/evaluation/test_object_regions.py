"""Class maps of each kind of data, and what a network sees of a region."""

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset, Features, Image
from tiny_evaluation import Channels, object_source, objects, source_of
from torch import nn

from scd.data.recipes import centre_view
from scd.data.sources.scenes import Scenes
from scd.data.sources.source import Source
from scd.errors import DataError
from scd.evaluation.features import extract
from scd.evaluation.object_regions import (
    Regions,
    class_maps,
    has_class_maps,
    region_crops,
    region_features,
    whole_masks,
)
from scd.evaluation.protocol import EvaluationData

SIZE = 16


def data_of(source, size=SIZE):
    return EvaluationData(source, size)


def class_masks(train, test, foreground=None):
    """A source whose masks (N, S, S) hold class ids."""

    def dataset(masks):
        images = torch.zeros(*masks.shape, 3, dtype=torch.uint8)
        columns = {"image": list(images.numpy()), "mask": list(masks.to(torch.uint8).numpy())}
        return Dataset.from_dict(columns, Features(image=Image(), mask=Image()))

    splits = {"train": dataset(train), "test": dataset(test)}
    prints = {name: f"{name} {masks.sum()} {foreground}" for name, masks in (("train", train), ("test", test))}
    return Source("ids", splits, prints, mask_kind="classes", foreground=foreground)


# ---------------------------------------------------------------- class maps


def test_labels_with_masks_give_the_object_the_class_of_its_image():
    train, test = class_maps(data_of(object_source(train=12, test=8)))
    images = objects(12, 0, True)
    assert train.count == 5 and torch.equal(train.images, images.images)
    assert torch.equal(train.classes, (images.masks * (images.labels + 1)[:, None, None]).to(torch.uint8))
    assert torch.equal(train.objects.image, torch.arange(12)) and torch.equal(train.objects.masks, images.masks > 0)
    assert len(test) == 8


def test_classes_are_those_that_are_shown_numbered_in_order():
    splits = {"train": objects(8, 0, True), "test": objects(8, 1, True)}
    splits["train"].labels = torch.tensor([1, 3] * 4)
    splits["test"].labels = torch.tensor([3, 2] * 4)
    train, test = class_maps(data_of(source_of(**splits)))
    assert train.count == test.count == 4
    assert train.classes[:2, 8, 8].tolist() == [1, 3] and test.classes[:2, 8, 8].tolist() == [3, 2]


def test_scenes_give_objects_their_classes_and_what_is_behind_them_none():
    source = Scenes(classes=3, size=24, train=10, test=6, scale=[0.25, 0.5], objects=[1, 3])
    data = data_of(source, 24)
    train, _ = class_maps(data)
    scenes = data.train_scenes
    assert torch.equal(train.classes, torch.where(scenes.semantic < 3, scenes.semantic + 1, 0).to(torch.uint8))
    assert len(train.objects) == sum(map(len, scenes.instances))
    for row, mask in zip(train.objects.image, train.objects.masks, strict=True):
        assert len(train.classes[row][mask].unique()) == 1
        assert any(torch.equal(mask, one) for one in scenes.instances[row])


def test_masks_of_class_ids_have_a_region_for_each_class_and_unknown_pixels():
    masks = torch.zeros(2, SIZE, SIZE, dtype=torch.int64)
    masks[0, :4, :4], masks[0, 8:, 8:], masks[1, :2] = 3, 7, 7
    masks[1, 4] = 255
    train, _ = class_maps(data_of(class_masks(masks, masks)))
    assert train.count == 3 and train.classes.unique().tolist() == [0, 1, 2, 255]
    assert train.objects.image.tolist() == [0, 0, 1]
    assert torch.equal(train.objects.masks, torch.stack([masks[0] == 3, masks[0] == 7, masks[1] == 7]))
    assert torch.equal(train.classes == 255, masks == 255)
    chosen, _ = class_maps(data_of(class_masks(masks, masks, foreground=(7,))))
    assert chosen.count == 2 and torch.equal(chosen.classes == 1, masks == 7)


def test_data_without_classes_of_pixels_have_no_class_maps():
    for left_out in (("label",), ("mask",)):
        assert not has_class_maps(data_of(object_source(leave_out=left_out, train=8, test=8)))


def test_images_without_an_object_are_an_error_and_one_line():
    shown, empty = objects(8, 0, True), objects(8, 1, True)
    empty.masks = torch.zeros_like(empty.masks)
    for splits, which in (({"train": shown, "test": empty}, "test"), ({"train": empty, "test": shown}, "train")):
        with pytest.raises(DataError, match=f"no image of 'tiny' {which} shows an object of a known class"):
            class_maps(data_of(source_of(**splits)))


def test_too_many_classes_are_an_error():
    many = objects(255, 0, True, classes=255)
    many.class_names = None
    with pytest.raises(DataError, match="shows 255 classes of objects; clusters are matched with 254 at most"):
        class_maps(data_of(source_of(train=many, test=many)))


# ---------------------------------------------------------------- regions


class Shape(nn.Module):
    """A 'backbone' that keeps all pixels: any change of a crop changes its vector."""

    def forward(self, images):
        return F.adaptive_avg_pool2d(images, 4), images.flatten(1)


def test_an_empty_mask_is_no_region():
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, 1, 2] = masks[2, 3] = True
    found = whole_masks(masks)
    assert found.image.tolist() == [0, 2] and torch.equal(found.masks, masks[[0, 2]])
    assert len(whole_masks(torch.zeros(2, 4, 4, dtype=torch.bool))) == 0


def test_a_crop_is_the_box_of_the_region_as_an_image():
    images = torch.randint(0, 256, (3, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    masks = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    masks[0, 2, 3], masks[0, 9, 10] = True, True  # two corners of rows 2 to 9, columns 3 to 10
    masks[1, 4:12, 0:8] = True
    regions = Regions(torch.tensor([2, 0]), masks)
    crops = torch.cat(list(region_crops(images, regions, 8, batch=1)))
    expected = torch.stack([images[2, :, 2:10, 3:11], images[0, :, 4:12, 0:8]])
    torch.testing.assert_close(crops, centre_view(expected, 8), atol=1e-5, rtol=0)
    found = region_features(Shape(), images, regions, 8)
    torch.testing.assert_close(found, extract(Shape(), expected, 8), atol=1e-5, rtol=0)


def test_a_crop_is_resized_to_the_view_and_its_proportions_change():
    images = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
    images[0, 0, 4:8] = 200  # four rows of all columns
    mask = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    mask[0, 4:8] = True
    (crop,) = region_crops(images, Regions(torch.zeros(1, dtype=torch.int64), mask), 12)
    assert crop.shape == (1, 3, 12, 12)
    inside = crop[0, 0, 3:9]  # the outermost rows are mixed with pixels outside the box
    assert float(inside.max() - inside.min()) < 1e-5


def test_batch_norm_is_left_as_found():
    backbone = nn.Sequential(Channels(0, 1, 2), nn.BatchNorm2d(3)).train()
    images = objects(4, 0, True).images
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    region_features(backbone, images, whole_masks(torch.ones(4, SIZE, SIZE, dtype=torch.bool)), SIZE)
    assert backbone.training and all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
