"""Pairs of views, passes through the two branches, momentum copies, and what extra views may change."""

import copy

import pytest
import torch
from torch import Tensor, nn

from baselines.byol import BYOL
from baselines.moco import MoCo
from scd.data.recipes import build_recipe
from scd.errors import UsageError
from scd.method import Batch, View, whole_view
from scd.nn.backbone import build_backbone
from scd.profiling.flops import forward_flops, training_flops
from scd.siamese import JointEmbedding, Matcher, MomentumSiamese, match, passes, unique

BATCH, SIZE, DIM, QUEUE = 8, 32, 16, 64
EXTRAS = {"none": {}, "same size": {"e0": SIZE, "e1": SIZE}, "local": {"e0": SIZE // 2, "e1": SIZE // 2}}


class Distance(Matcher):
    """Mean squared distance; keeps the target embeddings that it receives."""

    def __init__(self):
        super().__init__()
        self.remembered: list[list[Tensor]] = []
        self.calls: list[str] = []

    def forward(self, online: Tensor, target: Tensor) -> Tensor:
        return (online - target).square().mean()

    def remember(self, targets: list[Tensor]) -> None:
        self.remembered.append(targets)

    def after_backward(self) -> None:
        self.calls.append("after_backward")

    def after_step(self, progress: float) -> None:
        self.calls.append(f"after_step {progress}")


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return build_backbone("resnet_tiny", widths=(8, 8, 16), strides=(1, 2, 1))


def joint(symmetric: bool = True) -> JointEmbedding:
    return JointEmbedding(tiny(), nn.Linear(16, DIM), Distance(), symmetric)


def momentum(symmetric: bool = False, **options) -> MomentumSiamese:
    options = {"momentum": 0.9, **options}
    return MomentumSiamese(tiny(), nn.Linear(16, DIM), Distance(), symmetric=symmetric, **options)


def moco(symmetric: bool = False, bn_groups: int = 1) -> MoCo:
    return MoCo(tiny(), dim=DIM, hidden=24, queue_size=QUEUE, symmetric=symmetric, bn_groups=bn_groups)


def byol() -> BYOL:
    return BYOL(tiny(), dim=DIM, hidden=24)


HOSTS = {"moco": moco, "moco_grouped": lambda: moco(bn_groups=2), "moco_symmetric": lambda: moco(True), "byol": byol}
every_host = pytest.mark.parametrize("host", HOSTS)
every_extra = pytest.mark.parametrize("extra", [name for name in EXTRAS if name != "none"])


def view(name: str, images: Tensor) -> View:
    made = whole_view(images, name)
    made.role = "global" if name in ("v1", "v2") else "extra"
    return made


def views(extra: str = "none", seed: int = 2) -> dict[str, View]:
    draw = torch.Generator().manual_seed(seed)
    sides = {"v1": SIZE, "v2": SIZE, **EXTRAS[extra]}
    return {name: view(name, torch.randn(BATCH, 3, side, side, generator=draw)) for name, side in sides.items()}


# -------------------------------------------------------------------- pairs


def test_pairs_of_both_forms():
    names = views("local")
    assert joint(symmetric=False).pairs(names) == [("v1", "v2"), ("e0", "v2"), ("e1", "v2")]
    both = [("v1", "v2"), ("v2", "v1"), ("e0", "v2"), ("e0", "v1"), ("e1", "v2"), ("e1", "v1")]
    assert joint(symmetric=True).pairs(names) == both


@pytest.mark.parametrize(("names", "count"), [(("v1",), 1), (("v1", "v2", "v3"), 3), ((), 0)])
def test_other_than_two_global_views_are_refused(names, count):
    given = {name: view(name, torch.zeros(2, 3, SIZE, SIZE)) for name in names}
    for each in given.values():
        each.role = "global"
    with pytest.raises(UsageError, match=f"JointEmbedding pairs two global views, the recipe gives {count}"):
        joint()(Batch(given))


def test_match_is_the_mean_over_pairs_and_remembers_each_target_once():
    matcher = Distance()
    online = {name: torch.randn(4, 3) for name in ("v1", "v2", "e0")}
    target = {name: torch.randn(4, 3) for name in ("v1", "v2")}
    pairs = [("v1", "v2"), ("v2", "v1"), ("e0", "v2"), ("e0", "v1")]
    loss = match(matcher, pairs, online, target)
    torch.testing.assert_close(loss, sum(matcher(online[i], target[j]) for i, j in pairs) / 4)
    assert [[id(each) for each in targets] for targets in matcher.remembered] == [[id(target["v2"]), id(target["v1"])]]


def test_pairs_have_the_weight_of_their_online_view():
    """Asym-Siam with 2 small views: the loss is that of the large pair plus the mean over small views, halved."""
    online = {name: torch.full((2, 3), value) for name, value in (("a", 1.0), ("b", 3.0), ("c", 5.0))}
    target = {"t": torch.zeros(2, 3)}
    pairs = [("a", "t"), ("b", "t"), ("c", "t")]
    assert float(match(Distance(), pairs, online, target, [1.0, 0.5, 0.5])) == pytest.approx((1 + (9 + 25) / 2) / 2)
    assert float(match(Distance(), pairs, online, target, [0.5] * 3)) == pytest.approx((1 + 9 + 25) / 3)


@pytest.mark.parametrize("host", [joint, moco])
def test_the_weight_of_extra_views_reaches_the_loss(host):
    method, made = host(symmetric=False), views("local")
    pair = float(method(Batch({name: made[name] for name in ("v1", "v2")}))["loss"].detach())
    losses = []
    for weight in (1.0, 0.25):
        made["e0"].weight = made["e1"].weight = weight
        losses.append(float(method(Batch(made))["loss"].detach()))
    extras = 3 * losses[0] - pair  # the losses of both extra pairs, added
    assert losses[1] == pytest.approx((pair + 0.25 * extras) / 1.5, abs=1e-4)


def test_unique_keeps_the_first_order():
    assert unique(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]


# -------------------------------------------------------------------- passes through the backbone


def test_extra_views_of_one_size_share_a_pass_and_global_views_have_their_own():
    given = {**views("local"), "e2": view("e2", torch.zeros(BATCH, 3, SIZE, SIZE))}
    assert passes(given, list(given)) == [["v1"], ["v2"], ["e0", "e1"], ["e2"]]


@pytest.mark.parametrize("symmetric", [False, True])
def test_global_views_that_go_together_share_the_statistics_of_each_branch(symmetric):
    method, given = momentum(symmetric), views("same size")
    method.global_views_together = True
    seen = {"online": [], "target": []}
    method.backbone.register_forward_hook(lambda m, args, out: seen["online"].append(len(out)))
    method.target_backbone.register_forward_hook(lambda m, args, out: seen["target"].append(len(out)))
    encoded = method.encode(given)
    globals_ = 2 if symmetric else 1
    assert seen == {"online": [globals_ * BATCH, 2 * BATCH], "target": [globals_ * BATCH]}
    if symmetric:
        both = tiny()(torch.cat([given["v1"].images, given["v2"].images]))  # the same weights
        for branch in (encoded.online, encoded.target):
            torch.testing.assert_close(torch.cat([branch["v1"].maps, branch["v2"].maps]), both)


def test_shared_passes_keep_an_images_views_together_and_give_them_back_by_name():
    """In evaluation mode BN mixes nothing, so features of a shared pass equal those of single passes."""
    method, given = joint(symmetric=False).eval(), views("local")
    batches = []
    method.backbone.register_forward_pre_hook(lambda module, args: batches.append(args[0]))
    encoded = method.encode(given)
    assert [len(images) for images in batches] == [BATCH, BATCH, 2 * BATCH]
    assert torch.equal(batches[2][0], given["e0"].images[0]) and torch.equal(batches[2][1], given["e1"].images[0])
    for name in ("v1", "v2", "e0", "e1"):
        alone = method.encode_online(given[name].images)
        torch.testing.assert_close(encoded.online[name].maps, alone.maps, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(encoded.online[name].pooled, alone.maps.mean(dim=(2, 3)), rtol=1e-5, atol=1e-6)


def test_one_network_encodes_each_view_once_and_is_its_own_target():
    method, given = joint(), views()
    calls = []
    method.backbone.register_forward_hook(lambda *_: calls.append(1))
    encoded = method.encode(given)
    assert len(calls) == 2
    assert encoded.target["v1"] is encoded.online["v1"] and encoded.target["v2"] is encoded.online["v2"]
    logs = method(Batch(given))
    logs["loss"].backward()
    assert not logs["image_loss"].requires_grad
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_the_asymmetric_form_of_one_network_encodes_the_second_view_too():
    assert set(joint(symmetric=False).encode(views()).online) == {"v1", "v2"}
    assert set(momentum(symmetric=False).encode(views()).online) == {"v1"}


def test_the_loss_of_one_network_by_hand():
    method, given = joint(symmetric=True), views()
    z1, z2 = (method.projector(method.backbone(given[name].images).mean(dim=(2, 3))) for name in ("v1", "v2"))
    torch.testing.assert_close(method(Batch(given))["loss"], (z1 - z2).square().mean())


@every_host
@every_extra
def test_the_target_branch_never_sees_an_extra_view(host, extra):
    method, given = HOSTS[host](), views(extra)
    seen = {"online": [], "target": []}
    method.backbone.register_forward_hook(lambda m, args, out: seen["online"].append(args[0]))
    method.target_backbone.register_forward_hook(lambda m, args, out: seen["target"].append(args[0]))
    encoded = method.encode(given)
    passes_per_image = [sum(map(len, seen[branch])) / BATCH for branch in ("online", "target")]
    targets = 2 if method.symmetric else 1
    assert passes_per_image == [targets + 2, targets]
    assert set(encoded.target) == ({"v1", "v2"} if method.symmetric else {"v2"})
    assert set(encoded.online) == {"v1", "e0", "e1"} | ({"v2"} if method.symmetric else set())
    globals_ = torch.cat([given["v1"].images, given["v2"].images])
    for images in seen["target"]:  # a shuffled target still consists of global views
        assert all(any(torch.equal(image, other) for other in globals_) for image in images)


# -------------------------------------------------------------------- extra views in the loss


@pytest.mark.parametrize("host", ["moco", "moco_grouped"])
def test_extra_views_equal_to_the_first_view_change_neither_loss_nor_gradient(host):
    given = views()
    copies = {f"same{i}": view(f"same{i}", given["v1"].images) for i in range(2)}
    results = []
    for each in (given, {**given, **copies}):
        method = HOSTS[host]()
        torch.manual_seed(5)  # the order in which grouped keys are shuffled
        loss = method(Batch(each))["loss"]
        loss.backward()
        results.append((loss.item(), [p.grad for p in method.parameters() if p.requires_grad]))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-6)
    for alone, together in zip(results[0][1], results[1][1], strict=True):
        assert torch.allclose(alone, together, rtol=1e-3, atol=1e-6)


@every_host
@every_extra
def test_the_loss_is_the_plain_mean_over_pairs(host, extra):
    method, given = HOSTS[host](), views(extra)
    torch.manual_seed(5)
    loss = copy.deepcopy(method)(Batch(given))["loss"].item()
    torch.manual_seed(5)
    encoded = method.encode(given)
    terms = []
    for i, j in method.pairs(given):
        query = method.projector(encoded.online[i].pooled)
        terms.append(method.matcher(query, method.target_projector(encoded.target[j].pooled)).item())
    assert len(terms) == (6 if method.symmetric else 3)
    assert loss == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_keys_of_extra_views_do_not_enter_the_queue():
    method, given = moco(), views("same size")
    before = method.matcher.queue.keys.clone()
    method(Batch(given))
    method.after_step(0.1)
    changed = (method.matcher.queue.keys != before).any(dim=1)
    assert changed[:BATCH].all() and not changed[BATCH:].any()


@pytest.mark.parametrize(
    ("kind", "side", "symmetric"), [("same_rectangle", 32, False), ("local", 12, False), ("random", 32, True)]
)
def test_counted_operations_of_an_extra_view_are_the_closed_form(kind, side, symmetric):
    method = moco(symmetric)
    recipes = [
        build_recipe("mocov2", SIZE, extra={"kind": kind, "count": count} if count else None) for count in range(3)
    ]
    none, one, two = (training_flops(method, recipe, BATCH) for recipe in recipes)
    assert two.total - one.total == one.total - none.total > 0  # each view costs the same
    assert two.backward - one.backward == one.backward - none.backward
    head = 2 * BATCH * (16 * 24 + 24 * DIM)
    contrast = 2 * BATCH * DIM * QUEUE * (2 if symmetric else 1)  # against one or two targets
    online = forward_flops(method.backbone, (BATCH, 3, side, side))
    assert one.forward - none.forward == online + head + contrast
    stem = 2 * BATCH * (side // 2) ** 2 * 9 * 3 * 8  # stride 2; the pixels need no gradient
    assert one.backward - none.backward == 2 * online - stem + 2 * head + contrast  # the queue needs none either


# -------------------------------------------------------------------- momentum


def test_a_momentum_copy_starts_equal_has_no_gradient_and_moves_after_the_step():
    method = momentum(momentum=0.75)
    extra = nn.Linear(3, 2)
    method.target_extra = method.target_of(extra)
    assert torch.equal(method.target_extra.weight, extra.weight) and not method.target_extra.weight.requires_grad
    old = {name: value.clone() for name, value in method.state_dict().items()}
    with torch.no_grad():
        for module in (method.backbone, method.projector, extra):
            for parameter in module.parameters():
                parameter.add_(1.0)
    assert torch.equal(method.target_extra.weight, old["target_extra.weight"])
    method.after_step(0.5)
    for name in ("target_extra.weight", "target_projector.bias", "target_backbone.trunk.0.weight"):
        torch.testing.assert_close(method.state_dict()[name], old[name] + 0.25)


def test_copies_stay_paired_with_their_modules_in_a_copied_method():
    method = copy.deepcopy(momentum(momentum=0.0))
    with torch.no_grad():
        method.projector.weight.add_(1.0)
    method.after_step(0.5)
    assert torch.equal(method.target_projector.weight, method.projector.weight)


def test_one_network_has_no_copies():
    module = nn.Linear(2, 2)
    assert joint().target_of(module) is module


def test_cosine_and_constant_momentum_and_their_log():
    assert [momentum(momentum=0.8).momentum(progress) for progress in (0.0, 0.5, 1.0)] == [0.8] * 3
    rising = momentum(momentum=0.8, momentum_schedule="cosine")
    assert [rising.momentum(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([0.8, 0.9, 1.0])
    assert rising.scheduled_values(0.5) == {"momentum": pytest.approx(0.9)}
    assert joint().scheduled_values(0.5) == {}
    with pytest.raises(UsageError, match="momentum_schedule is 'constant' or 'cosine', not 'linear'"):
        momentum(momentum_schedule="linear")


@pytest.mark.parametrize(("next_steps", "expected"), [(False, [0.8, 0.85, 0.9, 0.95]), (True, [0.85, 0.9, 0.95, 1.0])])
def test_a_step_uses_the_momentum_of_the_progress_before_it_or_of_the_next_step(next_steps, expected):
    """m(t / T) at step t, as in BYOL's and DINO's code, or m((t + 1) / T), as in SlotCon's; here T = 4."""
    method = momentum(momentum=0.8, momentum_schedule="cosine")
    method.momentum = lambda progress: 0.8 + 0.2 * progress
    method.next_steps_momentum = next_steps
    for step, m in enumerate(expected):
        with torch.no_grad():
            method.projector.bias.fill_(1.0)
            method.target_projector.bias.fill_(0.0)
        if step == 2:  # a resumed run goes on with its momentum
            state = method.state_dict()
            method.progress = 0.0
            method.load_state_dict(state)
        assert method.momentum_of_step((step + 1) / 4) == pytest.approx(m)
        method.after_step((step + 1) / 4)
        torch.testing.assert_close(method.target_projector.bias, torch.full((DIM,), 1 - m))
    assert "_extra_state" not in method.evaluated_state()


def test_the_matcher_is_told_about_the_step():
    for method in (joint(), momentum()):
        method.after_backward()
        method.after_step(0.5)
        assert method.matcher.calls == ["after_backward", "after_step 0.5"]


# -------------------------------------------------------------------- for wrappers


def test_results_for_target_views_are_the_online_ones_or_those_of_the_momentum_branch():
    given = views()
    method = joint()
    encoded = method.encode(given)
    online = {"v1": object(), "v2": object()}
    found = method.target_results(encoded, online, None)
    assert found == online

    method = momentum(symmetric=True)
    encoded = method.encode(given)
    found = method.target_results(encoded, online, lambda features, each: (features, each, torch.is_grad_enabled()))
    assert set(found) == {"v1", "v2"}
    for name, (features, each, gradients) in found.items():
        assert features is encoded.target[name] and each is given[name] and not gradients


def test_a_method_without_a_second_matcher_says_so():
    with pytest.raises(UsageError, match="JointEmbedding has no second matcher, which this wrapper needs"):
        joint().new_matcher()


def test_parts_name_backbones_heads_and_loss():
    method = byol()
    parts = method.parts()
    assert parts.root == "loss"
    assert parts.modules[method.backbone] == "backbone, online"
    assert parts.modules[method.target_backbone] == "backbone, target"
    for head in (method.projector, method.target_projector, method.matcher.predictor):
        assert parts.modules[head] == "heads"
    assert parts.modules[method.matcher] == "loss"
