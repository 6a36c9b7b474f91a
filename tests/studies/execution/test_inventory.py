"""What lies in a store, what of it is stale, and what may be removed."""

import signal
from collections import Counter

import pytest
from stored_runs import TWO_STAGES, configuration, git, holding, names, planned, write, write_whole

from scd.errors import UsageError
from studies.suite.execution.history import History
from studies.suite.execution.inventory import KINDS, REMOVING, Inventory, open_store, remove_runs, size_of, sweep
from studies.suite.execution.store import Status, Store
from studies.suite.planning.staleness import Standing

OLD, OLDER = "ffffffffffffff01", "ffffffffffffff02"


@pytest.fixture
def history(tmp_path):
    with History(tmp_path) as found:
        yield found


def standing(inventory):
    return {run.id: run.standing for run in inventory.runs.values()}


def removable(inventory):
    return [run.id for run in inventory.removable]


def shown(inventory):
    return {run.id: run.status for run in inventory.removable}


@pytest.fixture
def first_stage():
    """A run with two stages, and its first stage."""
    spec = next(spec for spec in planned("related", TWO_STAGES) if spec.inputs)
    ((name, earlier),) = spec.inputs.items()
    return spec, name, earlier


def test_a_folder_without_runs_is_no_store(tmp_path):
    with pytest.raises(UsageError, match="there is no store .*none'; give --store=FOLDER"):
        open_store(tmp_path / "none")
    with pytest.raises(UsageError, match="is not a store: it has no folder pretraining, evaluations"):
        open_store(tmp_path)
    assert list(tmp_path.iterdir()) == []
    Store(tmp_path / "runs")
    assert open_store(tmp_path / "runs").root == tmp_path / "runs"


def test_states_standings_and_sizes(tmp_path, history):
    first, second = planned()
    store = write_whole(tmp_path, first)
    write_whole(tmp_path, first, run=OLD)
    write(store.pretraining, second.id, configuration(second), fail="ValueError: no")
    (tmp_path / "pretraining" / OLDER).mkdir()
    (tmp_path / "pretraining" / ".foreign" / "x-1").mkdir(parents=True)
    inventory = Inventory(store, history)
    evaluation, old_evaluation = next(iter(first.evaluations)), f"0000{OLD[4:]}"
    assert standing(inventory) == {
        first.id: "current", OLD: "stale", second.id: "current", OLDER: "unknown",
        evaluation: "current", old_evaluation: "stale",
    }  # fmt: skip
    found = Counter(run.status for run in inventory.runs.values())
    assert found == {Status.DONE: 4, Status.FAILED: 1, Status.INTERRUPTED: 1}
    files = [path for path in (tmp_path / "pretraining" / first.id).rglob("*") if path.is_file()]
    assert inventory.runs[first.id].size == sum(path.stat().st_size for path in files) > 500
    assert set(removable(inventory)) == {OLD, old_evaluation}
    assert removable(inventory).index(old_evaluation) < removable(inventory).index(OLD)
    assert inventory.runs[old_evaluation].uses == (OLD,)


def test_only_what_was_shown_is_removed_and_nothing_else_changes(tmp_path, history):
    first, second = planned()
    store = write_whole(tmp_path, first)
    write_whole(tmp_path, first, run=OLD)
    write(store.pretraining, second.id, configuration(second), fail="ValueError: no")
    before, kept = names(tmp_path), (tmp_path / "pretraining" / first.id / "done").stat().st_mtime_ns
    inventory = Inventory(store, history)
    agreed = shown(inventory)
    write_whole(tmp_path, second, run=OLDER)  # made after the question: nobody has agreed to it
    removed = remove_runs(Inventory(store, history), agreed)
    assert {run.id for run in removed} == set(agreed) == {OLD, f"0000{OLD[4:]}"}
    gone = {f"{run.kind}/{run.id}" for run in removed}
    assert names(tmp_path) == (before - gone) | {f"pretraining/{OLDER}", f"evaluations/0000{OLDER[4:]}"}
    assert (tmp_path / "pretraining" / first.id / "done").stat().st_mtime_ns == kept
    sweep(store)
    assert not any((tmp_path / kind / REMOVING).exists() for kind in KINDS)


def test_a_run_that_changed_since_it_was_shown_stays_with_what_it_uses(tmp_path, history):
    (spec, _) = planned()
    store = write_whole(tmp_path, spec, run=OLD)
    evaluation = f"0000{OLD[4:]}"
    agreed = shown(Inventory(store, history))
    (tmp_path / "evaluations" / evaluation / "done").unlink()
    assert remove_runs(Inventory(store, history), agreed) == []
    assert names(tmp_path) == {f"pretraining/{OLD}", f"evaluations/{evaluation}"}


def test_a_running_run_stays_until_its_process_ends(tmp_path, history):
    (spec, _) = planned()
    store = Store(tmp_path)
    process = holding(tmp_path, "pretraining", OLD, configuration(spec))
    try:
        inventory = Inventory(store, history)
        assert inventory.runs[OLD].status is Status.RUNNING and inventory.runs[OLD].standing is Standing.STALE
        assert removable(inventory) == [] and inventory.kept == {OLD: "a process executes it"}
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
    inventory = Inventory(store, history)
    assert inventory.runs[OLD].status is Status.INTERRUPTED and removable(inventory) == [OLD]
    with store.pretraining.claim(OLD):  # begun again after the store was read
        assert remove_runs(inventory, {OLD: Status.INTERRUPTED}) == []
    assert [run.id for run in remove_runs(inventory, {OLD: Status.INTERRUPTED})] == [OLD]
    assert store.pretraining.status(OLD) is Status.MISSING


