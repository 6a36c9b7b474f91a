"""``--recompute-foreign`` from end to end: runs of another machine, by their records, are computed again here."""

import json

import pandas
import pytest

from studies.__main__ import main
from studies.program import EXIT_USAGE

OTHER = "0ther000"
SMALL = [
    "multicrop", "tier=smoke", "arms=moco,local_crops", "seeds=2", "axes.budgets=[epochs]", "axes.rho=[0.8]",
    "evaluation.protocols=[linear]", "sizes.generated_train=80", "sizes.generated_test=40", "launcher.workers=0",
]  # fmt: skip


@pytest.fixture
def study(tmp_path, no_figures):
    """A function that runs the small study, and gives its page and its records."""

    def run(*options):
        assert main([*SMALL, *options, "--store", str(tmp_path / "runs"), "--out", str(tmp_path / "reports")]) == 0
        (csv,) = (tmp_path / "reports" / "records").glob("*.csv")
        return (tmp_path / "reports" / f"{csv.stem}.md").read_text(encoding="utf-8"), pandas.read_csv(csv)

    return run


def rename_class(folder):
    """The class of a record becomes that of another machine; returns the class it had."""
    path = folder / "environment.json"
    environment = json.loads(path.read_text(encoding="utf-8"))
    before, environment["numerics"]["class"] = environment["numerics"]["class"], OTHER
    path.write_text(json.dumps(environment), encoding="utf-8")
    return before


def evaluations_of(runs, run):
    configs = (runs / "evaluations").glob("*/config.json")
    return [path.parent for path in configs if json.loads(path.read_text())["pretraining"] == run]


def test_foreign_runs_are_named_on_the_page_and_computed_again(study, tmp_path, capsys):
    runs, (page, before) = tmp_path / "runs", study()
    assert "numerics classes:" not in page
    moco, crops = (before[(before.arm == arm) & (before.seed == 1)]["run"].item() for arm in ("moco", "local_crops"))
    here = rename_class(runs / "pretraining" / moco)
    for run in (moco, crops):  # of the second run only the evaluation came from there
        (evaluation,) = evaluations_of(runs, run)
        assert rename_class(evaluation) == here
    kept = (runs / "pretraining" / crops / "done").stat().st_mtime_ns

    page, found = study()
    assert f"2 of `{here}`, 1 of `{OTHER}`, 1 of `{'+'.join(sorted((here, OTHER)))}`" in page
    assert "MoCo + local crops vs. MoCo (equal epochs, ρ = 0.8) without 1 seed (1)" in page
    assert "launcher.workers=0" in page and "--recompute-foreign` computes runs of other classes again" in page
    capsys.readouterr()

    page, found = study("--recompute-foreign")
    assert f"other numerics classes than {here}, which are computed again: 2\n" in capsys.readouterr().err
    assert "numerics classes:" not in page and set(found["numerics"]) == {here}
    numbers = ["arm", "seed", "run", "linear_top1", "loss_last"]
    pandas.testing.assert_frame_equal(found[numbers], before[numbers], check_exact=True)
    assert [path.name for path in (runs / "pretraining" / ".foreign").iterdir()] == [f"{moco}-1"]
    assert len(list((runs / "evaluations" / ".foreign").iterdir())) == 2
    assert (runs / "pretraining" / crops / "done").stat().st_mtime_ns == kept

    study("--recompute-foreign")
    assert "which are computed again: 0\n" in capsys.readouterr().err


def test_slurm_is_refused_in_one_line(tmp_path, capsys):
    words = ["launcher=slurm", "--recompute-foreign", "--store", str(tmp_path / "runs"), "--out", str(tmp_path)]
    assert main([*SMALL[:-1], *words]) == EXIT_USAGE
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the numerics class of this machine says nothing")
