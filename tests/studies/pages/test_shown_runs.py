"""Which finished runs are shown: by arm, by page, by study, by id; what they are called; and their methods."""

import csv
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file
from stored_runs import SMALL, configuration, holding, planned, write
from trained_runs import MOCO, SCD, train

from scd.errors import UsageError
from scd.method import whole_view
from studies.suite.execution.pretraining import Runtime
from studies.suite.execution.run import Ending, Execution
from studies.suite.execution.store import Store
from studies.suite.pages.shown_runs import (
    LATEST,
    described,
    load,
    named,
    newest_of_each,
    read_run,
    stored_runs,
    usual,
)

DIVIDED = ("tier=smoke", "arms=dnc", "seeds=1", "evaluation.protocols=[collapse]")


def words(arms, **options):
    return (*(word for word in SMALL if not word.startswith("arms=")), f"arms={arms}", *options.values())


def page(reports, name, study, arms):
    """The records of a page: id of a run -> its arm."""
    folder = reports / "records"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["arm", "seed", "run"])
        rows.writerows([arm, 0, run] for run, arm in arms.items())
    (folder / f"{name}.json").write_text(json.dumps({"study": study}), encoding="utf-8")
    return folder / f"{name}.csv"


def aged(store, run, seconds):
    """Let a run have ended so many seconds after 2000."""
    os.utime(store.pretraining.folder(run) / "done", (946684800 + seconds,) * 2)


@pytest.fixture
def filled(tmp_path):
    """A store with two seeds of MoCo, SCD and SCD with the true mask; ids by arm and seed, seed 1 the newer one."""
    store, ids = Store(tmp_path / "runs"), {}
    for spec in planned("multicrop", words("moco,scd,oracle")):
        arm, seed = spec.labels["arm"], spec.labels["seed"]
        write(store.pretraining, spec.id, configuration(spec))
        ids[arm, seed] = spec.id
        aged(store, spec.id, 10 * seed + ["moco", "scd", "oracle"].index(arm))
    return store, ids


def found(store, reports):
    return stored_runs(store.root, reports)


# ---------------------------------------------------------------- the choice


def test_runs_are_read_newest_first_and_only_finished_intact_ones(filled, tmp_path):
    store, ids = filled
    runs = found(store, tmp_path / "none")
    assert [run.id for run in runs][:2] == [ids["oracle", 1], ids["scd", 1]] and len(runs) == len(ids)
    (store.pretraining.folder(ids["oracle", 1]) / "record.json").write_text("{}", encoding="utf-8")
    (store.pretraining.folder(ids["scd", 0]) / "done").unlink()
    assert {run.id for run in found(store, tmp_path)} == set(ids.values()) - {ids["oracle", 1], ids["scd", 0]}


def test_the_usual_choice_is_the_newest_run_of_each_method_with_a_map(filled, tmp_path):
    store, ids = filled
    runs = found(store, tmp_path / "none")
    assert [run.id for run in usual(runs)] == [ids["scd", 1]]  # the oracle has none without masks, MoCo none at all
    without = [run for run in runs if not run.has_map]
    assert [run.id for run in usual(without)] == [ids["oracle", 1]]  # the newest of all
    assert usual([]) == []


def test_arms_of_pages_are_told_apart_by_their_labels(filled, tmp_path):
    store, ids = filled
    page(tmp_path, "a-page", "multicrop", {ids["scd", 0]: "scd", ids["scd", 1]: "constant_map"})
    runs = {run.id: run for run in found(store, tmp_path)}
    assert runs[ids["scd", 0]].name == "SCD" and runs[ids["scd", 1]].name == "SCD with a constant map"
    assert [run.id for run in usual(list(runs.values()))] == [ids["scd", 0], ids["scd", 1]]  # by name
    assert runs[ids["moco", 0]].name == "MoCo"


def test_latest_is_the_page_with_the_newest_run(filled, tmp_path):
    store, ids = filled
    old = page(tmp_path, "old", "multicrop", {ids["scd", 1]: "scd", ids["oracle", 1]: "oracle"})
    page(tmp_path, "new", "multicrop", {ids["scd", 0]: "scd", ids["oracle", 1]: "oracle"})
    os.utime(old, (1, 1))
    runs = found(store, tmp_path)
    assert [run.id for run in named(LATEST, runs, store.root, tmp_path)] == [ids["scd", 0]]
    os.utime(tmp_path / "records" / "new.csv", (0, 0))
    assert [run.id for run in named(LATEST, found(store, tmp_path), store.root, tmp_path)] == [ids["scd", 1]]


def test_latest_without_a_page_has_the_data_and_the_training_of_the_newest(filled, tmp_path):
    store, ids = filled
    config = store.pretraining.folder(ids["scd", 1]) / "config.json"
    other = json.loads(config.read_text(encoding="utf-8"))
    other["data"]["title"] = "others"
    config.write_text(json.dumps(other), encoding="utf-8")
    runs = found(store, tmp_path)
    assert [run.id for run in named(LATEST, runs, store.root, tmp_path)] == [ids["scd", 0]]


def test_a_study_has_the_runs_of_its_pages(filled, tmp_path):
    store, ids = filled
    page(tmp_path, "first", "mechanism", {ids["scd", 0]: "scd"})
    page(tmp_path, "second", "multicrop", {ids["scd", 1]: "scd"})
    runs = found(store, tmp_path)
    assert [run.id for run in named("mechanism", runs, store.root, tmp_path)] == [ids["scd", 0]]
    with pytest.raises(UsageError, match="run=dino-vit: no page of this study in '.*' names a finished run"):
        named("dino-vit", runs, store.root, tmp_path)


