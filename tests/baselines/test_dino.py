"""DINO: its loss against loops and against lightly's, its centre, schedules, frozen layer and stochastic depth."""

import math

import pytest
import torch
from timm.layers import DropPath

from baselines.dino import DINO, Distillation, Head, Temperatures, distillation
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.backbone import build_backbone
from scd.nn.vit import vit
from scd.siamese import match

K = 12


def logits(count: int, seed: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(6, K, generator=draw, dtype=torch.float64) for _ in range(count)]


def by_hand(student, teacher, centre, tau_s, tau_t) -> float:
    """Equation 2, number by number."""
    total = 0.0
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        t = [math.exp((x - c) / tau_t) for x, c in zip(t_row, centre.tolist(), strict=True)]
        s = [math.exp(x / tau_s) for x in s_row]
        total += -sum(a / sum(t) * math.log(b / sum(s)) for a, b in zip(t, s, strict=True))
    return total / len(student)


def matcher(**changes) -> Distillation:
    return Distillation(K, Temperatures(**{"student": 0.1, "teacher_start": 0.04, "teacher": 0.04, **changes}), 0.9)


def tiny(depth: int = 2, **options) -> DINO:
    torch.manual_seed(0)
    drop = options.pop("drop_path_rate", 0.0)
    backbone = vit(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=16, depth=depth, num_heads=2, drop_path_rate=drop
    )
    return DINO(backbone, **{"prototypes": 32, "hidden": 24, "bottleneck": 8, "momentum": 0.9, **options}).train()


def views(locals_: int = 2) -> dict[str, View]:
    draw = torch.Generator().manual_seed(1)
    sides = {"v1": 16, "v2": 16, **{f"local{i}": 8 for i in range(locals_)}}
    rectangles, flips = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(4, 4), torch.zeros(4, dtype=torch.bool)
    return {
        name: View(
            name, "extra" if "local" in name else "global", torch.randn(4, 3, s, s, generator=draw), rectangles, flips
        )
        for name, s in sides.items()
    }


def test_the_loss_equals_equation_2_number_by_number():
    student, teacher = logits(2, 0)
    centre = torch.linspace(-0.3, 0.3, K, dtype=torch.float64)
    loss = distillation(student, teacher, centre, 0.1, 0.04)
    assert loss.item() == pytest.approx(by_hand(student, teacher, centre, 0.1, 0.04), rel=1e-5)


@pytest.mark.parametrize("k", [1024, 4096])
def test_uniform_student_and_teacher_give_ln_k(k):
    flat = torch.zeros(3, k)
    assert distillation(flat, flat, torch.zeros(k), 0.1, 0.04).item() == pytest.approx(math.log(k), rel=1e-5)


def test_no_gradient_reaches_the_teacher():
    student, teacher = (each.requires_grad_() for each in logits(2, 0))
    distillation(student, teacher, torch.zeros(K), 0.1, 0.04).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


@pytest.mark.parametrize(("local_views", "terms"), [(0, 2), (2, 6), (8, 18)])
def test_every_view_meets_every_teacher_view_but_its_own(local_views, terms):
    pairs = tiny().pairs(views(local_views))
    assert len(pairs) == terms == 2 * (1 + local_views)
    assert all(i != j and j in ("v1", "v2") for i, j in pairs)


def test_loss_and_centre_equal_lightlys_over_two_steps():
    loss_of = pytest.importorskip("lightly.loss", reason="lightly is not installed: nothing to compare with").DINOLoss
    theirs = loss_of(output_dim=K, warmup_teacher_temp=0.04, teacher_temp=0.04, warmup_teacher_temp_epochs=1)
    ours = matcher()
    for step in range(2):
        online = {name: each.float() for name, each in zip(("v1", "v2", "a", "b"), logits(4, step), strict=True)}
        target = {name: each.float() for name, each in zip(("v1", "v2"), logits(2, 10 + step), strict=True)}
        pairs = [(i, j) for j in target for i in online if i != j]
        loss = match(ours, pairs, online, target)
        ours.after_step(0.1)
        expected = theirs(list(target.values()), list(online.values()), epoch=5)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5), step
        assert torch.allclose(ours.centre, theirs.center.flatten(), atol=1e-6)


def test_the_centre_is_the_moving_mean_of_the_teachers_raw_logits_and_moves_after_the_loss():
    ours, (first, second) = matcher(), logits(2, 3)
    ours(first.float(), second.float())
    ours.remember([first, second])
    assert torch.equal(ours.centre, torch.zeros(K))
    ours.after_step(0.1)
    expected = 0.1 * torch.cat([first, second]).mean(dim=0)
    assert torch.allclose(ours.centre.double(), expected, atol=1e-7)
    ours.after_step(0.1)
    assert torch.allclose(ours.centre.double(), expected, atol=1e-7)  # nothing new to move towards


def test_the_teachers_temperature_rises_over_the_warm_up_and_stays():
    ours = matcher(teacher=0.07, warmup=0.4)
    found = [ours.teacher_temperature]
    for progress in (0.2, 0.4, 1.0):
        ours.after_step(progress)
        found.append(ours.teacher_temperature)
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])


def test_the_heads_output_is_a_cosine():
    head = Head(10, 7, 9, 5)
    z = head(torch.randn(4, 10))
    assert z.shape == (4, 7) and head(torch.randn(2, 3, 10)).shape == (2, 3, 7)
    assert z.abs().max() <= 1 + 1e-6


