"""One run: what arms of a seed share, what a record holds, exact resume, and plans with their budgets."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from scd.errors import DataError, UsageError
from studies.suite.execution.run import Runtime, build, build_method, check_fingerprint, execute, open_data, seed_of
from studies.suite.execution.store import Status, Store
from studies.suite.execution.worker import Ending, perform
from studies.suite.planning import resolve as plan
from studies.suite.planning.settings import resolve_settings
from studies.suite.planning.study import Arm, merge

MOCO = Arm("moco", "MoCo", {}, "", "")
SCD = Arm("scd", "SCD", {"wrapper": "scd"}, "", "")
MORE_VIEWS = Arm("views", "", {"views": {"extra": {"kind": "random", "count": 2}}}, "", "")
TIMES = ("seconds_pretrain", "seconds_views", "seconds_eval", "images_per_second")


@pytest.fixture(scope="module")
def settings():
    return resolve_settings("multicrop", ["tier=smoke", "sizes.generated_train=80", "sizes.generated_test=40"])


@pytest.fixture(scope="module")
def scd_run(settings):
    return plan.resolve([settings.spec(SCD, seed=0)])[0]


@pytest.fixture(scope="module")
def scd_record(scd_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return execute(scd_run.spec, folder, Runtime()), folder


def without_times(record):
    return {key: value for key, value in record.items() if key not in TIMES}


class Stop(BaseException):
    """What Ctrl-C is: no Exception."""


# ---------------------------------------------------------------- the parts


def test_arms_of_a_seed_share_the_backbones_initial_weights(settings):
    moco = build_method(settings.spec(MOCO, 0).config)
    scd = build_method(settings.spec(SCD, 0).config)
    other = build_method(settings.spec(MOCO, 1).config)
    ours, theirs = moco.backbone.state_dict(), scd.backbone.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(moco.matcher.queue.keys, scd.siamese.matcher.queue.keys)
    assert any(not torch.equal(ours[name], tensor) for name, tensor in other.backbone.state_dict().items())


def test_building_leaves_the_global_generator_alone(settings):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_method(settings.spec(SCD, 0).config)
    assert torch.equal(torch.rand(1), expected)


def test_one_source_of_chance_at_a_time(settings):
    """A seed of its own for the weights moves the weights alone; for the views it leaves them alone."""
    same, init, views = (
        settings.spec(MOCO, 0, overrides={"seed_of": own}).config for own in ({}, {"init": 7}, {"views": 7})
    )
    weights = [build_method(config).backbone.state_dict() for config in (same, init, views)]
    assert any(not torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[2].items())
    assert [seed_of(init, axis) for axis in ("init", "order", "views", "probe")] == [7, 0, 0, 0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": "scd.maps.source.ConstantMap", "vaule": 1}, "argument of ConstantMap 'vaule'; did you mean"),
        ({"_target_": "scd.maps.source.Nope"}, "_target_ 'scd.maps.source.Nope' cannot be imported"),
        ({"_target_": "scd.nope.Nope"}, "_target_ 'scd.nope.Nope' cannot be imported"),
        ({"dim": 3}, "without _target_ cannot be built"),
    ],
)
def test_what_cannot_be_built_says_why(config, message):
    with pytest.raises(UsageError, match=message):
        build(config)


def test_data_that_changed_after_the_plan_is_an_error(settings):
    data = settings.base["data"]
    source = open_data(data, {})
    check_fingerprint({**data, "fingerprint": source.fingerprint}, source)
    with pytest.raises(DataError, match="data 'shapes' changed after the study was planned"):
        check_fingerprint({**data, "fingerprint": "another"}, source)


# ---------------------------------------------------------------- plans


def test_equal_flops_are_at_most_the_references_and_within_one_step(settings):
    reference, arm = plan.resolve(
        [settings.spec(MOCO, 0), settings.spec(MORE_VIEWS, 0, "flops", reference=MOCO)], check=False
    )
    assert reference.steps == 80 // 16
    assert arm.flops_per_step > 1.5 * reference.flops_per_step
    assert 0 <= reference.flops - arm.flops < arm.flops_per_step


def test_the_reference_in_flops_is_the_same_run_as_in_epochs(settings):
    both = plan.resolve([settings.spec(MOCO, 0), settings.spec(MOCO, 0, "flops", reference=MOCO)], check=False)
    assert both[0].spec.id == both[1].spec.id
    assert both[0].spec.labels["budget"] != both[1].spec.labels["budget"]
    assert len(plan.unique(both)) == 1


def test_seeds_come_one_after_the_other(settings):
    specs = [settings.spec(arm, seed) for arm in (MOCO, SCD) for seed in (0, 1)]
    ordered = [item.spec.labels["seed"] for item in plan.unique(plan.resolve(specs, check=False)).values()]
    assert ordered == [0, 0, 1, 1]


def test_a_batch_larger_than_the_set_is_an_error(settings):
    spec = settings.spec(MOCO, 0, overrides={"training": {"batch_size": 128}})
    with pytest.raises(UsageError, match="training.batch_size=128 is more than the 80 training images of 'shapes'"):
        plan.resolve([spec], check=False)


def test_the_table_counts_what_is_done(settings, scd_run, tmp_path):
    store = Store(tmp_path)
    with store.claim(scd_run.spec.id):
        store.begin(scd_run.spec.id, scd_run.spec.config)
        record = {"total_flops": 1e9, "flops_per_step": scd_run.flops_per_step, "seconds_pretrain": 2.0}
        store.finish(scd_run.spec.id, {**record, "seconds_eval": 1.0}, {"python": "3"})
    planned = [scd_run, *plan.resolve([settings.spec(SCD, 1)], check=False)]
    row = plan.table(planned, store).splitlines()[-1].replace(" ", "")
    assert row.startswith("|scd|epochs|shapes|5|") and row.endswith("|2|1|1|")
    seconds, basis = plan.estimate(plan.unique(planned), store, workers=2)
    assert seconds == pytest.approx(1.0 + scd_run.flops / 5e8)
    assert "1 finished runs of such a size" in basis
    standing = plan.standing(planned, store)
    assert (standing.planned, standing.done, standing.failed, standing.seconds) == (2, 1, {}, 3.0)
    assert standing.environments == ({"python": "3"},)
    assert list(plan.collect(planned, store)["run"]) == [scd_run.spec.id]


# ---------------------------------------------------------------- executing


def test_the_record_is_flat_and_whole(scd_record, scd_run):
    record, folder = scd_record
    assert json.loads(json.dumps(record)) == record
    assert record["steps"] == 5 and record["epochs"] == 1.0 and record["images_seen"] == 80
    assert record["flops_per_step"] == scd_run.flops_per_step and record["total_flops"] == scd_run.flops
    for name in ("knn_top1", "linear_top1", "mixed_same_top1", "saliency_iou", "map_entropy", "effective_rank"):
        assert name in record
    for name in ("loss_first", "loss_last", "train_triplet_loss", "images_per_second", "protocol_version"):
        assert record[name] is not None
    assert record["parameters_backbone"] == sum(
        p.numel() for p in build_method(scd_run.spec.config).backbone.parameters()
    )
    weights = load_file(folder / "backbone.safetensors")
    fresh = build_method(scd_run.spec.config).backbone.state_dict()
    assert weights.keys() == fresh.keys()
    assert any(not torch.equal(weights[name], fresh[name]) for name in weights)


def test_the_same_run_gives_the_same_numbers(scd_record, scd_run, tmp_path):
    assert without_times(execute(scd_run.spec, tmp_path, Runtime())) == without_times(scd_record[0])


def test_an_interrupted_run_resumes_to_the_same_numbers(scd_record, scd_run, tmp_path):
    store = Store(tmp_path)
    run = scd_run.spec.id

    def stop(step, steps, loss):
        if step >= 3:
            raise Stop

    with pytest.raises(Stop):
        perform(run, scd_run.spec, store, Runtime(checkpoint_seconds=0.0, progress=stop))
    assert store.status(run) is Status.INTERRUPTED
    assert list((store.folder(run) / "checkpoints").iterdir())
    assert perform(run, scd_run.spec, store, Runtime()).ending is Ending.DONE
    assert without_times(store.record(run)) == without_times(scd_record[0])
    assert not (store.folder(run) / "checkpoints").exists()
    assert perform(run, scd_run.spec, store, Runtime()).ending is Ending.BUSY


def test_random_weights_take_no_step(settings, tmp_path):
    spec = plan.resolve([settings.spec(MOCO, 0, "none")], check=False)[0].spec
    record = execute(spec, tmp_path, Runtime())
    assert record["steps"] == 0 and record["total_flops"] == 0 and record["loss_last"] is None
    assert 0 <= record["linear_top1"] <= 1
    weights, fresh = load_file(tmp_path / "backbone.safetensors"), build_method(spec.config).backbone.state_dict()
    assert all(torch.equal(weights[name], fresh[name]) for name in fresh)


def test_a_run_that_breaks_down_is_recorded_with_its_reason(settings, tmp_path):
    spec = settings.spec(MOCO, 0, overrides={"optimizer": {"lr": 1e30}})
    spec = plan.resolve([spec], check=False)[0].spec
    store = Store(tmp_path)
    outcome = perform(spec.id, spec, store, Runtime())
    assert outcome.ending is Ending.FAILED and "\n" not in outcome.reason
    assert store.status(spec.id) is Status.FAILED and store.failure(spec.id) == outcome.reason
    assert "lr" in outcome.reason


def test_a_run_planned_with_other_code_is_not_executed(scd_run, tmp_path):
    outcome = perform("f" * 16, scd_run.spec, Store(tmp_path), Runtime())
    assert outcome.ending is Ending.FAILED and "the code changed while the study was running" in outcome.reason


def test_unknown_accelerator_is_one_line(scd_run, tmp_path):
    config = merge(scd_run.spec.config, {"training": {"accelerator": "gpu"}})
    with pytest.raises(UsageError, match="unknown accelerator .*'gpu'.*valid: cpu, cuda"):
        execute(replace(scd_run.spec, config=config), tmp_path, Runtime())
