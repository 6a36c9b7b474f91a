"""Sessions, README commands, dependencies, the order of imports, and habits that the project avoids."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("scd", "baselines", "studies")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
STUDIES = sorted(
    path.stem for path in (ROOT / "studies").glob("[a-z]*.py") if "\nSTUDY = " in path.read_text(encoding="utf-8")
)
SESSIONS = {name: f"study-{name.replace('_', '-')}" for name in STUDIES} | {"cost_profile": "cost-profile"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def sessions() -> dict[str, str]:
    """What `nox --list` says: description by session name."""
    command = [sys.executable, "-m", "nox", "--nocolor", "--list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return dict(re.findall(r"^[*-] (\S+) -> (.*)$", listing, re.MULTILINE))


# ---------------------------------------------------------------- sessions, README and CI


def test_sessions_are_listed(sessions):
    expected = "environment answers docs evaluate export maps replicate status clean tests slurm lint bench"
    assert set(expected.split()) <= set(sessions)


def test_every_study_has_a_session(sessions):
    assert {"multicrop", "cost_profile"} <= set(STUDIES)
    assert {name for name in sessions if name.startswith("study-") or name == "cost-profile"} == set(SESSIONS.values())
    for name, session in SESSIONS.items():
        assert f"'{name}'" in sessions[session]


@pytest.mark.parametrize(
    ("session", "words", "expected"),
    [
        ("study-multicrop", ["seeds=5", "data=a b"], "<-m><studies><multicrop><seeds=5><data=a b>"),
        ("status", ["multicrop", "--store=a b"], "<-m><studies.status><multicrop><--store=a b>"),
        ("clean", ["yes"], "<-m><studies.clean><yes>"),
        ("maps", ["a b.jpg", "run=LATEST"], "<-m><studies.maps><a b.jpg><run=LATEST>"),
        ("evaluate", ["checkpoint=a b.pth"], "<-m><studies.evaluate><checkpoint=a b.pth>"),
    ],
)
def test_a_session_passes_its_arguments_on(tmp_path, session, words, expected):
    # The shared environment's interpreter is replaced by a script that prints what it is asked to run.
    interpreter = tmp_path / "environment" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    interpreter.chmod(0o755)
    command = [sys.executable, "-m", "nox", "--envdir", str(tmp_path), "-s", session, "--no-dependencies"]
    result = subprocess.run([*command, "--", *words], capture_output=True, text=True, check=True, cwd=ROOT)
    assert expected in result.stdout


def readme_commands() -> list[str]:
    """The set-up commands of the README: the lines of its first code block."""
    block = re.search(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    return [line.split("   #")[0].rstrip() for line in block.splitlines() if line.strip()]


def test_readme_has_two_set_up_commands():
    study, tests = readme_commands()
    assert study.endswith("nox -s study-multicrop")
    assert tests.endswith("nox -s tests")


def test_ci_runs_the_test_command_of_the_readme():
    assert readme_commands()[1] in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_links_of_the_readme_exist():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text())
    missing = [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
    assert links and not missing


# ---------------------------------------------------------------- packaging


def test_torch_of_the_cpu_wheels_on_older_indexes_is_out_of_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "torch>=2.14" in project["dependencies"] and "torchvision>=0.29" in project["dependencies"]
    assert set(project["optional-dependencies"]) == {"tests", "lint", "bench", "energy", "docs"}


def test_runtime_dependencies_are_those_that_the_packages_import():
    """D18: psutil was a runtime dependency that only tests used; pycocotools was used and only a test dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]}
    used = {name.split(".")[0] for path in SOURCES for name in imported(path)}
    assert "psutil" in declared and "psutil" in used
    assert "pycocotools" not in declared and "pycocotools" not in used


def test_packages_are_marked_as_packages():
    folders = {path.parent for path in SOURCES}
    assert not [relative(folder) for folder in folders if not (folder / "__init__.py").exists()]


def test_init_files_hold_a_docstring_at_most():
    for path in SOURCES:
        if path.name == "__init__.py":
            body = ast.parse(path.read_text()).body
            assert len(body) <= 1 and all(isinstance(node, ast.Expr) for node in body), relative(path)


# ---------------------------------------------------------------- torch beside a torchvision that does not fit


