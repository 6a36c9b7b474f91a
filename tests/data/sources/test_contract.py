"""What every source has in common, on the example of each format; a new file in scd/data/sources is found here."""

import importlib
import inspect
import pickle
import pkgutil

import pytest
from datasets import Dataset, Image

import scd.data.sources
from scd.data.images import load_images
from scd.data.scene_set import load_scenes
from scd.data.sources.source import Source
from scd.errors import UsageError

SPLITS = {"train", "validation", "test", "probe"}
COLUMNS = {"image", "label", "mask", "objects", "background", "instances", "semantic"}


def source_classes() -> list[type[Source]]:
    """Every subclass of Source that a module of scd.data.sources defines."""
    found = []
    for module in pkgutil.iter_modules(scd.data.sources.__path__, "scd.data.sources."):
        members = vars(importlib.import_module(module.name)).values()
        found += [
            member
            for member in members
            if inspect.isclass(member) and issubclass(member, Source) and member.__module__ == module.name
        ]
    return [each for each in found if each is not Source]


CLASSES = source_classes()


@pytest.fixture(scope="module", params=CLASSES, ids=lambda each: each.__name__)
def kind(request) -> type[Source]:
    return request.param


@pytest.fixture(scope="module")
def example(kind, tmp_path_factory) -> Source:
    return kind.example(tmp_path_factory.mktemp(kind.__name__))


def test_all_formats_are_found():
    names = {each.__name__ for each in CLASSES}
    assert names >= {"Shapes", "Scenes", "Parquet", "ImageFolder", "Hub", "Coco", "Voc", "PathSource"}


def test_it_is_named_described_and_split(kind, example):
    assert type(example) is kind
    assert example.name and example.version and example.description and "\n" not in example.description
    assert {"train", "test"} <= set(example.splits) <= SPLITS
    assert len(example.split("train")) >= 8 and len(example.split("test")) >= 4
    with pytest.raises(UsageError, match="unknown split of '.*' 'tset'; did you mean 'test'"):
        example.split("tset")


def test_every_split_has_a_fingerprint_of_its_own(example):
    assert set(example.fingerprints) == set(example.splits)
    values = [*example.fingerprints.values(), example.fingerprint]
    assert len(set(values)) == len(values) and all(isinstance(value, str) and value for value in values)


def test_columns_are_known_and_agree_with_the_attributes(example):
    for dataset in example.splits.values():
        assert isinstance(dataset, Dataset) and {"image"} <= set(dataset.column_names) <= COLUMNS
        assert isinstance(dataset.features["image"], Image)
        assert ("mask" in dataset.column_names) == (example.mask_kind is not None)
        if "label" in dataset.column_names:
            labels = dataset["label"][:]
            assert min(labels) >= 0 and (example.class_names is None or max(labels) < len(example.class_names))


def test_images_load(example):
    for split in ("train", "test"):
        loaded = load_images(example, split, 16)
        assert loaded.images.shape == (len(example.split(split)), 3, 16, 16) and loaded.images.float().std() > 5
        assert (loaded.masks is None) == (example.mask_kind is None)
        if loaded.masks is not None:
            assert 0 < loaded.masks.float().mean() < 1


def test_objects_load_where_there_are_any(example):
    columns = example.split("train").column_names
    if "objects" not in columns:
        pytest.skip("a format without objects")
    scenes = load_scenes(example, "train", 16)
    assert scenes.class_names == example.class_names and scenes.present.any()


def test_the_same_files_and_options_give_the_same_source(kind, tmp_path):
    """Two folders of equal content: the place is no part of the identity, unless the format is named by it."""
    first, second = (kind.example(_made(tmp_path / name / "set")) for name in ("a", "b"))
    if kind.__name__ != "Hub":  # OWNER/NAME is part of what a set of the hub is
        assert first.fingerprints == second.fingerprints
    assert first.class_names == second.class_names and first.mask_kind == second.mask_kind


def _made(folder):
    folder.mkdir(parents=True)
    return folder


def test_options_are_named_arguments(kind):
    """Configurations are checked against the signature, so it takes no others."""
    parameters = inspect.signature(kind).parameters
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    assert not any(parameter.kind in variable for parameter in parameters.values())
    assert set(kind.test_options) <= set(parameters)


def test_generators_say_that_they_are_embedded(kind):
    needs_files = any(
        name in inspect.signature(kind).parameters for name in ("path", "repo", "root", "images", "columns")
    )
    assert kind.embedded != needs_files


def test_it_can_be_sent_to_decoding_processes(example):
    again = pickle.loads(pickle.dumps(example))
    assert again.fingerprints == example.fingerprints and len(again.split("train")) == len(example.split("train"))
