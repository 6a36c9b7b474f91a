"""The grouping ViT: assignments, stages, its map of attention, and what it refuses; see also ``test_groupvit.py``."""

import pytest
import torch
from torch import nn

from scd.errors import UsageError
from scd.maps.attention import AttentionMap
from scd.method import whole_view
from scd.nn import grouping
from scd.nn.grouping import Grouping, GroupingViT, chained, divided, gumbel, hard, normalised
from scd.nn.vit import ViT, tokens_of, vit


def network(**options) -> ViT:
    torch.manual_seed(0)
    given = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 4, "num_heads": 2, "mlp_ratio": 2}
    return vit("vit_tiny_patch16_224", **{**given, **options})


def grouping_vit(groups=(5, 3), **options) -> GroupingViT:
    """With tokens and weights of assignments that are not near 0."""
    model = GroupingViT(network(**options), groups).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "grouping" in name or "tokens" in name:
                parameter.add_(0.5 * torch.randn(parameter.shape))
    return model


def images(rows: int = 3, side: int = 16):
    return torch.randn(rows, 3, side, side, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- the assignment


def test_hard_is_one_group_of_each_segment_with_the_gradient_of_the_softmax():
    logits = torch.randn(2, 4, 6, requires_grad=True)
    weights = torch.randn(2, 4, 6)
    found = hard(logits.softmax(dim=1))
    torch.testing.assert_close(found, torch.nn.functional.one_hot(logits.argmax(1), 4).permute(0, 2, 1).float())
    (gradient,) = torch.autograd.grad((found * weights).sum(), logits)
    (expected,) = torch.autograd.grad((logits.softmax(dim=1) * weights).sum(), logits)
    torch.testing.assert_close(gradient, expected)


def test_a_group_takes_the_mean_of_its_segments_and_of_one_that_is_0():
    assigned = torch.tensor([[[1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    quarter = [0.25, 0.25, 0.0, 0.25]
    assert normalised(assigned).tolist() == [[quarter, [0.0, 0.0, 0.5, 0.0], [0.0] * 4]]


@pytest.mark.parametrize("training", [False, True])
def test_the_grouping_by_loops(training, monkeypatch):
    """Groups look at segments, segments choose groups, and groups take the values of their segments."""
    torch.manual_seed(0)
    block = Grouping(dim=8, heads=2, groups=3).double().train(training)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x, tokens = torch.randn(1, 5, 8, dtype=torch.float64), torch.randn(1, 3, 8, dtype=torch.float64)
    noise = 2 * torch.randn(1, 3, 5, dtype=torch.float64)
    monkeypatch.setattr(grouping, "gumbel", lambda like: noise)
    found, soft = block(x, tokens)

    groups = block.norm_mixed(block.mix(block.norm_tokens(tokens)))[0]
    seen = torch.zeros(3, 8, dtype=torch.float64)
    q, k, v = block.look["query"](groups), block.look["key"](x[0]), block.look["value"](x[0])
    for g in range(3):
        for head in (slice(0, 4), slice(4, 8)):
            weights = torch.stack([q[g, head] @ k[n, head] / 2 for n in range(5)]).softmax(0)  # 2: the root of 4
            seen[g, head] = sum(weights[n] * v[n, head] for n in range(5))
    groups = groups + block.look["out"](seen)
    groups = block.norm_groups(groups + block.look_mlp(block.norm_looked(groups)))
    logits = block.query(groups) @ block.key(x[0]).T / 8**0.5
    chosen = (logits + noise[0] if training else logits).argmax(dim=0).tolist()
    values, segments = block.value(x[0]), []
    for g in range(3):
        own = [values[n] for n in range(5) if chosen[n] == g]
        taken = sum(own) / (len(own) + 1) if own else torch.zeros(8, dtype=torch.float64)
        segments.append(groups[g] + block.out(taken))
    segments = torch.stack(segments)
    segments = segments + block.mlp(block.norm_segments(segments))
    assert len(set(chosen)) > 1 and ((logits + noise[0]).argmax(0) != logits.argmax(0)).any()
    torch.testing.assert_close(found[0], segments)
    torch.testing.assert_close(soft[0], logits.softmax(dim=0))  # without noise


def test_the_noise_is_gumbels_and_comes_from_the_global_generator():
    torch.manual_seed(0)
    drawn = gumbel(torch.empty(40, 50, 50, dtype=torch.float64))
    assert drawn.dtype == torch.float64 and drawn.isfinite().all()
    assert drawn.mean().item() == pytest.approx(0.5772, abs=0.02)  # Euler's constant
    assert drawn.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.05)
    torch.manual_seed(0)
    assert torch.equal(drawn, gumbel(torch.empty(40, 50, 50, dtype=torch.float64)))


def test_noise_acts_in_training_alone():
    model = grouping_vit()
    with torch.no_grad():
        still = [model(images())[1] for _ in range(2)]
        model.train()
        moved = [model(images())[1] for _ in range(2)]
    assert torch.equal(*still) and not torch.equal(*moved)


# ---------------------------------------------------------------- stages


@pytest.mark.parametrize(
    ("depth", "stages", "expected"),
    [(12, 2, [6, 3, 3]), (4, 2, [2, 1, 1]), (2, 2, [1, 1, 0]), (1, 2, [1, 0, 0]), (12, 1, [6, 6]), (7, 2, [4, 2, 1])],
)
def test_half_of_the_blocks_are_in_the_first_stage(depth, stages, expected):
    assert divided(depth, stages) == expected


def test_each_block_sees_the_tokens_of_its_stage():
    model, lengths = GroupingViT(network(), (5, 3), [1, 2, 1]), []
    for block in model.vit.model.blocks:
        block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    maps, pooled = model(images())
    assert lengths == [16 + 5, 5 + 3, 5 + 3, 3]
    assert maps.shape == (3, 8, 4, 4) and pooled.shape == (3, 8) and model.dim == 8


def test_the_second_stages_tokens_are_what_the_first_passes_on():
    """Tokens of the second stage start at 0, so that without what is passed on they would all be equal."""
    model, seen = GroupingViT(network(), (5, 3)), []
    assert not model.tokens[1].any() and model.tokens[0].std() > 0.01
    model.vit.model.blocks[1].register_forward_hook(lambda _, inputs, output: seen.append(output[:, -5:]))
    model.vit.model.blocks[2].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, -3:]))
    model(images())
    torch.testing.assert_close(seen[1], model.passed_on[0](seen[0]))


def test_maps_are_the_patches_of_the_first_stage_by_row_and_column():
    """A change of one patch's colours changes no earlier stage's embedding but its own: here without any block."""
    model = GroupingViT(network(), (5, 3), [0, 0, 4]).eval()
    given = images(1)
    changed = given.clone()
    changed[:, :, 4:8, 8:12] += 1.0  # row 1, column 2
    with torch.no_grad():
        different = (model(given)[0] - model(changed)[0]).abs().amax(dim=1)[0] > 1e-6
    assert different.nonzero().tolist() == [[1, 2]]


def test_vectors_are_the_mean_of_the_last_segments():
    model = grouping_vit()
    with torch.no_grad():
        torch.testing.assert_close(model(images())[1], model.segments(images()).vectors.mean(dim=1))


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2}, {"reg_tokens": 2, "no_embed_class": True}])
def test_class_token_and_registers_are_taken_out_of_the_vit(options):
    plain = network(**options)
    positions = plain.model.pos_embed[:, -16:].clone()
    model = GroupingViT(plain, (5, 3)).eval()
    assert torch.equal(model.vit.model.pos_embed, positions) and model.vit.model.pos_embed.requires_grad
    assert not any(name.endswith(("cls_token", "reg_token")) for name in model.state_dict())
    assert model(images(side=24))[0].shape == (3, 8, 6, 6)
    maps, pooled = model.vit(images())  # is still a ViT
    torch.testing.assert_close(pooled, maps.mean(dim=(2, 3)))


