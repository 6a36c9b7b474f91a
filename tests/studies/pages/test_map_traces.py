"""Maps logged during training: their numbers, their files, and what position explains of them."""

from dataclasses import replace

import numpy
import pytest
from safetensors.numpy import load_file, save_file
from synthetic_results import LABELS, results, settings_of

from studies.suite.pages.map_traces import curve_points, keep_maps, maps_file, place_share, with_place_share


def test_numbers_over_training_become_points():
    found = results()
    found = found.with_runs(found.runs.assign(**{"saliency_iou@0.50": 0.3, "saliency_iou@1.00": 0.4}))
    points = curve_points(found, {"a": "A"}, ["saliency_iou", "linear_top1"])
    assert len(points) == 6 and set(points["panel"]) == {"saliency IoU (%)"} and set(points["row"]) == {"A"}
    assert points[points["seed"] == 0][["x", "value"]].values.tolist() == [[0.5, 30.0], [1.0, 40.0]]


def test_place_share_tells_a_map_of_the_position_from_a_map_of_the_image():
    draw = numpy.random.default_rng(0)
    place = draw.random((1, 6, 6))
    assert place_share(numpy.repeat(place, 8, axis=0)) == pytest.approx(1.0)
    assert abs(numpy.mean([place_share(draw.random((8, 6, 6))) for _ in range(200)])) < 0.01  # nothing but the image
    mixed = [place_share(place + draw.normal(0, place.std(), (8, 6, 6))) for _ in range(200)]
    assert numpy.mean(mixed) == pytest.approx(0.5, abs=0.05)
    assert place_share(numpy.ones((8, 6, 6))) is None and place_share(place) is None


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


def test_the_share_of_position_is_that_of_the_last_maps(tmp_path):
    found = with_place_share(replace(results(), folders={"a0": [kept(tmp_path / "kept")]}))
    shares = dict(zip(found.runs["run"], found.runs["place_share"], strict=True))
    assert shares["a0"] == pytest.approx(1.0) and numpy.isnan(shares["b0"])
    assert found.metric("place_share").unit == "share in [0, 1]" and LABELS
