"""What protocols share: which images they get, which split is scored, what is computed once."""

from dataclasses import dataclass

import pytest
import torch
from tiny_evaluation import ChannelMethod, context_of, object_source, objects, source_of

from scd.data.sources.path import PathSource
from scd.errors import DataError, UsageError
from scd.evaluation.background import BackgroundReliance
from scd.evaluation.collapse import Collapse
from scd.evaluation.knn import KNN
from scd.evaluation.linear import Linear
from scd.evaluation.metric import Metric
from scd.evaluation.protocol import Context, EvaluationData, Protocol
from scd.evaluation.saliency import Saliency

USUAL = (KNN, Linear, Saliency, BackgroundReliance, Collapse)


@dataclass(kw_only=True)
class Count(Protocol):
    """The number of test images."""

    def definitions(self):
        return {"count": Metric("count", "images", None, "test images")}

    def measure(self, context):
        return {"count": len(context.data.test)}


def data_of(canvas=16, train_limit=None, test_limit=None, **changes):
    return EvaluationData(object_source(**changes), canvas, train_limit, test_limit)


# ---------------------------------------------------------------- images of a protocol


def test_images_are_those_of_the_source_and_loaded_once():
    data = data_of()
    expected = objects(200, 0, True)
    assert torch.equal(data.train.images, expected.images) and torch.equal(data.train.masks, expected.masks)
    assert torch.equal(data.train.labels, expected.labels) and data.train.class_names == expected.class_names
    assert data.train is data.train and data.test is data.test


@pytest.mark.parametrize(
    ("run", "own", "expected"), [(None, None, 80), (20, None, 20), (None, 10, 10), (20, 10, 10), (10, 20, 10)]
)
def test_the_smallest_limit_counts(run, own, expected):
    data = data_of(test_limit=run, train_limit=run)
    protocol = Count(test_limit=own, train_limit=own)
    found = protocol.own_data(data)
    assert len(found.test) == expected and found.train_limit == found.test_limit
    assert protocol.own_data(found) is found and Count(test_limit=own, train_limit=own).own_data(data) is found
    assert protocol(Context(ChannelMethod(0), data, 16, 0)) == {"count": expected}


def test_limits_are_checked_as_for_loading():
    with pytest.raises(UsageError, match="limit of 'test' is 0, it must be at least 1"):
        _ = Count(test_limit=0).own_data(data_of()).test


def test_a_protocol_may_have_images_and_a_canvas_of_its_own():
    other = source_of(train=objects(12, 5, True), test=objects(8, 6, True))
    data = data_of(test_limit=6)
    found = Count(data=other, canvas=12).own_data(data)
    assert found.source is other and found.test.images.shape == (6, 3, 12, 12)
    assert Count().own_data(data) is data


# ---------------------------------------------------------------- the scored split


def test_the_test_split_is_scored_or_else_validation():
    train, test, validation = (objects(n, n, True) for n in (12, 8, 4))
    assert EvaluationData(source_of(train=train, test=test, validation=validation), 16).split == "test"
    data = EvaluationData(source_of(train=train, validation=validation), 16)
    assert data.split == "validation" and len(data.test) == 4
    with pytest.raises(DataError, match="data 'tiny' has no split to evaluate on; it has train"):
        _ = EvaluationData(source_of(train=train), 16).split


def test_validation_is_scored_where_the_test_images_have_no_labels():
    train, validation = objects(12, 0, True), objects(4, 2, True)
    bare = source_of(("label",), train=train, test=objects(8, 1, True))
    mixed = source_of(train=train, validation=validation)
    assert EvaluationData(mixed, 16).notes == ["The validation images are scored, because test images do not exist."]
    mixed.splits["test"] = bare.splits["test"]
    assert EvaluationData(mixed, 16).split == "validation"
    assert EvaluationData(mixed, 16).notes == ["The validation images are scored, because test images have no labels."]
    alone = source_of(train=train)
    alone.splits["test"] = bare.splits["test"]
    alone = EvaluationData(alone, 16)
    assert alone.split == "test" and not alone.has("label") and alone.notes == []
    assert alone.has("mask")
    nothing = source_of(("label",), train=train, test=objects(8, 1, True), validation=validation)
    assert EvaluationData(nothing, 16).split == "test"


