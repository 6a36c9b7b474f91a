"""Which files of a run's code changed since its commit, in a small repository."""

import hashlib
import json
import shutil

import pytest
from stored_runs import git

from studies.suite.execution.history import History, why_stale
from studies.suite.planning.identity import code_fingerprint

ROOTS = ("scd.top",)
FILES = {
    "scd/__init__.py": "",
    "scd/top.py": "from scd.parts import below\nfrom scd import beside\n",
    "scd/parts/__init__.py": "",
    "scd/parts/below.py": '"""A docstring."""\nNUMBER = 1\n',
    "scd/beside.py": "NAME = 'a'\n",
    "scd/unrelated.py": "X = 1\n",
    "notes.txt": "not code\n",
}
CONTENTS = [{"rate": 1.0, "sizes": (1, 2)}, {}]


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A repository whose packages lie in a folder of it, and its first commit."""
    top = tmp_path_factory.mktemp("repository")
    base = top / "inner"
    write(base, FILES)
    git(top, "init", "-q")
    git(top, "add", ".")
    git(top, "commit", "-q", "-m", "first")
    return top, git(top, "rev-parse", "HEAD")


@pytest.fixture
def repository(committed, tmp_path):
    """A copy to change: its folder of packages, and the commit."""
    shutil.copytree(committed[0], tmp_path / "copy")
    return tmp_path / "copy" / "inner", committed[1]


def changed(base, commit):
    with History(base) as history:
        return history.changed(ROOTS, commit)


def test_nothing_has_changed_at_first(repository):
    base, commit = repository
    assert changed(base, commit) == ()
    write(base, {"scd/unrelated.py": "X = 2\n", "notes.txt": "other\n"})
    assert changed(base, commit) == ()


def test_a_changed_file_is_named_and_comments_and_docstrings_are_no_change(repository):
    base, commit = repository
    write(base, {"scd/parts/below.py": '"""Another docstring."""\n\n# a comment\nNUMBER = 1\n'})
    assert changed(base, commit) == ()
    write(base, {"scd/parts/below.py": '"""A docstring."""\nNUMBER = 2\n'})
    assert changed(base, commit) == ("scd/parts/below.py",)


def test_the_import_is_the_change_where_a_file_is_reached_no_more(repository):
    base, commit = repository
    write(
        base, {"scd/top.py": "from scd.parts import below\nfrom scd import unrelated\n", "scd/unrelated.py": "X = 3\n"}
    )
    assert changed(base, commit) == ("scd/top.py",)


def test_removed_and_new_files_come_after_changed_ones(repository):
    base, commit = repository
    (base / "scd" / "beside.py").unlink()
    write(base, {"scd/top.py": "from scd.parts import below\nfrom scd import arrived\n", "scd/arrived.py": "Y = 1\n"})
    assert changed(base, commit) == ("scd/top.py", "scd/beside.py", "scd/arrived.py")


def test_a_file_that_cannot_be_parsed_has_changed(repository):
    base, commit = repository
    write(base, {"scd/top.py": "from scd.parts import (\n"})
    assert "scd/top.py" in changed(base, commit)


def test_uncommitted_files_are_named_from_the_folder_of_the_packages(repository):
    base, _ = repository
    with History(base) as history:
        assert history.uncommitted() == set()
    write(base, {"scd/beside.py": "NAME = 'b'\n", "scd/new.py": "", "notes.txt": "x\n"})
    with History(base) as history:
        assert history.uncommitted() == {"scd/beside.py", "scd/new.py"}


def test_the_code_of_a_commit_gives_the_id_of_its_runs(repository):
    base, commit = repository
    plain = [{"rate": 1, "sizes": [1, 2]}, {}, code_fingerprint(ROOTS, base)]
    run = hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).hexdigest()[:16]
    write(base, {"scd/beside.py": "NAME = 'b'\n"})
    with History(base) as history:
        assert history.gives(run, CONTENTS, ROOTS, commit)
        assert not history.gives("0" * 16, CONTENTS, ROOTS, commit)
        assert not history.gives(run, CONTENTS, ("scd.missing",), commit)
        assert not history.gives(run, CONTENTS, ROOTS, "f" * 40)


def reason(base, run="0" * 16, **state):
    with History(base) as history:
        return why_stale(history, run, CONTENTS, ROOTS, {"git": state})


def test_the_reason_says_what_is_known_and_no_more(repository):
    base, commit = repository
    short = commit[:12]
    assert "the rule of ids has" in reason(base, commit=commit, dirty=False)[1]
    assert f"uncommitted changes on {short}, which no record keeps" in reason(base, commit=commit, dirty=True)[1]
    plain = [{"rate": 1, "sizes": [1, 2]}, {}, code_fingerprint(ROOTS, base)]
    run = hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).hexdigest()[:16]
    write(base, {"scd/beside.py": "NAME = 'b'\n"})
    exact = (("scd/beside.py",), f"scd/beside.py changed since {short}")
    assert reason(base, commit=commit, dirty=False) == exact
    assert reason(base, run=run, commit=commit, dirty=True) == exact
    files, text = reason(base, commit=commit, dirty=True)
    assert files == exact[0] and text == f"{exact[1]}; it had uncommitted changes, so other files may have changed, too"


def test_the_reason_is_honest_where_no_file_can_be_known(repository, tmp_path):
    base, commit = repository
    assert "because its record has no commit" in reason(base)[1]
    assert "because commit ffffffffffff is not in this repository" in reason(base, commit="f" * 40, dirty=False)[1]
    assert "is not in this repository" in reason(base, commit="--output=x", dirty=False)[1]
    with History(base) as history:
        assert "because it did not finish" in why_stale(history, "0" * 16, CONTENTS, ROOTS, None)[1]
    outside = tmp_path / "outside"
    write(outside, FILES)
    assert "is not in this repository" in reason(outside, commit=commit, dirty=False)[1]


def test_many_files_are_counted(repository):
    base, commit = repository
    write(base, {"scd/top.py": "from scd.parts import below\nfrom scd import beside, a, b\n",
                 "scd/a.py": "", "scd/b.py": "", "scd/beside.py": "NAME = 2\n"})  # fmt: skip
    files, text = reason(base, commit=commit, dirty=False)
    assert files == ("scd/beside.py", "scd/top.py", "scd/a.py", "scd/b.py")
    assert text.startswith("scd/beside.py, scd/top.py, scd/a.py and 1 more changed since")
