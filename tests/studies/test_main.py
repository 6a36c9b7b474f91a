"""The command line from end to end: what stands in the way of a page is one line, and a page prints the command."""

import errno

import pytest

from studies import __main__ as command_line
from studies.__main__ import command_of, main, parse
from studies.program import EXIT_INTERRUPTED, EXIT_USAGE
from studies.suite.pages.out_folder import unwritable

SMALL = ["multicrop", "tier=smoke", "arms=random", "seeds=1", "axes.budgets=[epochs]", "axes.rho=[0.0]"]
ONE_PROTOCOL = ["evaluation.protocols=[knn]", "launcher.workers=0"]


def test_a_folder_of_pages_that_cannot_be_made_is_refused_before_any_run(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out, store = tmp_path / "file" / "reports", tmp_path / "runs"
    assert main([*SMALL, "--out", str(out), "--store", str(store)]) == EXIT_USAGE
    assert capsys.readouterr().err == (
        f"error: pages cannot be written to '{out}': Not a directory; finished runs are kept; choose --out=FOLDER\n"
    )
    assert not list(store.glob("pretraining/[!.]*"))


def test_a_page_that_cannot_be_written_is_one_line_and_keeps_the_runs(tmp_path, capsys):
    out, store = tmp_path / "reports", tmp_path / "runs"
    out.mkdir()
    (out / "figures").write_text("in the place of the folder")
    assert main([*SMALL, *ONE_PROTOCOL, "--out", str(out), "--store", str(store)]) == EXIT_USAGE
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: pages cannot be written to '{out}': ") and "finished runs are kept" in error
    assert len(list(store.glob("evaluations/*/*.json"))) >= 1


def test_a_full_disk_is_named(tmp_path):
    text = str(unwritable(tmp_path, OSError(errno.ENOSPC, "No space left on device")))
    assert text.startswith(f"no space is left in '{tmp_path}'")


def test_the_command_on_a_page_names_no_folder_of_the_machine():
    words = ["--store=/mine/runs", "multicrop", "seeds=5", "--out", "/mine/pages", "data.options.name=two words"]
    assert command_of(parse(words)) == "python -m studies multicrop seeds=5 'data.options.name=two words'"


def test_a_dry_run_of_the_embedded_images_says_nothing_of_them(tmp_path, capsys):
    assert main([*SMALL, "--store", str(tmp_path), "--dry-run"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dry-run"], "stopped"),
        ([], "stopped; finished runs are kept, and the same command continues from here"),
    ],
    ids=["dry run", "run"],
)
def test_ctrl_c_says_what_is_kept_where_something_was_run(words, said, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "run", interrupted)
    assert main([*SMALL, *words, "--store", str(tmp_path)]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == f"\n{said}\n"