def test_scored_images_that_are_training_images_are_counted():
    train, test = objects(12, 0, True), objects(8, 1, True)
    assert EvaluationData(source_of(train=train, test=test), 16).overlap() == []
    test.images[3] = train.images[7]
    (note,) = EvaluationData(source_of(train=train, test=test), 16).overlap()
    assert note.startswith("1 of the 8 scored images are training images, too")


# ---------------------------------------------------------------- what is measured


def test_prefix_stands_before_numbers_and_definitions():
    protocol = Count(prefix="x_")
    assert protocol(context_of(ChannelMethod(0), object_source(), 16)) == {"x_count": 80}
    assert protocol.metrics["x_count"].label == "count" and set(protocol.metrics) == {"x_count"}


def test_a_protocol_that_does_not_apply_or_does_not_pass_its_check_is_not_measured():
    class Picky(Count):
        def applies(self, data):
            return "label" in data.columns(data.split)

        def check(self, data):
            raise DataError("cannot be used")

    assert Picky()(context_of(ChannelMethod(0), object_source(leave_out=("label",)), 16)) == {}
    with pytest.raises(DataError, match="cannot be used"):
        Picky()(context_of(ChannelMethod(0), object_source(), 16))


def test_features_and_maps_are_extracted_once(monkeypatch):
    calls = []

    def counted(function):
        def call(module, images, *rest, **options):
            calls.append(len(images))
            return function(module, images, *rest, **options)

        return call

    import scd.evaluation.protocol as module

    for name in ("extract", "extract_saliency"):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    context = context_of(ChannelMethod(0, 1, 2), object_source(), 16)
    together = {}
    for protocol in USUAL:
        together |= protocol()(context)
    assert sorted(calls) == [80, 80, 200]  # test features, maps, training features
    apart = {}
    for protocol in USUAL:
        apart |= protocol()(context_of(ChannelMethod(0, 1, 2), object_source(), 16))
    assert apart == together
    KNN(test_limit=10)(context)
    assert calls[-1] == 10  # other images, other features


def test_what_is_known_belongs_to_a_method_data_size_and_seed():
    context = context_of(ChannelMethod(0), object_source(), 16)
    values = iter(range(10))
    assert context.once("a", lambda: next(values)) == context.once("a", lambda: next(values)) == 0
    assert context.once("b", lambda: next(values)) == 1
    for changes in ({"method": ChannelMethod(0)}, {"size": 12}, {"seed": 1}, {"data": data_of()}):
        other = Context(**{**vars(context), **changes})
        assert other.once("a", lambda: next(values)) > 1
    assert context.for_protocol(Count()).once("a", lambda: next(values)) == 0


def test_files_go_to_the_folder_that_is_given(tmp_path):
    context = context_of(ChannelMethod(0), object_source(), 16)
    assert context.for_protocol(Count()).folder is None
    inside = context.for_protocol(Count(), tmp_path)
    assert inside.folder == tmp_path and inside.for_protocol(Count()).folder == tmp_path


def test_real_photographs_with_masks_and_a_class_without_images(real_data):
    context = context_of(ChannelMethod(0, 1, 2), PathSource(real_data / "flowers17_seg"), 32)
    numbers = {}
    for protocol in USUAL:
        numbers |= protocol()(context)
    assert (numbers["n_train"], numbers["n_test"]) == (633, 166)
    assert set(numbers) == {name for kind in USUAL for name in kind().metrics} - {"background_top1"}
    assert numbers["linear_top1"] > 2 / 16  # mean colour alone is far above chance
    assert 0.15 < numbers["saliency_iou_whole"] < 0.4  # the flowers cover about 27 %
