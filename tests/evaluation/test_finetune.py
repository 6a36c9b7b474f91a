import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from scd.data.images import ImageSet
from scd.data.sources.source import open_source
from scd.errors import DataError, UsageError
from scd.evaluation.detection import Detection
from scd.evaluation.finetune import FineTune, labelled_rows
from scd.evaluation.transfer_metrics import TRANSFER_METRICS
from scd.nn.backbone import build_backbone
from scd.nn.features import maps_and_vector

SIZE = 16
LIMITS = {"size": SIZE, "train_limit": None, "test_limit": None}
CONFIG = {"seed": 2, "seed_of": {"probe": None}, "data": LIMITS, "evaluation": {"size": SIZE}}


def backbone():
    torch.manual_seed(0)
    return build_backbone("resnet_tiny", widths=(8, 16), strides=(1, 2), channels_last=True)


def brightness(n=60, classes=3, noise=0, seed=0):
    """Images whose class is their brightness; labels 2, 5, 8, …"""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    images = (60 + 60 * labels[:, None, None, None]).expand(n, 3, SIZE, SIZE).float()
    images = images + noise * torch.randn(images.shape, generator=draws)
    return ImageSet(images.clamp(0, 255).to(torch.uint8), 3 * labels + 2)


def fewest(labels):
    return labels.unique(return_counts=True)[1].min()


def test_lists_are_fixed_balanced_and_nested():
    labels = torch.tensor([0] * 700 + [4] * 200 + [7] * 100)[
        torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    ]
    one, ten, all_of_them = (labelled_rows(labels, share) for share in (0.01, 0.1, 1.0))
    assert labels[one].bincount().tolist() == [5, 0, 0, 0, 5, 0, 0, 5]  # at least 5 of each
    assert labels[ten].bincount().tolist() == [33, 0, 0, 0, 33, 0, 0, 33]
    assert labels[labelled_rows(labels, 0.6)].bincount()[[0, 4, 7]].tolist() == [
        200,
        200,
        100,
    ]  # no more than there are
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
def test_names_say_the_share(share, prefix, name):
    assert FineTune(labels=share, prefix=prefix).name == name


def test_it_learns_what_can_be_learned():
    protocol = FineTune(epochs=1, least_steps=40, batch=16, lr=0.05)
    train, test = brightness(60, noise=5), brightness(30, noise=5, seed=1)
    numbers = protocol.measure(backbone(), train, test, SIZE, seed=0)
    assert numbers == {"finetune_top1": numbers["finetune_top1"], "finetune_lr": 0.05, "finetune_images": 60}
    assert numbers["finetune_top1"] > 0.9
    shuffled = replace(train, labels=train.labels[torch.randperm(60, generator=torch.Generator().manual_seed(0))])
    assert protocol.measure(backbone(), shuffled, test, SIZE, seed=0)["finetune_top1"] < 0.8


def test_the_whole_network_moves_and_the_given_one_does_not():
    given = backbone().requires_grad_(False).eval()
    before = copy.deepcopy(given.state_dict())
    network, classes, finite = FineTune(epochs=1, least_steps=3, batch=8).train(
        given, brightness(), 0.1, SIZE, 0, "cpu"
    )
    assert finite and classes.tolist() == [2, 5, 8]
    after = given.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not given.training and not any(parameter.requires_grad for parameter in given.parameters())
    moved = network.backbone.state_dict()
    assert not any(torch.equal(before[name], moved[name]) for name in before if name.endswith("weight"))


def test_the_learning_rate_is_chosen_on_labelled_images_alone():
    protocol = FineTune(epochs=1, least_steps=25, batch=16, lr=(0.05, 1e-9), head_lr=1e-9)
    labelled = brightness(60, noise=5)
    assert protocol.rates == (1e-9, 0.05)
    assert protocol.choose(backbone(), labelled, SIZE, 0, "cpu") == 0.05  # the other one learns nothing
    held = []

    class Spied(FineTune):
        def train(self, given, images, *rest):
            held.append(images)
            return super().train(given, images, *rest)

    numbers = Spied(epochs=1, least_steps=1, lr=(0.1, 0.2)).measure(
        backbone(), labelled, brightness(9, seed=3), SIZE, 0
    )
    assert [len(images) for images in held] == [48, 48, 60]  # without a fifth, twice; then all
    assert numbers["finetune_lr"] in (0.1, 0.2)
    torch.testing.assert_close(held[0].labels.bincount()[[2, 5, 8]], torch.tensor([16, 16, 16]))


