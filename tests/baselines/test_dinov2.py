"""DINOv2's losses against the official code and against loops, its masks, its heads and its learning rates."""

import math
import random

import pytest
import torch
from golden_numbers import assert_same, batch, begin, follow, golden, part
from torch import Tensor

from baselines.dino import Temperatures
from baselines.dinov2 import (
    Assignment,
    DINOv2,
    block_mask,
    koleo,
    masked_patches,
    random_mask,
    sinkhorn_centre,
    weights_of,
)
from scd.errors import UsageError
from scd.maps.attention import AttentionMap
from scd.method import Batch, View
from scd.nn.backbone import build_backbone
from scd.nn.vit import ViT, vit
from scd.scd import SCD

K = 9


def network(side: int = 16, patch: int = 4, depth: int = 2, **options) -> ViT:
    torch.manual_seed(0)
    given = {"img_size": side, "patch_size": patch, "embed_dim": 8, "depth": depth, "num_heads": 2, "mlp_ratio": 2}
    return vit("vit_tiny_patch16_224", **{**given, **options})


def tiny(backbone: ViT | None = None, **options) -> DINOv2:
    given = {"prototypes": K, "hidden": 8, "bottleneck": 5, "momentum": 0.8}
    return DINOv2(backbone or network(), **{**given, **options}).train()


def views(rows: int = 4, locals_: int = 2) -> Batch:
    draw = torch.Generator().manual_seed(1)
    sides = {"v1": 16, "v2": 16, **{f"local{i}": 8 for i in range(locals_)}}
    rectangles, flips = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(rows, 4), torch.zeros(rows, dtype=torch.bool)
    made = {
        name: View(name, "extra" if "local" in name else "global", torch.randn(rows, 3, s, s, generator=draw),
                   rectangles, flips)
        for name, s in sides.items()
    }  # fmt: skip
    return Batch(made)


def outputs_of(method: DINOv2, given: Batch, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return method(given)


@pytest.fixture(scope="module")
def numbers() -> dict[str, Tensor]:
    """Numbers of the official code."""
    return golden("dinov2")


def matcher(centring: str = "centre", tau: float = 0.07) -> Assignment:
    return Assignment(K, Temperatures(0.1, tau, tau, 0.0), 0.9, centring).double()


# ---------------------------------------------------------------- the official code


@pytest.mark.parametrize(("case", "options"), [
    ("shared", {"shared_head": True, "centring": "centre"}),
    ("separate", {"shared_head": False, "centring": "sinkhorn"}),
])  # fmt: skip
def test_three_steps_are_the_official_ones(numbers, monkeypatch, case, options):
    """ViT with mask token, heads, all losses, gradients, EMA and centres, with two global views and a local one."""
    given = part(numbers, f"{case}.")
    method = tiny(
        network(8, 2, depth=1), teacher_temperature=0.07, momentum_schedule="constant", freeze_last=0, **options
    ).double()
    begin(method, given)
    masks = iter(given["masks"].bool())
    monkeypatch.setattr(method, "draw_masks", lambda rows, h, w: (next(masks).view(rows, h, w), rows * h * w))
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.2)
    assert len(list(follow(method, optimizer, given, lambda n, step: batch(n, step, ("local0",))))) == 3


def test_koleo_is_the_official_one(numbers):
    vectors = numbers["koleo.vectors"].requires_grad_()
    loss = koleo(vectors)
    loss.backward()
    assert_same(loss, numbers["koleo.loss"], "loss")
    assert_same(vectors.grad, numbers["koleo.gradient"], "gradient")


def test_the_patch_loss_and_its_centre_are_the_official_ones(numbers):
    given, own = part(numbers, "patch."), matcher()
    masks, student = given["masks"].bool(), given["student"].requires_grad_()
    own.centre.copy_(given["centre"])
    loss = (own.rows(student, given["teacher"]) * weights_of(masks)).sum()
    loss.backward()
    own.remember([given["teacher"]])
    own.after_step(1.0)
    assert_same(loss, given["loss"], "loss")
    assert_same(student.grad, given["gradient"], "gradient")
    assert_same(own.centre, given["new_centre"], "centre")


def test_the_patch_loss_is_that_of_ibots_code(numbers):
    given, own, masks = part(numbers, "ibot."), matcher(), numbers["patch.masks"].bool()
    own.centre.copy_(numbers["patch.centre"])
    loss = (own.rows(given["student"][masks], given["teacher"][masks]) * weights_of(masks)).sum()
    assert_same(loss, given["loss"], "loss")


