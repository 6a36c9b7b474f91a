"""ORL beside its official code and a second formula; its views by the coordinate image; which boxes become pairs."""

import copy
from dataclasses import replace

import pytest
import torch
from golden_numbers import Convolution, assert_same, begin, follow, golden
from torch import Tensor, nn
from view_images import batch_of, coordinate_images, random_boxes, random_images

from baselines import orl as orl_module
from baselines.byol import BYOL
from baselines.orl import ORL, TRIES, jittered, kept_boxes, neighbours, similar
from scd.data.cut_views import WholeImages
from scd.data.recipes import build_recipe
from scd.data.views import ViewMaker
from scd.errors import UsageError
from scd.method import Batch, whole_view
from scd.nn.backbone import build_backbone
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD
from scd.training.step import take_step
from studies.suite.planning.assembly import instantiate

OPTIONS = {"size": 16, "patch_size": 8, "dim": 6, "hidden": 10, "proposals": 4, "momentum": 0.9}
NAMES = ("image", "intra", "inter")
COUNT = 6
WHOLE = torch.tensor([0.0, 0.0, 1.0, 1.0])


def small_backbone() -> nn.Module:
    return build_backbone("resnet_tiny", widths=(4, 6), strides=(1, 2))


def orl(**options) -> ORL:
    torch.manual_seed(0)
    return ORL(options.pop("backbone", None) or small_backbone(), **{**OPTIONS, **options}).train()


def stage1() -> BYOL:
    torch.manual_seed(7)
    return BYOL(small_backbone(), dim=5, hidden=7).train()


def whole_batch(images: Tensor, boxes: list[Tensor]) -> Batch:
    recipe = build_recipe("single", images.shape[2], scale=[1.0, 1.0])
    return ViewMaker(recipe, 0, needs=ORL.needs)(batch_of(images, boxes=boxes), 0)


def some_batch() -> Batch:
    return whole_batch(random_images(COUNT), random_boxes(COUNT))


