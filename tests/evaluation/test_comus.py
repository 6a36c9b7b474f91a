"""COMUS on images whose answer is known: features that show the class, features that do not, and bad input."""

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from tiny_evaluation import ChannelMethod, With, context_of, object_source, objects, source_of
from torch import nn

from scd.data.sources.scenes import Scenes
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError
from scd.evaluation.comus import Comus, clustered, learn, predict, pseudo_masks, with_context
from scd.evaluation.matching import matched_miou, pixel_counts
from scd.evaluation.object_regions import Regions, class_maps
from scd.evaluation.protocol import EvaluationData
from scd.evaluation.spectral import Clusters

SIZE = 16


class Levels(nn.Module):
    """A 'backbone' of one channel for each level of a colour: of the object's class (red), or of the background's."""

    def __init__(self, channel):
        super().__init__()
        self.channel = channel

    def forward(self, images):
        levels = torch.tensor([40.0, 100.0, 160.0, 220.0]) / 255
        colour = images[:, [self.channel]] * 0.225 + 0.44
        return torch.exp(-(((colour - levels.view(1, -1, 1, 1)) / 0.1) ** 2))


def red(view):
    """A map of the object: where the image is red."""
    return (view.images[:, 0] > view.images[:, 0].amin(dim=(1, 2), keepdim=True) + 0.3).float()


def nothing(view):
    return torch.zeros_like(view.images[:, 0])


def numbers_of(backbone, source=None, saliency=red, size=SIZE, **options):
    source = object_source(correlated=False, train=120, test=60) if source is None else source
    options = {"proposals": "own", "l2": [0.001], **options}
    found = Comus(**options)(context_of(With(backbone, saliency), source, size, seed=1))
    return {name.removeprefix("comus_"): value for name, value in found.items()}


@pytest.fixture(scope="module")
def seen():
    return numbers_of(Levels(0))


def test_every_number_is_there_and_defined(seen):
    assert {f"comus_{name}" for name in seen} == set(Comus(proposals="own").metrics)
    assert (seen["n_train"], seen["n_test"], seen["classes"], seen["classes_scored"]) == (120, 60, 4, 4)
    assert set(numbers_of(Levels(0), oracle=False)) == {name for name in seen if not name.endswith("_oracle")}


def test_features_that_show_the_class_are_perfect(seen):
    for name in ("miou", "pseudo_miou", "miou_oracle", "clustered_oracle", "proposal_iou"):
        assert seen[name] == pytest.approx(1.0, abs=0.02), name
    assert (seen["regions"], seen["clusters"], seen["empty"]) == (120, 4, 0)


def test_regions_outside_the_core_are_no_pseudo_masks(seen):
    """Each class is a part of the graph of its own, unless more neighbours than its 30 members connect them."""
    found = numbers_of(Levels(0), oracle=False, neighbours=40)
    assert 0.7 < found["pseudo_miou"] < 0.9 and found["miou"] > 0.98  # about a fifth of the objects is left out


def test_features_that_show_the_background_alone_are_not(seen):
    blind = numbers_of(Levels(2))
    assert blind["clustered_oracle"] < 0.5 and blind["miou_oracle"] < 0.5 and blind["miou"] < 0.5
    assert blind["proposal_iou"] == seen["proposal_iou"]  # the map is the same
    assert blind["miou_background"] == seen["miou_background"] == pytest.approx(0.75 / 5)


def test_no_label_is_used_before_the_score():
    """Other labels of the training images change how pseudo masks are scored, and nothing of the test images."""
    splits = {"train": objects(80, 0, False), "test": objects(40, 1, False)}
    found = numbers_of(Levels(0), source_of(**splits), oracle=False)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    splits["train"].labels = splits["train"].labels[order]
    shuffled = numbers_of(Levels(0), source_of(**splits), oracle=False)
    assert {name for name in found if found[name] != shuffled[name]} == {"pseudo_miou"}


def test_oracle_regions_do_not_depend_on_proposals(seen):
    found = numbers_of(Levels(0), saliency=nothing)
    assert {name for name in seen if name.endswith("_oracle") and found[name] != seen[name]} == set()