@pytest.mark.parametrize(("name", "tau"), [("patch", 0.07), ("cls", 0.04)])
def test_sinkhorn_knopp_is_the_official_one(numbers, name, tau):
    logits = numbers["patch.teacher"]
    found = ((logits - sinkhorn_centre(logits, tau)) / tau).softmax(dim=1)
    assert_same(found, numbers[f"sinkhorn.{name}"], "assignment")


@pytest.mark.parametrize(("side", "seed"), [(6, 5), (14, 6)])
def test_block_masks_are_the_official_ones(numbers, side, seed):
    draw = random.Random(seed)
    counts = numbers[f"blocks.{side}.counts"].tolist()
    found = torch.tensor([block_mask(draw, side, side, count) for count in counts])
    assert torch.equal(found, numbers[f"blocks.{side}"].bool())


# ---------------------------------------------------------------- the formulas, number by number


def cross_entropy(s: list[float], t: list[float], centre: list[float], tau_t: float) -> float:
    q = [math.exp((x - c) / tau_t) for x, c in zip(t, centre, strict=True)]
    p = [math.exp(x / 0.1) for x in s]
    return -sum(a / sum(q) * math.log(b / sum(p)) for a, b in zip(q, p, strict=True))


@pytest.mark.parametrize("shared", [True, False])
def test_the_loss_by_loops_over_views_images_and_patches(shared):
    """A second way: each view through the network by itself, and every term written out."""
    method, given = tiny(shared_head=shared, patch_weight=0.7, koleo_weight=0.3).double().eval(), views()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, dtype=parameter.dtype))
        for each in (method.matcher, method.patch_matcher):
            each.centre.copy_(0.1 * torch.randn(K, dtype=torch.float64))
        for view in given.views.values():
            view.images = view.images.double()
        torch.manual_seed(3)
        found = method(given)
        torch.manual_seed(3)
        drawn = method.draw_masks(8, 4, 4)[0].flatten(1)

    def logits(name: str, branch: str) -> tuple[Tensor, Tensor, Tensor]:
        backbone, view = getattr(method, f"{branch}backbone"), given.views[name]
        embed, model = backbone.model.patch_embed(view.images).flatten(1, 2), backbone.model
        if not branch and view.role == "global":
            for row, mask in enumerate(drawn[:4] if name == "v1" else drawn[4:]):
                for place in mask.nonzero()[:, 0].tolist():
                    embed[row, place] = method.mask_token[0]
        side = int(embed.shape[1] ** 0.5)
        x = model.norm(model.blocks(model._pos_embed(embed.unflatten(1, (side, side)))))
        head = getattr(method, f"{branch}projector")
        patch_head = head if shared else getattr(method, f"{branch}patch_head")
        return x[:, 0], head(x[:, 0]), patch_head(x[:, 1:])

    with torch.no_grad():
        student, teacher = ({n: logits(n, b) for n in given.views} for b in ("", "target_"))
    cls, count = 0.0, 0
    for i in given.views:
        for j in ("v1", "v2"):
            for b in range(4 if i != j else 0):
                pair = student[i][1][b].tolist(), teacher[j][1][b].tolist()
                cls, count = cls + cross_entropy(*pair, method.matcher.centre.tolist(), 0.04), count + 1
    patch, spread = 0.0, 0.0
    for v, name in enumerate(("v1", "v2")):
        unit = [(x / x.norm()).tolist() for x in student[name][0]]
        for b in range(4):
            chosen = drawn[4 * v + b].nonzero()[:, 0].tolist()
            for p in chosen:
                pair = student[name][2][b, p].tolist(), teacher[name][2][b, p].tolist()
                patch += cross_entropy(*pair, method.patch_matcher.centre.tolist(), 0.04) / len(chosen) / 8
            spread -= math.log(min(math.dist(unit[b], unit[o]) for o in range(4) if o != b)) / 4
    assert drawn.any(dim=1).sum() >= 2 and count == 6 * 4
    assert found["cls_loss"].item() == pytest.approx(cls / count, rel=1e-6)
    assert found["patch_loss"].item() == pytest.approx(patch, rel=1e-6)
    assert found["koleo_loss"].item() == pytest.approx(spread, rel=1e-6)
    assert found["loss"].item() == pytest.approx(cls / count + 0.7 * patch + 0.3 * spread, rel=1e-6)
    assert found["masked_share"].item() == pytest.approx(drawn.double().mean().item())


def test_sinkhorn_gives_prototypes_and_rows_equal_mass():
    logits = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q = ((logits - sinkhorn_centre(logits, 0.5, iterations=200)) / 0.5).softmax(dim=1)
    torch.testing.assert_close(q.sum(dim=0), torch.full((4,), 3.0, dtype=torch.float64))
    large = sinkhorn_centre(torch.tensor([[900.0, 0.0], [0.0, 900.0]]), 0.04)  # exp(22500) overflows
    assert torch.isfinite(large).all()


