"""DetCon against plain loops, on the regions of its views, and beside the numbers of its official code."""

import math
import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from golden_numbers import begin, follow, golden
from torch import nn

from baselines.detcon import DetCon, Regions, closed_keys, region_contrast
from scd.errors import UsageError
from scd.method import Batch, whole_view
from scd.nn.backbone import build_backbone
from scd.nn.region_pooling import draw_regions, regions_on_grid

DIM, TAU = 6, 0.2


def numbers(tensor):
    return tensor.detach().double().numpy()


# -------------------------------------------------------------------- the loss


def loss_by_loops(predicted, target, own_target, temperature=TAU):
    """Equation 3 of the paper, one row after the other, with lists of the keys that count and of nothing else."""
    views = (predicted, target, own_target)
    p, z, z_own = ([[v / np.linalg.norm(v) for v in image] for image in numbers(view.vectors)] for view in views)
    ids, target_ids, own_ids = (view.ids.tolist() for view in views)
    images, drawn = range(len(ids)), range(len(ids[0]))
    total = 0.0
    for b in images:
        for m in drawn:
            mine, positives, keys = ids[b][m], [], []
            for other in images:
                for k in drawn:
                    is_mine = other == b and target_ids[other][k] == mine
                    if target_ids[other][k] >= 0:
                        keys.append(p[b][m] @ z[other][k] / temperature)
                        positives += keys[-1:] if is_mine else []
                    if own_ids[other][k] >= 0 and not (other == b and own_ids[other][k] == mine):
                        keys.append(p[b][m] @ z_own[other][k] / temperature)
            if positives:
                partition = math.log(sum(math.exp(key) for key in keys))
                total += np.mean([partition - positive for positive in positives]) / ids[b].count(mine)
    return total / (len(images) * len(drawn))


def regions(ids, seed=0):
    vectors = torch.randn(len(ids), len(ids[0]), DIM, generator=torch.Generator().manual_seed(seed)).double()
    return Regions(vectors.requires_grad_(), torch.tensor(ids))


