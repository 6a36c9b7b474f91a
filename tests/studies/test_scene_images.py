"""study-scene-coco on real images: folders to train on and to score on, in its plan and on its page."""

import pytest
from datasets import Image

from scd.data.sources.path import PathSource
from scd.data.sources.scenes import Scenes
from scd.data.sources.shapes import Shapes
from scd.errors import DataError, UsageError
from scd.evaluation.metric import SHARE, Metric
from studies import multicrop, scene_coco
from studies.suite.analysis.results import assemble, data_lines
from studies.suite.pages.publish import publish
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.resolve import resolve
from studies.suite.planning.study import Progress

SMALL = ["tier=smoke", "seeds=1", "arms=random,moco,scd,supervised", "axes.detection=null", "training.batch_size=8"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """``coco``: scenes with their objects in test alone and plain images in train; ``annotated``: both with objects;
    ``things``: images of one labelled object."""
    root = tmp_path_factory.mktemp("real")
    annotated, things = Scenes(classes=3, size=32, train=40, test=20), Shapes(classes=3, size=32, train=60, test=30)
    for name in ("coco", "annotated", "things"):
        (root / name).mkdir()
    for split in ("train", "test"):
        scene = annotated.split(split).remove_columns(["mask", "semantic"]).rename_column("instances", "mask")
        scene.to_parquet(str(root / "annotated" / f"{split}.parquet"))
        plain = scene if split == "test" else scene.select_columns("image")
        plain.to_parquet(str(root / "coco" / f"{split}.parquet"))
        things.split(split).to_parquet(str(root / "things" / f"{split}.parquet"))
    return root


def settings_of(folders, *words, out="reports"):
    return resolve_settings("scene_coco", [f"data={folders / 'coco'}", *SMALL, *words], out=out)


def both(folders):
    return f"axes.scored={folders / 'annotated'}", f"axes.object_centric={folders / 'things'}"


def protocols_of(run):
    return {protocol["name"]: protocol for protocol in run.config["evaluation"]["protocols"]}


def test_real_images_are_trained_on_in_equal_number_and_scored_on_the_same_two_sets(folders):
    planned = scene_coco.plan(settings_of(folders, *both(folders)))
    assert {(run.labels["images"], run.labels["arm"]) for run in planned} == {
        *(("scenes", arm) for arm in ("random", "moco", "scd")),
        *(("object-centric images", arm) for arm in ("moco", "scd", "supervised")),
    }
    for run in planned:
        assert run.config["data"]["train_limit"] == 40
        assert run.config["data"]["options"]["_target_"].endswith("PathSource")
        place = folders / ("coco" if run.labels["images"] == "scenes" else "things")
        assert run.locations == {"path": str(place)}
        scenes, objects = (protocols_of(run)[name] for name in ("scenes", "transfer"))
        assert scenes["data"]["path"] == str(folders / "annotated")
        assert objects["data"]["path"] == str(folders / "things") and objects["train_limit"] is not None
        assert objects["data"]["fingerprint"] == PathSource(folders / "things").fingerprint
    resolved = {run.spec.labels["images"]: run.spec.config["data"]["fingerprints"] for run in resolve(planned)}
    assert resolved["scenes"] != resolved["object-centric images"] is not None


def test_without_further_folders_the_studys_own_scenes_are_trained_and_scored_on(folders):
    planned = scene_coco.plan(settings_of(folders))
    assert {run.labels["images"] for run in planned} == {"scenes"}
    assert protocols_of(planned[0])["scenes"]["data"] is None and "transfer" not in protocols_of(planned[0])


def test_the_page_names_the_two_sets(folders, tmp_path):
    settings = settings_of(folders, *both(folders), out=tmp_path)
    specs = [run.spec for run in resolve(scene_coco.plan(settings))]
    chosen = next(spec for spec in specs if spec.labels["images"] != "scenes" and spec.labels["arm"] == "scd")
    record = {"scene_map": 0.5, "centric_linear_top1": 0.4, "steps": 5, "total_flops": 1.0}
    metrics = {"scene_map": Metric("scene mAP", SHARE, "higher", "mean average precision")}
    progress = Progress(planned=len(specs), done=1)
    results = assemble(scene_coco.STUDY, settings, specs, {chosen.id: record}, metrics, {"name": "coco"}, progress)
    text = publish(scene_coco.STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert f"those of `{folders / 'annotated'}`: probes learn from its training images" in text
    assert f"those of `{folders / 'things'}`, as many as of scenes" in text


def test_notes_on_the_images_of_protocols(folders, tmp_path):
    """Copies in the folder that is scored, and what a limit leaves out, were not noted."""
    copied = tmp_path / "copied"
    copied.mkdir()
    for split in ("train", "test"):
        (copied / f"{split}.parquet").write_bytes((folders / "annotated" / "test.parquet").read_bytes())
    settings = settings_of(folders, f"axes.scored={copied}", "sizes.limit_train=30")
    lines = data_lines(settings, resolve(scene_coco.plan(settings)), decode=True)
    first = "Of the 40 train images, which have no labels to be balanced by, the first 30 are used (data.train_limit)."
    assert f"note: {first}" in lines
    start = "note: copied: 20 of the 20 scored images are training images, too"
    assert any(line.startswith(start) for line in lines)


def test_protocols_that_are_left_out_and_splits_that_are_not_used_are_named(folders, tmp_path):
    """A protocol that was asked for was left out without a word, and so were the validation images."""
    plain = tmp_path / "plain"
    plain.mkdir()
    for split in ("train", "validation", "test"):
        (plain / f"{split}.parquet").write_bytes((folders / "coco" / "train.parquet").read_bytes())
    words = [f"data={plain}", "tier=smoke", "seeds=1", "evaluation.protocols=[knn,collapse]", "arms=random,moco"]
    settings = resolve_settings("multicrop", words)
    lines = data_lines(settings, resolve(multicrop.plan(settings)), decode=True)
    assert "note: Protocols that need what these images lack, and that are left out: knn." in lines
    assert "note: The 40 validation images are not used." in lines


def test_a_folder_that_cannot_be_used_is_named_before_anything_is_trained(folders, tmp_path):
    with pytest.raises(DataError, match="no such folder: 'nowhere'"):
        scene_coco.plan(settings_of(folders, "axes.scored=nowhere"))
    embedded = resolve_settings("scene_coco", [*SMALL, "axes.scored=nowhere"])
    with pytest.raises(UsageError, match="axes.scored=nowhere is for real scenes; name them as well: data=FOLDER"):
        scene_coco.plan(embedded)
    plain = PathSource(folders / "coco").split("train").cast_column("image", Image())
    plain.to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(DataError, match="has no split to evaluate on; it has train"):
        scene_coco.plan(settings_of(folders, f"axes.object_centric={tmp_path}"))


def test_object_centric_images_without_labels_have_no_supervised_reference(folders):
    words = both(folders)[0], f"axes.object_centric={folders / 'coco'}"
    planned = scene_coco.plan(settings_of(folders, *words))
    assert {run.labels["arm"] for run in planned} == {"random", "moco", "scd"}
