"""SCD with a map that learns from masks: its loss, what it trains, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F

from baselines.reverse_attention import MaskedReverseAttention
from baselines.simsiam import SimSiam
from scd.errors import UsageError
from scd.maps.learned import SaliencyMLP
from scd.maps.reverse_attention import ReverseAttention
from scd.method import Batch, View
from scd.nn.backbone import build_backbone
from scd.scd import SCD


def method(kind=MaskedReverseAttention, **options) -> SCD:
    torch.manual_seed(0)
    host = SimSiam(build_backbone("resnet_tiny", widths=(4, 6, 8), strides=(1, 2, 2)), 6, 12)
    return kind(host, **{"projection_dim": 5, **options}).train()


def views(masks: bool = True, extra: bool = False) -> Batch:
    draw = torch.Generator().manual_seed(0)
    rectangles, flips = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(4, 4), torch.zeros(4, dtype=torch.bool)
    names = {"v1": "global", "v2": "global", **({"local": "extra"} if extra else {})}
    made = {}
    for name, role in names.items():
        images = torch.randn(4, 3, 24, 24, generator=draw)
        seen = (images.mean(dim=1) > 0).float() if masks else None
        made[name] = View(name, role, images, rectangles, flips, masks=seen)
    return Batch(made)


def test_the_loss_is_scds_and_the_cross_entropy_of_both_stages_in_both_global_views():
    own, given = method(mask_weight=0.7), views(extra=True)
    outputs = own(given)
    plain = method(SCD, saliency=ReverseAttention)
    plain.load_state_dict(own.state_dict())
    terms = []
    for name in ("v1", "v2"):
        maps = own.backbone(given.views[name].images)
        for logits in own.saliency_head.logits(maps):
            sized = F.interpolate(logits[:, None], size=(24, 24), mode="bilinear", align_corners=True)[:, 0]
            p, m = torch.sigmoid(sized), given.views[name].masks
            terms.append(-(m * p.log() + (1 - m) * (1 - p).log()).mean())
    assert len(terms) == 4
    torch.testing.assert_close(outputs["mask_loss"], sum(terms).detach() / 2)
    torch.testing.assert_close(outputs["loss"], plain(given)["loss"] + 0.7 * sum(terms) / 2)


@pytest.mark.parametrize("supervised", [False, True])
def test_the_backbone_learns_from_masks_where_asked_for_alone(supervised):
    """The difference between two weights of the cross-entropy is its own gradient."""
    gradients = []
    for weight in (1.0, 3.0):
        own = method(mask_weight=weight, supervise_backbone=supervised)
        own(views())["loss"].backward()
        gradients.append([own.backbone.trunk[0].weight.grad, own.saliency_head.mlp.layers[0].weight.grad])
    (one, head), (other, other_head) = gradients
    assert torch.allclose(one, other) is not supervised
    assert not torch.allclose(head, other_head)


def test_the_map_can_be_fitted_to_the_masks():
    own, given = method(), views()
    optimizer, losses = torch.optim.Adam(own.saliency_head.parameters(), 1e-2), []
    for _ in range(12):
        optimizer.zero_grad()
        outputs = own(given)
        outputs["loss"].backward()
        optimizer.step()
        losses.append(outputs["mask_loss"].item())
    assert losses[-1] < losses[0] - 0.01


def test_it_declares_masks_and_an_oracle_and_shows_its_map_without_them():
    assert (MaskedReverseAttention.needs, MaskedReverseAttention.supervision) == (frozenset({"masks"}), "oracle")
    own = method()
    assert own.needs == {"masks"} and own.supervision == "oracle"
    own.eval()
    assert own.saliency(views(masks=False).views["v1"]).shape == (4, 3, 3)


def test_refuses_another_map_a_weight_of_0_and_views_without_masks():
    with pytest.raises(UsageError, match="learns from masks is saliency=reverse_attention, not a SaliencyMLP"):
        method(saliency=SaliencyMLP)
    with pytest.raises(UsageError, match="mask_weight is the weight of a loss, above 0, not 0"):
        method(mask_weight=0.0)
    with pytest.raises(UsageError, match="needs images with masks; this data set has none"):
        method()(views(masks=False))
