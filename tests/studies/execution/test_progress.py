"""The progress bar's words."""

from studies.suite.execution.progress import Bar


def test_finished_and_failed_runs_are_counted_apart(capsys):
    with Bar(dict.fromkeys("abc", 1.0), ["a"], 3) as bar:
        assert bar.tqdm.desc == "1 of 3 runs"
        bar.end("b", "its process ended by signal 9 (SIGKILL)")
        assert bar.tqdm.desc == "1 of 3 runs, 1 failed"
        bar.describe("1 running, 2 pending")
        assert bar.tqdm.desc == "1 of 3 runs, 1 failed, 1 running, 2 pending"
        bar.end("c")
        assert bar.tqdm.desc == "2 of 3 runs, 1 failed"
    assert "run b failed: its process ended by signal 9 (SIGKILL)" in capsys.readouterr().err


def test_words_that_stay_are_not_written_again(capsys):
    with Bar({"a": 1.0}, [], 1) as bar:
        bar.describe("1 pending")
        capsys.readouterr()
        bar.describe("1 pending")
        assert capsys.readouterr().err == ""


def test_a_failed_run_is_named_by_its_id(capsys):
    with Bar({"key": 1.0}, [], 1, {"key": "0123456789abcdef"}) as bar:
        bar.end("key", "the loss is not finite")
    assert "run 0123456789abcdef failed: the loss is not finite" in capsys.readouterr().err