CASES = {
    "several draws of a region": ([[3, 3, 3], [8, 1, 8]], [[3, 5, 3], [1, 1, 8]]),
    "the same ids in several images": ([[0, 1, 2], [0, 1, 2]], [[2, 1, 0], [0, 1, 2]]),
    "regions in one view only": ([[0, 4, 5], [9, 9, 7]], [[0, 6, 6], [7, 8, 8]]),
    "an image that shares nothing": ([[1, 2, 1], [4, 4, 5]], [[3, 3, 6], [4, 5, 5]]),
    "a single region": ([[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]),
    "an image without a known region": ([[-1, -1, -1], [1, 1, 2]], [[-1, -1, -1], [2, 1, 2]]),
    "a single draw": ([[0], [1], [2]], [[0], [5], [2]]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_the_weighted_cross_entropy_over_rows(case):
    here, there = CASES[case]
    predicted, target, own = regions(here, 1), regions(there, 2), regions(here, 3)
    expected = loss_by_loops(predicted, target, own)
    assert expected > 0
    assert region_contrast(predicted, target, own, TAU).item() == pytest.approx(expected, rel=1e-10)


def test_a_row_counts_by_one_over_the_draws_of_its_region_and_0_without_a_positive():
    """With equal vectors, a row's cross-entropy is the logarithm of the number of its keys."""
    here, there = torch.tensor([[3, 3, 3, 7], [1, 2, 2, 9]]), torch.tensor([[3, 3, 7, 8], [4, 4, 2, 2]])
    same = torch.ones(2, 4, DIM)
    loss = region_contrast(Regions(same, here), Regions(same, there), Regions(same, here), TAU)
    rows = [math.log(16 - 3) / 3] * 3 + [math.log(16 - 1)] + [0.0] + [math.log(16 - 2) / 2] * 2 + [0.0]
    assert loss.item() == pytest.approx(sum(rows) / 8, rel=1e-6)


@pytest.mark.parametrize("here, there", [([[0, 1], [2, 2]], [[5, 6], [7, 7]]), ([[-1, -1]], [[-1, -1]])])
def test_a_batch_without_any_positive_has_a_loss_of_0_and_gradients_of_0(here, there):
    predicted = regions(here)
    loss = region_contrast(predicted, regions(there, 1), regions(here, 2), TAU)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(predicted.vectors.grad, torch.zeros_like(predicted.vectors))


def test_another_region_of_the_image_is_a_negative_in_both_views_and_the_own_region_of_the_own_view_no_key():
    """The gradient of region 0's loss alone, along its prediction: a key that attracts it has a negative one."""
    predicted, target, own = regions([[0, 1]], 1), regions([[0, 1]], 2), regions([[0, 1]], 3)
    target.ids = torch.tensor([[0, 5]])  # region 1 has no positive
    region_contrast(predicted, target, own, TAU).backward()
    direction = predicted.vectors.detach()[0, 0]
    pull = {(name, k): (view.vectors.grad[0, k] @ direction).item() for name, view in
            (("target", target), ("own", own)) for k in (0, 1)}  # fmt: skip
    assert pull["target", 0] < 0 < min(pull["target", 1], pull["own", 1])
    assert pull["own", 0] == 0


def test_closed_keys_are_the_unknown_ones_and_the_rows_own_region_in_its_own_view():
    ids, there = torch.tensor([[4, 4], [4, -1]]), torch.tensor([[4, -1], [6, 6]])
    o, x = False, True
    assert closed_keys(ids, there, ids).tolist() == [
        [o, x, o, o, x, x, o, x],
        [o, x, o, o, x, x, o, x],
        [o, x, o, o, o, o, x, x],
        [o, x, o, o, o, o, o, x],
    ]


def test_lengths_make_no_difference():
    views = regions([[0, 1]], 1), regions([[1, 0]], 2), regions([[0, 1]], 3)
    longer = [replace(view, vectors=view.vectors * torch.tensor([[[3.0], [0.2]]])) for view in views]
    torch.testing.assert_close(region_contrast(*longer, TAU), region_contrast(*views, TAU))


HERE, THERE = [[0, 1, 0], [2, 2, 1], [0, 3, 4], [5, 5, 5]], [[0, 0, 1], [1, 3, 3], [4, -1, 0], [5, 6, 5]]


def loss_as_one_of_two(rank: int, store: str, results: multiprocessing.Queue) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    own = slice(2 * rank, 2 * rank + 2)
    views = [regions(ids, seed) for seed, ids in enumerate((HERE, THERE, HERE))]
    parts = [Regions(view.vectors.detach()[own], view.ids[own]) for view in views]
    results.put((rank, region_contrast(*parts, TAU).item()))
    dist.destroy_process_group()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="two processes without a second import of torch need fork")
def test_the_keys_of_two_processes_are_those_of_the_whole_batch(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = [(rank, str(tmp_path / "store"), results) for rank in range(2)]
    processes = [context.Process(target=loss_as_one_of_two, args=args, daemon=True) for args in arguments]
    for process in processes:
        process.start()
    losses = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    expected = loss_by_loops(*(regions(ids, seed) for seed, ids in enumerate((HERE, THERE, HERE))))
    assert (losses[0] + losses[1]) / 2 == pytest.approx(expected, rel=1e-10)


# -------------------------------------------------------------------- as a method

ROWS, SIDE, DRAWN = 4, 16, 5


def detcon(**options):
    """A DetCon whose target networks differ from their online ones."""
    torch.manual_seed(0)
    backbone = build_backbone("resnet_tiny", widths=(8, 16), strides=(1, 2))
    method = DetCon(backbone, **{"dim": DIM, "hidden": 12, "regions": DRAWN, "temperature": TAU, **options}).train()
    for parameter in method.parameters():
        if not parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def views(segments=None, extras=()):
    """Two global views, by default with four regions of which three are in both; and extra views of half the size."""
    draw = torch.Generator().manual_seed(1)
    if segments is None:
        quarters = torch.arange(4).view(2, 2).repeat_interleave(SIDE // 2, 0).repeat_interleave(SIDE // 2, 1)
        segments = {"v1": quarters.expand(ROWS, -1, -1), "v2": quarters.flip(1).expand(ROWS, -1, -1) + 1}
    found = {}
    for name in ("v1", "v2", *extras):
        side, role = (SIDE // 2, "extra") if name in extras else (SIDE, "global")
        regions = segments["v1" if name in extras else name][:, :: SIDE // side, :: SIDE // side]
        view = whole_view(torch.randn(ROWS, 3, side, side, generator=draw), name)
        found[name] = replace(view, role=role, segments=regions)
    return found


def whole(value):
    return torch.full((ROWS, SIDE, SIDE), value)


def pooled_by_loops(maps, grid, ids):
    vectors = []
    for image, regions, names in zip(maps, grid, ids, strict=True):
        vectors.append(torch.stack([image[:, regions == name].mean(dim=1) for name in names]))
    return torch.stack(vectors)


@pytest.mark.parametrize("extras", [(), ("local0", "local1")])
def test_a_step_is_the_mean_over_directions_on_drawn_regions(extras):
    method, given = detcon(), views(extras=extras)
    torch.manual_seed(5)
    logs = method(Batch(given))
    torch.manual_seed(5)
    draws = {"v1": torch.rand(ROWS, DRAWN), "v2": torch.rand(ROWS, DRAWN)}
    online, target = {}, {}
    with torch.no_grad():
        for name, view in given.items():
            for place in ("v1", "v2") if name in extras else (name,):
                grid = regions_on_grid(view.segments, *method.backbone(view.images).shape[2:])
                ids = draw_regions(grid, draws[place])
                features = method.backbone(view.images)
                if name in extras:  # extra views share a pass, and with it BN's statistics
                    together = torch.stack([given[extra].images for extra in extras], dim=1).flatten(0, 1)
                    features = method.backbone(together)[extras.index(name) :: len(extras)]
                pooled = pooled_by_loops(features, grid, ids)
                online[name, place] = Regions(method.matcher.predictor(method.projector(pooled)), ids)
                if name not in extras:
                    pooled = pooled_by_loops(method.target_backbone(view.images), grid, ids)
                    target[name] = Regions(method.target_projector(pooled), ids)
    losses, shares = [], []
    for name, place in online:
        other = "v2" if place == "v1" else "v1"
        losses.append(loss_by_loops(online[name, place], target[other], target[place]))
        own = zip(online[name, place].ids.tolist(), target[other].ids.tolist(), strict=True)
        shares.append(np.mean([mine in others for row, others in own for mine in row]))
    assert logs["loss"].item() == pytest.approx(np.mean(losses), rel=1e-4)
    assert logs["matched_regions"].item() == pytest.approx(np.mean(shares)) and 0 < np.mean(shares) < 1
    assert logs["regions"].item() == 4


def test_both_branches_pool_the_same_regions_and_the_two_views_are_drawn_apart(monkeypatch):
    method, given = detcon(), views()
    seen = []
    monkeypatch.setattr(method.matcher, "forward", lambda *three: seen.append(three) or three[0].vectors.sum())
    method(Batch(given))
    (first, second, first_own), (second_online, first_target, second_own) = seen
    assert torch.equal(first.ids, first_own.ids) and torch.equal(first.ids, first_target.ids)
    assert torch.equal(second.ids, second_online.ids) and torch.equal(second.ids, second_own.ids)
    assert not torch.equal(first.ids, second.ids - 1)


def test_what_is_drawn_depends_on_the_generator_alone():
    losses = []
    for seed in (0, 0, 1):
        method = detcon()
        torch.manual_seed(seed)
        losses.append(method(Batch(views()))["loss"].item())
    assert losses[0] == losses[1] != losses[2]


def test_fewer_regions_than_draws_and_a_single_region():
    logs = detcon(regions=9)(Batch(views()))
    assert torch.isfinite(logs["loss"]) and logs["regions"] == 4
    logs = detcon(regions=9)(Batch(views({"v1": whole(7), "v2": whole(7)})))
    assert logs["loss"] > 0 and logs["matched_regions"] == 1 and logs["regions"] == 1


def test_an_image_whose_views_share_no_region_has_weight_0():
    """Its rows stay in the mean: half of the batch without a match halves the loss of equal vectors."""
    method = detcon()
    nn.init.zeros_(method.matcher.predictor.layers[3].weight)  # all logits are 0
    shared, halved = views({"v1": whole(1), "v2": whole(1)}), {"v1": whole(1), "v2": whole(1)}
    halved["v2"][: ROWS // 2] = 2
    losses = [method(Batch(given))["loss"].item() for given in (shared, views(halved))]
    keys = 2 * ROWS * DRAWN - DRAWN
    assert losses == pytest.approx([math.log(keys) / DRAWN, math.log(keys) / DRAWN / 2], rel=1e-6)


def test_a_batch_without_any_shared_region_trains_nothing_and_fails_nowhere():
    method = detcon()
    logs = method(Batch(views({"v1": whole(1), "v2": whole(2)})))
    logs["loss"].backward()
    assert logs["loss"] == 0 and logs["matched_regions"] == 0
    for name, parameter in method.named_parameters():
        assert (parameter.grad is None) != parameter.requires_grad, name
        assert parameter.grad is None or torch.equal(parameter.grad, torch.zeros_like(parameter)), name


def test_images_without_any_known_region_change_nothing_but_the_mean():
    method, unknown = detcon(), {"v1": whole(-1), "v2": whole(-1)}
    for segments in unknown.values():
        segments[0, :, : SIDE // 2] = 3
        segments[0, :, SIDE // 2 :] = 4
    logs = method(Batch(views(unknown)))
    logs["loss"].backward()
    assert logs["loss"] > 0 and logs["regions"] == 2 / ROWS and logs["matched_regions"] <= 1 / ROWS
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.requires_grad)


def test_gradients_reach_the_online_networks_and_not_the_target():
    method = detcon()
    method(Batch(views()))["loss"].backward()
    for name, parameter in method.named_parameters():
        is_online = not name.startswith("target_")
        assert parameter.requires_grad == is_online and (parameter.grad is not None) == is_online, name
    for part in (method.backbone.trunk[0], method.projector.layers[3], method.matcher.predictor.layers[3]):
        assert part.weight.grad.abs().sum() > 0


def test_the_target_is_in_train_mode_and_keeps_running_statistics_of_its_own():
    method = detcon()
    assert all(module.training for module in (*method.target_backbone.modules(), *method.target_projector.modules()))
    norms = method.target_backbone.trunk[1], method.target_projector.layers[1]
    before = [norm.running_mean.clone() for norm in norms]
    method(Batch(views()))
    after = [norm.running_mean.clone() for norm in norms]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    method.after_step(0.5)
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, after, strict=True))


def test_a_step_in_bfloat16_stays_close_to_float32():
    losses = []
    for enabled in (False, True):
        method = detcon()
        torch.manual_seed(5)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses.append(method(Batch(views()))["loss"])
    assert losses[1].dtype == torch.float32
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.05)


def test_heads_are_byols_and_settings_the_official_ones():
    method = DetCon(build_backbone("resnet_tiny", widths=(4, 4, 4)))
    assert method.symmetric and method.momentum_schedule == "cosine" and method.base_momentum == 0.996
    assert method.regions == 16 and method.matcher.temperature == 0.1 and method.needs == {"segments"}
    for head, width in ((method.projector, 4), (method.matcher.predictor, 256)):
        first, norm, relu, last = head.layers
        assert (first.in_features, first.out_features, last.out_features) == (width, 4096, 256)
        assert isinstance(norm, nn.BatchNorm1d) and isinstance(relu, nn.ReLU)
        assert first.bias is not None and last.bias is None


def test_it_makes_no_map_and_cannot_compare_further_vectors():
    method = detcon()
    assert method.eval().saliency(views()["v1"]) is None
    with pytest.raises(UsageError, match="DetCon has no second matcher, which this wrapper needs"):
        method.new_matcher()


@pytest.mark.parametrize(
    "options, text",
    [
        ({"regions": 0}, "DetCon draws 1 region or more from each view, not 0"),
        ({"temperature": 0.0}, "DetCon's temperature is a number above 0, not 0.0"),
        ({"momentum": 1.5}, "momentum is a share in \\[0, 1\\], not 1.5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, text):
    with pytest.raises(UsageError, match=text):
        detcon(**options)


# -------------------------------------------------------------------- the official code


class Strided(nn.Conv2d):
    """A 2 x 2 convolution of stride 2: masks are down-sampled by 2."""

    dim = 6

    def __init__(self):
        super().__init__(3, self.dim, 2, stride=2, bias=False)


def test_five_steps_of_the_official_code(monkeypatch):
    """Losses, gradients of the first step and the state after the last, with the regions that the official code drew.

    In each step some regions are drawn in one view only, some up to four times, and one image's views share none.
    """
    given = golden("detcon")
    method = DetCon(Strided(), dim=8, hidden=10, regions=5, temperature=0.1, momentum=0.8).double()
    begin(method, given)
    assert [method.momentum(step / 5) for step in range(5)] == pytest.approx(given["momentum"].tolist(), rel=1e-12)
    segments, ids = given["segments"].long(), given["ids"].long()  # (view, step, B, ...)
    steps = []

    def official_draws(grid, numbers):
        drawn = next(each for each, regions in zip(ids[:, steps[-1]], segments[:, steps[-1]], strict=True)
                     if torch.equal(grid, regions_on_grid(regions, 4, 4)))  # fmt: skip
        present = [set(image.flatten().tolist()) for image in grid]
        assert all(set(row.tolist()) <= names for row, names in zip(drawn, present, strict=True))
        return drawn

    def batch(given, step):
        steps.append(step)
        found = {}
        for view, name in enumerate(("v1", "v2")):
            found[name] = replace(whole_view(given[name][step], name), segments=segments[view, step])
        return Batch(found)

    monkeypatch.setattr("baselines.detcon.draw_regions", official_draws)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=2 * 0.3)
    assert len(list(follow(method, optimizer, given, batch, directions=2))) == 5
