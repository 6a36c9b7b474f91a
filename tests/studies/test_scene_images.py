"""study-scene-coco on real images: folders to train on and to score on, in its plan, in a run and on its page."""

import pytest
from datasets import Image

from scd.data.sources.folder import folder_source
from scd.data.sources.scenes import scenes
from scd.data.sources.source import open_source
from scd.errors import DataError, UsageError
from studies import scene_coco
from studies.suite.analysis.results import assemble
from studies.suite.execution.run import execute
from studies.suite.planning.resolve import resolve
from studies.suite.planning.settings import resolve_settings
from studies.suite.planning.study import Standing

SMALL = ["tier=smoke", "seeds=1", "arms=random,moco,scd", "axes.detection=null", "training.batch_size=8"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """``coco``: scenes with their objects in test alone and plain images in train; ``annotated``: both with objects;
    ``things``: images of one labelled object."""
    root = tmp_path_factory.mktemp("real")
    annotated = scenes(classes=3, size=32, train=40, test=20)
    things = open_source("shapes", classes=3, size=32, train=60, test=30)
    for name in ("coco", "annotated", "things"):
        (root / name).mkdir()
    for split in ("train", "test"):
        scene = annotated.split(split).remove_columns(["mask", "semantic"]).rename_column("instances", "mask")
        scene.to_parquet(str(root / "annotated" / f"{split}.parquet"))
        (scene if split == "test" else scene.select_columns("image")).to_parquet(
            str(root / "coco" / f"{split}.parquet")
        )
        things.split(split).to_parquet(str(root / "things" / f"{split}.parquet"))
    return root


def settings_of(folders, *words, out="reports"):
    return resolve_settings("scene_coco", [f"data={folders / 'coco'}", *SMALL, *words], out=out)


def both(folders):
    return f"axes.scored={folders / 'annotated'}", f"axes.object_centric={folders / 'things'}"


def test_real_images_are_trained_on_in_equal_number_and_scored_on_the_same_two_sets(folders):
    settings = settings_of(folders, *both(folders))
    planned = scene_coco.plan(settings)
    assert {(run.labels["images"], run.labels["arm"]) for run in planned} == {
        *(("scenes", arm) for arm in ("random", "moco", "scd")),
        *(("object-centric images", arm) for arm in ("moco", "scd")),
    }
    for run in planned:
        assert run.config["data"]["train_limit"] == 40 and run.config["data"]["name"] == "path"
        place = folders / ("coco" if run.labels["images"] == "scenes" else "things")
        assert run.locations == {"path": str(place)}
        on_scenes, on_objects = run.config["evaluation"]["further"]
        assert on_scenes["data"]["path"] == str(folders / "annotated")
        assert on_objects["data"]["path"] == str(folders / "things") and on_objects["train_limit"] is not None
        assert on_objects["data"]["fingerprint"] == folder_source(str(folders / "things")).fingerprint
    resolved = {run.spec.labels["images"]: run.spec.config["data"]["fingerprint"] for run in resolve(planned)}
    assert resolved["scenes"] != resolved["object-centric images"] is not None


def test_without_further_folders_the_studys_own_scenes_are_trained_and_scored_on(folders):
    planned = scene_coco.plan(settings_of(folders))
    assert {run.labels["images"] for run in planned} == {"scenes"}
    assert [each["data"] for each in planned[0].config["evaluation"]["further"]] == [None]


def test_a_run_on_object_centric_images_has_the_numbers_of_both_sets(folders, tmp_path):
    settings = settings_of(folders, *both(folders), out=tmp_path)
    planned = resolve(scene_coco.plan(settings))
    chosen = next(
        run.spec for run in planned if run.spec.labels["images"] != "scenes" and run.spec.labels["arm"] == "scd"
    )
    record = execute(chosen, tmp_path / "run")
    assert (record["scene_n_train"], record["scene_n_test"]) == (40, 20) and 0 < record["scene_map"] <= 1
    assert 0 < record["centric_linear_top1"] <= 1 and "scene_discovery_corloc" in record
    specs = [run.spec for run in planned]
    evidence = assemble(
        scene_coco.STUDY, settings, specs, {"name": "coco"}, {chosen.id: record}, Standing(planned=5, done=1)
    )
    text = scene_coco.compose(evidence, tmp_path).read_text(encoding="utf-8")
    assert f"those of `{folders / 'annotated'}`: probes learn from its training images" in text
    assert f"those of `{folders / 'things'}`, as many as of scenes" in text


def test_a_folder_that_cannot_be_used_is_named_before_anything_is_trained(folders, tmp_path):
    with pytest.raises(DataError, match="no such folder: 'nowhere'"):
        scene_coco.plan(settings_of(folders, "axes.scored=nowhere"))
    embedded = resolve_settings("scene_coco", [*SMALL, "axes.scored=nowhere"])
    with pytest.raises(UsageError, match="axes.scored=nowhere goes with real scenes: name them, too, with data=FOLDER"):
        scene_coco.plan(embedded)
    plain = folder_source(str(folders / "coco")).split("train").cast_column("image", Image())
    plain.to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(DataError, match="has no split to evaluate on; it has train"):
        scene_coco.plan(settings_of(folders, f"axes.object_centric={tmp_path}"))
    plain.to_parquet(str(tmp_path / "test.parquet"))
    folder_source(str(tmp_path), folder_source(str(tmp_path)).fingerprint)
    with pytest.raises(DataError, match="has changed since the run was planned; give the command again"):
        folder_source(str(tmp_path), "another")
