"""ContraCAM's maps against loops over images and the official code's numbers, its masks and boxes, and its network."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_numbers import assert_same, golden
from small_moco import SIDE, Patches, moco
from torch import nn

from baselines.moco import MoCo
from baselines.supervised import Supervised
from baselines.vader import VADeR
from scd.data.annotators.annotator import annotate, check_values, identity
from scd.data.annotators.contracam import (
    ContraCAM,
    contrastive_cam,
    contrastive_scores,
    double_last_map,
    stretched,
)
from scd.data.images import load_images
from scd.data.sources.shapes import Shapes
from scd.errors import UsageError
from scd.nn.backbone import build_backbone
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD
from studies.suite.planning.assembly import instantiate
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.study import Arm

COUNT = 5


def random_images(count=COUNT, seed=0):
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=draw)
    return F.interpolate(coarse, size=SIDE, mode="bilinear").mul(255).to(torch.uint8)


def normalised(images):
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images.double() / 255 - mean) / std


@pytest.fixture
def network():
    return moco(backbone=build_backbone("resnet_tiny", widths=[6, 8], strides=[1, 1])).eval()


def in_float64(network):
    double = copy.deepcopy(network).double().eval()
    return double.backbone, double.projector


# -------------------------------------------------------------------- the maps, written a second time


def maps_by_hand(network, images, iterations, score="paper"):
    """One image and one position at a time, with the gradient of every position of the feature map."""
    backbone, projector = in_float64(network)
    colour = [images[:, c].mean() for c in range(3)]
    union = np.zeros((len(images), *images.shape[2:]))
    shown, memory = images.clone(), []
    for _ in range(iterations):
        features = backbone(shown).detach().requires_grad_()
        vectors = []
        for own in projector(features.mean(dim=(2, 3))):
            vectors.append(own / own.pow(2).sum().sqrt())
        memory.append([vector.detach() for vector in vectors])
        found = []
        for i, z in enumerate(vectors):
            others = [z @ past[j] for past in memory for j in range(len(images)) if j != i]
            below = sum(similarity.exp() for similarity in others)
            above = (z @ memory[0][i]).exp()
            if score == "released":
                below = below + len(memory)
                above = sum((vectors[j] @ memory[0][j]).exp() for j in range(len(images)))
            found.append((above / below).log())
        (gradient,) = torch.autograd.grad(sum(found), features)
        for i in range(len(images)):
            own = np.zeros(features.shape[2:])
            for c in range(features.shape[1]):
                weight = gradient[i, c].numpy().mean()
                if weight > 0:
                    own += weight * features[i, c].detach().numpy()
            own = torch.tensor(np.where(own > 0, own, 0))[None, None]
            own = F.interpolate(own, size=images.shape[2:], mode="bicubic", align_corners=False)[0, 0].numpy()
            spread = own.max() - own.min()
            union[i] = np.maximum(union[i], (own - own.min()) / spread if spread > 0 else 0)
            for c in range(3):
                covered = torch.tensor(union[i])
                shown[i, c] = images[i, c] * (1 - covered) + colour[c] * covered
    return union


@pytest.mark.parametrize("score", ["paper", "released"])
@pytest.mark.parametrize("iterations", [1, 3])
def test_maps_are_those_of_the_loops(network, iterations, score):
    images = normalised(random_images())
    maps = contrastive_cam(*in_float64(network), images, iterations, score)
    np.testing.assert_allclose(maps.numpy(), maps_by_hand(network, images, iterations, score), rtol=0, atol=1e-9)
    assert (maps.amax(dim=(1, 2)) > 0.99).any()


def test_images_of_8_bits_are_normalised_and_taken_in_batches_of_almost_equal_size(network):
    images = random_images(7)
    annotator = ContraCAM(network, batch=3, iterations=2)
    found = annotator.maps(images)
    expected = [maps_by_hand(network, normalised(own), 2) for own in (images[:3], images[3:5], images[5:])]
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), np.concatenate(expected), rtol=0, atol=1e-3)
    assert torch.equal(found[:3], annotator.maps(images[:3]))
    assert not torch.equal(annotator.maps(images[1:4])[:2], found[1:3])  # other negatives


def test_both_scores_give_the_same_first_map_and_other_ones_later(network):
    images = normalised(random_images())
    one, two = ([contrastive_cam(*in_float64(network), images, t, score) for score in ("paper", "released")]
                for t in (1, 3))  # fmt: skip
    torch.testing.assert_close(*one, rtol=0, atol=1e-10)
    assert (two[0] - two[1]).abs().max() > 1e-3


class Colours(nn.Module):
    """The colours as feature maps of half the side."""

    dim = 3

    def forward(self, images):
        return F.avg_pool2d(images, 2)


def test_channels_that_lower_the_score_do_not_count():
    """Both images have a red and a green half. Red alone tells the second one from the first."""
    images = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    images[:, 0, :, :4], images[:, 1, :, 4:] = 1.0, 2.0
    images[1, 0, :, :4] = 4.0
    maps = contrastive_cam(Colours(), nn.Identity(), images)
    assert (maps[1, :, :3] > 0.9).all() and (maps[1, :, 5:] < 0.1).all()
    assert (maps[0, :, :3] < 0.1).all() and (maps[0, :, 5:] > 0.9).all()


def test_a_further_iteration_adds_and_removes_nothing(network):
    images = normalised(random_images())
    first, second, third = (contrastive_cam(*in_float64(network), images, t) for t in (1, 2, 3))
    assert (second >= first).all() and (third >= second).all() and (third > first + 0.1).any()


def test_images_of_one_colour_and_an_image_alone_have_an_empty_map():
    images = random_images()
    same = torch.full((3, 3, SIDE, SIDE), 90, dtype=torch.uint8)
    for provides, shape in (("masks", (SIDE, SIDE)), ("boxes", (0, 4))):
        annotator = ContraCAM(moco(), provides)
        for values in (annotator(images[:1], None), annotator(same, None)):
            assert all(each.shape == shape and not each.any() for each in values)
    assert not stretched(torch.full((2, 4, 4), 3.0)).any()


# -------------------------------------------------------------------- the official numbers


def official_network(numbers):
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.ReLU())
    projector = nn.Sequential(nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 5))
    given = [
        numbers["conv"],
        *(numbers[f"{layer}.{kind}"] for layer in ("first", "last") for kind in ("weight", "bias")),
    ]
    parameters = [*backbone.parameters(), *projector.parameters()]
    with torch.no_grad():
        for parameter, value in zip(parameters, given, strict=True):
            parameter.data = value
    return backbone, projector


def test_the_released_score_and_maps_are_those_of_the_official_code():
    numbers = golden("contracam")
    for iterations in (1, 2, 4):
        maps = contrastive_cam(*official_network(numbers), numbers["images"], iterations, "released")
        assert_same(maps, numbers[f"map.{iterations}"], f"map after {iterations} iterations")
    assert_same(contrastive_cam(*official_network(numbers), numbers["images"]), numbers["map.1"], "map of the paper")
    z = numbers["z"].requires_grad_()
    scores = contrastive_scores(z, numbers["keys"], [numbers["keys"], numbers["other"]], "released")
    assert_same(scores, numbers["score"], "score")
    assert_same(torch.autograd.grad(scores.sum(), z)[0], numbers["score.gradient"], "gradient of the score")


# -------------------------------------------------------------------- masks and boxes


def test_a_mask_is_where_the_map_reaches_the_threshold(network, monkeypatch):
    maps = torch.tensor([0.0, 0.19, 0.2, 1.0]).view(1, 2, 2)
    for threshold, expected in ((None, [0, 0, 1, 1]), (0.1, [0, 1, 1, 1])):
        annotator = ContraCAM(network, threshold=threshold)
        monkeypatch.setattr(annotator, "maps", lambda images: maps)
        masks = annotator(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), None)
        assert masks.dtype == torch.uint8 and masks.flatten().tolist() == expected


def test_boxes_surround_large_components_and_are_enlarged_within_the_image(network, monkeypatch):
    """On 20 px: 10 x 5, touched at a corner by 5 x 5; 2 x 2, exactly 1 %; 3 x 3 in a corner of the image."""
    maps = torch.zeros(2, 20, 20)
    maps[0, 2:7, 2:12], maps[0, 7:12, 12:17], maps[0, 15:17, 3:5], maps[0, 0:3, 17:20] = 0.9, 0.5, 1.0, 0.7
    maps[0, 13, :] = 0.49
    expected = {(0.0, 0.05, 0.7, 0.4), (0.55, 0.3, 0.9, 0.65), (0.82, 0.0, 1.0, 0.18)}
    annotator = ContraCAM(network, "boxes")
    assert annotator.iterations == 10
    monkeypatch.setattr(annotator, "maps", lambda images: maps)
    images = torch.zeros(2, 3, 20, 20, dtype=torch.uint8)
    boxes = annotator(images, None)
    check_values(annotator, boxes, images)
    assert {tuple(round(value, 4) for value in box) for box in boxes[0].tolist()} == expected
    assert boxes[1].shape == (0, 4)


@pytest.mark.parametrize("provides", ["masks", "boxes"])
def test_annotations_of_a_source_are_kept_in_its_order(network, provides):
    source = Shapes(classes=3, size=24, train=12, test=4)
    annotator = ContraCAM(network, provides)
    annotations = annotate(annotator, source, "train", 24)
    images = load_images(source, "train", 24)
    expected = annotator(images.images, images)
    for found, number in zip(annotations.rows([4, 0]), (4, 0), strict=True):
        torch.testing.assert_close(found, expected[number])


# -------------------------------------------------------------------- the network


def test_the_network_stays_as_it_is_and_hosts_in_wrappers_are_found():
    host = moco(backbone=build_backbone("resnet18"))
    host.train()
    before = copy.deepcopy(host.state_dict())
    ContraCAM(VADeR(host), doubled=True, iterations=2)(random_images(), None)
    assert host.training and all(parameter.requires_grad for parameter in host.backbone.parameters())
    assert [each.stride for each in host.backbone.trunk[-1].modules() if isinstance(each, nn.Conv2d)].count((2, 2)) == 2
    for key, value in host.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_the_identity_follows_what_the_maps_depend_on():
    network = moco()
    first = identity(ContraCAM(network))
    network.matcher.queue.keys.add_(1)
    assert identity(ContraCAM(network)) == first
    assert identity(ContraCAM(network, threshold=0.3)) != first
    with torch.no_grad():
        next(network.projector.parameters()).add_(1)
    assert identity(ContraCAM(network)) != first


def test_a_doubled_map_has_twice_the_side_and_the_same_weights():
    backbone = build_backbone("resnet18").eval()
    images, doubled = torch.randn(1, 3, 64, 64), copy.deepcopy(backbone)
    double_last_map(doubled)
    with torch.no_grad():
        assert backbone(images).shape == (1, 512, 2, 2) and doubled(images).shape == (1, 512, 4, 4)
        assert torch.equal(backbone.trunk[:-1](images), doubled.trunk[:-1](images))
    for other in (Patches(), build_backbone("resnet_tiny")):  # without stages; with a stride of 1 in the last one
        with pytest.raises(UsageError, match="doubled=true needs a ResNet whose last stage has a stride of 2"):
            double_last_map(other)


def test_the_annotations_are_as_supervised_as_the_network():
    network = moco()
    assert ContraCAM(network).supervision == "none"
    network.supervision = "labels"
    assert ContraCAM(network).supervision == "labels"


class WithToken(Patches):
    def forward(self, images):
        maps = super().forward(images)
        return maps, maps.amax(dim=(2, 3))


def test_networks_that_have_no_such_map_are_refused_in_one_line():
    for other in (None, nn.Linear(2, 2), Supervised(Patches(), classes=3)):
        with pytest.raises(UsageError, match="needs the trained network of an earlier run .* as an input of the run"):
            ContraCAM(other)
    with pytest.raises(UsageError, match="a backbone whose map is pooled by the mean"):
        ContraCAM(MoCo(WithToken(), dim=4, queue_size=8))(random_images(), None)


@pytest.mark.parametrize("wrapper", ["contracam_crop", "contracam_mixup"])
def test_a_run_without_its_earlier_run_says_which_input_is_missing(wrapper):
    settings = resolve_settings("related", ["tier=smoke"])
    config = settings.configure(Arm("x", "", {"method": "moco", "wrapper": wrapper}, "", ""), 0)
    (annotator,) = config["annotations"].values()
    with pytest.raises(UsageError, match="unknown input of this run 'contrastive'"):
        instantiate(annotator, inputs={})
    made = instantiate(annotator, inputs={"contrastive": moco()})
    assert isinstance(made, ContraCAM) and {made.provides} == set(config["annotations"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"provides": "segments"}, "unknown kind of annotation of contracam 'segments'; .*valid: boxes, masks"),
        ({"score": "official"}, "unknown score of contracam 'official'"),
        ({"threshold": 1.0}, "threshold is 1.0, it must lie between 0 and 1"),
        ({"iterations": 0}, "iterations is 0, it must be at least 1"),
        ({"batch": 1}, "batch is 1, it must be at least 2"),
        ({"least_area": 1}, "least_area is 1, it must be a share"),
        ({"margin": -0.1}, "margin is -0.1, it must be 0 or more"),
    ],
)
def test_bad_options_are_refused(options, text):
    with pytest.raises(UsageError, match=text):
        ContraCAM(moco(), **options)
