"""SlotCon against loops over positions and slots; its edge cases. Its alignment: ``test_slotcon_alignment.py``."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from baselines.slotcon import GroupDistillation, Groups, Prototypes, SlotCon, SlotContrast, align
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.backbone import build_backbone
from scd.nn.heads import MLP

BATCH, SIDE, SLOTS, DIM = 4, 16, 6, 8
STUDENT, TEACHER, TAU = 0.1, 0.07, 0.2

WHOLE = [0.0, 0.0, 1.0, 1.0]
LEFT, RIGHT = [0.0, 0.1, 0.4, 0.9], [0.6, 0.1, 1.0, 0.9]  # nothing in common


def view(rectangles, flips, name="v1", images=None, role="global"):
    return View(name, role, images, torch.tensor(rectangles), torch.tensor(flips))


def numbers(tensor):
    return tensor.detach().double().numpy()


def softmax(x):
    exponentials = np.exp(x - x.max())
    return exponentials / exponentials.sum()


# -------------------------------------------------------------------- grouping loss and centre


def test_grouping_loss_is_the_cross_entropy_over_positions_of_images_that_overlap():
    draw = torch.Generator().manual_seed(0)
    online, target = torch.randn(2, BATCH, SLOTS, 3, 3, generator=draw) * 0.3
    distillation = GroupDistillation(SLOTS, STUDENT, TEACHER, 0.9)
    distillation.centre.copy_(torch.randn(SLOTS, generator=draw) * 0.1)
    counted = torch.tensor([True, False, True, True])
    terms, centre = [], numbers(distillation.centre)
    for b in (0, 2, 3):
        for y in range(3):
            for x in range(3):
                p = softmax((numbers(target[b, :, y, x]) - centre) / TEACHER)
                q = softmax(numbers(online[b, :, y, x]) / STUDENT)
                terms.append(-sum(p[k] * math.log(q[k]) for k in range(SLOTS)))
    assert distillation(online, target, counted).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_grouping_loss_without_any_overlap_is_0_with_a_gradient_of_0():
    online = torch.randn(2, SLOTS, 3, 3, requires_grad=True)
    loss = GroupDistillation(SLOTS, STUDENT, TEACHER, 0.9)(online, torch.randn(2, SLOTS, 3, 3), torch.zeros(2) > 0)
    loss.backward()
    assert loss.item() == 0 and torch.equal(online.grad, torch.zeros_like(online))


def test_uniform_groupings_have_the_entropy_of_all_slots():
    flat = torch.zeros(2, SLOTS, 3, 3)
    loss = GroupDistillation(SLOTS, STUDENT, TEACHER, 0.9)(flat, flat, torch.ones(2) > 0)
    assert loss.item() == pytest.approx(math.log(SLOTS), rel=1e-6)


def test_the_centre_follows_the_raw_teacher_scores_of_both_whole_views_after_the_step():
    method, views = slotcon(), make_views(extras=("local0",))
    method.grouping_matcher.centre.copy_(torch.linspace(-0.1, 0.2, SLOTS))
    before = numbers(method.grouping_matcher.centre)
    scores = []
    with torch.no_grad():
        for name in ("v1", "v2"):
            features = method.encode_target(views[name].images)
            scores.append(numbers(method.group(features, method.target_projector, method.target_prototypes).scores))
    method(Batch(views))
    assert np.array_equal(numbers(method.grouping_matcher.centre), before)
    method.after_step(0.0)
    total, count = np.zeros(SLOTS), 0
    for part in scores:
        for b in range(BATCH):
            for y in range(part.shape[2]):
                for x in range(part.shape[3]):
                    total, count = total + part[b, :, y, x], count + 1
    assert np.allclose(numbers(method.grouping_matcher.centre), 0.9 * before + 0.1 * total / count, atol=1e-6)
    moved = method.grouping_matcher.centre.clone()
    method.after_step(0.0)  # no forward pass in between: nothing to move towards
    assert torch.equal(method.grouping_matcher.centre, moved)


# -------------------------------------------------------------------- slots


def groups_by_loop(x, weight):
    """scores, slots and activity of one image's positions x (hw, D)."""
    scores = np.array([[w @ p / np.linalg.norm(w) / np.linalg.norm(p) for p in x] for w in weight])  # (N, hw)
    attention = np.stack([softmax(scores[:, p] / TEACHER) + 1e-6 for p in range(len(x))], axis=1)
    slots = [sum(row[p] * x[p] for p in range(len(x))) / row.sum() for row in attention]
    active = {int(np.argmax(scores[:, p])) for p in range(len(x))}
    return scores, np.array(slots), active


