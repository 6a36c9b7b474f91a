"""Every configuration of data and annotators names a class and arguments that it takes."""

import importlib
import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from small_moco import moco

from scd.data.annotators.annotator import Annotator
from scd.data.sources.source import Source

CONF = Path(__file__).parents[3] / "studies" / "conf"


def named_class(target: str) -> type:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("file", sorted((CONF / "data").glob("*.yaml")), ids=lambda file: file.stem)
def test_data(file):
    data = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    source = named_class(data["options"].pop("_target_"))
    assert issubclass(source, Source)
    parameters = inspect.signature(source).parameters
    assert set(data["options"]) | set(data["locations"]) <= set(parameters)
    assert not set(data["options"]) & set(data["locations"])
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    assert required <= set(data["options"]) | set(data["locations"])
    declared = data.pop("declared", None)
    assert declared is None or set(declared) == {"train", "test", "classes", "masks"}
    known = {"title", "size", "stream", "train_limit", "test_limit", "options", "locations"}
    assert set(data) - {"probe_l2"} == known  # shapes alone has a fixed penalty of the linear probe
    if source.embedded:
        assert data["locations"] == {} and set(data["options"]) == set(parameters)


@pytest.mark.parametrize("file", sorted((CONF / "annotator").glob("*.yaml")), ids=lambda file: file.stem)
def test_annotators(file):
    options = OmegaConf.to_container(OmegaConf.load(file))
    annotator = named_class(options.pop("_target_"))
    assert issubclass(annotator, Annotator) and set(options) == set(inspect.signature(annotator).parameters)
    inputs = {name: moco() for name, value in options.items() if isinstance(value, dict) and "_input_" in value}
    annotator(**options | inputs)