def colours(images: Tensor) -> Tensor:
    """Normalised images in [0, 1]."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return images * std + mean


# -------------------------------------------------------------------- the official code


def test_steps_of_the_official_code():
    """All three losses, gradients, the weights of both networks, and the online BN statistics of six forward passes.

    Not those of the target, whose passes have another order: the second view of a pair comes first.
    """
    numbers = golden("orl")
    method = ORL(Convolution(), dim=8, hidden=10, momentum=0.8).double()
    begin(method, numbers)
    steps = len(numbers["loss"])
    momenta = [method.siamese.momentum(step / steps) for step in range(steps)]
    assert momenta == pytest.approx(numbers["momentum"].tolist(), rel=1e-12)
    losses = []

    def views(batch):
        return batch, {}

    def loss_of(pair, matcher):
        losses.append(ORL.loss_of(method, pair, matcher))
        return losses[-1]

    method.views, method.loss_of = views, loss_of

    def pairs(numbers: dict[str, Tensor], step: int):
        names = {name: (f"{name}1", f"{name}2") for name in NAMES}
        return {name: {each: whole_view(numbers[each][step], each) for each in pair} for name, pair in names.items()}

    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 2 * 0.3)
    assert len(list(follow(method, optimizer, numbers, pairs, directions=2))) == steps
    found = torch.stack(losses).view(steps, 3)
    for place, name in enumerate(NAMES):
        assert_same(2 * found[:, place], numbers[f"{name}_loss"], name)


def test_jittered_boxes_are_the_official_ones():
    """The official code rounds to pixels, here of an image with 10 million of them along a side."""
    numbers = golden("orl")
    boxes = numbers["jitter.boxes"]
    numbered = torch.arange(1, len(boxes) * TRIES * 4 + 1)
    draws = (numbered**2 * 7919 % 10007).double().view(-1, TRIES, 4) / 10007
    moved, found = jittered(boxes, draws)
    assert_same(moved, numbers["jitter.moved"], "jittered boxes", precision=5e-7)
    assert found.sum() == (numbers["jitter.moved"] != boxes).any(dim=1).sum() > 35


def test_the_boxes_that_are_kept_are_the_official_ones():
    numbers = golden("orl")
    boxes = numbers["filter.boxes"].split(numbers["filter.counts"].tolist())
    kept, counts, found = kept_boxes([each / 480 for each in boxes], 96 / 480)
    assert counts.tolist() == numbers["filter.kept_counts"].tolist() and found.all()
    for own, count, expected in zip(kept, counts, numbers["filter.kept"].split(counts.tolist()), strict=True):
        assert_same(480 * own[:count], expected, "kept boxes")


@pytest.mark.parametrize("count", [30, 7])
def test_the_most_similar_pairs_are_the_official_ones(count):
    numbers = golden("orl")
    vectors = nn.functional.normalize(numbers["pairs.features"], dim=2)
    counted = torch.ones(2, 30, dtype=torch.bool)
    counted[0, count:] = False
    expected = numbers[f"pairs.of_{count}"]
    found = []
    for place in range(len(expected)):
        draws = torch.full((2,), (place + 0.5) / len(expected))
        own, other, _ = similar(vectors, counted, torch.tensor([1, 0]), 0.1, draws)
        found.append([own[0].item(), other[0].item()])
    assert found == expected.tolist() and len(expected) == max(1, count // 10)


# -------------------------------------------------------------------- the loss


@torch.no_grad()
def test_the_loss_is_that_of_plain_loops():
    method = orl().double().eval()
    draw = torch.Generator().manual_seed(1)
    sizes = {"image": 16, "intra": 8, "inter": 8}
    views = {
        name: {f"{name}{i}": whole_view(torch.randn(4, 3, side, side, generator=draw).double()) for i in (1, 2)}
        for name, side in sizes.items()
    }
    method.views = lambda batch: (views, {})
    predictors = {
        "image": method.siamese.matcher.predictor,
        "intra": method.intra_matcher.predictor,
        "inter": method.inter_matcher.predictor,
    }
    host, total = method.siamese, 0.0
    for name, pair in views.items():
        first, second = pair.values()
        for online, target in ((first, second), (second, first)):
            for row in range(4):
                z = host.projector(host.backbone(online.images[row : row + 1]).mean(dim=(2, 3)))
                p = predictors[name](z)[0]
                t = host.target_projector(host.target_backbone(target.images[row : row + 1]).mean(dim=(2, 3)))[0]
                p, t = p / p.norm(), t / t.norm()
                total += sum((a - b) ** 2 for a, b in zip(p.tolist(), t.tolist(), strict=True)) / 4 / 2
    outputs = method(None)
    assert outputs["loss"].item() == pytest.approx(total, rel=1e-10)
    assert outputs["loss"] == sum(outputs[f"{name}_loss"] for name in NAMES)


def test_targets_get_no_gradient_and_every_predictor_one():
    method = orl()
    method(some_batch())["loss"].backward()
    for name, value in method.named_parameters():
        assert (value.grad is None) == ("target_" in name), name
    for matcher in (method.siamese.matcher, method.intra_matcher, method.inter_matcher):
        assert matcher.predictor.layers[0].weight.grad.abs().sum() > 0


# -------------------------------------------------------------------- views


def test_views_show_their_boxes_and_the_second_box_of_a_pair_is_of_the_other_image(monkeypatch):
    """Red and green are x and y of the image, blue is its number."""
    monkeypatch.setattr(orl_module, "PHOTOMETRICS", ("none", "none"))
    images = coordinate_images(COUNT)
    images[:, 2] = (torch.arange(COUNT) * 40).view(-1, 1, 1).to(torch.uint8)
    boxes = [each + 0.0 for each in random_boxes(COUNT)]
    partners = {}
    method = orl()
    mined = method.mined

    def recorded(*given):
        partners["found"] = mined(*given)
        return partners["found"]

    method.mined = recorded
    torch.manual_seed(3)
    views, logs = method.views(whole_batch(images, boxes))
    own, others, theirs, _ = partners["found"]
    kept, counts, found = kept_boxes(boxes, 0.2)
    assert not found.all() and logs["with_box"] == found.float().mean()
    assert (others != torch.arange(COUNT)).all()
    for name, side in zip(NAMES, (16, 8, 8), strict=True):
        for number, view in enumerate(views[name].values()):
            assert view.images.shape == (COUNT, 3, side, side) and view.role == "global"
            shown = colours(view.images)
            expected = view.rectangles.unflatten(1, (2, 2)).mean(dim=1)  # centres
            torch.testing.assert_close(shown[:, :2].mean(dim=(2, 3)), expected, atol=6e-3, rtol=0)
            image = others if (name, number) == ("inter", 1) else torch.arange(COUNT)
            torch.testing.assert_close(shown[:, 2].mean(dim=(1, 2)), image * 40 / 255, atol=1e-4, rtol=0)
    assert torch.equal(views["inter"]["inter1"].rectangles, own)
    assert torch.equal(views["inter"]["inter2"].rectangles, theirs)
    for row in range(COUNT):
        candidates = kept[row, : counts[row]]
        assert any(torch.equal(views["intra"]["intra1"].rectangles[row], each) for each in candidates)
        assert any(torch.equal(own[row], each) for each in candidates)
        assert any(torch.equal(theirs[row], each) for each in kept[others[row], : counts[others[row]]])
    assert torch.equal(own[~found], WHOLE.expand(int((~found).sum()), 4))


def test_views_have_byols_photometrics_and_patches_the_same_blur_in_pixels(monkeypatch):
    seen = []

    def recorded(whole, rectangles, size, distribution, name, **options):
        if distribution != "none":
            seen.append((name, size, distribution, size / options["blur_reference"]))
        return cut(whole, rectangles, size, distribution, name, **options)

    cut = orl_module.cut
    monkeypatch.setattr(orl_module, "cut", recorded)
    orl(blur_reference=32)(some_batch())
    assert seen == [
        (f"{name}{i}", side, f"byol{i}", 0.5)
        for name, side in (("image", 16), ("intra", 8), ("inter", 8))
        for i in (1, 2)
    ]


def test_jittered_boxes_overlap_lie_inside_and_vary():
    torch.manual_seed(0)
    box = torch.tensor([0.05, 0.3, 0.45, 0.7]).expand(300, 4)
    moved, found = jittered(box, torch.rand(300, TRIES, 4))
    assert found.all() and (moved >= 0).all() and (moved <= 1).all()
    for b, m in zip(box.tolist(), moved.tolist(), strict=True):
        width, height = (max(0.0, min(b[i + 2], m[i + 2]) - max(b[i], m[i])) for i in (0, 1))
        areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (b, m)]
        assert width * height / (sum(areas) - width * height) > 0.5
        assert 0.5 <= areas[1] / areas[0] <= 2.0 and 0.5 <= (m[2] - m[0]) / (m[3] - m[1]) <= 2.0
    assert moved.std(dim=0).min() > 0.02
    narrow = torch.tensor([[0.0, 0.0, 1.0, 0.1]])
    moved, found = jittered(narrow, torch.rand(1, TRIES, 4))
    assert torch.equal(moved, narrow) and not found.any()


def test_boxes_are_left_out_in_order_and_an_image_is_never_without():
    wide, narrow, small = [0.0, 0.0, 0.6, 0.5], [0.0, 0.0, 0.9, 0.25], [0.5, 0.5, 0.65, 0.9]
    again, other = [0.0, 0.0, 0.6, 0.45], [0.3, 0.4, 0.9, 1.0]
    boxes = [[small, wide, narrow, again, other], [small, narrow], [], [[0.2, 0.2, 0.2, 0.9]]]
    kept, counts, found = kept_boxes([torch.tensor(each).view(-1, 4) for each in boxes], 0.2)
    assert (
        kept.shape == (4, 100, 4) and counts.tolist() == [2, 1, 1, 1] and found.tolist() == [True, True, False, False]
    )
    assert torch.equal(kept[0, :2], torch.tensor([wide, other]))
    assert torch.equal(kept[1, 0], torch.tensor(small))
    assert torch.equal(kept[2:, 0], WHOLE.expand(2, 4))


# -------------------------------------------------------------------- pairs


class Colours(nn.Module):
    """A "network" whose map is the image itself, so that vectors are mean colours."""

    dim = 3

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images


def test_a_pair_is_of_the_nearest_image_and_the_most_similar_boxes():
    """Images 0 and 2 are reddish, 1 and 3 bluish; one quarter of each has the colour of a quarter of its partner."""
    method = orl(backbone=Colours(), proposals=10)
    method.siamese.target_projector = nn.Identity()
    base = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.2, 0.9]])
    quarters = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5], [0.5, 0.5]])
    boxes = torch.cat([quarters, quarters + 0.5], dim=1)
    images = (
        torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(2)) * 0.2
        + base.repeat(2, 1)[:, :, None, None] * 0.7
    )
    for image, place in enumerate([0, 1, 3, 2]):
        images[image, :, place // 2, place % 2] = torch.tensor([[0.0, 0.9, 0.9], [0.9, 0.9, 0.0]])[image % 2]
    large = nn.functional.interpolate(images, size=32)
    counts = torch.full((4,), 4)
    padded = torch.cat([boxes, WHOLE.expand(96, 4)]).expand(4, 100, 4)
    for seed in range(3):
        torch.manual_seed(seed)
        own, partners, theirs, similarity = method.mined(WholeImages(large), padded, counts)
        assert partners.tolist() == [2, 3, 0, 1]
        assert torch.equal(own, boxes[[0, 1, 3, 2]]) and torch.equal(theirs, boxes[[3, 2, 0, 1]])
        assert (similarity > 0.999).all()


def test_a_neighbour_is_drawn_among_the_nearest_others():
    vectors = nn.functional.normalize(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    for row in range(8):
        others = sorted(
            (other for other in range(8) if other != row), key=lambda other: -float(vectors[row] @ vectors[other])
        )
        for place in range(3):
            assert neighbours(vectors, 3, torch.full((8,), (place + 0.5) / 3))[row] == others[place]


# -------------------------------------------------------------------- the network of stage 1


def test_the_earlier_network_is_used_and_never_changed():
    earlier = stage1()
    with torch.no_grad():
        for value in earlier.parameters():
            value.add_(0.1)
    method = orl(stage1=earlier)
    frozen = copy.deepcopy(method.stage1_matcher.state_dict())
    for name in ("backbone", "projector"):
        for key, value in getattr(earlier, name).state_dict().items():
            assert torch.equal(value, frozen[f"{name}.{key}"])
    assert not any(module.training for module in method.stage1_matcher.modules()) and earlier.training
    optimizer = torch.optim.SGD([p for group in method.parameter_groups() for p in group.parameters], 0.1)
    for step in range(2):
        take_step(method, method, some_batch(), optimizer, (step + 1) / 2)
    for key, value in method.stage1_matcher.state_dict().items():
        assert torch.equal(value, frozen[key]), key
    assert not any(value.requires_grad or value.grad is not None for value in method.stage1_matcher.parameters())
    held = {id(p) for group in method.parameter_groups() for p in group.parameters}
    assert not held & {id(p) for p in method.stage1_matcher.parameters()}
    assert set(method.evaluated_state()) == set(orl().evaluated_state())
    restored = orl(stage1=stage1())  # from a checkpoint, whatever was given
    restored.load_state_dict(method.state_dict())
    torch.manual_seed(1)
    expected = method(some_batch())["loss"]
    torch.manual_seed(1)
    assert torch.equal(restored(some_batch())["loss"], expected)
    with torch.no_grad():  # other vectors, other pairs
        images, boxes = torch.rand(COUNT, 3, 48, 48), torch.tensor([[0.1, 0.1, 0.6, 0.7]]).expand(COUNT, 2, 4)
        one, other = (made.embedded(WholeImages(images), boxes) for made in (method, orl()))
    assert one[0].shape == (COUNT, 5) and one[1].shape == (COUNT, 2, 6) and not torch.allclose(one[1], other[1])


def test_in_one_stage_the_search_changes_no_statistics_and_no_mode():
    method = orl()
    before = copy.deepcopy(method.state_dict())
    with torch.no_grad():
        method.embedded(WholeImages(torch.rand(4, 3, 48, 48)), torch.tensor([[0.1, 0.1, 0.6, 0.7]]).expand(4, 2, 4))
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert all(module.training for module in method.modules())


def test_a_run_in_two_stages_gets_the_earlier_run_as_its_input():
    earlier = stage1()
    earlier.supervision = "oracle"
    config = {"_target_": "baselines.orl.ORL", "stage1": {"_input_": "byol"}, **OPTIONS}
    method = instantiate(config, small_backbone(), inputs={"byol": earlier})
    assert method.supervision == "oracle" and method.needs == {"boxes"}
    for key, value in earlier.backbone.state_dict().items():
        assert torch.equal(method.stage1_matcher.backbone.state_dict()[key], value), key
    with pytest.raises(UsageError, match="unknown input of this run 'byol'"):
        instantiate(config, small_backbone(), inputs={})


# -------------------------------------------------------------------- options


def test_wrong_options_and_batches_are_refused():
    for options, words in [
        ({"size": 0}, "ORL's size is 1 or more, not 0"),
        ({"patch_size": 0}, "ORL's patch_size is 1 or more, not 0"),
        ({"neighbours": 0}, "ORL's neighbours is 1 or more, not 0"),
        ({"proposals": 101}, "ORL's proposals are 1 to 100, not 101"),
        ({"scale": (0.0, 1.0)}, r"ORL's scale is two ascending shares in \(0, 1\], not \[0.0, 1.0\]"),
        ({"top": 1.5}, r"ORL's top is a share in \[0, 1\], not 1.5"),
        ({"stage1": nn.Linear(2, 2)}, "ORL's stage1 is the trained network of an earlier run .*; got Linear"),
    ]:
        with pytest.raises(UsageError, match=words):
            orl(**options)
    with pytest.raises(UsageError, match="ORL seeks 6 neighbours .* which has 6 images: give fewer method.neighbours"):
        orl(neighbours=6)(some_batch())
    batch = some_batch()
    with pytest.raises(UsageError, match="ORL needs images with boxes: name what makes them, annotations.boxes"):
        orl()(Batch({name: replace(view, boxes=None) for name, view in batch.views.items()}))
    views = ViewMaker(build_recipe("mocov2", 16), 0)(batch_of(random_images(4)), 0)
    with pytest.raises(UsageError, match="needs one view of whole images: views.recipe=single"):
        orl()(views)


def test_autocast_and_the_papers_size_of_patches():
    with torch.autocast("cpu", torch.bfloat16):
        loss = orl(stage1=stage1())(some_batch())["loss"]
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    assert ORL(small_backbone(), hidden=8, dim=4).patch_size == 96
