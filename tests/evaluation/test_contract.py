"""The contract of every protocol: each file of ``studies/conf/protocol`` is made small and run on tiny images."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from tiny_evaluation import object_source

from baselines.moco import MoCo
from scd.data.sources.scenes import Scenes
from scd.data.sources.shapes import Shapes
from scd.errors import UsageError
from scd.evaluation.protocol import Context, EvaluationData, Protocol
from scd.nn.backbone import build_backbone
from scd.nn.vit import vit
from scd.scd import SCD
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.protocols import build_protocol

SIZE = 16
PRESETS = resolve_settings("multicrop", ["tier=smoke"]).presets["protocol"]
# What makes a protocol small, by the name of its option; a protocol that has the option gets the value.
SMALL = {
    "epochs": 1, "least_steps": 2, "steps": 2, "batch": 8, "images": 8, "canvas": None, "memory": 50, "positions": 50,
    "detector": {"channels": 8, "hidden": 16, "regions": 16, "proposals": 16, "detections": 10},
}  # fmt: skip
OTHER = {"_target_": "scd.data.sources.shapes.Shapes", "classes": 2, "size": SIZE, "train": 40, "test": 12}


def build(name: str, **changes) -> Protocol:
    """The protocol of a file, made small; one that asks for images gets some."""
    config = {**PRESETS[name], **{key: value for key, value in SMALL.items() if key in PRESETS[name]}}
    if "data" in config and config["data"] is None:
        config |= {"data": OTHER, "prefix": "other_"}
    return build_protocol({**config, **changes})


@pytest.fixture(scope="module")
def sources():
    return (
        Shapes(classes=2, size=SIZE, train=60, test=20),
        Scenes(classes=3, size=SIZE, train=24, test=12, scale=[0.3, 0.5], objects=[1, 3]),
        Shapes(classes=2, size=SIZE, train=60, test=20, probe=60),
    )


@pytest.fixture(scope="module", params=["cnn", "vit"])
def method(request):
    torch.manual_seed(0)
    if request.param == "cnn":
        backbone = build_backbone("resnet_tiny", widths=(8, 8, 16), channels_last=True)
    else:
        backbone = vit("vit_tiny_patch16_224", img_size=SIZE, patch_size=4, embed_dim=24, depth=1, num_heads=3)
    method = SCD(MoCo(backbone, dim=8, queue_size=16, bn_groups=1)).train()
    method.siamese.projector.eval()  # not all parts are in one mode
    return method


def context_of(method, source, folder=None):
    """A context with two snapshots."""
    start = {name: 0.5 * value for name, value in method.evaluated_state().items() if value.is_floating_point()}
    snapshots = {0.5: method.evaluated_state(), 0.0: {**method.evaluated_state(), **start}}
    return Context(method, EvaluationData(source, SIZE), SIZE, seed=3, snapshots=snapshots, folder=folder)


def suitable(protocol, sources):
    """The first of the sources to which the protocol applies."""
    for source in sources:
        if protocol.applies(protocol.own_data(EvaluationData(source, SIZE))):
            return source
    raise AssertionError(f"{type(protocol).__name__} applies to none of {[source.name for source in sources]}")


def state_of_everything(method):
    """Weights, modes, gradients and the states of all random number generators."""
    return (
        {name: value.clone() for name, value in method.state_dict().items()},
        [module.training for module in method.modules()],
        [(parameter.requires_grad, parameter.grad is None) for parameter in method.parameters()],
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    )


def test_there_are_protocols():
    assert len(PRESETS) > 10 and all("_target_" in config for config in PRESETS.values())


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_number_has_a_definition(name):
    metrics = build(name).metrics
    assert metrics
    for key, metric in metrics.items():
        assert metric.label and metric.unit and metric.definition, key
        assert metric.better in ("higher", "lower", None), key
        assert "\n" not in metric.definition and "  " not in metric.definition, key
        assert "@" not in key
    labels = [metric.label for metric in metrics.values()]
    assert len(set(labels)) == len(labels)
    renamed = build(name, prefix="p_").metrics
    assert len(renamed) == len(metrics) and all(key.startswith("p_") for key in renamed)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_numbers_are_finite_defined_repeated_and_the_method_is_left_as_found(name, method, sources, tmp_path):
    protocol = build(name)
    source = suitable(protocol, sources)
    protocol.check(protocol.own_data(EvaluationData(source, SIZE)))
    before = state_of_everything(method)
    numbers = protocol(context_of(method, source, folder=tmp_path))
    after = state_of_everything(method)
    assert all(torch.equal(before[0][key], after[0][key]) for key in before[0])
    assert before[1:] == after[1:]
    assert numbers and {key.split("@")[0] for key in numbers} <= set(protocol.metrics)
    for key, value in numbers.items():
        assert isinstance(value, (int, float)) and math.isfinite(value), key

    state = torch.get_rng_state()
    torch.manual_seed(12345)
    again = build(name)(context_of(copy.deepcopy(method), source))
    torch.set_rng_state(state)
    assert again == numbers


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_images_that_lack_what_it_needs_give_no_numbers(name, method):
    protocol = build(name)
    bare = object_source(leave_out=("label", "mask", "background"), train=12, test=8)
    context = context_of(method, bare)
    if not protocol.applies(protocol.own_data(context.data)):
        assert protocol(context) == {}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_what_would_stop_it_is_found_in_one_line_before_training(name, sources):
    """Three training images are too few for any probe: a check passes, or says why in one line."""
    protocol = build(name)
    for source in sources:
        data = protocol.own_data(EvaluationData(source, SIZE, train_limit=3))
        if protocol.applies(data):
            try:
                protocol.check(data)
            except UsageError as error:
                assert "\n" not in str(error) and len(str(error)) > 20


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_smaller_of_the_limits_of_run_and_protocol_counts(name, sources):
    protocol = build(name, train_limit=20, test_limit=10)
    data = protocol.own_data(EvaluationData(suitable(protocol, sources), SIZE, 16, streamed_limit=16))
    assert (data.train_limit, data.test_limit) == (16, 10)
    assert (len(data.train), len(data.test)) == (16, 10)
    assert protocol.own_data(data) is data
