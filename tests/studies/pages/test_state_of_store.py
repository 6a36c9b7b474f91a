"""Lines about a store: sizes, counts, tables, lists that are cut."""

import pytest

from studies.suite.execution.inventory import Stored
from studies.suite.execution.store import Status
from studies.suite.pages.state_of_store import (
    LONGEST,
    SHOWN,
    counted,
    in_bytes,
    limited,
    page_lines,
    pages_of_runs,
    shortened,
    table,
    unplanned_lines,
)
from studies.suite.planning.staleness import Judgement, Standing


def stored(kind, run, size, config=None):
    return Stored(kind, run, Status.DONE, size, config or {}, Judgement(Standing.CURRENT))


RUNS = [
    stored("pretraining", "a", 2**20),
    stored("evaluations", "b", 1, {"pretraining": "a"}),
    stored("evaluations", "c", 1, {"pretraining": "z"}),
]


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 * 2**20, "3.0 MiB"), (2**31, "2.0 GiB")],
)
def test_sizes(size, words):
    assert in_bytes(size) == words


def test_counts_name_the_kinds_that_there_are():
    assert counted(RUNS) == "1 pretraining, 2 evaluations, 1.0 MiB"
    assert counted([stored("measurements", "m", 5)]) == "1 measurement, 5 bytes"
    assert counted([]) == "nothing"


def test_a_table_is_aligned_and_zeros_are_dashes():
    rows = [{"study": "a", "done": 12, "failed": 0}, {"study": "longer", "done": 3, "failed": 1}]
    assert table(rows) == ["study   done  failed", "a         12       -", "longer     3       1"]
    assert table([]) == []


def test_lists_and_reasons_are_cut_and_say_so():
    lines = [str(number) for number in range(SHOWN + 3)]
    assert limited(lines) == [*lines[:SHOWN], "  and 3 more"] and limited(lines[:SHOWN]) == lines[:SHOWN]
    assert shortened("\nfirst\nsecond") == "first"
    assert shortened("x" * LONGEST) == "x" * LONGEST
    assert shortened("x" * (LONGEST + 1)) == "x" * (LONGEST - 1) + "…"


def test_runs_are_found_on_the_pages_by_their_pretraining(tmp_path):
    (tmp_path / "records").mkdir()
    for name in ("one", "two"):
        (tmp_path / "records" / f"{name}.csv").write_text("arm,run,status\nmoco,a,done\nscd,a,done\n")
    (tmp_path / "records" / "without.csv").write_text("page,equal\nx,1\n")
    assert {run: names for run, names in pages_of_runs(tmp_path).items() if run} == {"a": ["one", "two"]}
    assert unplanned_lines(RUNS, tmp_path) == [
        "  on page one, two: 1 pretraining, 1 evaluation, 1.0 MiB",
        f"  on no page in {tmp_path}: 1 evaluation, 1 bytes",
    ]
    assert page_lines(RUNS, tmp_path)[0].endswith(": one, two") and page_lines(RUNS[2:], tmp_path) == []
