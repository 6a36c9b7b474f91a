"""The index of the reports."""

import json
from dataclasses import replace

from synthetic_results import results

from studies.suite.analysis.results import save
from studies.suite.pages.index import write_index
from studies.suite.planning.identity import fresh_fingerprint
from studies.suite.planning.staleness import is_page_stale


def answered(outcome, answer, **about):
    found = results(**about)
    return replace(found, about={**found.about, "outcome": outcome, "answer": answer})


def test_index_marks_older_code_and_keeps_smoke_pages_apart(tmp_path):
    current = fresh_fingerprint(["scd.seeds"])
    save(answered("supported", "**Supported:** yes.", fingerprint=current), tmp_path)
    save(answered("not resolved", "**Not resolved** whether.", page="old", done=4), tmp_path)
    save(answered("not resolved", "nothing", page="wiring", meaningful=False, tier="smoke"), tmp_path)
    save(results(page="gone", roots=["scd.no_such_module"]), tmp_path)
    (tmp_path / "records" / "broken.json").write_text("{", encoding="utf-8")
    text = write_index(tmp_path).read_text(encoding="utf-8")
    lines = {line.split("]")[0].lstrip("| ["): line for line in text.splitlines() if line.startswith("| [")}
    assert "| supported " in lines["toy"] and lines["toy"].rstrip("| ").endswith("current")
    assert "**stale**" in lines["old"] and "4 of 6 runs, 3 seeds (partial)" in lines["old"]
    assert "**stale**" in lines["gone"] and "none yet" in lines["gone"]
    heading = "## Tests of the wiring"
    assert text.index(heading) < text.index("[wiring]") and "nothing" not in text.split(heading)[0]
    assert "**broken.json is left out:**" in text
    assert not is_page_stale(json.loads((tmp_path / "records" / "toy.json").read_text(encoding="utf-8")))


def test_pages_of_an_older_version_are_listed_as_stale_and_left_alone(tmp_path):
    old = tmp_path / "records" / "multicrop.json"
    old.parent.mkdir()
    old.write_text('{"questions": ["R5-b"], "page": "multicrop", "outcome": "undecided", "planned": 2, "done": 2}')
    (tmp_path / "records" / "cost profile.json").write_text("{}")
    before = old.read_bytes()
    text = write_index(tmp_path).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert len(rows) == 2 and all("**stale**" in row for row in rows) and old.read_bytes() == before
    assert "[cost profile](cost%20profile.md)" in rows[0] and "undecided" in rows[1]


def test_index_without_pages(tmp_path):
    assert "There is no page yet." in write_index(tmp_path / "reports").read_text(encoding="utf-8")
