"""The hybrids against formulas written a second time, and against their parents where they must agree."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from baselines.byol import BYOL
from baselines.hybrids import AlignmentMaps, SaliencyInLEWEL
from baselines.lewel import LEWEL, one_map
from baselines.moco import MoCo
from scd.errors import UsageError
from scd.maps.controls import CentrePrior, OracleMask
from scd.method import Batch, View
from scd.nn.backbone import build_backbone
from scd.scd import SCD

moco = partial(MoCo, dim=16, queue_size=64, momentum=0.9, bn_groups=1)
byol = partial(BYOL, dim=16, hidden=32, momentum=0.9)


def two_views(seed):
    draw = torch.Generator().manual_seed(seed)
    rectangles, flips = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(8, 4), torch.zeros(8, dtype=torch.bool)
    return {
        name: View(name, "global", torch.randn(8, 3, 16, 16, generator=draw), rectangles, flips)
        for name in ("v1", "v2")
    }


def backbone():
    return build_backbone("resnet_tiny", widths=(8, 16), strides=(1, 2))


def test_scds_map_in_lewels_loss_by_hand():
    """Attraction of foreground to foreground and of background to background, and the image-level loss, half each."""
    torch.manual_seed(0)
    method = SaliencyInLEWEL(byol(backbone()), weight=0.5).train()
    views = two_views(1)
    loss = method(Batch(views))["loss"]
    host, total = method.siamese, 0.0
    for i, j in (("v1", "v2"), ("v2", "v1")):
        online, target = host.backbone(views[i].images), host.target_backbone(views[j].images)
        z, z_target = host.projector(online.mean((2, 3))), host.target_projector(target.mean((2, 3)))
        p = host.matcher.predictor(z)
        image = (2 - 2 * F.cosine_similarity(p, z_target, dim=1)).mean()
        m, m_target = method.saliency_head(online, views[i]), method.target_saliency_head(target, views[j])
        rows, rows_target = [], []
        for weight, weight_target in ((m, m_target), (1 - m, 1 - m_target)):
            rows.append((online * weight[:, None]).sum((2, 3)) / weight.sum((1, 2))[:, None])
            rows_target.append((target * weight_target[:, None]).sum((2, 3)) / weight_target.sum((1, 2))[:, None])
        o = method.object_projector(torch.stack(rows, dim=1)).flatten(0, 1)
        o_target = method.target_object_projector(torch.stack(rows_target, dim=1)).flatten(0, 1)
        q = method.object_matcher.predictor(o)
        aligned = (2 - 2 * F.cosine_similarity(q, o_target, dim=1)).mean()
        total = total + (image + aligned) / 2 / 2
    torch.testing.assert_close(loss, total, rtol=1e-4, atol=1e-5)


def test_lewels_maps_in_scds_triplets_by_hand():
    torch.manual_seed(0)
    method = SCD(moco(backbone()), AlignmentMaps(16, maps=3), projection_dim=0, margin=0.4)
    views = two_views(2)
    encoded = method.siamese.encode(views)
    loss = method.triplet_loss(method.separate(encoded))
    regions = []
    for features, head in (
        (encoded.online["v1"], method.saliency_head),
        (encoded.target["v2"], method.target_saliency_head),
    ):
        rows = features.maps.flatten(2).transpose(1, 2)
        logits = F.normalize(head.head(rows), dim=2)
        a = torch.exp(logits) / torch.exp(logits).sum(dim=1, keepdim=True)  # (B, hw, J)
        m = a / a.max(dim=1, keepdim=True).values
        pooled = [torch.einsum("bpj,bpc->bjc", w, rows) / w.sum(1)[..., None] for w in (m, 1 - m)]
        regions.append([F.normalize(x, dim=2) for x in pooled])
    (fg, bg), (fg_target, bg_target) = regions
    near = (fg - fg_target).norm(dim=2)
    hinges = [torch.relu(0.4 + near - (fg - other).norm(dim=2)) for other in (bg, bg_target)]
    torch.testing.assert_close(loss, torch.stack(hinges).mean(), rtol=1e-4, atol=1e-5)


def test_the_maps_of_the_source_are_distributions_over_positions_scaled_to_1():
    torch.manual_seed(0)
    source = AlignmentMaps(16, maps=5)
    maps = torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(source.distributions(maps).sum((2, 3)), torch.ones(2, 5))
    found = source(maps, None)
    assert found.shape == (2, 5, 4, 4) and found.amax((2, 3)).eq(1).all() and found.min() > 0


@pytest.mark.parametrize("rule", ["mean", "sharpest"])
def test_the_rules_for_one_map_agree_with_lewels_own(rule):
    torch.manual_seed(0)
    view = two_views(3)["v1"]
    method = LEWEL(moco(backbone()), saliency_rule=rule).eval()
    assert torch.equal(method.saliency(view), one_map(method.maps(view), rule))
    method = SCD(moco(backbone()), partial(AlignmentMaps, saliency_rule=rule)).eval()
    maps = method.siamese.encode_online(view.images).maps
    assert torch.equal(method.saliency(view), one_map(method.saliency_head.distributions(maps), rule))
    assert method.saliency(view).shape == (8, 4, 4)


def test_scds_map_in_lewel_may_come_from_any_source():
    """Geometry reaches the source, a mask counts as supervision, and J maps give 2 J vectors."""
    method, views = SaliencyInLEWEL(moco(backbone()), CentrePrior()), two_views(4)
    views["v1"].rectangles = torch.tensor([0.5, 0.5, 1.0, 1.0]).expand(8, 4)
    maps = method.online_aligned(method.siamese.encode_online(views["v1"].images), views["v1"]).maps
    saliency = method.saliency(views["v1"])  # of the lower right quarter: highest in its upper left corner
    assert saliency[0].argmax() == 0
    torch.testing.assert_close(maps[:, 0], saliency / saliency.sum(dim=(1, 2), keepdim=True))
    oracle = SaliencyInLEWEL(moco(backbone()), OracleMask())
    assert (oracle.needs, oracle.supervision) == ({"masks"}, "oracle")
    several = SaliencyInLEWEL(moco(backbone()), partial(AlignmentMaps, maps=3))
    features = several.siamese.encode_online(views["v1"].images)
    aligned = several.online_aligned(features, views["v1"])
    assert aligned.objects.shape == (8, 6, 16) and aligned.maps.shape == (8, 6, 4, 4)
    torch.testing.assert_close(aligned.maps.sum(dim=(2, 3)), torch.ones(8, 6))
    assert torch.isfinite(several(Batch(views))["loss"])


def test_what_the_hybrids_refuse():
    with pytest.raises(UsageError, match="at least 2 maps, not 1"):
        AlignmentMaps(16, maps=1)
    with pytest.raises(UsageError, match="unknown saliency_rule 'means'; did you mean 'mean'"):
        AlignmentMaps(16, saliency_rule="means")