def test_prototypes_group_by_softmax_over_slots_and_pool_positions_of_any_length():
    prototypes = Prototypes(SLOTS, DIM, TEACHER)
    maps = torch.randn(3, DIM, 2, 3) * torch.tensor([0.1, 1.0, 10.0])[:, None, None, None]
    groups = prototypes(maps)
    for b in range(3):
        x = numbers(maps[b].flatten(1)).T
        scores, slots, active = groups_by_loop(x, numbers(prototypes.weight))
        assert np.allclose(numbers(groups.scores[b].flatten(1)), scores, atol=1e-5)
        assert np.allclose(numbers(groups.slots[b]), slots, atol=1e-4 * np.abs(x).max())
        assert set(groups.active[b].nonzero().flatten().tolist()) == active


class Unchanged(nn.Module):
    """A predictor that returns its slots."""

    def forward(self, slots, counted):
        return slots


def contrast_by_loop(online, target, temperature=TAU):
    """Lists of queries and keys that hold what counts and nothing else; the predictor is the identity."""
    unit = [row / np.linalg.norm(row) for image in numbers(target.slots) for row in image]
    count = target.active.shape[1]
    keys = [(b, k) for b in range(len(target.active)) for k in range(count) if target.active[b, k]]
    terms = []
    for b, k in keys:
        if not online.active[b, k]:
            continue
        q = numbers(online.slots[b, k])
        q = q / np.linalg.norm(q)
        scores = {key: math.exp(q @ unit[key[0] * count + key[1]] / temperature) for key in keys}
        terms.append(-math.log(scores[b, k] / sum(scores.values())))
    return 2 * temperature * sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("side, other_side", [(2, 2), (1, 2), (4, 4)])  # fewer positions than the 6 slots, and more
def test_slot_loss_takes_common_slots_as_queries_and_all_active_ones_as_keys(side, other_side):
    torch.manual_seed(side)
    prototypes = Prototypes(SLOTS, DIM, TEACHER)
    base = torch.randn(BATCH, DIM, 4, 4)
    shrink = nn.functional.adaptive_avg_pool2d
    online = prototypes(shrink(base + 0.3 * torch.randn_like(base), side))
    target = prototypes(shrink(base + 0.3 * torch.randn_like(base), other_side))
    common = online.active & target.active
    assert 0 < common.sum() < target.active.sum() < BATCH * SLOTS  # all three kinds of slots are there
    loss = SlotContrast(Unchanged(), TAU)(online, target)
    assert loss.item() == pytest.approx(contrast_by_loop(online, target), rel=1e-4)


