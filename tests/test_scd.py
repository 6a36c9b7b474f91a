"""SCD against its formulas written out, its branches and gradients, and its options."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.barlow_twins import BarlowTwins
from baselines.byol import BYOL
from baselines.hybrids import AlignmentMaps
from baselines.moco import MoCo
from baselines.simsiam import SimSiam
from scd.errors import UsageError
from scd.maps.controls import ConstantMap
from scd.maps.learned import SaliencyMLP
from scd.maps.source import MapSource
from scd.method import Batch, View, whole_view
from scd.nn.backbone import build_backbone
from scd.scd import SCD
from scd.siamese import Encoded, MomentumSiamese


def siamese(kind: str = "moco", symmetric: bool = False, momentum: float = 0.9) -> MomentumSiamese:
    torch.manual_seed(0)
    backbone = build_backbone("resnet_tiny", widths=(4, 6, 8))
    if kind == "byol":
        return BYOL(backbone, dim=8, hidden=16, momentum=momentum, symmetric=symmetric)
    return MoCo(backbone, dim=8, queue_size=32, momentum=momentum, symmetric=symmetric, bn_groups=2)


def views(extras: int = 0, rows: int = 4, seed: int = 0) -> dict[str, View]:
    draw = torch.Generator().manual_seed(seed)
    names = ["v1", "v2", *(f"random{i}" for i in range(extras))]
    rectangles, flips = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(rows, 4), torch.zeros(rows, dtype=torch.bool)
    return {
        name: View(
            name,
            "global" if name in ("v1", "v2") else "extra",
            torch.randn(rows, 3, 16, 16, generator=draw),
            rectangles,
            flips,
            masks=(torch.rand(rows, 16, 16, generator=draw) > 0.5).float(),
        )
        for name in names
    }


def vectors(maps: Tensor, saliency: Tensor, projection: nn.Module, pooling: str = "mean") -> tuple[Tensor, Tensor]:
    """Unit foreground and background vectors, position by position; both go through the projection as one batch."""
    rows, channels, height, width = maps.shape
    sides = []
    for weight in (saliency, 1 - saliency):
        pooled = torch.zeros(rows, channels)
        for y in range(height):
            for x in range(width):
                pooled += weight[:, y, x, None] * maps[:, :, y, x]
        if pooling == "mean":
            pooled = pooled / weight.reshape(rows, -1).sum(dim=1, keepdim=True)
        sides.append(pooled)
    projected = projection(torch.cat(sides))
    return (projected / projected.norm(dim=1, keepdim=True)).chunk(2)


def hinge(a: Tensor, p: Tensor, n: Tensor, margin: float) -> Tensor:
    return (margin + (a - p).norm(dim=1) - (a - n).norm(dim=1)).clamp_min(0).mean()


def triplet_of(method: SCD, encoded: Encoded) -> Tensor:
    return method.triplet_loss(method.separate(encoded))


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize("pooling", ["mean", "sum"])
@pytest.mark.parametrize("projection_dim", [0, 5])
def test_regions_are_weighted_means_through_the_projection(pooling, projection_dim):
    method = SCD(siamese(), pooling=pooling, projection_dim=projection_dim)
    maps, saliency = torch.randn(3, 8, 4, 5), torch.rand(3, 4, 5)
    regions = method.regions(maps, saliency, method.projection)
    foreground, background = vectors(maps, saliency, method.projection, pooling)
    torch.testing.assert_close(regions.foreground, foreground, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(regions.background, background, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "symmetric"), [("moco", False), ("moco", True), ("byol", False), ("byol", True)])
@pytest.mark.parametrize("anchors", ["foreground", "both"])
def test_triplet_loss_is_the_formula_of_the_docstring(kind, symmetric, anchors):
    method = SCD(siamese(kind, symmetric), margin=0.7, anchors=anchors)
    with torch.no_grad():  # a target that differs, so that a swap of the branches shows
        for parameter in [*method.target_saliency_head.parameters(), *method.target_projection.parameters()]:
            parameter.add_(0.3 * torch.randn_like(parameter))
    encoded = method.siamese.encode(views())
    loss = triplet_of(method, encoded)
    terms = []
    for i, j in [("v1", "v2"), ("v2", "v1")][: 1 + symmetric]:
        online, target = encoded.online[i].maps, encoded.target[j].maps
        fg, bg = vectors(online, method.saliency_head(online, None), method.projection)
        fg_other, bg_other = vectors(target, method.target_saliency_head(target, None), method.target_projection)
        pair = [hinge(fg, fg_other, bg, 0.7), hinge(fg, fg_other, bg_other, 0.7)]
        if anchors == "both":
            pair += [hinge(bg, bg_other, fg, 0.7), hinge(bg, bg_other, fg_other, 0.7)]
        terms.append(sum(pair) / len(pair))
    torch.testing.assert_close(loss, sum(terms) / len(terms), atol=1e-5, rtol=1e-4)


def test_the_loss_is_image_loss_plus_weight_times_triplet():
    outputs = []
    for weight in (0.0, 1.0, 2.5):
        torch.manual_seed(1)
        method = SCD(siamese(), weight=weight)
        torch.manual_seed(2)
        outputs.append(method(Batch(views())))
    for weight, out in zip((0.0, 1.0, 2.5), outputs, strict=True):
        torch.testing.assert_close(out["loss"].detach(), out["image_loss"] + weight * out["triplet_loss"])
    statistics = {"map_area", "map_std", "map_saturation", "map_entropy"}
    assert set(outputs[0]) == {"loss", "image_loss", "triplet_loss", *statistics}
    assert outputs[0]["image_loss"] == outputs[2]["image_loss"]


def test_online_positives_pass_their_gradient():
    method = SCD(siamese(symmetric=True), positive_branch="online", margin=4.0)
    encoded = method.siamese.encode(views())
    loss = triplet_of(method, encoded)
    sides = {
        name: vectors(
            encoded.online[name].maps, method.saliency_head(encoded.online[name].maps, None), method.projection
        )
        for name in ("v1", "v2")
    }
    terms = [
        hinge(sides[i][0], sides[j][0], background, 4.0)
        for i, j in [("v1", "v2"), ("v2", "v1")]
        for background in (sides[i][1], sides[j][1])
    ]
    torch.testing.assert_close(loss, sum(terms) / 4, atol=1e-5, rtol=1e-4)
    with pytest.raises(UsageError, match="positive_branch=online needs the online features of both views; set symm"):
        SCD(siamese(symmetric=False), positive_branch="online")


def maps_by_hand(method: SCD, maps: Tensor, saliency: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Vectors of each of the J maps (B, J, h, w) on its own."""
    sides = [vectors(maps, saliency[:, j], method.projection) for j in range(saliency.shape[1])]
    return [foreground for foreground, _ in sides], [background for _, background in sides]


