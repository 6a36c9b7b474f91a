"""A time budget by the command line. The clock of these tests counts a minute for each finished run."""

import re
from dataclasses import replace
from functools import partial

import pandas
import pytest

from scd.errors import UsageError
from studies import __main__ as command_line
from studies import multicrop
from studies.__main__ import main
from studies.program import EXIT_INTERRUPTED, EXIT_USAGE
from studies.suite.execution.clock import Clock
from studies.suite.execution.rounds import Rounds
from studies.suite.execution.store import Store
from studies.suite.planning.command_line import load_study, resolve_settings
from studies.suite.planning.study import Claim, Contrast

SMALL = [
    "multicrop", "tier=smoke", "arms=moco,local_crops", "axes.budgets=[epochs]", "axes.rho=[0.8]",
    "evaluation.protocols=[linear]", "sizes.generated_train=80", "sizes.generated_test=40",
]  # fmt: skip
RUNS = 10  # two arms at the 5 seeds of the only reading


def read_at_5():
    """The study, read once and at fewer seeds than it is."""

    def plain(contrasts):
        return tuple(replace(each, looks=()) for each in contrasts)

    claims = (
        replace(each, contrasts=plain(each.contrasts), controls=plain(each.controls)) for each in multicrop.STUDY.claims
    )
    return replace(multicrop.STUDY, looks=(5,), claims=tuple(claims), control=plain(multicrop.STUDY.control))


def finished(store):
    return len(list((store / "evaluations").glob("*/done")))


@pytest.fixture
def study(tmp_path, monkeypatch, no_figures):
    """A function that runs the small study, and gives its exit code and its page."""
    monkeypatch.setattr(multicrop, "STUDY", read_at_5())

    def run(*words, stop_at=None):
        def now():
            count = finished(tmp_path / "runs")
            if count == stop_at:
                raise KeyboardInterrupt
            return 60.0 * count

        monkeypatch.setattr(command_line, "Clock", partial(Clock, now=now))
        code = main([*SMALL, *words, "--store", str(tmp_path / "runs"), "--out", str(tmp_path / "reports")])
        pages = [path for path in (tmp_path / "reports").glob("*.md") if path.name != "README.md"]
        return code, pages[0].read_text(encoding="utf-8") if pages else ""

    return run


def test_no_run_begins_after_the_end_and_a_second_call_continues(study, tmp_path, capsys):
    code, page = study("minutes=3", "launcher.workers=0")
    done = finished(tmp_path / "runs")
    assert code == 0 and done == 3
    assert "**Time budget 3 min:** the time was over, before the first reading. 3 runs have finished" in page
    assert "(7 not run yet), 1 to 2 seeds in an arm and setting" in page
    said = capsys.readouterr().err
    assert "the first reading, at 5 seeds: 10 runs, about" in said
    assert "time budget 3 min: the time was over, before the first reading" in said
    code, page = study("minutes=100", "launcher.workers=0")
    assert code == 0 and finished(tmp_path / "runs") == RUNS
    assert "**Time budget 100 min:** " in page and "contrast" in page
    assert "10 runs have finished, 5 seeds in an arm and setting." in page and "not run yet" not in page
    capsys.readouterr()
    assert study("minutes=100", "launcher.workers=0")[1].count("10 runs have finished") == 1
    assert "first reading" not in capsys.readouterr().err  # nothing is run again


def test_ctrl_c_keeps_what_is_finished_and_the_page_says_so(study, tmp_path):
    code, page = study("minutes=100", "launcher.workers=0", stop_at=2)
    assert code == EXIT_INTERRUPTED and finished(tmp_path / "runs") == 2
    assert "**Time budget 100 min:** it was stopped from outside. 2 runs have finished (8 not run yet)" in page


def test_a_dry_run_shows_the_first_round(study, tmp_path, capsys):
    assert study("minutes=0.5", "--dry-run", "launcher.workers=1")[0] == 0
    said = capsys.readouterr().out
    assert "time budget: 0.5 min; first round: the first reading, at 5 seeds" in said
    assert "estimated time: " in said and "runs of it do not fit by this estimate" in said
    assert finished(tmp_path / "runs") == 0


def of_three_readings():
    """The study, read at 2, 3 and 4 seeds, with one claim that is decided at once and one that no seed can decide."""
    where = {"rho": multicrop.RHO, "budget": "epochs"}
    texts = "losses are alike within 1000", "extra crops cost more"  # the latter without any spread over seeds
    contrasts = (
        Contrast("local", "local_crops", "moco", "loss_last", 1000.0, texts[0], where),
        Contrast("random", "random_crops", "moco", "total_flops", 1.0, texts[1], where),
    )
    claims = tuple(Claim(text, (each,), controls=()) for text, each in zip(texts, contrasts, strict=True))
    return replace(multicrop.STUDY, looks=(2, 3, 4), claims=claims, control=())


def rounds_in(text):
    """What each round did, and its number of runs."""
    return [(what, int(count)) for what, count in re.findall(r"^(.*): (\d+) runs?, about ", text, re.MULTILINE)]


def test_rounds_after_the_first_reading_add_seeds_of_the_open_contrast_alone(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(multicrop, "STUDY", of_three_readings())
    arms, first = "arms=moco,local_crops,random_crops", ("the first reading, at 2 seeds", 6)
    to_3, to_4 = (f"1 open contrast to the reading at {seeds} seeds" for seeds in (3, 4))

    code, page = study("minutes=6.5", arms, "launcher.workers=0")
    assert code == 0 and rounds_in(capsys.readouterr().err) == [first]
    assert "1 of 2 contrasts are decided, and the next reading of another one does not fit: it needs about" in page

    assert study("minutes=100", arms, "launcher.workers=0", stop_at=7)[0] == EXIT_INTERRUPTED
    assert rounds_in(capsys.readouterr().err) == [(to_3, 2)]

    code, page = study("minutes=100", arms, "launcher.workers=0")
    assert code == 0 and rounds_in(capsys.readouterr().err) == [(to_3, 1), (to_4, 2)]
    assert "1 of 2 contrasts are decided, and the others have had their last reading, at 4 seeds" in page
    assert "10 runs have finished, 2 to 4 seeds in an arm and setting." in page and "not run yet" not in page
    (csv,) = (tmp_path / "reports" / "records").glob("*.csv")
    counts = pandas.read_csv(csv).groupby("arm")["seed"].apply(list).to_dict()
    assert counts == {"moco": [0, 1, 2, 3], "local_crops": [0, 1], "random_crops": [0, 1, 2, 3]}

    assert study("minutes=100", arms, "launcher.workers=0")[0] == 0
    assert rounds_in(capsys.readouterr().err) == [] and finished(tmp_path / "runs") == 10


def test_slurm_is_refused_in_one_line(study, capsys):
    assert study("minutes=1", "launcher=slurm")[0] == EXIT_USAGE
    assert capsys.readouterr().err == (
        "error: minutes= works with launcher=local; Slurm decides when a job begins: give seeds=\n"
    )


def test_a_study_that_compares_nothing_has_no_time_budget(tmp_path):
    settings = resolve_settings("multicrop", ["tier=smoke", "minutes=1"])
    with pytest.raises(UsageError, match="study 'cost_profile' compares nothing that more seeds could decide: give se"):
        Rounds(load_study("cost_profile"), settings, [], Store(tmp_path), Clock(1), 1)
