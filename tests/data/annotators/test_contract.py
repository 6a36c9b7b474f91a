"""What every annotator has in common; a new file in scd/data/annotators is found here."""

import importlib
import inspect
import pkgutil

import pytest
import torch

import scd.data.annotators
from scd.data.annotators.annotator import COLUMNS, KINDS, Annotator, annotate, check_values
from scd.data.images import image_parts, load_images
from scd.data.sources.shapes import Shapes
from scd.method import NEEDS, SUPERVISION


def annotator_classes() -> list[type[Annotator]]:
    """Every subclass of Annotator that a module of scd.data.annotators defines."""
    found = []
    for module in pkgutil.iter_modules(scd.data.annotators.__path__, "scd.data.annotators."):
        members = vars(importlib.import_module(module.name)).values()
        found += [
            member
            for member in members
            if inspect.isclass(member) and issubclass(member, Annotator) and member.__module__ == module.name
        ]
    return [each for each in found if each is not Annotator]


CLASSES = annotator_classes()
CASES = [  # those of a trained network have tests of their own
    (each, options)
    for each in CLASSES
    if "network" not in inspect.signature(each).parameters
    for options in (
        [{"provides": kind} for kind in KINDS] if "provides" in inspect.signature(each).parameters else [{}]
    )
]


@pytest.fixture(scope="module")
def source() -> Shapes:
    return Shapes(classes=3, size=24, train=12, test=4)


@pytest.fixture(params=CASES, ids=lambda case: "-".join([case[0].__name__, *case[1].values()]))
def annotator(request) -> Annotator:
    kind, options = request.param
    return kind(**options)


def test_all_annotators_are_found():
    assert {each.__name__ for each in CLASSES} >= {"OracleAnnotator", "Felzenszwalb"}


def test_what_it_declares(annotator):
    assert annotator.provides in KINDS and set(KINDS) < set(NEEDS)
    assert annotator.supervision in SUPERVISION
    assert annotator.needs <= set(COLUMNS)
    if "masks" in annotator.needs:
        assert annotator.supervision == "oracle"
    if "labels" in annotator.needs:
        assert annotator.supervision in ("labels", "oracle")


def test_options_are_named_and_have_defaults(annotator):
    for parameter in inspect.signature(type(annotator)).parameters.values():
        assert parameter.default is not parameter.empty
        assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD


def test_it_gives_what_it_provides_and_gives_it_again(annotator, source):
    (part,) = image_parts(source, "train", 24)
    before = part.images.clone()
    values = annotator(part.images, part)
    check_values(annotator, values, part.images)
    assert torch.equal(part.images, before)
    for first, second in zip(values, annotator(part.images, part), strict=True):
        assert torch.equal(first, second)


def test_it_uses_only_what_it_needs(annotator, source):
    (part,) = image_parts(source, "train", 24, 3)
    for field in COLUMNS:
        if field not in annotator.needs:
            setattr(part, field, None)
    check_values(annotator, annotator(part.images, part), part.images)


def test_each_image_is_annotated_by_itself(annotator, source):
    """The cache is filled part by part, so the other images of a part must not matter."""
    images = load_images(source, "train", 24)
    together = annotator(images.images, images)
    for number in (0, 5):
        alone = images.subset([number])
        assert torch.equal(annotator(alone.images, alone)[0], together[number])


def test_annotations_of_a_source(annotator, source):
    annotations = annotate(annotator, source, "train", 24, 7)
    assert len(annotations) == 7
    images = load_images(source, "train", 24, 7)
    expected = annotator(images.images, images)
    for found, number in zip(annotations.rows([4, 0]), (4, 0), strict=True):
        torch.testing.assert_close(found.to(expected[number].dtype), expected[number])
