"""The line of a page about the known effects of its tier, from the records of calibration pages."""

import json

import pytest
from synthetic_results import ABOUT, METRICS

from studies.suite.pages import calibration

METRIC_FIELDS = {
    name: dict(zip(("label", "unit", "better", "definition"), metric, strict=True)) for name, metric in METRICS.items()
}


def page(**changes):
    return {**ABOUT, "base": {"data": {}}, "page": "multicrop", "source": {"place": None}, **changes}


def write(out, name="calibration", tier="cpu", data="shapes", place=None, control=True, **changes):
    known = calibration.summary(7, 9, control, {"knn_top1": 0.016, "linear_top1": 0.03})
    about = page(study="calibration", page=name, tier=tier, data=data, source={"place": place}, metrics=METRIC_FIELDS)
    folder = out / "records"
    folder.mkdir(exist_ok=True)
    text = json.dumps({**about, calibration.KEY: known, **changes})
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def test_a_page_names_the_calibration_of_its_tier(tmp_path):
    write(tmp_path)
    assert calibration.line(page(), tmp_path) == (
        "**Known effects at tier `cpu`.** On these images it reproduces 7 of 9 effects that are known, and could have "
        "detected with 3 seeds a difference of 1.6 points in kNN top-1 and 3 points in linear top-1: "
        "[calibration](calibration.md)."
    )


def test_a_page_of_other_images_names_its_own_calibration_or_that_of_embedded_ones(tmp_path):
    photos = page(data="photos", source={"place": "abc"})
    write(tmp_path)
    assert "On the embedded images (shapes) it reproduces 7 of 9" in calibration.line(photos, tmp_path)
    write(tmp_path, "calibration-others", data="others", place="def")
    assert "[calibration](calibration.md)" in calibration.line(photos, tmp_path)
    write(tmp_path, "calibration-photos", data="photos", place="abc")
    write(tmp_path, "calibration-photos-lr-0.1", data="photos", place="abc")
    line = calibration.line(photos, tmp_path)
    assert "On these images" in line and "[calibration-photos](calibration-photos.md)" in line


@pytest.mark.parametrize(("tier", "words"), [("cpu", ""), ("gpu", " -- tier=gpu")])
def test_without_a_calibration_of_the_tier_the_line_says_what_to_run(tier, words, tmp_path):
    write(tmp_path, "calibration-smoke", tier="smoke")
    (tmp_path / "records" / "calibration-broken.json").write_text("{", encoding="utf-8")
    expected = f"**Known effects at tier `{tier}`.** Not calibrated: run `nox -s study-calibration{words}`."
    assert calibration.line(page(tier=tier), tmp_path) == expected


def test_a_failed_control_of_the_calibration_is_said(tmp_path):
    write(tmp_path, control=False)
    assert calibration.line(page(), tmp_path).endswith("MoCo cannot be told apart from random weights.")


def test_calibration_pages_and_pages_without_training_have_no_line(tmp_path):
    write(tmp_path)
    assert calibration.line(page(study="calibration"), tmp_path) == ""
    assert calibration.line(page(base={}), tmp_path) == ""
