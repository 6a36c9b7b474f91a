"""A committed page again on the same machine: the positive control is that every number is equal to the bit."""

import json
import re

import pytest

from studies.__main__ import main as study
from studies.replicate import main
from studies.suite.analysis.replication import summary
from studies.suite.pages.replications import read

SMALL = ["multicrop", "tier=smoke", "arms=random,moco", "seeds=1", "axes.budgets=[epochs]", "axes.rho=[0.0]"]
WORDS = ["evaluation.protocols=[knn]", "launcher.workers=0"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of two arms, one of them trained: its folder and its name."""
    folder = tmp_path_factory.mktemp("page")
    assert study([*SMALL, *WORDS, "--store", str(folder / "runs"), "--out", str(folder / "reports")]) == 0
    return folder, next((folder / "reports" / "records").glob("*.csv")).stem


def arguments(page, *words):
    folder, name = page
    return [name, "seeds=1", *words, "--store", str(folder / "again"), "--out", str(folder / "reports")]


def test_a_second_run_on_the_same_machine_gives_equal_records(page, capsys):
    folder, name = page
    about = folder / "reports" / "records" / f"{name}.json"
    for opening in ("python -m studies", "scd-suite study"):  # the second call finds its runs, and replaces the rows
        about.write_text(re.sub("python -m studies|scd-suite study", opening, about.read_text()))
        assert main(arguments(page)) == 0
    rows = read(folder / "reports" / "replications.csv")
    found = summary(rows)
    assert found["runs"] == 2 and found["equal"] == found["numbers"] > 4
    assert {"knn_top1", "loss_last"} <= set(rows["metric"]) and not rows["metric"].str.startswith("seconds").any()
    assert len(list((folder / "again").glob("*/pretraining/*/done"))) == 2
    assert name in (folder / "reports" / "replications.md").read_text()
    assert "replications.md" in (folder / "reports" / "README.md").read_text()


def test_runs_of_changed_code_are_refused_with_the_commit(page, capsys):
    folder, name = page
    csv, about = (folder / "reports" / "records" / f"{name}.{kind}" for kind in ("csv", "json"))
    before, known = csv.read_text(), json.loads(about.read_text())
    known["environments"][0]["git"] = {"commit": "c" * 40, "dirty": False}
    lines = before.splitlines()
    runs = [line.split(",")[lines[0].split(",").index("run")] for line in lines[1:]]
    for run in runs:
        before = before.replace(run, "0" * 16)
    csv.write_text(before)
    about.write_text(json.dumps(known))
    assert main(arguments(page)) == 2
    assert f"(2 of 2 runs have other ids): check out {'c' * 12} and give the command there" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["seeds=9"], ["arms=none"], ["tier=cpu"]])
def test_wrong_words_are_one_line(page, words, capsys):
    folder, name = page
    assert main([name, *words, "--out", str(folder / "reports"), "--store", str(folder / "again")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