def run_check(folder: Path) -> subprocess.CompletedProcess:
    code = "from scd.installation import check_torchvision; check_torchvision(); print('fits')"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    "failure",
    [
        "RuntimeError('operator torchvision::nms does not exist')",
        "ImportError('undefined symbol: _ZN3c105ErrorC2')",
    ],
)
def test_torch_and_torchvision_of_two_builds_give_one_clear_line(tmp_path, failure):
    # A torchvision that fails at import the way the real one does beside a "+cpu" wheel of torch.
    (tmp_path / "torchvision.py").write_text(f"raise {failure}\n")
    result = run_check(tmp_path)
    line = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1
    assert re.search(r"torch \d\S* does not fit torchvision \d\S* \(", line)
    assert failure.split("'")[1] in line
    assert "python -m pip install --force-reinstall 'torch>=2.14' 'torchvision>=0.29'" in line


def test_command_line_checks_torchvision_before_it_starts(tmp_path):
    """D5: the listing and the study mechanism gave a traceback."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    commands = [[], ["multicrop", "--dry-run"], ["mechanism", "--dry-run"]]
    code = f"from studies.__main__ import main; print([main(words) for words in {commands}])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert result.stdout.splitlines() == ["[2, 2, 2]"]  # nothing else: no listing, no plan
    assert result.stderr.count("does not fit torchvision") == 3 and "Traceback" not in result.stderr


# ---------------------------------------------------------------- the order of imports


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import statement, at any depth of the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)} imports relatively"
            names.add(node.module)
    return names


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("scd", {"baselines", "studies", "tests", "hydra", "omegaconf"}),
        ("baselines", {"studies", "tests", "hydra", "omegaconf"}),
        ("studies", {"tests"}),
    ],
)
def test_imports_go_down_the_list_only(package, forbidden):
    wrong = [
        f"{relative(path)} imports {name}"
        for path in SOURCES
        if path.is_relative_to(ROOT / package)
        for name in imported(path)
        if name.split(".")[0] in forbidden
    ]
    assert not wrong


def test_methods_know_no_optimiser_and_no_training_loop():
    wrong = [
        f"{relative(path)} imports {name}"
        for folder in ("baselines", "scd", "scd/maps")
        for path in (ROOT / folder).glob("*.py")
        for name in imported(path)
        if name.startswith(("torch.optim", "scd.training", "lightning_fabric"))
    ]
    assert not wrong


# ---------------------------------------------------------------- names and habits that the project avoids


def test_no_file_is_named_after_nothing():
    banned = {"utils", "util", "common", "misc", "helpers", "helper"}
    assert not [relative(path) for path in SOURCES if banned & {path.stem, *path.relative_to(ROOT).parts[:-1]}]


def test_no_file_holds_two_ideas():
    assert not [relative(path) for path in SOURCES if len(path.read_text().splitlines()) > 450]


def habits(path: Path) -> list[str]:
    """Uses of what DESIGN rules out, as "file:line what"."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append((node.lineno, "bare except"))
        if isinstance(node, ast.Name) and node.id == "NotImplementedError":
            found.append((node.lineno, "NotImplementedError"))
        if isinstance(node, ast.Global):
            found.append((node.lineno, "global state"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "cuda":
                found.append((node.lineno, ".cuda()"))
            if node.func.attr == "load_state_dict" and any(
                keyword.arg == "strict" and getattr(keyword.value, "value", None) is False for keyword in node.keywords
            ):
                found.append((node.lineno, "strict=False"))
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            found.append((number, "unfinished"))
    return [f"{relative(path)}:{number} {what}" for number, what in sorted(found)]


def test_no_source_uses_what_the_design_rules_out():
    assert not [use for path in SOURCES for use in habits(path)]


def test_habits_are_found_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "bad.py"
    path.write_text(
        "try:\n    a.cuda()\nexcept:\n    a.load_state_dict(b, strict=False)  # FIXME\nraise NotImplementedError\n"
    )
    expected = [":2 .cuda()", ":3 bare except", ":4 strict=False", ":4 unfinished", ":5 NotImplementedError"]
    assert habits(path) == [f"bad.py{use}" for use in expected]


def test_scd_knows_no_run_configuration_and_no_run_folder():
    """B8: scd/ read config["seed_of"]["probe"] in four places, and the exporter a run's config.json."""
    words = re.compile(r"""config\[|\.get\("(seed_of|evaluation|training)|config\.json|seed_of|_target_""")
    found = [
        f"{relative(path)}:{number}"
        for path in SOURCES
        if path.is_relative_to(ROOT / "scd")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(line)
    ]
    assert not found


def test_networks_and_maps_do_not_import_data():
    wrong = [
        f"{relative(path)} imports {name}"
        for folder in ("nn", "maps")
        for path in (ROOT / "scd" / folder).glob("*.py")
        for name in imported(path)
        if name.startswith("scd.data")
    ]
    assert not wrong


def test_tests_are_no_packages():
    assert not list((ROOT / "tests").rglob("__init__.py"))
