"""The study on the mechanism: its arms, the polarity of maps, and what position explains of them."""

from dataclasses import replace

import numpy
import pytest
from safetensors.numpy import load_file, save_file
from synthetic_results import settings_of, study_results

from studies import mechanism
from studies.mechanism import STUDY
from studies.suite.pages.map_traces import maps_file
from studies.suite.pages.publish import publish


def maps_of(arm, seed):
    """Saliency numbers of arms with maps: SCD's mark the background in odd seeds, those of the border prior never."""
    if arm in ("random", "moco", "constant_map", "oracle", "supervised"):
        return {}
    inverted = 0.9 if arm == "scd" and seed % 2 else 0.1
    final = {"saliency_iou": 0.5 - 0.3 * inverted, "saliency_iou_inverted": 0.2 + 0.3 * inverted, "saliency_maxf": 0.6,
             "saliency_inverted_share": inverted, "map_std": 0.1}  # fmt: skip
    return final | {f"{key}@{share:.2f}": value * share for key, value in final.items() for share in (0, 0.5, 1)}


@pytest.fixture
def results(tmp_path):
    return study_results(STUDY, {}, settings_of("mechanism", tmp_path), maps_of)


def test_arms_change_the_wrapper_alone():
    settings = settings_of("mechanism", seeds=1, words=("arms=all",))
    specs = {spec.labels["arm"]: spec for spec in mechanism.plan(settings)}
    base = specs["scd"].config
    for arm in set(specs) - {"random", "supervised", "oracle", "rbd"}:
        assert {key for key in base if specs[arm].config[key] != base[key]} <= {"wrapper"}, arm
    sources = {arm: (spec.config["wrapper"] or {}).get("saliency", {}) for arm, spec in specs.items()}
    assert [sources[arm]["depth"] for arm in ("depth1", "scd", "depth3")] == [1, 2, 3]
    assert specs["no_gradient"].config["wrapper"]["map_gradient"] is False
    assert specs["discrimination"].config["wrapper"]["terms"] == "discrimination"
    oracle, rbd = specs["oracle"].config, specs["rbd"].config
    for masked in (oracle, rbd):
        assert {key for key in base if masked[key] != base[key]} == {"wrapper", "annotations"}
    assert rbd["annotations"]["masks"]["_target_"].endswith("RBD")
    assert oracle["wrapper"]["saliency"]["_target_"].endswith("OracleMask")
    assert oracle["annotations"]["masks"]["_target_"].endswith("OracleAnnotator")


def test_arms_that_no_claim_needs_are_planned_by_name_or_with_all():
    specs = mechanism.plan(settings_of("mechanism", seeds=1))
    assert {spec.labels["arm"] for spec in specs} == {arm.name for arm in STUDY.arms if arm.default} != set()
    assert {spec.config["data"]["options"]["rho_train"] for spec in specs} == {0.8}
    named = mechanism.plan(settings_of("mechanism", seeds=1, words=("arms=moco,depth3",)))
    assert {spec.labels["arm"] for spec in named} == {"moco", "depth3"}


@pytest.mark.parametrize(("trivial", "outcome"), [(0.3, "Supported"), (0.6, "Contradicted")])
def test_a_map_of_the_object_is_above_the_best_map_that_looks_at_no_image(trivial, outcome, tmp_path, no_figures):
    def numbers(arm, seed):
        found = maps_of(arm, seed)
        return found and {**found, "saliency_iou_whole": trivial + 0.001 * (seed % 3)}

    found = study_results(STUDY, {}, settings_of("mechanism", tmp_path, 5), numbers)
    text = publish(STUDY, found, tmp_path).read_text(encoding="utf-8")
    assert f"*Is it a map of the object?* **{outcome}:**" in text.split("<details>")[0]


def test_polarity_is_counted_seed_by_seed(results, tmp_path, no_figures):
    assert mechanism.inverted_seeds(results, "scd") == (1, 3) and mechanism.inverted_seeds(results, "moco") is None
    sentence = mechanism.polarity_sentence(results)
    assert sentence == (
        "**Polarity:** the learned map marks the background in 1 of 3 seeds, with the border prior (no label) in 0 of "
        "3."
    )
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert sentence in text.split("<details>")[0] and "1 of 3 |" in text and "10, 90, 10" in text
    assert "these images are not the suite's own" in text  # no maps were kept
    assert "](figures/mechanism-curves.png)" in text


def test_kept_maps_become_a_figure(results, tmp_path):
    path = maps_file(tmp_path, "mechanism")
    path.parent.mkdir()
    maps = numpy.linspace(0, 1, 2 * 16, dtype="float32").reshape(2, 4, 4)
    kept = {"images": numpy.zeros((2, 8, 8, 3), "uint8"), "masks": numpy.ones((2, 8, 8), "uint8")}
    save_file({**kept, "scd@0.50": maps, "settled@1.00": maps}, path)
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert "](figures/mechanism-maps.png)" in text and (tmp_path / "figures" / "mechanism-maps.png").is_file()
    assert set(load_file(path)) == {"images", "masks", "scd@0.50", "settled@1.00"}


def test_the_page_says_how_much_is_position_and_keeps_maps(results, tmp_path, no_figures):
    folders = {}
    for run in results.of("scd")["run"]:
        folders[run] = [tmp_path / "evaluations" / run]
        folders[run][0].mkdir(parents=True)
        for share in ("0.50", "1.00"):
            maps = numpy.repeat(numpy.eye(4, dtype="float32")[None], 8, axis=0)
            save_file({"learned": maps}, folders[run][0] / f"{share}.safetensors")
    shares = results.runs["seed"].map({0: 0.70, 1: 0.72, 2: 0.74})
    found = replace(results, folders=folders, runs=results.runs.assign(map_place_share=shares))
    found = mechanism.prepare(found, settings_of("mechanism", tmp_path))
    assert set(load_file(maps_file(tmp_path, "mechanism"))) >= {"images", "masks", "scd@0.50", "scd@1.00"}
    text = publish(STUDY, found, tmp_path).read_text(encoding="utf-8")
    assert "position alone, the same in every image, explains 72 ± 5 % of the variance of the learned map" in text


def test_a_page_of_another_host_is_named_by_it(tmp_path, no_figures):
    settings = settings_of("mechanism", tmp_path, words=("method=byol", "arms=moco,scd,oracle,constant_map"))
    text = publish(STUDY, study_results(STUDY, {"oracle": 0.1}, settings), tmp_path).read_text(encoding="utf-8")
    assert "| difference from BYOL" in text and "SCD vs. BYOL: SCD is better than BYOL" in text
    assert "| MoCo " not in text
