"""The wheel and its command: what is inside, the table of commands, and a study outside a clone."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from scd_suite import __version__
from scd_suite.__main__ import COMMANDS, main, usage
from studies.status import planned
from studies.suite.execution.inventory import silently

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("scd", "baselines", "studies")
SCREEN = (40, 100)  # lines and columns
NAMES = sorted(COMMANDS)
ONE_STUDY = ["study", "multicrop", "tier=smoke", "arms=random,moco", "seeds=1", "axes.budgets=[epochs]",
             "axes.rho=[0.0]", "evaluation.protocols=[knn]", "launcher.workers=0"]  # fmt: skip


# ---------------------------------------------------------------- the table of commands


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_a_module_with_a_main(name):
    command = COMMANDS[name]
    spec = importlib.util.find_spec(command.module)
    assert spec is not None and "\ndef main(" in Path(spec.origin).read_text(encoding="utf-8")


def test_every_module_with_a_command_line_is_in_the_table():
    files = [path for path in (ROOT / "studies").glob("*.py") if "\ndef main(" in path.read_text(encoding="utf-8")]
    assert {f"studies.{path.stem}" for path in files} == {COMMANDS[name].module for name in NAMES}


def test_every_command_but_study_has_a_session_of_its_name():
    sessions = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    for name in set(NAMES) - {"study"}:
        assert f"\ndef {name}(session" in sessions or f'"{name}"' in sessions, name


def on_one_screen(text: str) -> bool:
    lines = text.splitlines()
    return len(lines) <= SCREEN[0] and max(map(len, lines)) <= SCREEN[1]


def test_the_help_of_the_suite_is_one_small_screen(capsys):
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        assert capsys.readouterr().out == usage() + "\n"
    lines = usage().splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) < 80
    assert all(re.search(rf"^  {name} ", usage(), re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_is_one_screen_and_names_the_command(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/scd-suite"])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    text = capsys.readouterr().out
    shown = "study" if name == "cost-profile" else name
    assert ended.value.code == 0 and text.startswith(f"usage: scd-suite {shown} ")
    assert on_one_screen(text.replace(str(ROOT), "")) and "python -m" not in text


def test_a_module_that_was_started_by_python_names_itself(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/studies/status.py"])
    with pytest.raises(SystemExit):
        main(["status", "--help"])
    assert capsys.readouterr().out.startswith("usage: python -m studies.status ")


def test_the_version_is_one_number(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"scd-suite {__version__}\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert __version__ not in (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("dependencies")[0]


def test_an_unknown_command_is_one_line_with_the_nearest(capsys):
    assert main(["stauts"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown command 'stauts'; did you mean 'status'? valid: ")
    assert error.count("\n") == 1 and "cost-profile" in error


@pytest.mark.parametrize("words", [["dino-vit"], ["study", "dino-vit"], ["study", "dino_vit"]])
def test_a_study_is_found_by_its_name_in_any_spelling(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "tier=smoke", "seeds=1", "arms=random", "--dry-run"]) == 0
    assert "different runs" in capsys.readouterr().out


def test_the_command_cost_profile_is_the_study_of_that_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["cost-profile", "tier=smoke", "--dry-run"]) == 0
    assert "timed_scaling" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["status", "clean"])
def test_the_command_knows_the_store(tmp_path, command, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([command, "--store=nowhere"]) == 2
    assert capsys.readouterr().err == "error: there is no store 'nowhere'; give --store=FOLDER, or run a study\n"


# ---------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of the tree, built from a copy."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for package in (*PARTS, "scd_suite", "tests"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    build = f"import setuptools.build_meta as backend; backend.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_a_wheel_has_one_top_level_package_with_the_code_and_its_configuration(wheel):
    """D20: packages called scd and baselines would collide with other projects."""
    assert wheel.name == f"scd_suite-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    configuration = {path.relative_to(ROOT).as_posix() for path in (ROOT / "studies" / "conf").rglob("*.yaml")}
    sources = {path.relative_to(ROOT).as_posix() for part in PARTS for path in (ROOT / part).rglob("*.py")}
    assert configuration
    inside = {f"scd_suite/packages/{name}" for name in sources | configuration}
    assert files == inside | {"scd_suite/__init__.py", "scd_suite/__main__.py"}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The command of a new environment with the wheel alone; its dependencies are those of the tests' environment."""
    folder = tmp_path_factory.mktemp("clean") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", scripts / "python", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    variables = {"base": str(folder), "platbase": str(folder)}
    own = Path(sysconfig.get_path("purelib", "venv", variables))
    assert (own / "scd_suite").is_dir()
    # NOTE: a folder that a .pth file names is searched, and .pth files in it are not read: an editable suite in the
    # tests' environment stays out of sight.
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return scripts / "scd-suite"