@pytest.mark.parametrize("proposals", ["rbd", "tokencut"])
def test_proposals_without_a_map(proposals):
    found = numbers_of(Levels(0), object_source(train=24, test=12), lambda view: None, proposals=proposals)
    assert found["regions"] > 12 and found["proposal_iou"] > 0.5 and 0 < found["miou"] <= 1


def test_scenes_have_as_many_regions_as_objects_and_proposals_one_in_an_image():
    source = Scenes(classes=3, size=24, train=30, test=12, scale=[0.25, 0.5], objects=[2, 3])
    found = numbers_of(Levels(0), source, lambda view: torch.ones_like(view.images[:, 0]), size=24)
    assert found["regions"] == 30 and 60 <= found["regions_oracle"] <= 90
    assert found["classes"] == found["clusters"] == 3


def test_unknown_pixels_are_no_background():
    """The lower half of each training object is unknown: if it counted as background, half of an object would be it."""
    splits, features = {}, Features(image=Image(), mask=Image(), label=ClassLabel(names=list("abcd")))
    for name, images in (("train", objects(80, 0, False)), ("test", objects(40, 1, False))):
        masks = 255 * images.masks
        if name == "train":
            masks[:, 8:12, 4:12] = 128
        columns = {"image": list(images.images.permute(0, 2, 3, 1).numpy()), "mask": list(masks.numpy())}
        splits[name] = Dataset.from_dict({**columns, "label": images.labels.tolist()}, features)
    source = Source("unknown", splits, {"train": "half", "test": "whole"}, mask_kind="trimap")
    train, _ = class_maps(EvaluationData(source, SIZE))
    assert (train.classes[:, 8:12, 4:12] == 255).all() and (train.classes[:, 4:8, 4:12] < 5).all()
    assert numbers_of(Levels(0), source)["miou_oracle"] == pytest.approx(1.0, abs=0.02)


# ---------------------------------------------------------------- bad input


def test_no_proposal_at_all_predicts_background():
    found = numbers_of(Levels(0), saliency=nothing, oracle=False)
    assert (found["regions"], found["clusters"], found["empty"]) == (0, 0, 120)
    assert found["miou"] == found["miou_background"] and found["proposal_iou"] == 0


def test_a_region_that_is_too_small_is_none():
    found = numbers_of(Levels(0), oracle=False, smallest=0.25)  # the object has exactly a quarter of the pixels
    assert (found["regions"], found["empty"]) == (0, 120)
    assert numbers_of(Levels(0), oracle=False, smallest=0.2499)["regions"] == 120


def test_fewer_regions_than_classes_are_counted():
    def two(view):
        maps = red(view)
        maps[2:] = 0
        return maps

    found = numbers_of(Levels(0), object_source(train=30, test=20), two, oracle=False)
    assert (found["regions"], found["clusters"], found["empty"]) == (2, 2, 28)
    assert found["miou_background"] < found["miou"] < 0.75


def test_a_class_without_a_test_image_is_left_out_and_counted():
    splits = {"train": objects(80, 0, False), "test": objects(40, 1, False)}
    splits["test"] = splits["test"].subset((splits["test"].labels != 2).nonzero()[:, 0])
    found = numbers_of(Levels(0), source_of(**splits))
    assert (found["classes"], found["classes_scored"], found["clusters"]) == (4, 3, 4)
    assert found["miou"] == pytest.approx(1.0, abs=0.02)


def test_a_method_without_a_map_has_no_numbers_of_its_own_proposals():
    assert numbers_of(Levels(0), saliency=lambda view: None) == {}


def test_data_without_classes_of_pixels():
    bare = object_source(leave_out=("label",), train=12, test=8)
    method = ChannelMethod(0)
    assert Comus()(context_of(method, bare, SIZE)) == {}
    with pytest.raises(DataError, match="'tiny' has neither objects with an instance map, nor masks with labels"):
        Comus(data=bare)(context_of(method, object_source(train=12, test=8), SIZE))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proposals": "rbt"}, "unknown kind of proposals 'rbt'; did you mean 'rbd'"),
        ({"core": 0.0}, "core lies in"),
        ({"smallest": 1.0}, "smallest in"),
        ({"neighbours": 1}, "neighbours is 1, it must be at least 2"),
        ({"restarts": 0}, "restarts is 0"),
        ({"l2": []}, "l2 needs one penalty or more"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UsageError, match=message):
        Comus(**options)