def test_class_tokens_of_both_views_are_balanced_together():
    method, given = tiny(centring="sinkhorn"), views()
    target = {}
    inner = method.matcher.prepare
    method.matcher.prepare = lambda found: (target.update(rows=torch.cat(found)), inner(found))
    outputs_of(method, given)
    assert target["rows"].shape == (8, K)
    torch.testing.assert_close(method.matcher.centre, sinkhorn_centre(target["rows"], 0.04))
    before = method.matcher.centre.clone()
    method.after_step(0.5)
    assert torch.equal(method.matcher.centre, before)  # no EMA beside it


def test_koleo_pushes_a_vector_from_its_nearest_one():
    vectors = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0]], requires_grad=True)
    koleo(vectors).backward()
    assert vectors.grad[0, 1] < 0 < vectors.grad[1, 1]  # a step against the gradient moves them apart
    with pytest.raises(UsageError, match="needs 2 or more in each process, or koleo_weight=0"):
        koleo(vectors[:1])


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize("shape", ["block", "random"])
def test_half_of_the_views_are_masked_with_stratified_ratios(shape):
    method = tiny(mask_shape=shape)
    torch.manual_seed(0)
    masks, most = method.draw_masks(40, 14, 14)
    counts = masks.flatten(1).sum(dim=1)
    chosen = counts[counts > 0].sort().values
    assert masks.shape == (40, 14, 14) and len(chosen) == 20 and counts.sum() <= most
    bounds = [0.1 + 0.4 * i / 20 for i in range(21)]
    assert most == sum(int(196 * bound) for bound in bounds[1:])
    if shape == "random":
        for count, low, high in zip(chosen.tolist(), bounds[:-1], bounds[1:], strict=True):
            assert int(196 * low) <= count <= int(196 * high)
    assert chosen[-1] <= 98 and len(set((counts > 0).tolist()[:20])) == 2  # the masked ones stand anywhere


def test_masks_come_from_the_global_generator():
    method = tiny()
    torch.manual_seed(1)
    one = method.draw_masks(8, 6, 6)[0]
    two = method.draw_masks(8, 6, 6)[0]
    torch.manual_seed(1)
    assert torch.equal(method.draw_masks(8, 6, 6)[0], one) and not torch.equal(one, two)


def test_masks_of_one_shape_or_another():
    draw = random.Random(0)
    assert [sum(map(sum, random_mask(draw, 3, 5, count))) for count in (0, 4, 15)] == [0, 4, 15]
    assert not any(map(any, block_mask(draw, 4, 4, 0)))
    found = block_mask(draw, 6, 9, 20)
    assert len(found) == 6 and len(found[0]) == 9 and 4 <= sum(map(sum, found)) <= 20


def test_the_token_replaces_masked_patches_alone_in_their_places():
    """A patch embedding that returns where its patch lies: the coordinate image, read after the masks."""
    backbone, images = network(), torch.zeros(1, 3, 16, 16)
    images[0, 0], images[0, 1] = torch.arange(16.0).expand(16, -1), torch.arange(16.0)[:, None].expand(-1, 16)
    with torch.no_grad():
        projection = backbone.model.patch_embed.proj
        projection.weight.zero_(), projection.bias.zero_()
        projection.weight[0, 0], projection.weight[1, 1] = 1 / 16, 1 / 16  # mean column and row of the patch
    masks, token = torch.zeros(1, 16, dtype=torch.bool), torch.full((1, 8), 99.0)
    masks[0, 4 * 1 + 2] = True  # row 1, column 2
    with masked_patches(backbone, masks, token):
        seen = backbone.model.patch_embed(images)
    for row in range(4):
        for column in range(4):
            expected = [99.0] * 8 if (row, column) == (1, 2) else [4 * column + 1.5, 4 * row + 1.5, *[0.0] * 6]
            assert seen[0, row, column].tolist() == pytest.approx(expected)
    assert not (backbone.model.patch_embed(images) == 99).any()  # outside of the context nothing is replaced


def test_the_student_never_sees_a_masked_pixel_and_the_teacher_and_local_views_are_not_masked():
    method, given = tiny().eval(), views()
    torch.manual_seed(0)
    encoded = method.encode(given.views)
    torch.manual_seed(0)
    pixels = method.draw_masks(8, 4, 4)[0].repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    assert torch.equal(torch.cat(list(encoded.masks.values())), pixels[:, ::4, ::4].flatten(1))
    other = views()
    other.views["v1"].images = torch.where(pixels[:4, None], 7.0, other.views["v1"].images)
    torch.manual_seed(0)
    changed = method.encode(other.views)
    assert pixels[:4].any() and torch.equal(encoded.online["v1"].maps, changed.online["v1"].maps)
    assert not torch.equal(encoded.target["v1"].maps, changed.target["v1"].maps)
    plain = method.encode_online(given.views["local0"].images)
    torch.testing.assert_close(encoded.online["local0"].pooled, plain.pooled)
    assert set(encoded.target) == {"v1", "v2"}