def test_the_predictors_batch_norm_counts_queries_alone():
    """Its loss and gradients are those of a predictor that is given the queries and nothing else."""
    torch.manual_seed(1)
    prototypes, mlp = Prototypes(SLOTS, DIM, TEACHER), MLP((DIM, 12, 12, DIM), norm="batch", activation="gelu")
    base = torch.randn(BATCH, DIM, 3, 3)
    maps = torch.stack([base, base + 0.3 * torch.randn_like(base)]).double()
    prototypes, mlp = prototypes.double(), mlp.double().train()
    online, target = (prototypes(each) for each in maps)
    queries = [(b, k) for b in range(BATCH) for k in range(SLOTS) if online.active[b, k] and target.active[b, k]]
    keys = [(b, k) for b in range(BATCH) for k in range(SLOTS) if target.active[b, k]]
    assert 1 < len(queries) < len(keys) < BATCH * SLOTS

    alone = copy.deepcopy(mlp)
    rows = alone.layers(torch.stack([online.slots[b, k] for b, k in queries]))
    terms = []
    for row, (b, k) in zip(rows, queries, strict=True):
        cosines = [torch.cosine_similarity(row, target.slots[place], dim=0) / TAU for place in keys]
        terms.append(torch.stack(cosines).logsumexp(dim=0) - cosines[keys.index((b, k))])
    expected = 2 * TAU * torch.stack(terms).mean()
    loss = SlotContrast(mlp, TAU)(online, target)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    found, wanted = (
        torch.autograd.grad(value, [*head.parameters(), prototypes.weight], retain_graph=True)
        for value, head in ((loss, mlp), (expected, alone))
    )
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    for one, other in zip(mlp.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_slot_loss_without_a_common_slot_is_0_with_a_gradient_of_0():
    slots = torch.randn(2, 4, DIM, requires_grad=True)
    here = torch.tensor([[True, True, False, False], [False, True, False, False]])
    scores = torch.zeros(2, 4, 2, 2)
    predictor = MLP((DIM, DIM))
    loss = SlotContrast(predictor, TAU)(Groups(scores, slots, here), Groups(scores, torch.randn(2, 4, DIM), ~here))
    loss.backward()
    assert loss.item() == 0 and torch.equal(slots.grad, torch.zeros_like(slots))
    assert torch.equal(predictor.layers[0].weight.grad, torch.zeros(DIM, DIM))


def test_no_gradient_reaches_slots_that_are_not_active_in_both_views():
    slots = torch.randn(1, 4, DIM, requires_grad=True)
    scores = torch.zeros(1, 4, 2, 2)
    one, other = torch.tensor([[True, True, False, False]]), torch.tensor([[True, False, True, False]])
    SlotContrast(Unchanged(), TAU)(Groups(scores, slots, one), Groups(scores, torch.randn(1, 4, DIM), other)).backward()
    assert (slots.grad.abs().sum(dim=2) > 0).tolist() == [[True, False, False, False]]


# -------------------------------------------------------------------- as a method


def slotcon(**options):
    """A SlotCon whose target networks differ from their online ones, and a predictor without BN."""
    torch.manual_seed(0)
    backbone = build_backbone("resnet_tiny", widths=(8, 16), strides=(1, 2))
    method = SlotCon(backbone, **{"dim": DIM, "hidden": 12, "prototypes": SLOTS, **options})
    method.matcher.predictor = Unchanged()
    for parameter in method.parameters():
        if not parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def make_views(extras=(), no_overlap=False):
    draw = torch.Generator().manual_seed(1)
    base = torch.randn(BATCH, 3, 4, 4, generator=draw)
    rectangles = {"v1": [WHOLE, [0.1, 0.0, 0.7, 0.8], LEFT, [0.2, 0.2, 0.9, 1.0]], "v2": [[0.3, 0.2, 1.0, 0.9]] * 2}
    rectangles["v2"] += [RIGHT, [0.0, 0.0, 0.6, 0.7]]
    if no_overlap:
        rectangles = {"v1": [LEFT] * BATCH, "v2": [RIGHT] * BATCH}
    flips = {"v1": [False, True, False, True], "v2": [True, True, False, False]}
    views = {}
    for name in ("v1", "v2", *extras):
        side = SIDE // 2 if name in extras else SIDE
        images = nn.functional.interpolate(base, size=side) + 0.5 * torch.randn(BATCH, 3, side, side, generator=draw)
        role = "extra" if name in extras else "global"
        views[name] = view(rectangles.get(name, [WHOLE] * BATCH), flips.get(name, [False] * BATCH), name, images, role)
    return views


@pytest.mark.parametrize("extras", [(), ("local0",)])
def test_a_whole_step_is_the_mean_over_directions_of_both_terms(extras):
    method, views = slotcon(weight=0.3), make_views(extras)
    online_parts, target_parts = (
        (method.projector, method.prototypes),
        (method.target_projector, method.target_prototypes),
    )
    pairs = [("v1", "v2"), ("v2", "v1")] + [(extra, target) for extra in extras for target in ("v2", "v1")]
    groupings, contrasts = [], []
    for i, j in pairs:
        with torch.no_grad():
            online = method.group(method.encode_online(views[i].images), *online_parts)
            target = method.group(method.encode_target(views[j].images), *target_parts)
        contrasts.append(contrast_by_loop(online, target))
        student, teacher, overlap = align(online.scores, target.scores, views[i], views[j])
        terms = []
        for b in overlap.nonzero().flatten().tolist():
            p, q = (numbers(part[b].flatten(1)).T for part in (teacher, student))
            terms += [-softmax(a / TEACHER) @ np.log(softmax(c / STUDENT)) for a, c in zip(p, q, strict=True)]
        groupings.append(sum(terms) / len(terms))
    logs = method(Batch(views))
    grouping, contrast = np.mean(groupings), np.mean(contrasts)
    assert contrast > 0
    assert logs["grouping_loss"].item() == pytest.approx(grouping, rel=1e-4)
    assert logs["slot_loss"].item() == pytest.approx(contrast, rel=1e-4)
    assert logs["loss"].item() == pytest.approx(0.3 * grouping + 0.7 * contrast, rel=1e-4)
    assert 1 <= logs["active_slots"] <= SLOTS
    assert logs["overlap"].item() == pytest.approx(0.75 if not extras else (2 * 0.75 + 2) / 4)


def test_a_batch_without_any_overlap_learns_from_its_slots_alone():
    method, views = slotcon(), make_views(no_overlap=True)
    logs = method(Batch(views))
    logs["loss"].backward()
    assert logs["overlap"] == 0 and logs["grouping_loss"] == 0 and logs["slot_loss"] > 0
    gradients = [p.grad for p in method.parameters() if p.requires_grad]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_a_step_in_bfloat16_stays_close_to_float32():
    views = make_views()
    expected = slotcon()(Batch(views))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logs = slotcon()(Batch(views))
    assert logs["loss"].dtype == torch.float32
    assert logs["loss"].item() == pytest.approx(expected["loss"].item(), rel=0.05)


def test_the_prototypes_copy_moves_with_the_same_momentum_as_the_target():
    method = slotcon(momentum=0.8)
    old, weight = method.target_prototypes.weight.clone(), method.prototypes.weight.detach()
    method.after_step(0.5)
    m = method.momentum(0.5)
    assert m == pytest.approx(0.9)  # halfway from 0.8 to 1
    assert torch.allclose(method.target_prototypes.weight, m * old + (1 - m) * weight, atol=1e-6)


def test_the_state_holds_the_centre_and_both_sets_of_prototypes():
    state = slotcon().state_dict()
    assert {"grouping_matcher.centre", "prototypes.weight", "target_prototypes.weight"} <= set(state)


def test_it_makes_no_map():
    assert slotcon().eval().saliency(make_views()["v1"]) is None


def test_what_its_losses_keep_is_not_part_of_the_evaluated_state():
    state = slotcon().evaluated_state()
    assert "prototypes.weight" in state and "backbone.trunk.0.weight" in state
    assert not any(name.startswith(("target_", "matcher", "grouping_matcher")) for name in state)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"prototypes": 1}, "at least 2 prototypes, not 1"),
        ({"student_temperature": 0.0}, "student_temperature is a number above 0, not 0.0"),
        ({"slot_temperature": -1.0}, "slot_temperature is a number above 0"),
        ({"centre_momentum": 1.1}, "centre_momentum is a share in \\[0, 1\\], not 1.1"),
        ({"weight": 2.0}, "weight is a share in \\[0, 1\\], not 2.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, text):
    with pytest.raises(UsageError, match=text):
        slotcon(**options)
