"""The documentation builds without a warning; its pages say what they are filled with, and reach each other."""

import importlib.util
import re
import subprocess
import sys

import pytest

from docs.build import ROOT, SOURCES, file, main, readme, texts

WISHES = {"score my checkpoint": "score.md", "draw my picture": "maps.md", "install it": "install.md"}


def test_the_start_page_links_to_each_wish():
    text = (SOURCES / "index.md").read_text(encoding="utf-8")
    assert all(f"]({target})" in text for target in WISHES.values())
    assert "](extend/method.md)" in text and "](machines.md)" in text and "](how-to-read.md)" in text


def test_every_text_is_in_a_table_of_contents():
    listed = set()
    for path in texts():
        for block in re.findall(r"```\{toctree\}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            names = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed |= {(path.parent / name).relative_to(SOURCES).as_posix() for name in names}
    own = {path.relative_to(SOURCES).with_suffix("").as_posix() for path in texts()}
    assert own - {"index"} <= listed
    assert listed - own == {"methods/index", "reports/index", "notebook"}  # these are generated


def test_examples_are_the_files_that_tests_run():
    shown = "\n".join(path.read_text(encoding="utf-8") for path in (SOURCES / "extend").glob("*.md"))
    extension = ROOT / "tests" / "extension"
    files = [path for path in extension.rglob("*") if path.suffix in (".py", ".yaml")]
    assert len(files) >= 11
    assert all(f'file("{path.relative_to(ROOT).as_posix()}")' in shown for path in files)
    assert file("tests/extension/scd/maps/brightness.py").startswith("`scd/maps/brightness.py`:\n\n```python\n")
    for section, language in (("Add a method", "python"), ("Add a method", "yaml"), ("Add a study", "python")):
        assert f'readme("{section}", "{language}")' in shown
        assert readme(section, language).startswith(f"```{language}\n")


def test_without_sphinx_the_command_says_what_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["--out", str(tmp_path)]) == 2
    assert "sphinx, myst_parser, furo not installed; run `nox -s docs`" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="Sphinx is not installed (extra docs)")
def test_it_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "docs.build", "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    html = tmp_path / "html"
    for page in (
        "index",
        "score",
        "maps",
        "install",
        "how-to-read",
        "methods/scd",
        "extend/study",
        "reports/multicrop",
    ):
        assert (html / f"{page}.html").is_file(), page
    api = (html / "api.html").read_text(encoding="utf-8")
    for name in ("Method", "JointEmbedding", "MomentumSiamese", "Wrapper", "Protocol", "Annotator", "MapSource",
                 "Source", "Study"):  # fmt: skip
        assert re.search(rf'id="[\w.]+\.{name}"', api), name
