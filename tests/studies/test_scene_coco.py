"""The study on scenes: two compositions of images, each scored on both, and the number of objects."""

from dataclasses import replace

from synthetic_results import settings_of, study_results

from studies import scene_coco
from studies.scene_coco import STUDY
from studies.suite.analysis.comparison import compare
from studies.suite.pages.publish import publish

GAIN_ARMS = tuple(f"gain:{images}" for images in (scene_coco.OBJECTS, scene_coco.SCENES))


def test_scenes_and_object_centric_images_differ_in_composition_alone():
    settings = settings_of("scene_coco", seeds=1, words=("arms=all",))
    specs = {(spec.labels["images"], spec.labels["arm"]): spec.config for spec in scene_coco.plan(settings)}
    scenes, objects = (specs[images, "scd"]["data"]["options"] for images in ("scenes", "object-centric images"))
    assert {key for key in scenes if scenes[key] != objects[key]} == {"objects", "scale", "regions"}
    assert objects["objects"] == [1, 1] and ("object-centric images", "random") not in specs
    assert ("object-centric images", "supervised") in specs and ("scenes", "supervised") not in specs
    for images in ("scenes", "object-centric images"):  # both are scored on the same two sets
        protocols = {each["name"]: each for each in specs[images, "scd"]["evaluation"]["protocols"]}
        assert protocols["scenes"]["data"] == scenes and protocols["transfer"]["data"] == objects
        assert ("detection" in protocols) == (images == "scenes") and {"collapse", "scene pixels"} <= set(protocols)
        assert protocols["scenes"]["test_limit"] is None and scenes["rho_train"] == objects["rho_train"] == 0.8
    for count in settings.axes["counts"]:
        config = specs[scene_coco.objects(count), "lewel"]
        assert config["data"]["options"]["objects"] == [count, count]
        assert [each["name"] for each in config["evaluation"]["protocols"]] == ["collapse", "scenes"]


def test_protocols_that_are_asked_for_are_added_to_the_studys_own():
    settings = settings_of("scene_coco", seeds=1, words=("evaluation.protocols=[finetune_10]", "arms=moco"))
    for spec in scene_coco.plan(settings):
        names = [each["name"] for each in spec.config["evaluation"]["protocols"]]
        assert names[0] == "finetune_10" and "scenes" in names


def test_gains_are_of_one_numerics_class_and_the_page_names_the_others(tmp_path, no_figures):
    results = study_results(STUDY, {}, settings_of("scene_coco", tmp_path))
    runs = results.runs.assign(numerics="one")
    first = (runs["seed"] == 0) & (runs["images"] == "scenes")
    runs.loc[first & (runs["arm"] == "scd"), "numerics"] = "two"
    second = (runs["seed"] == 1) & (runs["images"] == "object-centric images") & runs["arm"].isin(["scd", "moco"])
    runs.loc[second, "numerics"] = "two"
    found = compare(scene_coco.gained(results.with_runs(runs)), *GAIN_ARMS, scene_coco.METRIC)
    assert (found.seeds, found.mixed) == ((2,), (0, 1))
    first_screen = publish(STUDY, results.with_runs(runs), tmp_path).read_text(encoding="utf-8").split("<details>")[0]
    assert "**Runs of 2 numerics classes:**" in first_screen
    assert "SCD-MoCo vs. MoCo (scenes) without 1 seed (0); SCD's gain over MoCo from object-centric" in first_screen
    assert "from scenes (scenes) without 2 seeds (0, 1)." in first_screen
    assert compare(scene_coco.gained(results), *GAIN_ARMS, scene_coco.METRIC).n == 3  # records without classes


def test_a_gain_on_object_centric_images_alone_supports_that_scd_is_limited_to_them(tmp_path):
    results = study_results(STUDY, {"oracle": 0.1}, settings_of("scene_coco", tmp_path, 5))
    centric = (results.runs["images"] == "object-centric images") & (results.runs["arm"] == "scd")
    results = replace(results, runs=results.runs.assign(scene_map=results.runs["scene_map"] + 0.05 * centric))
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    first = text.split("<details>")[0]
    assert "*Is it limited to these?* **Supported:**" in first
    assert "*Does SCD help on scenes?* **Contradicted:**" in first
    assert "](figures/scene_coco-objects.png)" in text and "| 6 " in text
    assert "Not measured: no finished run has detection" in text