def test_of_equal_learning_rates_the_lowest_is_taken_and_one_that_diverges_never():
    same = FineTune(epochs=1, least_steps=1, lr=(2e-12, 1e-12), head_lr=1e-12)
    assert same.choose(backbone(), brightness(), SIZE, 0, "cpu") == 1e-12
    wild = FineTune(epochs=1, least_steps=12, lr=(1e-12, 1e30), head_lr=1e-12)
    assert wild.choose(backbone(), brightness(), SIZE, 0, "cpu") == 1e-12
    with pytest.raises(UsageError, match="loss is not finite at lr=1e\\+30"):
        replace(wild, lr=1e30).measure(backbone(), brightness(), brightness(), SIZE, 0)


def test_a_run_gets_its_numbers_twice_the_same():
    source = open_source("shapes", classes=2, size=SIZE, train=40, test=20)
    method, state = SimpleNamespace(backbone=backbone()), torch.get_rng_state()
    protocol = FineTune(labels=0.1, epochs=1, least_steps=4, lr=(0.01, 0.1), head_lr=1.0)
    numbers = protocol(method, source, CONFIG, "cpu")
    assert set(numbers) == {"labels10_top1", "labels10_lr", "labels10_images"} and numbers["labels10_images"] == 10
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(77)
    assert protocol(method, source, CONFIG, "cpu") == numbers
    trained = [
        protocol.train(method.backbone, brightness(), 0.1, SIZE, seed, "cpu")[0].head.weight for seed in (0, 0, 1)
    ]
    assert torch.equal(trained[0], trained[1]) and not torch.equal(trained[0], trained[2])


def test_a_backbone_with_a_vector_of_its_own_is_read_by_it():
    class WithToken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = backbone()

        def forward(self, images):
            maps = self.inner(images)
            return maps, 2 * maps.mean(dim=(2, 3))[:, :4]

    network, _, _ = FineTune(epochs=1, least_steps=1).train(WithToken(), brightness(), 0.1, SIZE, 0, "cpu")
    assert network.head.in_features == 4 == maps_and_vector(network.backbone(torch.zeros(1, 3, SIZE, SIZE)))[1].shape[1]


def test_images_without_labels_give_no_numbers(tmp_path):
    source = open_source("shapes", classes=2, size=SIZE, train=12, test=12)
    bare = replace(source, splits={name: split.remove_columns("label") for name, split in source.splits.items()},
                   fingerprint="without labels", class_names=None)  # fmt: skip
    assert FineTune()(SimpleNamespace(backbone=backbone()), bare, CONFIG, "cpu") == {}


def test_impossible_settings_are_refused():
    for share in (0, 1.5):
        with pytest.raises(UsageError, match=f"labels is {share}, a share lies in"):
            FineTune(labels=share)
    with pytest.raises(UsageError, match="names no learning rate"):
        FineTune(lr=())
    with pytest.raises(DataError, match="has 4 training images"):
        FineTune().measure(backbone(), brightness(12), brightness(12), SIZE, 0)


def test_every_number_of_the_transfer_protocols_has_a_meaning():
    for share in (1, 0.1, 0.01):
        name = FineTune(labels=share).name
        assert {f"{name}top1", f"{name}lr", f"{name}images"} <= set(TRANSFER_METRICS)
    detected = {f"{kind}_ap{at}" for kind in ("det", "seg") for at in ("", 50, 75)}
    assert detected | {"det_steps", "n_det_train", "n_det_test"} <= set(TRANSFER_METRICS)
    assert Detection().detector == {}  # so that 30 detections, the default, is what the meaning says
