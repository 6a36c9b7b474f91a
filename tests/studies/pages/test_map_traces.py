"""Maps logged during training: their numbers, their files, and what position explains of them."""

from dataclasses import replace

import numpy
from safetensors.numpy import load_file, save_file
from synthetic_results import results, settings_of

from studies.suite.pages.map_traces import curve_points, keep_maps, maps_file


def test_numbers_over_training_become_points():
    found = results()
    found = found.with_runs(found.runs.assign(**{"saliency_iou@0.50": 0.3, "saliency_iou@1.00": 0.4}))
    points = curve_points(found, {"a": "A"}, ["saliency_iou", "linear_top1"])
    assert len(points) == 6 and set(points["panel"]) == {"saliency IoU (%)"} and set(points["row"]) == {"A"}
    assert points[points["seed"] == 0][["x", "value"]].values.tolist() == [[0.5, 30.0], [1.0, 40.0]]


def kept(folder):
    """Maps of three shares of a training: zeros, one half, ones in one corner."""
    folder.mkdir()
    for share, value in (("0.00", 0.0), ("0.50", 0.5), ("1.00", 1.0)):
        maps = numpy.zeros((8, 4, 4), "float32")
        maps[:, 0, 0] = value
        save_file({"learned": maps, "attention": maps}, folder / f"{share}.safetensors")
    return folder


def test_maps_of_the_first_seed_are_copied_for_embedded_images(tmp_path):
    found = replace(results(), folders={"a0": [tmp_path / "none", kept(tmp_path / "kept")]})
    settings = settings_of("mechanism", tmp_path)
    shown = (("a", 0.5), ("a:attention", 1.0), ("a:absent", 1.0), ("b", 1.0))
    keep_maps(found, settings, shown)
    stored = load_file(maps_file(tmp_path, "toy"))
    assert set(stored) == {"images", "masks", "a@0.50", "a:attention@1.00"}
    assert stored["a@0.50"][:, 0, 0].tolist() == [0.5] * 6 and len(stored["images"]) == 6


def test_photographs_are_not_copied(tmp_path, monkeypatch):
    found = replace(results(), folders={"a0": [kept(tmp_path / "kept")]})
    monkeypatch.setattr(type(settings_of("mechanism")), "embedded", False)
    keep_maps(found, settings_of("mechanism", tmp_path), (("a", 0.5),))
    assert not maps_file(tmp_path, "toy").exists()