# ---------------------------------------------------------------- parts


def test_pseudo_masks_by_hand():
    masks = torch.zeros(5, 4, 4, dtype=torch.bool)
    masks[0, 0], masks[1, 1], masks[2, 2], masks[3, 3], masks[4, :2] = True, True, True, True, True
    regions = Regions(torch.tensor([0, 0, 0, 1, 3]), masks)
    used = torch.tensor([True, True, False, True, True])
    found = Clusters(labels=torch.tensor([2, 0, 1, 1]).numpy(), core=torch.tensor([1, 0, 0, 1]).bool().numpy(), count=3)
    pseudo = pseudo_masks(regions, used, found, torch.zeros(4, 4, 4, dtype=torch.uint8))
    assert pseudo[0, :, 0].tolist() == [3, 255, 255, 0]  # core, not core, not clustered, no region
    assert (pseudo[1] == 255).all() and (pseudo[2] == 255).all()  # no core region, no region
    assert pseudo[3, :, 0].tolist() == [2, 2, 0, 0]


def test_context_is_a_mean_over_the_part_of_the_window_inside_the_map():
    maps = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    found = with_context(maps)
    assert found.shape == (2, 9, 6, 5) and torch.equal(found[:, :3], maps)
    for y, x in ((0, 0), (2, 3), (5, 4)):  # a window of 3 x 3 positions
        expected = maps[:, :, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].mean(dim=(2, 3))
        torch.testing.assert_close(found[:, 3:6, y, x], expected)
        torch.testing.assert_close(found[:, 6:, y, x], maps.mean(dim=(2, 3)))
    assert with_context(torch.ones(1, 2, 1, 1)).shape == (1, 6, 1, 1)


def test_a_head_learns_what_features_show_and_not_what_is_ignored():
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (20, 4, 4), generator=draw)
    maps = torch.eye(3)[labels].permute(0, 3, 1, 2) + 0.1 * torch.randn(20, 3, 4, 4, generator=draw)
    pseudo = labels.repeat_interleave(2, 1).repeat_interleave(2, 2).to(torch.uint8)
    told = pseudo.clone()
    told[:10] = 255
    told[10:, 4:] = 255
    for l2 in ([0.001], [10.0, 0.001]):
        found = predict(learn(maps, told, 3, seed=0, l2=l2), maps, pseudo)
        assert found.dtype == torch.uint8 and found.shape == pseudo.shape
        assert matched_miou(pixel_counts(found, pseudo, 3, 3, 255)) > 0.75  # borders are resized bilinearly
    assert learn(maps, told, 3, seed=0, l2=[10.0, 0.001]).l2 == 0.001
    two = torch.where(pseudo == 1, 255, pseudo)
    assert predict(learn(maps, two, 3, seed=0, l2=[0.001]), maps, pseudo).unique().tolist() == [0, 2]
    alone = torch.full_like(told, 255)
    alone[0] = pseudo[0]
    assert learn(maps, alone, 3, seed=0, l2=[10.0, 0.001]).l2 == 10.0  # one image: nothing to choose on


def test_positions_are_drawn_from_the_seed():
    draw = torch.Generator().manual_seed(0)
    maps, pseudo = torch.randn(8, 3, 4, 4, generator=draw), torch.randint(0, 2, (8, 4, 4), generator=draw)
    heads = [learn(maps, pseudo.to(torch.uint8), 2, seed, positions=20, l2=[0.1]) for seed in (0, 0, 1)]
    assert torch.equal(heads[0].solution.weight, heads[1].solution.weight)
    assert not torch.equal(heads[0].solution.weight, heads[2].solution.weight)


def test_the_share_of_clustered_regions_is_that_of_the_best_matching():
    classes = torch.tensor([1, 1, 1, 2, 2, 255]).view(6, 1, 1).to(torch.uint8).repeat(1, 2, 2)
    classes[5, 0, 0] = 2  # one pixel is known
    regions = Regions(torch.arange(6), torch.ones(6, 2, 2, dtype=torch.bool))
    found = Clusters(labels=torch.tensor([1, 1, 0, 0, 0, 0]).numpy(), core=torch.ones(6).bool().numpy(), count=2)
    assert clustered(found, regions, classes) == pytest.approx(5 / 6)
