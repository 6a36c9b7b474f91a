"""The command that says what is in the store, on a real run and on records of the store's own writer."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from stored_runs import SMALL, configuration, git, holding, names, planned, write, write_whole

from studies.status import main, state_of
from studies.suite.execution.history import History
from studies.suite.execution.inventory import Inventory
from studies.suite.execution.store import Status, Store
from studies.suite.planning.identity import PRETRAINING, ROOT, pretraining_part, target_modules

OLD = "ffffffffffffff01"
WORDS = ["multicrop", *SMALL]
RUN = """
import json, sys
from studies.suite.execution.local import in_process
from studies.suite.execution.progress import Bar
from studies.suite.execution.store import Store
from studies.suite.planning.command_line import load_study, resolve_settings
from studies.suite.planning.resolve import resolve
settings = resolve_settings("multicrop", sys.argv[2:])
(spec, _) = [item.spec for item in resolve(load_study("multicrop").plan(settings), check=False)]
with Bar({"run": 1.0}, [], 1) as bar:
    done = in_process({"run": spec}, Store(sys.argv[1]), settings.launcher, bar, lambda: None)
print(json.dumps([spec.id, done.done]))
"""

BOTH = """
import sys
from studies import clean, status
code = status.main([*sys.argv[2:], "--store", sys.argv[1]])
print("---", flush=True)
sys.exit(code or clean.main(["yes", "--store", sys.argv[1]]))
"""


def python(tree, *words):
    """The output of Python with the code of a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=tree, env=environment)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A repository with a copy of the code, and a store with a real run of it."""
    folder = tmp_path_factory.mktemp("real")
    for package in ("scd", "baselines", "studies"):
        # What is compiled already stays so; *.pyc.* are files that another process is writing.
        shutil.copytree(ROOT / package, folder / "tree" / package, ignore=shutil.ignore_patterns("*.pyc.*"))
    git(folder / "tree", "init", "-q")
    (folder / "tree" / ".git" / "info" / "exclude").write_text("__pycache__\n")
    git(folder / "tree", "add", ".")
    git(folder / "tree", "commit", "-q", "-m", "first")
    result = python(folder / "tree", "-c", RUN, str(folder / "runs"), *SMALL)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [planned()[0].id, 1]
    return folder


@pytest.fixture
def store(real, tmp_path):
    """A copy of the real run's store."""
    shutil.copytree(real / "runs", tmp_path / "runs")
    return Store(tmp_path / "runs")


@pytest.fixture
def said(store, tmp_path, capsys):
    """A function that gives the lines of the report."""

    def run(*words):
        assert main([*(words or WORDS), "--store", str(store.root), "--out", str(tmp_path / "reports")]) == 0
        return capsys.readouterr().out.splitlines()

    return run


def row(lines):
    """Column -> number, of the row of the study."""
    (head,) = (number for number, line in enumerate(lines) if line.startswith("study "))
    columns = lines[head].replace("not evaluated", "unevaluated").replace("not begun", "missing").split()
    values = [0 if text == "-" else text for text in lines[head + 1].split()]
    return {column: int(value) for column, value in list(zip(columns, values, strict=True))[1:] if int(value)}


def block(lines, title):
    """The lines under a title."""
    if title not in lines:
        return []
    rest = lines[lines.index(title) + 1 :]
    return rest[: rest.index("")] if "" in rest else rest


def test_a_finished_run_and_one_that_was_not_begun(said, store):
    before = names(store.root)
    lines = said()
    assert lines[0].startswith(f"store {store.root}: 1 pretraining, 1 evaluation, ")
    assert row(lines) == {"planned": 2, "finished": 1, "missing": 1}
    assert not block(lines, "stale:") and not block(lines, "failed:")
    assert names(store.root) == before


def test_failed_and_interrupted_runs_and_those_without_an_evaluation(said, store):
    first, second = planned()
    write(store.pretraining, second.id, configuration(second), fail="ValueError: the loss is nan\nmore")
    lines = said()
    assert row(lines) == {"planned": 2, "finished": 1, "failed": 1}
    (line,) = block(lines, "failed:")
    assert line.startswith(f"  multicrop {second.id} (arm=moco budget=epochs seed=1 data=shapes")
    assert line.endswith("): ValueError: the loss is nan")

    (evaluation,) = first.evaluations
    shutil.rmtree(store.evaluations.folder(evaluation))
    (store.pretraining.folder(second.id) / "failure.json").unlink()
    assert row(said()) == {"planned": 2, "unevaluated": 1, "interrupted": 1}


def test_a_failed_evaluation_is_a_failed_run_and_a_damaged_record_is_damaged(said, store):
    (spec, _) = planned()
    ((evaluation, protocol),) = spec.evaluations.items()
    shutil.rmtree(store.evaluations.folder(evaluation))
    write(store.evaluations, evaluation, configuration(spec, protocol), fail="ValueError: no labels")
    lines = said()
    assert row(lines) == {"planned": 2, "failed": 1, "missing": 1}
    assert block(lines, "failed:")[0].endswith("linear: ValueError: no labels")
    (store.pretraining.folder(spec.id) / "record.json").write_text("{}")
    assert row(said()) == {"planned": 2, "damaged": 1, "missing": 1}


