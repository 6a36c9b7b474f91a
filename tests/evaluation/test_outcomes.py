"""Outcomes of test images: they give the protocols' own numbers, and one extraction serves all seeds."""

from dataclasses import replace

import pytest
import torch

from scd.checkpoints.scored import Scored
from scd.data.sources.shapes import Shapes
from scd.errors import UsageError
from scd.evaluation.background import BackgroundReliance
from scd.evaluation.collapse import Collapse
from scd.evaluation.finetune import FineTune
from scd.evaluation.knn import KNN
from scd.evaluation.linear import Linear
from scd.evaluation.outcomes import (
    Outcome,
    Repeated,
    SharedContext,
    as_tensors,
    draws,
    from_tensors,
    outcomes_of,
    read_outcomes,
)
from scd.evaluation.protocol import EvaluationData
from scd.evaluation.worst_group import WorstGroup
from scd.method import Batch
from scd.nn.backbone import build_backbone

GRID = (1.0, 0.01)
PROTOCOLS = {
    "knn": lambda: KNN(k=5),
    "linear": lambda: Linear(l2=GRID),
    "linear on training images": lambda: Linear(l2=GRID, learns_from="train", prefix="shift_"),
    "background": lambda: BackgroundReliance(l2=GRID, objects=30),
    "worst group": lambda: WorstGroup(l2=GRID, least=3),
}


@pytest.fixture(scope="module")
def context():
    source = Shapes(classes=3, size=24, train=90, test=60, probe=60, rho_train=0.8)
    torch.manual_seed(0)
    method = Scored(build_backbone("resnet_tiny", widths=(4, 8), strides=(1, 2))).eval()
    return SharedContext(method, EvaluationData(source, 24), 16, 0)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_outcomes_give_the_numbers_of_the_protocol(name, context):
    protocol = PROTOCOLS[name]()
    for seed in (0, 5):
        own = replace(context, seed=seed)
        numbers, outcomes = protocol.measure(own), outcomes_of(protocol, own)
        shares = {key for key, metric in protocol.definitions().items() if metric.better or key == "background_top1"}
        assert set(outcomes) == shares & set(numbers)
        for key, outcome in outcomes.items():
            assert outcome.number == pytest.approx(numbers[key], abs=1e-12)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_repeated_gives_the_mean_over_seeds_and_each_seed(name, context, tmp_path):
    protocol = PROTOCOLS[name]()
    found = Repeated(protocol=protocol, seeds=(0, 5))(replace(context, folder=tmp_path))
    single = {seed: protocol(replace(context, seed=seed)) for seed in (0, 5)}
    seeds = (0, 5) if draws(protocol) else (0,)
    assert found.keys() == {key for base in single[0] for key in (base, *(f"{base}_seed{seed}" for seed in seeds))}
    for key in single[0]:
        assert found[key] == pytest.approx(sum(single[seed][key] for seed in seeds) / len(seeds), abs=1e-12)
        assert [found[f"{key}_seed{seed}"] for seed in seeds] == pytest.approx([single[seed][key] for seed in seeds])
    for key, outcomes in read_outcomes(tmp_path).items():
        assert {seed: outcome.number for seed, outcome in outcomes.items()} == pytest.approx(
            {seed: single[seed][key] for seed in seeds}
        )


def test_numbers_that_are_repeated_are_defined(context):
    repeated = Repeated(protocol=Linear(l2=GRID, learns_from="train", prefix="shift_"), seeds=(0, 5))
    assert set(repeated(context)) <= set(repeated.metrics)


def test_images_are_put_through_the_network_once(context):
    seen = []
    fresh = replace(context, known={})
    handle = context.method.backbone.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    for protocol in (Linear(l2=GRID), BackgroundReliance(l2=GRID, objects=30), WorstGroup(l2=GRID), KNN()):
        Repeated(protocol=protocol, seeds=(0, 1, 2))(fresh)
    handle.remove()
    mixed = int(Repeated(protocol=BackgroundReliance(l2=GRID, objects=30), seeds=(0,))(fresh)["n_mixed"])
    assert sum(seen) == 90 + 60 + 60 + 2 * mixed


def test_what_draws_nothing_is_run_once(context):
    assert not draws(KNN()) and not draws(Collapse())
    assert draws(Linear()) and draws(FineTune())
    assert "knn_top1_seed1" not in Repeated(protocol=KNN(), seeds=(0, 1))(context)


def test_what_applies_is_what_the_protocol_says(context):
    unmasked = Shapes(classes=3, size=24, train=30, test=30)
    without = Linear(learns_from="train")
    assert Repeated(protocol=KNN()).applies(context.data)
    assert not Repeated(protocol=without).applies(EvaluationData(unmasked, 24))


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_are_given_each_once(seeds):
    with pytest.raises(UsageError, match="each once"):
        Repeated(protocol=KNN(), seeds=seeds)


def test_a_checkpoint_is_not_trained(context):
    with pytest.raises(UsageError, match="not trained"):
        context.method(Batch({}))


# ---------------------------------------------------------------- numbers of samples


VALUES = torch.tensor([1.0, 0.0, 1.0, 1.0])
GROUPS = torch.tensor([0, 0, 1, -1])


def test_means_over_samples():
    counts = torch.tensor([[1, 1, 1, 1], [2, 0, 0, 0], [0, 3, 0, 1]])
    assert Outcome(VALUES).of(counts).tolist() == [0.75, 1.0, 0.25]


def test_means_over_groups():
    weights = torch.tensor([0.25, 0.75])
    counts = torch.tensor([[1, 1, 1, 1], [1, 3, 1, 0], [2, 2, 0, 5]])
    assert Outcome(VALUES, GROUPS, weights).of(counts).tolist() == [0.25 * 0.5 + 0.75, 0.25 * 0.25 + 0.75, 0.5]


def test_the_lowest_group():
    counts = torch.tensor([[1, 1, 1, 1], [4, 0, 1, 1], [0, 0, 2, 7]])
    assert Outcome(VALUES, GROUPS).of(counts).tolist() == [0.5, 1.0, 1.0]


def test_outcomes_survive_the_file():
    outcomes = {"a": Outcome(VALUES), "b": Outcome(VALUES, GROUPS, torch.ones(2)), "c": Outcome(VALUES, GROUPS)}
    found = from_tensors(as_tensors(outcomes, "shift_", 3) | as_tensors(outcomes, "shift_", 1))
    assert list(found["shift_a"]) == [1, 3]
    assert found["shift_b"][3].number == outcomes["b"].number
    assert found["shift_c"][1].weights is None and torch.equal(found["shift_c"][1].groups, GROUPS)