IN_ONE_PROCESS = """
import contextlib, io, json, runpy, sys, traceback
program, found = sys.argv[1], []
for words in json.loads(sys.argv[2]):
    code, said, error, sys.argv = None, io.StringIO(), io.StringIO(), [program, *words]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(error):
        try:
            runpy.run_path(program, run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            traceback.print_exc()
    found.append((code, said.getvalue(), error.getvalue()))
print(json.dumps(found))
"""


@pytest.fixture
def outside(installed, tmp_path):
    """Calls the command, or several one after the other, in an empty folder of a checkout of another project."""
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], cwd=tmp_path, check=True)
    folder = tmp_path / "empty"
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "COLUMNS")}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def run(*words):
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment)
        return done.returncode, done.stdout, done.stderr

    def call(*words):
        return run(installed, *words)

    def calls(*commands):
        code, said, error = run(
            installed.parent / "python", "-P", "-c", IN_ONE_PROCESS, installed, json.dumps(commands)
        )
        assert code == 0, error
        return json.loads(said)

    return folder, call, calls


def test_a_study_runs_from_a_wheel_outside_a_clone(outside):
    folder, call, calls = outside
    assert call("--version") == (0, f"scd-suite {__version__}\n", "")
    code, said, error = call(*ONE_STUDY)
    assert code == 0, error
    (page,) = (folder / "reports").glob("multicrop*.md")
    text = page.read_text(encoding="utf-8")
    assert f"`scd-suite {shlex.join(ONE_STUDY)}`" in text
    assert page.stem in (folder / "reports" / "README.md").read_text(encoding="utf-8")
    assert list((folder / "reports" / "figures").glob("*.png"))
    assert {path.name for path in folder.iterdir()} == {"reports", "runs"}
    for environment in (folder / "runs").glob("*/*/environment.json"):
        assert '"commit": null' in environment.read_text(encoding="utf-8")  # not that of the other project
    (trained,) = {path.parent for path in (folder / "runs" / "pretraining").glob("*/progress.jsonl")}
    status, answers, export = calls(
        ("status", "multicrop", *ONE_STUDY[2:-1]),
        ("answers",),
        ("export", str(trained.relative_to(folder)), "--naming", "suite", "--out", "weights"),
    )
    code, said, error = status
    assert code == 0 and re.search(r"^multicrop +2 +2 ", said, re.MULTILINE) and "stale:" not in said, error
    (plan,) = planned(["multicrop"], ONE_STUDY[2:-1], Path("runs"), Path("reports"), silently)
    ids = {path.name for path in (folder / "runs" / "pretraining").iterdir() if not path.name.startswith(".")}
    assert ids == {spec.id for spec in plan.runs}  # those that a clone gives: each finds the runs of the other
    code, said, error = answers
    assert code == 0 and Path(said.splitlines()[1]) == Path("reports", "answers.html"), error
    code, said, error = export
    assert code == 0 and (folder / "weights" / "model.safetensors").is_file(), error