def test_several_maps_make_a_triplet_for_each_index():
    class Several(MapSource):
        def __init__(self, dim: int):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, dim))

        def forward(self, maps: Tensor, view: View) -> Tensor:
            return torch.einsum("jc,bchw->bjhw", self.weight, maps).sigmoid()

        def scored(self, maps: Tensor, view: View) -> Tensor:
            return self(maps, view).amax(dim=1)

    method = SCD(siamese(), Several, margin=0.7, projection_dim=5)
    encoded = method.siamese.encode(views())
    loss, separated = triplet_of(method, encoded), method.separate(encoded)
    assert separated.online["v1"].maps.shape == (4, 3, 4, 4)
    online, target = encoded.online["v1"].maps, encoded.target["v2"].maps
    fg, bg = maps_by_hand(method, online, method.saliency_head(online, None))
    fg_other, bg_other = maps_by_hand(method, target, method.target_saliency_head(target, None))
    terms = [
        hinge(fg[j], fg_other[j], background, 0.7) for j in range(3) for background in (bg[j], bg_other[j])
    ]  # fmt: skip
    torch.testing.assert_close(loss, sum(terms) / 6, atol=1e-5, rtol=1e-4)
    found = method.eval().saliency(whole_view(views()["v1"].images))
    assert found.shape == (4, 4, 4)


def test_without_a_momentum_branch_the_target_is_the_online_network_without_gradient():
    torch.manual_seed(0)
    host = SimSiam(build_backbone("resnet_tiny", widths=(4, 6, 8)), dim=8)
    method = SCD(host, margin=4.0)
    assert method.target_saliency_head is method.saliency_head and method.target_projection is method.projection
    encoded = host.encode(views())
    loss = triplet_of(method, encoded)
    sides = {}
    for name in ("v1", "v2"):
        maps = encoded.online[name].maps
        sides[name] = vectors(maps, method.saliency_head(maps, None), method.projection)
    terms = [
        hinge(sides[i][0], sides[j][0].detach(), background, 4.0)
        for i, j in (("v1", "v2"), ("v2", "v1"))
        for background in (sides[i][1], sides[j][1].detach())
    ]
    torch.testing.assert_close(loss, sum(terms) / 4, atol=1e-5, rtol=1e-4)
    weights = list(method.projection.parameters())
    for one, two in zip(
        torch.autograd.grad(loss, weights, retain_graph=True), torch.autograd.grad(sum(terms) / 4, weights), strict=True
    ):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-3)


