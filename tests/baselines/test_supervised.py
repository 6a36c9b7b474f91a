"""The supervised arm: its declaration, its loss against the formula, and what it logs."""

import math

import pytest
import torch
from torch import nn

from baselines.supervised import Supervised
from scd.errors import UsageError
from scd.method import Batch, whole_view
from scd.nn.backbone import build_backbone
from scd.nn.vit import vit


def supervised(classes: int = 4) -> Supervised:
    torch.manual_seed(0)
    return Supervised(build_backbone("resnet_tiny", widths=(4, 6, 8)), classes).train()


def batch(names: tuple[str, ...] = ("v1",), rows: int = 8) -> Batch:
    draw = torch.Generator().manual_seed(0)
    views = {name: whole_view(torch.randn(rows, 3, 16, 16, generator=draw), name) for name in names}
    return Batch(views, labels=torch.arange(rows) % 4)


def test_declares_that_it_learns_from_labels():
    assert supervised().needs == {"labels"} and supervised().supervision == "labels"


@pytest.mark.parametrize("names", [("v1",), ("v1", "v2")])
def test_loss_is_the_mean_over_views_of_the_negative_log_probability_of_the_label(names):
    method, data = supervised(), batch(names)
    terms = []
    for view in data.views.values():
        logits = method.classifier(method.backbone(view.images).mean(dim=(2, 3)))
        probabilities = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
        terms.append(-probabilities[torch.arange(8), data.labels].log().mean())
    torch.testing.assert_close(method(data)["loss"], sum(terms) / len(terms))


def test_an_undecided_classifier_has_the_loss_of_chance():
    method = supervised()
    nn.init.zeros_(method.classifier.weight)
    nn.init.zeros_(method.classifier.bias)
    assert method(batch())["loss"].item() == pytest.approx(math.log(4))


def test_logs_the_share_of_images_that_it_gets_right():
    method, data = supervised(), batch()
    nn.init.zeros_(method.classifier.weight)
    with torch.no_grad():
        method.classifier.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 0.0]))  # always class 2, which two of eight have
    outputs = method(data)
    assert outputs["train_top1"].item() == 0.25 and not outputs["train_top1"].requires_grad


def test_gradients_reach_every_parameter():
    method = supervised()
    method(batch())["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.parameters())


def test_takes_the_class_token_of_a_vit():
    backbone = vit("vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2)
    method, data = Supervised(backbone, 4).eval(), batch()
    _, pooled = backbone(data.views["v1"].images)
    expected = nn.functional.cross_entropy(method.classifier(pooled), data.labels)
    torch.testing.assert_close(method(data)["loss"], expected)


def test_refuses_fewer_than_two_classes():
    with pytest.raises(UsageError, match="two classes or more, not 1"):
        supervised(1)