# ---------------------------------------------------------------- memberships and attention


def test_memberships_are_parts_of_each_patch_by_loops():
    model = grouping_vit()
    with torch.no_grad():
        found = model.segments(images())
        memberships = found.memberships()
    first, second = found.soft
    assert first.shape == (3, 5, 16) and second.shape == (3, 3, 5) and memberships.shape == (3, 3, 4, 4)
    for g in range(3):
        for n in range(16):
            value = sum(second[1, g, middle] * first[1, middle, n] for middle in range(5))
            torch.testing.assert_close(memberships[1, g, n // 4, n % 4], value)
    torch.testing.assert_close(memberships.sum(dim=1), torch.ones(3, 4, 4))


def test_attention_is_what_part_of_each_segment_comes_from_each_patch():
    model = grouping_vit()
    with torch.no_grad():
        maps, _ = model(images())
        tokens, found = tokens_of(maps), model.segments(images())
        keys = model.grouping[0].key(found.patches)
    first, second = (soft / (soft.sum(dim=2, keepdim=True) + 1) for soft in found.soft)
    torch.testing.assert_close(tokens.attention.flatten(2), second @ first)
    torch.testing.assert_close(tokens.keys.flatten(2).transpose(1, 2), keys)
    assert tokens.attention.shape == (3, 3, 4, 4) and not tokens.attention.requires_grad
    assert AttentionMap()(maps, whole_view(images())).shape == (3, 4, 4)


def test_the_product_of_assignments_starts_with_the_first():
    first, second, third = torch.rand(2, 4, 6), torch.rand(2, 3, 4), torch.rand(2, 2, 3)
    torch.testing.assert_close(chained([first, second, third]), third @ second @ first)


def test_takes_views_of_another_size_and_one_stage():
    maps, pooled = grouping_vit()(images(side=24))
    assert maps.shape == (3, 8, 6, 6) and pooled.isfinite().all()
    assert grouping_vit(groups=(5,))(images())[1].shape == (3, 8)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("groups", [(), (5, 0)])
def test_refuses_no_groups(groups):
    with pytest.raises(UsageError, match="groups are one or more numbers of 1 or more"):
        GroupingViT(network(), groups)


@pytest.mark.parametrize("blocks", [[2, 2], [2, 1, 2], [5, -1, 0]])
def test_refuses_blocks_that_do_not_fit(blocks):
    with pytest.raises(UsageError, match="blocks are 3 numbers, of each stage and of the rest, that sum to 4"):
        GroupingViT(network(), (5, 3), blocks)


def test_refuses_views_that_patches_do_not_divide():
    with pytest.raises(UsageError, match="views of 18 px do not split into patches of 4 px"):
        grouping_vit()(images(side=18))


def test_first_weights_are_those_of_the_vits_blocks():
    block = GroupingViT(network(embed_dim=64), (16, 8)).grouping[0]
    linears = [module for module in block.modules() if isinstance(module, nn.Linear)]
    assert all(not linear.bias.any() and 0.015 < linear.weight.std() < 0.025 for linear in linears)