# ---------------------------------------------------------------- the host's loss on the foreground vectors


def pooled_foreground(maps: Tensor, saliency: Tensor) -> Tensor:
    """Foreground vectors of a mean pooling, before any projection, position by position."""
    sums = [(saliency[b] * maps[b]).sum(dim=(1, 2)) / saliency[b].sum() for b in range(len(maps))]
    return torch.stack(sums)


def test_mocos_loss_on_foregrounds_is_info_nce_with_a_queue_of_its_own():
    method = SCD(siamese(symmetric=True), weight=0.5, foreground_weight=2.0)
    encoded = method.siamese.encode(views())
    keys = method.foreground_matcher.queue.keys.clone()
    assert keys.shape == method.siamese.matcher.queue.keys.shape
    assert not torch.equal(keys, method.siamese.matcher.queue.keys)
    terms, entered = [], []
    for i, j in [("v1", "v2"), ("v2", "v1")]:
        online, target = encoded.online[i].maps, encoded.target[j].maps
        q = method.siamese.projector(pooled_foreground(online, method.saliency_head(online, None)))
        k = method.siamese.target_projector(pooled_foreground(target, method.target_saliency_head(target, None)))
        q, k = q / q.norm(dim=1, keepdim=True), k / k.norm(dim=1, keepdim=True)
        logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ keys.T], dim=1) / method.siamese.matcher.temperature
        terms.append(F.cross_entropy(logits, torch.zeros(4, dtype=torch.long)))
        entered.append(k)
    separated = method.separate(encoded)
    foreground_loss = method.foreground_loss(encoded, separated)
    torch.testing.assert_close(foreground_loss, sum(terms) / 2, atol=1e-5, rtol=1e-4)
    image_loss = torch.tensor(7.0)
    loss, logs = method.combine(image_loss, encoded)
    torch.testing.assert_close(loss, 7.0 + 0.5 * logs["triplet_loss"] + 2.0 * logs["foreground_loss"])
    torch.testing.assert_close(logs["foreground_loss"], foreground_loss.detach())
    before = method.siamese.matcher.queue.keys.clone()
    method.after_step(0.5)
    torch.testing.assert_close(method.foreground_matcher.queue.keys[:8], torch.cat(entered), atol=1e-5, rtol=1e-4)
    assert torch.equal(method.siamese.matcher.queue.keys, before)  # image_loss, which fills it, was not called


def test_byols_loss_on_foregrounds_has_a_predictor_of_its_own():
    method = SCD(siamese("byol", symmetric=False), foreground_weight=1.0)
    encoded = method.siamese.encode(views())
    online, target = encoded.online["v1"].maps, encoded.target["v2"].maps
    p = method.foreground_matcher.predictor(
        method.siamese.projector(pooled_foreground(online, method.saliency_head(online, None)))
    )
    z = method.siamese.target_projector(pooled_foreground(target, method.target_saliency_head(target, None)))
    expected = (2 - 2 * F.cosine_similarity(p, z, dim=1)).mean()
    loss = method.foreground_loss(encoded, method.separate(encoded))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-4)
    loss.backward()
    trained = [parameter for group in method.parameter_groups() for parameter in group.parameters]
    for parameter in method.foreground_matcher.parameters():
        assert parameter.grad is not None and any(parameter is other for other in trained)
    assert method.saliency_head.mlp.layers[0].weight.grad.abs().sum() > 0
    assert not any("foreground_matcher" in name for name in method.evaluated_state())


def test_without_a_momentum_branch_foregrounds_are_compared_as_the_host_compares_images():
    torch.manual_seed(0)
    host = BarlowTwins(build_backbone("resnet_tiny", widths=(4, 6, 8)), width=6)
    method = SCD(host, foreground_weight=1.0)
    encoded = host.encode(views())
    sides = [
        host.projector(pooled_foreground(features.maps, method.saliency_head(features.maps, None)))
        for features in (encoded.online["v1"], encoded.online["v2"])
    ]
    expected, loss = host.matcher(*sides), method.foreground_loss(encoded, method.separate(encoded))
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    weights = list(method.saliency_head.parameters())  # the gradient flows through both views
    got, wanted = (torch.autograd.grad(each, weights, retain_graph=True) for each in (loss, expected))
    for one, two in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-2)