def test_a_run_is_running_while_a_process_holds_it_and_interrupted_after_its_kill(said, store):
    _, second = planned()
    process = holding(store.root, "pretraining", second.id, configuration(second))
    try:
        lines = said()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
    assert row(lines) == {"planned": 2, "finished": 1, "running": 1}
    assert second.id in block(lines, "running:")[0]
    assert row(said()) == {"planned": 2, "finished": 1, "interrupted": 1}


def test_the_states_are_those_of_the_store(store, tmp_path):
    _, second = planned()
    write(store.pretraining, second.id, configuration(second))
    with History(tmp_path) as history:
        inventory = Inventory(store, history)
        assert [state_of(spec, inventory) for spec in planned()] == ["done", "unevaluated"]
    assert [store.status(spec) for spec in planned()] == [Status.DONE, Status.INTERRUPTED]


def test_a_stale_run_is_not_a_run_in_no_plan(said, store, tmp_path):
    (spec, _) = planned()
    write_whole(store.root, spec, run=OLD, git={"commit": "f" * 40, "dirty": False})
    lines = said()
    assert row(lines) == {"planned": 2, "finished": 1, "missing": 1, "stale": 1}
    stale = block(lines, "stale:")
    assert "commit ffffffffffff is not in this repository: 1 pretraining, 1 evaluation, " in stale[0]
    assert stale[-1] == "  python -m studies.clean shows and removes them"
    assert not block(lines, "in none of these plans, and current:")

    (tmp_path / "reports" / "records").mkdir(parents=True)
    (tmp_path / "reports" / "records" / "mine.csv").write_text(f"arm,run\nmoco,{spec.id}\nmoco,{spec.id}\n")
    lines = said("multicrop", *SMALL[:-1], "sizes.generated_test=30")  # the test images are no part of the training
    assert row(lines) == {"planned": 2, "unevaluated": 1, "missing": 1, "stale": 1}
    (line,) = block(lines, "in none of these plans, and current:")
    assert line.startswith("  on page mine: 1 evaluation, ")
    lines = said("multicrop", *SMALL, "training.batch_size=8")
    assert row(lines) == {"planned": 2, "missing": 2}
    (line,) = block(lines, "in none of these plans, and current:")
    assert line.startswith("  on page mine: 1 pretraining, 1 evaluation, ") and len(block(lines, "stale:")) == 2


def test_a_stale_evaluation_makes_its_run_stale(said, store):
    (spec, _) = planned()
    (protocol,) = spec.evaluations.values()
    write(store.evaluations, OLD, configuration(spec, protocol))
    lines = said()
    assert row(lines) == {"planned": 2, "finished": 1, "missing": 1, "stale": 1}
    assert "because its record has no commit: 1 evaluation, " in block(lines, "stale:")[0]


def test_the_code_of_the_commit_gives_the_id_of_a_real_run(real, store):
    (spec, _) = planned()
    state = store.pretraining.environment(spec.id)["git"]
    assert state == {"commit": git(real / "tree", "rev-parse", "HEAD"), "dirty": False}
    part = pretraining_part(configuration(spec))
    with History(real / "tree") as history:
        roots = (*PRETRAINING, *sorted(set(target_modules(part))))
        assert history.gives(spec.id, [part, {}], roots, state["commit"])
        assert history.changed(roots, state["commit"]) == ()


def test_the_file_that_made_a_real_run_stale_is_named_and_the_run_is_removed(real, store):
    tree = real / "tree"
    path = tree / "scd" / "training" / "loop.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\n\nCHANGED = True\n", encoding="utf-8")
    commit = git(tree, "rev-parse", "HEAD")
    try:
        words = [str(store.root), *WORDS]
        result = python(tree, "-c", BOTH, *words)
        lines, removal = (part.splitlines() for part in result.stdout.split("---\n"))
        assert row(lines) == {"planned": 2, "missing": 2, "stale": 1}
        stale = block(lines, "stale:")
        assert stale[0].startswith(f"  scd/training/loop.py changed since {commit[:12]}: 1 pretraining, 1 evaluation, ")
        assert stale[1].startswith("  uncommitted changes in scd/training/loop.py: without them, runs may be current")
    finally:
        path.write_text(text, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    assert removal[-1].startswith("removed: 1 pretraining, 1 evaluation, ") and names(store.root) == set()


def test_errors_are_one_line_each(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def error(*words):
        assert main(list(words)) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("\n") == 1
        return text

    assert "there is no store 'runs'; give --store=FOLDER, or run a study" in error()
    assert "did you mean 'multicrop'" in error("multicorp")
    assert list(tmp_path.iterdir()) == []
    Store(tmp_path / "runs")
    assert "unknown tier 'huge'" in error("multicrop", "tier=huge")
    assert "unknown arm 'nothing'" in error("multicrop", "tier=smoke", "arms=nothing")


def test_a_study_that_cannot_be_planned_says_why_and_the_others_are_shown(said):
    lines = said("multicrop", "moco-curve", "tier=smoke", "seeds=2", "arms=moco")
    (line,) = (line for line in lines if "cannot be planned here" in line)
    assert line.startswith("moco_curve  cannot be planned here: ")
    assert row(lines)["planned"] >= 2
