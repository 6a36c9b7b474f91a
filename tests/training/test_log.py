"""The log: windows of scalars, files that a resume cuts back, and the progress callback."""

import json
import logging
import math

import pytest
import torch
from lightning_fabric import Fabric

from scd.training import log
from scd.training.log import Reporter, RunLog, ScalarWindow


def window(values=None):
    return ScalarWindow(Fabric(accelerator="cpu", devices=1), values)


def test_nonfinite_loss_between_looks_is_found_with_its_true_step():
    """Where looking stalls the device, losses are looked at in windows; the text still names the step."""
    scalars = window()
    for step in range(5):
        value = torch.tensor(float("inf") if step >= 3 else 1.0)
        scalars.add(step, 0.1 * step, {"loss": value, "other": torch.tensor(2.0)})
    assert scalars.settle() == (3, pytest.approx(0.3))
    assert scalars.latest == {"loss": math.inf, "other": 2.0}
    assert scalars.settle() is None


def test_a_window_that_continues_has_the_mean_of_one_that_was_never_interrupted():
    losses = [0.1 * step for step in range(7)]

    def settled(scalars, some):
        for step, loss in enumerate(some):
            scalars.add(step, 0.1, {"loss": torch.tensor(loss, dtype=torch.float64)})
        scalars.settle()
        return scalars

    calm = settled(window(), losses)
    cut = settled(window(settled(window(), losses[:3]).values), losses[3:])
    assert cut.means() == calm.means()
    cut.clear()
    assert cut.means() == {}


def test_opening_cuts_later_lines_and_an_unfinished_one(tmp_path):
    path = tmp_path / "progress.jsonl"
    lines = [json.dumps({"step": step}) for step in (4, 8, 12)]
    path.write_text("\n".join(lines) + '\n{"step": 1')
    run = RunLog(tmp_path)
    run.open(8)
    run.write({"step": 9})
    run.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [4, 8, 9]


def test_notes_go_to_the_logger_and_the_file(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "scd.training"):
        RunLog(tmp_path).warn("set aside")
        RunLog(None).note("only logged")
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "set aside"), ("INFO", "only logged"),
    ]  # fmt: skip
    assert (tmp_path / "training.log").read_text().endswith("Z set aside\n")


def test_reports_are_few_and_the_end_is_always_among_them(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(log, "perf_counter", lambda: now[0])
    report = Reporter(lambda *call: calls.append(call))
    for step in range(1, 11):
        now[0] += 0.1
        report(step, 10, 1.0 / step, step == 10)
    assert [step for step, *_ in calls] == [1, 4, 7, 10]
    assert calls[-1] == (10, 10, 0.1)
    report(10, 10, None, True)  # there is no loss yet
    Reporter(None)(1, 10, 1.0, True)
    assert len(calls) == 4