def test_online_positives_and_the_foreground_loss_use_a_branch_each():
    method = SCD(siamese(symmetric=True), positive_branch="online", foreground_weight=1.0)
    encoded = method.siamese.encode(views())
    alone = SCD(siamese(symmetric=True), positive_branch="online")
    alone.load_state_dict({k: v for k, v in method.state_dict().items() if not k.startswith("foreground_matcher")})
    torch.testing.assert_close(triplet_of(method, encoded), triplet_of(alone, encoded))
    assert set(method.separate(encoded).target) == {"v1", "v2"} and not alone.separate(encoded).target
    assert torch.isfinite(method(Batch(views()))["loss"])


def test_by_default_the_host_compares_images_only():
    method = SCD(siamese())
    assert method.foreground_matcher is None
    assert not any("foreground" in name for name in method.state_dict())
    with pytest.raises(UsageError, match="foreground_weight is the weight of a loss, 0 or more, not -1"):
        SCD(siamese(), foreground_weight=-1)


def test_several_maps_have_no_single_foreground_for_the_host():
    method = SCD(siamese(), AlignmentMaps(8, maps=2), foreground_weight=1.0)
    with pytest.raises(UsageError, match="foreground_weight takes a map source of one map"):
        method(Batch(views()))


# ---------------------------------------------------------------- the constant-map control


def test_a_constant_map_leaves_a_pull_and_no_separation():
    method = SCD(siamese(), ConstantMap(value=0.3), margin=0.7)
    encoded = method.siamese.encode(views())
    regions = method.online_regions(encoded.online["v1"], encoded.views["v1"])
    torch.testing.assert_close(regions.foreground, regions.background)
    pooled = F.normalize(method.projection(encoded.online["v1"].pooled), dim=1)
    torch.testing.assert_close(regions.foreground, pooled, atol=1e-5, rtol=1e-4)
    loss = triplet_of(method, encoded)
    other = F.normalize(method.target_projection(encoded.target["v2"].pooled), dim=1)
    pull = (pooled - other).norm(dim=1).mean()
    torch.testing.assert_close(loss, 0.7 + pull / 2, atol=1e-5, rtol=1e-4)
    weights = list(method.projection.parameters())
    got, expected = torch.autograd.grad(loss, weights, retain_graph=True), torch.autograd.grad(pull / 2, weights)
    for one, two in zip(got, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_saturated_map_gives_finite_losses_and_gradients(value):
    method = SCD(siamese())
    features = torch.rand(4, 8, 4, 4, requires_grad=True)
    regions = method.regions(features, torch.full((4, 4, 4), value), method.projection)
    method.compare(regions, regions).backward()
    assert torch.isfinite(regions.foreground).all() and torch.isfinite(features.grad).all()


# ---------------------------------------------------------------- branches, views, gradients


def test_the_backbone_runs_once_per_view_and_branch():
    method = SCD(siamese(symmetric=True))
    calls = []
    method.backbone.register_forward_hook(lambda *_: calls.append("online"))
    method.siamese.target_backbone.register_forward_hook(lambda *_: calls.append("target"))
    method(Batch(views()))
    assert sorted(calls) == ["online", "online", "target", "target"]


def test_the_image_loss_is_that_of_the_siamese_alone():
    alone, wrapped = siamese(), SCD(siamese())
    for key, value in alone.state_dict().items():
        assert torch.equal(value, wrapped.siamese.state_dict()[key])
    torch.manual_seed(3)
    one = alone(Batch(views()))["loss"]
    torch.manual_seed(3)
    assert torch.equal(one.detach(), wrapped(Batch(views()))["image_loss"])


def test_extra_views_make_triplets_only_when_asked():
    batch = views(extras=2)
    losses = {}
    for which in ("global", "all"):
        torch.manual_seed(4)
        method = SCD(siamese(), triplet_views=which)
        encoded = method.siamese.encode(batch)
        losses[which] = triplet_of(method, encoded)
        pairs = method.triplet_pairs(encoded)
        assert pairs == [("v1", "v2"), ("random0", "v2"), ("random1", "v2")][: 1 if which == "global" else 3]
        alone = [triplet_of(method, replace(encoded, pairs=[pair])) for pair in pairs]
        if which == "all":
            torch.testing.assert_close(losses[which], torch.stack(alone).mean())
    assert losses["global"] != losses["all"]


@pytest.mark.parametrize("map_gradient", [True, False])
def test_the_maps_gradient_reaches_the_backbone_only_when_asked(map_gradient):
    class Probe(SaliencyMLP):
        def forward(self, maps: Tensor, view: View) -> Tensor:
            self.saw_gradient = maps.requires_grad
            return super().forward(maps, view)

    method = SCD(siamese(), partial(Probe, hidden=4), map_gradient=map_gradient)
    loss = triplet_of(method, method.siamese.encode(views()))
    loss.backward()
    assert method.saliency_head.saw_gradient == map_gradient
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.backbone.parameters())  # through the features
    assert method.saliency_head.mlp.layers[0].weight.grad.abs().sum() > 0