def test_an_id_may_be_shortened(filled, tmp_path):
    store, ids = filled
    runs = found(store, tmp_path)
    assert [run.id for run in named(ids["moco", 0], runs, store.root, tmp_path)] == [ids["moco", 0]]
    assert [run.id for run in named(ids["moco", 0][:8], runs, store.root, tmp_path)] == [ids["moco", 0]]
    with pytest.raises(UsageError, match="no finished run"):
        named(ids["moco", 0][:5], runs, store.root, tmp_path)  # too short


def test_what_is_no_run_ends_in_one_line(filled, tmp_path):
    store, ids = filled
    runs = found(store, tmp_path)
    with pytest.raises(
        UsageError, match=f"run=nothing is no finished run .*newest runs are {ids['oracle', 1]}, .*and 1"
    ):
        named("nothing", runs, store.root, tmp_path)
    with pytest.raises(
        UsageError, match="no run of the store '.*' is finished; make one with python -m studies mechanism tier=smoke"
    ):
        named(LATEST, [], store.root, tmp_path)
    spec = planned("multicrop", words("constant_map"))[0]
    process = holding(store.root, "pretraining", spec.id, configuration(spec))
    try:
        with pytest.raises(UsageError, match=f"run={spec.id} is not finished, it is running"):
            named(spec.id, runs, store.root, tmp_path)
    finally:
        process.stdin.close()
        process.wait()
    with pytest.raises(UsageError, match="it is interrupted; give the command of its study again"):
        named(spec.id, runs, store.root, tmp_path)


def test_the_first_of_each_key():
    assert newest_of_each(["b1", "a1", "b2"], lambda text: text[0]) == ["b1", "a1"]


# ---------------------------------------------------------------- names and methods


def test_methods_are_called_by_their_classes(filled, tmp_path):
    configs = {run.id: run.config for run in found(filled[0], tmp_path)}
    assert described(configs[filled[1]["moco", 0]]) == "MoCo"
    assert described(configs[filled[1]["scd", 0]]) == "SCD (SaliencyMLP) around MoCo"
    assert described(configs[filled[1]["oracle", 0]]) == "SCD (OracleMask) around MoCo, masks of OracleAnnotator"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with a trained run of SCD, and its id."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(folder, SCD)


def test_a_run_is_loaded_with_its_trained_weights(trained):
    folder, name = trained
    run = read_run(folder / "pretraining" / name)
    method = load(run)
    assert not method.training and run.has_map and run.supervision == "none"
    assert run.training == "shapes, seed 0, 5 steps (1 epoch)"
    state = load_file(run.folder / "backbone.safetensors")
    assert all(torch.equal(state[key], value) for key, value in method.backbone.state_dict().items())
    assert method.saliency(whole_view(torch.zeros(1, 3, 16, 24))).shape == (1, 4, 6)


def test_weights_that_do_not_fit_end_in_one_line(trained, tmp_path):
    folder, name = trained
    shutil.copytree(folder / "pretraining" / name, tmp_path / name)
    config = json.loads((tmp_path / name / "config.json").read_text(encoding="utf-8"))
    config["backbone"]["widths"] = [8, 24]
    (tmp_path / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UsageError, match=f"run {name}: its weights do not fit the network .*its code has changed"):
        load(read_run(tmp_path / name))
    (tmp_path / name / "method.safetensors").write_bytes(b"no weights")
    with pytest.raises(UsageError, match=f"run {name}: its method.safetensors cannot be read"):
        load(read_run(tmp_path / name))
    (tmp_path / name / "done").unlink()
    assert read_run(tmp_path / name) is None


def test_a_run_that_needs_an_earlier_one_says_so(trained, tmp_path):
    folder, name = trained
    shutil.copytree(folder / "pretraining" / name, tmp_path / name)
    path, base = tmp_path / name / "config.json", {"network": {"_input_": "base"}}
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "annotations": {"segments": base}}), encoding="utf-8")
    assert load(read_run(tmp_path / name)) is not None  # annotations are not made again
    path.write_text(json.dumps({**config, "method": {**config["method"], **base}}), encoding="utf-8")
    with pytest.raises(UsageError, match="is built with an earlier run, 'base', which is not found beside it"):
        load(read_run(tmp_path / name))


def test_a_run_is_loaded_with_the_earlier_runs_that_it_is_built_with(tmp_path):
    spec = next(spec for spec in planned("uncurated", DIVIDED) if "_input_" in json.dumps(spec.config["method"]))
    for each in (*in_order(spec), spec):
        outcome = Execution(each.with_protocols([]), Store(tmp_path), Runtime()).perform()
        assert outcome.ending is Ending.DONE, outcome.reason
    run = read_run(tmp_path / "pretraining" / spec.id)
    kept = load(run).base_matcher.state_dict()
    base = load_file(tmp_path / "pretraining" / spec.inputs["base"].id / "backbone.safetensors")
    for key, value in base.items():
        (copy,) = (kept[name] for name in kept if name.endswith(f"backbone.{key}"))
        assert torch.equal(copy, value)


def in_order(spec):
    """The earlier runs of a run, each after those that it uses itself."""
    found = {}
    for earlier in spec.inputs.values():
        found |= {each.id: each for each in (*in_order(earlier), earlier)}
    return list(found.values())


def test_moco_has_no_map(tmp_path):
    run = read_run(tmp_path / "pretraining" / train(tmp_path, MOCO))
    assert not run.has_map and run.kind != "" and run.name == "MoCo"
