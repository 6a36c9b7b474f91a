"""One run against the store: pretraining, evaluations on stored weights, exact resume, failures with their reasons."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from scd.training.state import Stopped
from studies.suite.execution.pretraining import Runtime
from studies.suite.execution.run import Ending, Execution
from studies.suite.execution.store import Status, Store
from studies.suite.planning.assembly import build_method
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.resolve import resolve
from studies.suite.planning.study import Arm, merge

MOCO = Arm("moco", "MoCo", {}, "", "")
SCD = Arm("scd", "SCD", {"wrapper": "scd"}, "", "")
TIMES = ("seconds_pretrain", "seconds_views", "images_per_second")
FIRST = ["knn", "linear", "background", "saliency", "collapse", "maps_over_training"]


@pytest.fixture(scope="module")
def settings():
    words = [
        "tier=smoke",
        "sizes.generated_train=80",
        "sizes.generated_test=40",
        "training.snapshots=[0,0.25,0.5,0.75]",
    ]
    return resolve_settings("multicrop", words)


@pytest.fixture(scope="module")
def scd_run(settings):
    spec = settings.spec(SCD, seed=0).with_protocols([settings.protocol(name) for name in FIRST])
    return resolve([spec])[0].spec


@pytest.fixture(scope="module")
def done(scd_run, tmp_path_factory):
    """The store with the finished run."""
    store = Store(tmp_path_factory.mktemp("store"))
    outcome = Execution(scd_run, store, Runtime()).perform()
    assert outcome.ending is Ending.DONE, outcome.reason
    return store


def planned(settings, arm, budget="epochs", **overrides):
    """The complete spec of one run with kNN alone."""
    spec = settings.spec(arm, 0, budget, overrides=overrides).with_protocols([settings.protocol("knn")])
    return resolve([spec], check=False)[0].spec


def without_times(record):
    return {key: value for key, value in record.items() if key not in TIMES}


def test_a_log_by_epoch_is_kept_in_the_record(settings, tmp_path):
    training = {"log_every": None, "budget": {"unit": "epochs", "value": 2}}
    spec, store = planned(settings, MOCO, training=training), Store(tmp_path)
    assert Execution(spec, store, Runtime()).perform().ending is Ending.DONE
    record = store.record(spec)
    assert [name for name in record if "@" in name] == ["loss@0.50", "loss@1.00"]
    assert record["loss@0.50"] == record["loss_first"] and record["loss@1.00"] == record["loss_last"]


class Stop(BaseException):
    """Like Ctrl-C, not an Exception."""


# ---------------------------------------------------------------- a whole run


def test_the_record_is_flat_and_complete(done, scd_run):
    record = done.record(scd_run)
    assert json.loads(json.dumps(record)) == record
    assert record["steps"] == 5 and record["epochs"] == 1.0 and record["images_seen"] == 80
    assert record["flops_per_step"] == scd_run.flops_per_step and record["total_flops"] == 5 * scd_run.flops_per_step
    for name in ("knn_top1", "linear_top1", "mixed_same_top1", "saliency_iou", "map_entropy", "effective_rank"):
        assert name in record
    for name in ("loss_first", "loss_last", "train_triplet_loss", "images_per_second", "supervision"):
        assert record[name] is not None
    assert {"saliency_iou@0.00", "saliency_iou@0.25", "saliency_iou@0.75", "saliency_iou@1.00"} <= set(record)


def test_the_weights_and_snapshots_are_kept(done, scd_run):
    folder = done.folder(scd_run)
    weights, fresh = load_file(folder / "backbone.safetensors"), build_method(scd_run.config).backbone.state_dict()
    assert weights.keys() == fresh.keys()
    assert any(not torch.equal(weights[name], fresh[name]) for name in weights)
    snapshots = sorted(path.stem for path in (folder / "snapshots").iterdir())
    assert snapshots == ["0.0000", "0.2500", "0.5000", "0.7500"]
    untrained = load_file(folder / "snapshots" / "0.0000.safetensors")
    assert all(torch.equal(untrained[f"siamese.backbone.{name}"], value) for name, value in fresh.items())
    assert not (folder / "checkpoints").exists()


def test_the_same_run_gives_the_same_numbers(done, scd_run, tmp_path):
    store = Store(tmp_path)
    Execution(scd_run, store, Runtime()).perform()
    assert without_times(store.record(scd_run)) == without_times(done.record(scd_run))


def test_an_interrupted_run_resumes_to_the_same_numbers(done, scd_run, tmp_path):
    store = Store(tmp_path)

    def stop(step, steps, loss):
        if step >= 3:
            raise Stop

    with pytest.raises(Stop):
        Execution(scd_run, store, Runtime(checkpoint_seconds=0.0, progress=stop)).perform()
    assert store.status(scd_run) is Status.INTERRUPTED
    assert list((store.folder(scd_run) / "checkpoints").iterdir())
    assert Execution(scd_run, store, Runtime()).perform().ending is Ending.DONE
    assert without_times(store.record(scd_run)) == without_times(done.record(scd_run))
    for path in (done.folder(scd_run) / "snapshots").iterdir():
        ours, theirs = load_file(path), load_file(store.folder(scd_run) / "snapshots" / path.name)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_that_is_told_to_stop_does_not_begin_its_evaluation(settings, tmp_path):
    store, spec = Store(tmp_path), planned(settings, MOCO, "none")
    with pytest.raises(Stopped):
        Execution(spec, store, Runtime(stop=lambda: True)).perform()
    assert store.pretraining.status(spec.id) is Status.DONE and store.status(spec) is Status.INTERRUPTED
    assert Execution(spec, store, Runtime()).perform().ending is Ending.DONE


# ---------------------------------------------------------------- evaluation apart from training


def test_a_further_protocol_is_evaluated_on_the_stored_weights(done, scd_run, settings):
    before = (done.folder(scd_run) / "done").stat().st_mtime_ns
    short = {"preset": "finetune_10", "epochs": 1, "least_steps": 3, "lr": 0.01}
    further = scd_run.with_protocols([settings.protocol("knn"), settings.protocol(short)])
    assert further.id == scd_run.id and done.status(further) is Status.INTERRUPTED
    assert "labels10_top1" not in done.record(scd_run)
    assert Execution(further, done, Runtime()).perform().ending is Ending.DONE
    assert (done.folder(scd_run) / "done").stat().st_mtime_ns == before
    assert 0 <= done.record(further)["labels10_top1"] <= 1


def test_stored_weights_give_the_numbers_of_the_trained_method(done, scd_run, tmp_path):
    """The same evaluations on a copy of the store without them: the method is loaded, not trained."""
    store = Store(tmp_path)
    (tmp_path / "pretraining" / scd_run.id).symlink_to(done.folder(scd_run))
    assert Execution(scd_run, store, Runtime()).perform().ending is Ending.DONE
    assert store.record(scd_run) == done.record(scd_run)


def test_an_evaluation_that_fails_keeps_the_others(done, scd_run, settings, tmp_path):
    store = Store(tmp_path)
    (tmp_path / "pretraining" / scd_run.id).symlink_to(done.folder(scd_run))
    broken = {"name": "broken", "_target_": "scd.evaluation.knn.KNN", "k": "many"}
    outcome = Execution(scd_run.with_protocols([broken, settings.protocol("linear")]), store, Runtime()).perform()
    assert outcome.ending is Ending.FAILED and outcome.reason.startswith("broken: ")
    spec = scd_run.with_protocols([settings.protocol("linear")])
    assert store.status(spec) is Status.DONE and "linear_top1" in store.record(spec)


# ---------------------------------------------------------------- other runs


def test_random_weights_take_no_step(settings, tmp_path):
    spec, store = planned(settings, MOCO, "none"), Store(tmp_path)
    assert Execution(spec, store, Runtime()).perform().ending is Ending.DONE
    record = store.record(spec)
    assert record["steps"] == 0 and record["total_flops"] == 0 and record["loss_last"] is None
    assert 0 <= record["knn_top1"] <= 1
    weights = load_file(store.folder(spec) / "backbone.safetensors")
    fresh = build_method(spec.config).backbone.state_dict()
    assert all(torch.equal(weights[name], fresh[name]) for name in fresh)


def test_a_run_that_breaks_down_is_recorded_with_its_reason(settings, tmp_path):
    spec, store = planned(settings, MOCO, optimizer={"lr": 1e30}), Store(tmp_path)
    outcome = Execution(spec, store, Runtime()).perform()
    assert outcome.ending is Ending.FAILED and "\n" not in outcome.reason
    assert store.status(spec) is Status.FAILED and store.failure(spec) == outcome.reason
    assert "lr" in outcome.reason


def test_a_run_planned_with_other_code_is_not_executed(scd_run, tmp_path, monkeypatch):
    monkeypatch.setattr(type(scd_run), "identities", lambda spec, fresh=False: ("f" * 16,) if fresh else ("e" * 16,))
    monkeypatch.setattr(type(scd_run), "evaluations", {})
    outcome = Execution(scd_run, Store(tmp_path), Runtime()).perform()
    assert outcome.ending is Ending.FAILED and "the code changed while the study was running" in outcome.reason


def test_unknown_accelerator_is_one_line(settings, tmp_path):
    spec = planned(settings, MOCO)
    spec = replace(spec, config=merge(spec.config, {"training": {"accelerator": "gpu"}}))
    outcome = Execution(spec, Store(tmp_path), Runtime()).perform()
    assert "unknown accelerator (training.accelerator) 'gpu'" in outcome.reason


def test_masks_reach_a_method_only_through_an_annotator(settings, tmp_path):
    oracle = Arm("oracle", "", {"wrapper": {"preset": "scd", "saliency": "oracle"}}, "", "")
    spec, store = planned(settings, oracle), Store(tmp_path)
    assert Execution(spec, store, Runtime()).perform().ending is Ending.DONE
    assert store.record(spec)["supervision"] == "oracle"
    without = replace(spec, config={**spec.config, "annotations": {}})
    outcome = Execution(without, store, Runtime()).perform()
    assert "needs masks: name what provides them, for example annotations.masks=oracle" in outcome.reason