def test_heads_follow_with_the_momentum_of_the_siamese():
    method = SCD(siamese("byol", symmetric=True, momentum=0.6))
    method.after_step(0.5)
    with torch.no_grad():
        for parameter in [*method.saliency_head.parameters(), *method.projection.parameters()]:
            parameter.add_(1.0)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    method.after_step(0.75)  # m of the progress before the step, on the cosine: 0.8
    for head in ("saliency_head", "projection"):
        for key, value in getattr(method, f"target_{head}").named_parameters():
            expected = 0.8 * before[f"target_{head}.{key}"] + 0.2 * before[f"{head}.{key}"]
            torch.testing.assert_close(value, expected)
    method.after_step(1.0)
    assert method.siamese.momentum(1.0) == 1.0


def test_the_map_separates_the_image_when_the_loss_falls():
    torch.manual_seed(0)
    images = 0.1 * torch.randn(8, 3, 16, 16) + torch.randn(8, 3, 1, 1)  # a background of any colour
    images[:, :, 4:12, 4:12] = torch.tensor([2.0, -1.0, -1.0])[:, None, None]  # a red square
    batch = views(rows=8)
    for view in batch.values():
        view.images = images + 0.05 * torch.randn_like(images)
    method = SCD(siamese("byol"), margin=0.5)
    flat = method.eval().saliency(whole_view(images)).flatten(1).std(dim=1).mean()
    method.train()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.06, momentum=0.9)
    losses = []
    for _ in range(60):
        out = method(Batch(batch))
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        method.after_step(0.5)
        losses.append(out["triplet_loss"].item())
    assert losses[0] > 0.45 and losses[-1] < 0.1
    assert flat < 0.05 and method.eval().saliency(whole_view(images)).flatten(1).std(dim=1).mean() > 0.15


# ---------------------------------------------------------------- sources and options


class MaskSource(MapSource):
    """The true mask of the view at the resolution of the map."""

    needs = frozenset({"masks"})
    supervision = "oracle"

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, maps: Tensor, view: View) -> Tensor:
        return F.adaptive_avg_pool2d(view.masks[:, None], maps.shape[2:]).squeeze(1)


def test_a_source_receives_its_view_and_declares_what_it_needs():
    method = SCD(siamese(symmetric=True), MaskSource)
    assert (method.needs, method.supervision, method.saliency_head.dim) == ({"masks"}, "oracle", 8)
    batch = views()
    online = method.separate(method.siamese.encode(batch)).online
    assert list(online) == ["v1", "v2"]
    for name, regions in online.items():
        torch.testing.assert_close(regions.maps, F.avg_pool2d(batch[name].masks, 4))
    assert (SCD(siamese()).needs, SCD(siamese()).supervision) == (frozenset(), "none")


def test_saliency_is_the_online_map():
    method = SCD(siamese()).eval()
    with torch.no_grad():
        for parameter in method.saliency_head.parameters():
            parameter.add_(0.1)
    images = views()["v1"].images
    saliency = method.saliency(whole_view(images))
    assert saliency.shape == (4, 4, 4) and not saliency.requires_grad
    torch.testing.assert_close(saliency, method.saliency_head(method.backbone(images), None).detach())


@pytest.mark.parametrize("source", [None, partial(SaliencyMLP, depth=1), SaliencyMLP(8, depth=1), ConstantMap()])
def test_a_source_is_built_for_the_backbone_or_taken_as_it_is(source):
    saliency = SCD(siamese(), source).saliency_head
    assert saliency is source if isinstance(source, nn.Module) else saliency.mlp.layers[0].in_features == 8


BAD = [
    ({"anchors": "backgrond"}, "unknown anchors 'backgrond'; .*valid: both, foreground"),
    ({"positive_branch": "momentum"}, "unknown positive_branch 'momentum'; .*valid: online, target"),
    ({"distance": "l2"}, "unknown distance 'l2'; .*valid: cosine, euclidean, squared_euclidean"),
    ({"pooling": "max"}, "unknown pooling 'max'; .*valid: mean, sum"),
    ({"triplet_views": "globl"}, "unknown triplet_views 'globl'; did you mean 'global'\\? valid: all, global"),
]


@pytest.mark.parametrize(("options", "text"), BAD)
def test_unknown_choices_name_the_valid_ones(options, text):
    with pytest.raises(UsageError, match=text):
        SCD(siamese(), **options)
