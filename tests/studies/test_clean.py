"""The command that removes stale runs: what it shows, when it asks, and what stays."""

import io

import pytest
from stored_runs import configuration, names, planned, write, write_whole

from studies.clean import main
from studies.suite.execution.store import Store

OLD, OLDER = "ffffffffffffff01", "ffffffffffffff02"


class Terminal(io.StringIO):
    """What a user types."""

    def isatty(self):
        return True


@pytest.fixture
def store(tmp_path):
    """A finished run, a failed one, and two of older code, one of them with an evaluation."""
    first, second = planned()
    store = write_whole(tmp_path / "runs", first)
    write_whole(tmp_path / "runs", first, run=OLD)
    write(store.pretraining, OLDER, configuration(second), fail="ValueError: no")
    write(store.pretraining, second.id, configuration(second), fail="ValueError: no")
    return store


@pytest.fixture
def clean(store, tmp_path, monkeypatch, capsys):
    """A function that runs the command: exit code, output, error output."""

    def run(*words, typed=None):
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n") if typed is None else Terminal(typed))
        code = main([*words, "--store", str(store.root), "--out", str(tmp_path / "reports")])
        return code, *capsys.readouterr()

    return run


def stale():
    return {f"pretraining/{OLD}", f"pretraining/{OLDER}", f"evaluations/0000{OLD[4:]}"}


def test_nothing_is_removed_without_a_yes(clean, store):
    before = names(store.root)
    code, out, err = clean()
    assert code == 1 and err == "nothing was removed: this is no terminal to ask on; give --yes\n"
    for typed in ("\n", "n\n", "yess\n", ""):
        code, out, err = clean(typed=typed)
        assert code == 1 and "nothing was removed" in err and "remove 2 pretrainings, 1 evaluation, " in out
    assert names(store.root) == before


@pytest.mark.parametrize("words", [["yes"], ["--yes"]])
def test_a_yes_removes_what_was_shown_and_nothing_else(clean, store, words):
    before = names(store.root)
    code, out, err = clean(*words)
    assert code == 0 and names(store.root) == before - stale()
    shown = out[out.index("would be removed:") : out.index("removed: 2")]
    assert f"{store.root}/pretraining/{OLD} (done): 1 pretraining, 1 evaluation, " in shown
    assert f"{store.root}/pretraining/{OLDER} (failed): 1 pretraining, " in shown
    for spec in planned():
        assert spec.id not in out
    assert "removed: 2 pretrainings, 1 evaluation, " in out
    code, out, err = clean(*words)
    assert code == 0 and "nothing is stale" in out and names(store.root) == before - stale()


def test_a_yes_on_the_terminal_removes_them(clean, store):
    code, out, _ = clean(typed="y\n")
    assert code == 0 and "[y/N]" in out and not stale() & names(store.root)


def test_what_a_process_takes_while_the_user_thinks_stays(clean, store, monkeypatch):
    import studies.clean

    new = "ffffffffffffff03"
    with store.evaluations.claim(new):

        def confirm(question):
            (protocol,) = planned()[0].evaluations.values()
            store.evaluations.begin(new, configuration(planned()[0], protocol, OLD))  # an evaluation of the old run
            return True

        monkeypatch.setattr(studies.clean, "confirmed", confirm)
        code, out, _ = clean(typed="")
    assert code == 0 and "1 stay: another process has begun or changed them meanwhile" in out
    kept = {f"pretraining/{OLD}", f"evaluations/{new}"}
    assert names(store.root) & (stale() | kept) == kept


def test_what_runs_is_named_and_stays(clean, store):
    with store.pretraining.claim(OLDER):
        code, out, _ = clean("yes")
    assert code == 0 and f"  pretraining {OLDER}: a process executes it" in out
    assert "note: runs are being executed" in out
    assert names(store.root) & stale() == {f"pretraining/{OLDER}"}


def test_evaluations_alone_are_shown_with_their_pretraining(clean, store):
    clean("yes")
    (spec, _) = planned()
    (protocol,) = spec.evaluations.values()
    write(store.evaluations, OLD, configuration(spec, protocol))
    code, out, _ = clean("yes")
    assert code == 0 and f"of {store.root}/pretraining/{spec.id}, which stays: 1 evaluation, " in out
    assert store.pretraining.status(spec.id) == "done" and f"evaluations/{OLD}" not in names(store.root)


def test_pages_of_older_code_are_named(clean, tmp_path):
    (tmp_path / "reports" / "records").mkdir(parents=True)
    (tmp_path / "reports" / "records" / "mine.csv").write_text(f"arm,run\nmoco,{OLD}\n")
    assert "pages whose records name some of them, and keep their numbers: mine\n" in clean()[1]


def test_what_an_interrupted_removal_left_goes(clean, store):
    clean("yes")
    left = store.root / "pretraining" / ".removing" / f"{OLD}-1"
    left.mkdir(parents=True)
    assert clean()[0] == 0 and not left.parent.exists()


def test_errors_are_one_line_each(tmp_path, capsys):
    assert main(["--store", str(tmp_path / "none")]) == 2
    assert (
        capsys.readouterr().err
        == f"error: there is no store '{tmp_path / 'none'}'; give --store=FOLDER, or run a study\n"
    )
    assert main(["--store", str(tmp_path)]) == 2
    assert "is not a store" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit) as ended:
        main(["no"])
    assert ended.value.code == 2
    Store(tmp_path / "runs")
    assert main(["--store", str(tmp_path / "runs")]) == 0
    assert "nothing is stale" in capsys.readouterr().out