def test_a_pretraining_stays_while_one_of_its_evaluations_runs(tmp_path, history):
    (spec, _) = planned()
    store = write_whole(tmp_path, spec, run=OLD)
    (protocol,) = spec.evaluations.values()
    write(store.evaluations, OLDER, configuration(spec, protocol, OLD))
    (tmp_path / "evaluations" / OLDER / "done").unlink()
    with store.evaluations.claim(OLDER):
        inventory = Inventory(store, history)
        assert inventory.kept == {OLDER: "a process executes it", OLD: f"run {OLDER}, which stays, uses it"}
        assert removable(inventory) == [f"0000{OLD[4:]}"]
    assert set(removable(Inventory(store, history))) == {OLD, OLDER, f"0000{OLD[4:]}"}


def test_an_evaluation_of_older_code_goes_and_its_pretraining_stays(tmp_path, history):
    (spec, _) = planned()
    store = write_whole(tmp_path, spec)
    (protocol,) = spec.evaluations.values()
    write(store.evaluations, OLDER, configuration(spec, protocol))
    inventory = Inventory(store, history)
    assert removable(inventory) == [OLDER] and inventory.kept == {}


def test_a_first_stage_stays_with_its_user_and_both_go_where_the_first_is_stale(tmp_path, history, first_stage):
    spec, name, earlier = first_stage
    store = write_whole(tmp_path, earlier)
    write_whole(tmp_path, spec)
    inventory = Inventory(store, history)
    assert set(standing(inventory).values()) == {"current"} and inventory.runs[spec.id].uses == (earlier.id,)

    from studies.suite.planning.identity import pretraining_id

    later = pretraining_id(configuration(spec), {name: OLD})  # a second stage on a first one of older code
    write_whole(tmp_path, earlier, run=OLD)
    write(store.pretraining, later, configuration(spec))
    inventory = Inventory(store, history)
    assert inventory.runs[later].standing is Standing.STALE and inventory.runs[later].judgement.by == OLD
    order = removable(inventory)
    assert set(order) == {later, OLD, *(run.id for run in inventory.stale)} and order.index(later) < order.index(OLD)
    assert earlier.id not in order and spec.id not in order
    assert inventory.cause(inventory.runs[later]) == inventory.cause(inventory.runs[OLD])
    (protocol, *_) = spec.evaluations.values()
    with store.evaluations.claim(OLDER):  # an evaluation of the second stage runs: it needs both of its stages
        store.evaluations.begin(OLDER, configuration(spec, protocol, later))
        inventory = Inventory(store, history)
        assert set(inventory.kept) == {OLDER, later, OLD}
        assert inventory.kept[OLD] == f"run {later}, which stays, uses it"
    with store.pretraining.claim(f"{'0' * 15}1"):
        store.pretraining.begin(f"{'0' * 15}1", configuration(spec))  # running, on a first stage that is not known
        inventory = Inventory(store, history)
        assert "may use it" in inventory.kept[OLD] and OLD not in removable(inventory)


def test_a_second_stage_whose_first_is_gone_is_unknown_and_stays(tmp_path, history, first_stage):
    spec, _, _ = first_stage
    store = write_whole(tmp_path, spec)
    inventory = Inventory(store, history)
    assert set(standing(inventory).values()) == {"unknown"} and removable(inventory) == []


def test_a_second_stage_is_stale_where_its_commit_gives_its_id(tmp_path, first_stage):
    """Its first stage is not found by today's code alone; the code of its commit finds it."""
    spec, name, earlier = first_stage
    base = tmp_path / "code"
    base.mkdir()
    git(base, "init", "-q")
    git(base, "commit", "-q", "--allow-empty", "-m", "first")
    (base / "empty.py").write_text("")
    git(base, "add", ".")
    git(base, "commit", "-q", "-m", "second")
    commit = git(base, "rev-parse", "HEAD")
    store = write_whole(tmp_path / "runs", earlier)
    state = {"commit": commit, "dirty": True}
    write(store.pretraining, OLD, configuration(spec), state)
    with History(base) as history:
        assert Inventory(store, history).runs[OLD].standing is Standing.UNKNOWN
        history.gives = lambda run, contents, roots, at: (run, contents[1], at) == (OLD, {name: earlier.id}, commit)
        inventory = Inventory(store, history)
        assert inventory.runs[OLD].standing is Standing.STALE and inventory.runs[OLD].uses == (earlier.id,)
        assert removable(inventory) == [OLD]


def test_links_are_removed_and_not_followed(tmp_path, history):
    (spec, _) = planned()
    store = write_whole(tmp_path / "runs", spec, run=OLD)
    folder, elsewhere = tmp_path / "runs" / "pretraining" / OLD, tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    assert size_of(tmp_path / "runs" / "pretraining") < size_of(elsewhere)
    inventory = Inventory(store, history)
    assert len(remove_runs(inventory, shown(inventory))) == 2
    assert not folder.exists() and not folder.is_symlink() and (elsewhere / "record.json").is_file()
