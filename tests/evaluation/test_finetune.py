"""Fine-tuning on a share of the labels: which images, which learning rate, and that the method is left as it was."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny_evaluation import With, context_of, object_source, source_of

from scd.data.images import ImageSet
from scd.data.sources.shapes import Shapes
from scd.errors import DataError, UsageError
from scd.evaluation.finetune import Classifier, FineTune, labelled_rows
from scd.method import Batch, whole_view
from scd.nn.backbone import build_backbone
from scd.nn.features import maps_and_vector
from scd.training.optimizers import build_optimizer

SIZE = 16


def method():
    torch.manual_seed(0)
    return With(build_backbone("resnet_tiny", widths=(8, 16), strides=(1, 2), channels_last=True))


def brightness(n=60, classes=3, noise=0, seed=0):
    """Images whose class is their brightness; labels 2, 5, 8, …"""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    images = (60 + 60 * labels[:, None, None, None]).expand(n, 3, SIZE, SIZE).float()
    images = images + noise * torch.randn(images.shape, generator=draws)
    return ImageSet(images.clamp(0, 255).to(torch.uint8), 3 * labels + 2)


def context(train=None, test=None, given=None, seed=0):
    """A context on images of ``brightness``."""
    source = source_of(train=train or brightness(), test=test or brightness(9, seed=3))
    return context_of(given or method(), source, SIZE, seed=seed)


def test_lists_are_fixed_balanced_and_nested():
    labels = torch.tensor([0] * 700 + [4] * 200 + [7] * 100)[
        torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    ]
    one, ten, all_of_them = (labelled_rows(labels, share) for share in (0.01, 0.1, 1.0))
    assert labels[one].bincount().tolist() == [5, 0, 0, 0, 5, 0, 0, 5]  # at least 5 of each
    assert labels[ten].bincount().tolist() == [33, 0, 0, 0, 33, 0, 0, 33]
    most = labels[labelled_rows(labels, 0.6)].bincount()[[0, 4, 7]].tolist()
    assert most == [200, 200, 100]  # no more than there are
    assert set(one.tolist()) < set(ten.tolist()) and ten.tolist() == sorted(ten.tolist())
    assert all_of_them.tolist() == list(range(1000))
    torch.manual_seed(5)
    assert torch.equal(ten, labelled_rows(labels, 0.1))
    assert ten.tolist() != list(range(99))


@pytest.mark.parametrize(
    ("share", "prefix", "name"),
    [
        (1, None, "finetune_"),
        (0.1, None, "labels10_"),
        (0.01, None, "labels1_"),
        (0.07, None, "labels7_"),
        (0.1, "few_", "few_"),
    ],
)
def test_names_and_definitions_say_the_share(share, prefix, name):
    metrics = FineTune(labels=share, prefix=prefix).metrics
    assert set(metrics) == {f"{name}top1", f"{name}lr", f"{name}images"}
    used = "all training labels" if share == 1 else f"{100 * share:g} % of the training labels, at least 5 a class"
    assert f"on {used}," in metrics[f"{name}top1"].definition


def test_it_learns_what_can_be_learned():
    protocol = FineTune(epochs=1, least_steps=40, batch=16, lr=0.05)
    train, test = brightness(60, noise=5), brightness(30, noise=5, seed=1)
    numbers = protocol(context(train, test))
    assert numbers == {"finetune_top1": numbers["finetune_top1"], "finetune_lr": 0.05, "finetune_images": 60}
    assert numbers["finetune_top1"] > 0.9
    shuffled = replace(train, labels=train.labels[torch.randperm(60, generator=torch.Generator().manual_seed(0))])
    assert protocol(context(shuffled, test))["finetune_top1"] < 0.8


def test_the_whole_network_moves_and_the_given_one_does_not():
    given = method().requires_grad_(False).eval()
    before = copy.deepcopy(given.state_dict())
    network, classes, finite = FineTune(epochs=1, least_steps=3, batch=8).train(context(given=given), brightness(), 0.1)
    assert finite and classes.tolist() == [2, 5, 8]
    after = given.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not given.training and not any(parameter.requires_grad for parameter in given.parameters())
    before, moved = given.backbone.state_dict(), network.backbone.state_dict()
    assert not any(torch.equal(before[name], moved[name]) for name in before if name.endswith("weight"))


def test_the_learning_rate_is_chosen_on_labelled_images_alone():
    labelled = brightness(60, noise=5)
    protocol = FineTune(epochs=1, least_steps=25, batch=16, lr=(0.05, 1e-9), head_lr=1e-9)
    assert protocol.rates == (1e-9, 0.05)
    assert protocol.choose(context(), labelled) == 0.05  # the other one learns nothing
    held = []

    class Spied(FineTune):
        def train(self, context, images, lr):
            held.append(images)
            return super().train(context, images, lr)

    numbers = Spied(epochs=1, least_steps=1, lr=(0.1, 0.2))(context(labelled))
    assert [len(images) for images in held] == [48, 48, 60]  # without a fifth, twice; then all
    assert numbers["finetune_lr"] in (0.1, 0.2)
    torch.testing.assert_close(held[0].labels.bincount()[[2, 5, 8]], torch.tensor([16, 16, 16]))


def test_of_equal_learning_rates_the_lowest_is_taken_and_one_that_diverges_never():
    same = FineTune(epochs=1, least_steps=1, lr=(2e-12, 1e-12), head_lr=1e-12)
    assert same.choose(context(), brightness()) == 1e-12
    wild = FineTune(epochs=1, least_steps=12, lr=(1e-12, 1e30), head_lr=1e-12)
    assert wild.choose(context(), brightness()) == 1e-12
    with pytest.raises(UsageError, match="loss is not finite at lr=1e\\+30"):
        replace(wild, lr=1e30)(context())


def test_the_numbers_repeat_and_follow_the_seed():
    source, state = Shapes(classes=2, size=SIZE, train=40, test=20), torch.get_rng_state()
    protocol = FineTune(labels=0.1, epochs=1, least_steps=4, lr=(0.01, 0.1), head_lr=1.0)
    numbers = protocol(context_of(method(), source, SIZE, seed=2))
    assert set(numbers) == {"labels10_top1", "labels10_lr", "labels10_images"} and numbers["labels10_images"] == 10
    torch.manual_seed(77)
    assert protocol(context_of(method(), source, SIZE, seed=2)) == numbers
    torch.set_rng_state(state)
    trained = [protocol.train(context(seed=seed), brightness(), 0.1)[0].head.weight for seed in (0, 0, 1)]
    assert torch.equal(trained[0], trained[1]) and not torch.equal(trained[0], trained[2])


def test_a_backbone_with_a_vector_of_its_own_is_read_by_it():
    class WithToken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = method().backbone

        def forward(self, images):
            maps = self.inner(images)
            return maps, 2 * maps.mean(dim=(2, 3))[:, :4]

    network, _, _ = FineTune(epochs=1, least_steps=1).train(context(given=With(WithToken())), brightness(), 0.1)
    assert network.head.in_features == 4 == maps_and_vector(network.backbone(torch.zeros(1, 3, SIZE, SIZE)))[1].shape[1]


def test_the_classifier_is_a_method_with_a_rate_for_each_part():
    network = Classifier(method().backbone, 3, SIZE, lr=0.01, head_lr=0.1)
    images, labels = torch.randn(6, 3, SIZE, SIZE), torch.arange(6) % 3
    loss = network(Batch({"v": whole_view(images)}, labels=labels))["loss"]
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(network.logits(images), labels))
    optimizer = build_optimizer(network, "sgd", lr=1.0, momentum=0.9, weight_decay=0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in network.backbone.parameters()} == {0.01}
    assert {rates[id(p)] for p in network.head.parameters()} == {0.1}


def test_images_without_labels_give_no_numbers_and_few_of_a_class_are_found_before_training():
    assert FineTune()(context_of(method(), object_source(leave_out=("label",)), SIZE)) == {}
    few = context(brightness(12)).data
    with pytest.raises(DataError, match="has 4 training images"):
        FineTune().check(few)


def test_impossible_settings_are_refused():
    for share in (0, 1.5):
        with pytest.raises(UsageError, match=f"labels is {share}, a share lies in"):
            FineTune(labels=share)
    with pytest.raises(UsageError, match="names no learning rate"):
        FineTune(lr=())
    with pytest.raises(UsageError, match="epochs is 0, it must be above 0"):
        FineTune(epochs=0)