def test_the_head_starts_as_the_official_one():
    """Standard deviation 0.02 in the layers of width 2048, rows of the last layer of length 1 / sqrt(3)."""
    torch.manual_seed(0)
    head = Head(48, 300, 2048, 256)
    linears = [layer for layer in head.mlp.layers if isinstance(layer, torch.nn.Linear)]
    assert [layer.weight.std().item() for layer in linears] == pytest.approx([0.02] * 3, rel=0.02)
    assert not any(layer.bias.any() for layer in linears)
    assert head.weight.norm(dim=1).mean().item() == pytest.approx(1 / math.sqrt(3), rel=0.01)
    assert head.weight.abs().max() <= 1 / 16


def test_a_cnns_global_views_share_a_pass_and_a_vits_do_not():
    for backbone, together in ((build_backbone("resnet_tiny", widths=(4, 6, 8)), True), (tiny().backbone, False)):
        method, rows = DINO(backbone, 32, hidden=24, bottleneck=8), []
        method.target_backbone.register_forward_pre_hook(lambda _, inputs, rows=rows: rows.append(len(inputs[0])))
        method.backbone.register_forward_pre_hook(lambda _, inputs, rows=rows: rows.append(len(inputs[0])))
        method(Batch(views()))
        assert sorted(rows) == ([8, 8, 8] if together else [4, 4, 4, 4, 8])  # two local views of one size share a pass


def adamw(method: DINO) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)


def step(method: DINO, optimizer: torch.optim.Optimizer, progress: float) -> None:
    optimizer.zero_grad()
    method(Batch(views()))["loss"].backward()
    method.after_backward()
    optimizer.step()
    method.after_step(progress)


def test_the_last_layer_is_frozen_for_its_share_of_the_run():
    method = tiny(freeze_last=0.5)
    optimizer = adamw(method)
    moved = []
    for progress in (0.25, 0.5, 0.75):
        before = method.projector.weight.detach().clone()
        step(method, optimizer, progress)
        moved.append(not torch.equal(method.projector.weight, before))  # neither by a gradient nor by weight decay
    assert moved == [False, False, True]
    method.after_step(1.0)
    assert method.momentum(1.0) == 1.0


def test_the_optimiser_has_not_seen_a_frozen_layer():
    """Official: the gradient is None while frozen, so that AdamW's moments and step count begin afterwards."""
    method = tiny(freeze_last=0.5)
    optimizer = adamw(method)
    for progress in (0.25, 0.5):
        step(method, optimizer, progress)
    assert not optimizer.state[method.projector.weight]
    assert optimizer.state[method.projector.mlp.layers[0].weight]["step"] == 2
    step(method, optimizer, 0.75)
    assert optimizer.state[method.projector.weight]["step"] == 1


def test_steps_after_the_unfreezing_are_those_of_a_fresh_adamw():
    """Written out: W, its moments and its count of steps begin at the first step that is not frozen."""
    method = tiny(freeze_last=0.5)
    optimizer = adamw(method)
    for progress in (0.25, 0.5):
        step(method, optimizer, progress)
    weight = method.projector.weight.detach().double()
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(method.projector.weight.grad.double()))
    for count, progress in enumerate((0.6, 0.7, 0.8), start=1):
        step(method, optimizer, progress)
        mean = 0.9 * mean + 0.1 * seen[-1]
        square = 0.999 * square + 0.001 * seen[-1] ** 2
        change = mean / (1 - 0.9**count) / ((square / (1 - 0.999**count)).sqrt() + 1e-8)
        weight = weight * (1 - 0.01 * 0.1) - 0.01 * change
        torch.testing.assert_close(method.projector.weight.double(), weight, rtol=1e-4, atol=1e-5)


def test_nothing_is_frozen_without_a_share():
    method = tiny(freeze_last=0.0)
    step(method, adamw(method), 0.5)
    assert method.projector.weight.grad is not None


def test_the_state_holds_the_progress_of_the_run():
    """A resumed run goes on with its temperature and with its frozen or free layer."""
    options = {"freeze_last": 0.3, "teacher_temperature": 0.07, "teacher_temperature_start": 0.04}
    method, resumed = (tiny(**options, teacher_temperature_warmup=0.8) for _ in range(2))
    step(method, adamw(method), 0.4)
    resumed.load_state_dict(method.state_dict())
    assert resumed.matcher.teacher_temperature == method.matcher.teacher_temperature == pytest.approx(0.055)
    step(resumed, adamw(resumed), 0.5)
    assert resumed.projector.weight.grad is not None
    assert not any("matcher" in name for name in method.evaluated_state())


def test_stochastic_depth_is_the_students_alone():
    method = tiny(depth=3, drop_path_rate=0.5)
    drops = {part: [m.drop_prob for m in part.modules() if isinstance(m, DropPath)] for part in
             (method.backbone, method.target_backbone)}  # fmt: skip
    assert max(drops[method.backbone]) == 0.5
    assert set(drops[method.target_backbone]) == {0.0}


def test_teacher_entropy_is_logged_between_0_and_ln_k():
    outputs = tiny()(Batch(views()))
    assert 0 < outputs["teacher_entropy"] < math.log(32)


def test_wrong_settings_are_refused_in_one_line():
    with pytest.raises(UsageError, match=r"DINO's temperatures are above 0, not \(0.1, 0.0, 0.0\)"):
        tiny(teacher_temperature=0.0)
    with pytest.raises(UsageError, match=r"DINO's freeze_last lies in \[0, 1\], not at 2"):
        tiny(freeze_last=2)