def test_without_masked_patches_the_patch_loss_is_0_and_its_centre_stays():
    method = tiny(mask_probability=0.0)
    method.patch_matcher.centre.fill_(0.5)
    outputs = outputs_of(method, views())
    outputs["loss"].backward()
    method.after_step(0.5)
    assert outputs["patch_loss"] == 0 and outputs["masked_share"] == 0 and outputs["patch_entropy"] == 0
    assert (method.patch_matcher.centre == 0.5).all() and method.mask_token.grad is not None
    balanced = tiny(mask_probability=0.0, centring="sinkhorn")
    assert torch.isfinite(outputs_of(balanced, views())["loss"])
    assert torch.isfinite(balanced.patch_matcher.centre).all()


def test_the_cost_of_a_step_does_not_depend_on_the_masks():
    method, seen = tiny(), []
    method.projector.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    for seed in range(4):
        outputs_of(method, views(), seed)
    assert len(set(seen)) == 2  # class tokens, and patches in one number of rows


# ---------------------------------------------------------------- heads, rates, other parts


def test_the_last_layers_are_frozen_at_first():
    method = tiny(shared_head=False, freeze_last=0.5)
    for progress, frozen in ((0.6, True), (1.0, False)):
        outputs_of(method, views())["loss"].backward()
        method.after_backward()
        assert (method.projector.weight.grad is None) is frozen
        assert (method.patch_head.weight.grad is None) is frozen
        method.after_step(progress)


def test_learning_rates_fall_from_layer_to_layer():
    method = tiny(network(depth=3), layer_decay=0.9, patch_embed_lr=0.2)
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    factors = {names[id(p)]: group.lr_multiplier for group in method.parameter_groups() for p in group.parameters}
    expected = {
        "mask_token": 0.9**4, "backbone.model.pos_embed": 0.9**4, "backbone.model.cls_token": 0.9**4,
        "backbone.model.patch_embed.proj.weight": 0.2 * 0.9**4, "backbone.model.blocks.0.attn.qkv.weight": 0.9**3,
        "backbone.model.blocks.2.mlp.fc1.bias": 0.9, "backbone.model.norm.weight": 1.0, "projector.weight": 1.0,
    }  # fmt: skip
    assert {name: factors[name] for name in expected} == pytest.approx(expected)
    wrapped = SCD(tiny(layer_decay=0.9))
    assert sum(len(group.parameters) for group in wrapped.parameter_groups()) == len(
        [p for p in wrapped.parameters() if p.requires_grad]
    )
    assert len(tiny().parameter_groups()) == 1


def test_scd_with_the_attention_takes_its_features():
    method = SCD(tiny(), saliency=AttentionMap)
    assert torch.isfinite(outputs_of(method, views())["triplet_loss"])


def test_parts_cover_heads_and_matchers():
    method = tiny(shared_head=False)
    modules = method.parts().modules
    assert modules[method.patch_head] == modules[method.target_patch_head] == "heads"
    assert modules[method.patch_matcher] == "loss"


# ---------------------------------------------------------------- refusals


def test_refuses_a_backbone_that_is_no_vit():
    with pytest.raises(UsageError, match="needs a ViT .backbone=vit., not a FeatureMaps"):
        tiny(build_backbone("resnet_tiny", widths=(4, 6, 8)))


@pytest.mark.parametrize(("options", "text"), [
    ({"mask_shape": "stripes"}, "unknown mask_shape 'stripes'"),
    ({"centring": "none"}, "unknown centring 'none'"),
    ({"mask_probability": 1.5}, r"mask_probability lies in \[0, 1\], not at 1.5"),
    ({"mask_ratio": (0.5, 0.1)}, r"mask_ratio is a lowest and a highest share in \[0, 1\], not \[0.5, 0.1\]"),
    ({"koleo_weight": -1.0}, "koleo_weight is the weight of a loss, 0 or more, not -1"),
    ({"layer_decay": 0.0}, r"layer_decay is a factor on a learning rate in \(0, 1\], not 0"),
])  # fmt: skip
def test_refuses_impossible_settings(options, text):
    with pytest.raises(UsageError, match=text):
        tiny(**options)


def test_refuses_global_views_of_two_sizes():
    given = views()
    given.views["v2"].images = given.views["v2"].images[:, :, :8, :8]
    with pytest.raises(UsageError, match="global views have one size"):
        outputs_of(tiny(), given)
