"""Protocols on other images than those of the run."""

import pytest
from tiny_evaluation import ChannelMethod, context_of, object_source

from scd.errors import DataError, UsageError
from scd.evaluation.knn import KNN
from scd.evaluation.linear import Linear
from scd.evaluation.saliency import Saliency
from scd.evaluation.transfer import Transfer

OWN = {"leave_out": ("label", "mask", "background")}


def test_numbers_are_those_of_the_protocols_on_the_other_images():
    method, other = ChannelMethod(0, 1, 2).train(), object_source(correlated=False)
    found = Transfer(data=other, prefix="c_", train_limit=60)(context_of(method, object_source(**OWN), 16, seed=4))
    expected = {}
    for protocol in (KNN(train_limit=60), Linear(train_limit=60)):
        expected |= protocol(context_of(method, other, 16, seed=4))
    assert found == {f"c_{name}": value for name, value in expected.items()}
    assert found["c_n_train"] == 60 and {"c_knn_top1", "c_linear_top1"} <= set(found)
    assert method.training and method.backbone.training


def test_the_smallest_limit_counts():
    context = context_of(ChannelMethod(0, 1), object_source(**OWN), 16)
    context.data.test_limit = 30
    protocol = Transfer(data=object_source(), prefix="c_", test_limit=50, protocols=[KNN(test_limit=20), Saliency()])
    assert protocol(context)["c_n_test"] == 30
    assert Transfer(data=object_source(), prefix="c_", protocols=[KNN(test_limit=20)])(context)["c_n_test"] == 20


def test_definitions_name_the_images():
    metrics = Transfer(data=object_source(), prefix="c_", title="object-centric").metrics
    assert metrics["c_knn_top1"].label == "object-centric: kNN top-1"
    assert Transfer(data=object_source(), prefix="c_").metrics["c_knn_top1"].label == "tiny: kNN top-1"
    assert {"c_knn_top1", "c_linear_top1", "c_linear_converged", "c_n_test"} <= set(metrics)


def test_protocols_that_do_not_apply_to_the_images_are_left_out():
    context = context_of(ChannelMethod(0, 1), object_source(**OWN), 16)
    other = object_source(leave_out=("label", "background"))
    protocol = Transfer(data=other, prefix="c_", protocols=[KNN(), Saliency()])
    assert protocol.applies(protocol.own_data(context.data)) and "c_saliency_iou" in protocol(context)
    assert "c_knn_top1" not in protocol(context)
    nothing = Transfer(data=other, prefix="c_", protocols=[KNN()])
    assert not nothing.applies(nothing.own_data(context.data)) and nothing(context) == {}


def test_the_other_images_are_checked():
    other = object_source(train=12)
    protocol = Transfer(data=other, prefix="c_")
    with pytest.raises(DataError, match="class 'class0' has 3 training images"):
        protocol.check(protocol.own_data(context_of(ChannelMethod(0), object_source(), 16).data))


@pytest.mark.parametrize("missing", ["data", "prefix", "protocols"])
def test_images_prefix_and_protocols_must_be_given(missing):
    given = {"data": object_source(train=8, test=4), "prefix": "c_", "protocols": [KNN()]}
    empty = {"data": None, "prefix": "", "protocols": []}
    with pytest.raises(UsageError, match="transfer needs images"):
        Transfer(**{**given, missing: empty[missing]})
