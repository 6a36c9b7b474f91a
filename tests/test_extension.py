"""A method, map source, protocol, data format, annotator and study are one new file each, plus a YAML file.

The examples of the README and those of ``tests/extension`` are put into a copy of the tree. No other file changes; the
contract tests and the command line find them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXTENSION = ROOT / "tests" / "extension"
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = {
    "baselines/vicreg.py": ("Add a method", "python"),
    "studies/conf/method/vicreg.yaml": ("Add a method", "yaml"),
    "studies/map_depth.py": ("Add a study", "python"),
}


def example(section: str, language: str) -> str:
    """The first code block of a language under a heading of the README."""
    body = README.split(f"## {section}\n", 1)[1]
    return re.search(rf"```{language}\n(.*?)```", body, re.DOTALL).group(1)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the tree with the new files; every one of them is new. What is compiled already stays so."""
    tree = tmp_path_factory.mktemp("extended")
    for name in ("scd", "baselines", "studies", "tests", "docs"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("extension", "*.pyc.*"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    new = {str(path.relative_to(EXTENSION)): path.read_text() for path in EXTENSION.rglob("*") if path.is_file()}
    new = {name: text for name, text in new.items() if name.endswith((".py", ".yaml"))}
    for name, text in {**new, **{path: example(*place) for path, place in EXAMPLES.items()}}.items():
        assert not (tree / name).exists(), name
        (tree / name).write_text(text)
    return tree


def python(tree: Path, *words: str) -> subprocess.CompletedProcess:
    """Python with the code of the tree."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
    return subprocess.run([sys.executable, *words], cwd=tree, env=environment, capture_output=True, text=True)


CONTRACTS = {
    "tests/baselines/test_contract.py": ("vicreg", "colour", "scd on moco, map brightness"),
    "tests/baselines/test_pairs_contract.py": ("vicreg", "scd on moco, map brightness"),
    "tests/maps/test_contract.py": ("brightness",),
    "tests/evaluation/test_contract.py": ("centroid",),
    "tests/data/sources/test_contract.py": ("Npz",),
    "tests/data/annotators/test_contract.py": ("Threshold",),
}


def test_the_contract_tests_find_new_implementations_which_pass(tree):
    names = " or ".join(name.split()[-1] for names in CONTRACTS.values() for name in names)
    result = python(tree, "-m", "pytest", "-v", "-p", "no:cacheprovider", *CONTRACTS, "-k", names)
    assert result.returncode == 0, result.stdout[-3000:]
    passed = [line for line in result.stdout.splitlines() if " PASSED" in line]
    for tests, added in CONTRACTS.items():
        for name in added:
            assert sum(line.startswith(tests) and name in line for line in passed) >= 3, (tests, name)


SMOKE = ["tier=smoke", "seeds=1"]
STUDIES = {
    "extended": ["extended", *SMOKE, "data=npz", "evaluation.protocols=[centroid]", "launcher.workers=0",
                 "data.locations.train=images/train.npz", "data.locations.test=images/test.npz"],
    "map_depth": ["map_depth", *SMOKE, "launcher.workers=0", "evaluation.protocols=[linear]"],
    "host": ["multicrop", *SMOKE, "method=vicreg", "arms=moco,scd", "axes.rho=[0.0]", "axes.budgets=[epochs]",
             "--dry-run"],
}  # fmt: skip
COMMANDS = """
import contextlib, io, json, sys, traceback
from pathlib import Path
from docs.generators import method_pages
from scd.data.sources.npz import Npz
from studies.__main__ import main

def documentation():
    print(method_pages.modules())
    print(method_pages.page("baselines.vicreg"))
    return 0

def ended(call, *words):
    code, said, error = None, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(error):
        try:
            code = call(*words)
        except BaseException:
            traceback.print_exc()
    return code, said.getvalue(), error.getvalue()

Path("images").mkdir()
Npz.example(Path("images"))
found = {name: ended(main, words) for name, words in json.loads(sys.argv[1]).items()}
print(json.dumps({**found, "documentation": ended(documentation)}))
"""


@pytest.fixture(scope="module")
def commands(tree) -> dict[str, tuple[int, str, str]]:
    """The studies and the page of the documentation, in one process: name -> exit code, output and errors."""
    done = python(tree, "-c", COMMANDS, json.dumps(STUDIES))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_new_study_uses_all_of_them(tree, commands):
    code, _, error = commands["extended"]
    assert code == 0, error[-3000:]
    page = (tree / "reports" / "extended-npz-smoke.md").read_text()
    assert page.startswith("# Extended") and "colour regression" in page
    about = json.loads((tree / "reports" / "records" / "extended-npz-smoke.json").read_text())
    assert about["done"] == about["planned"] == 4 and about["metrics"]["centroid_top1"]["label"] == "centroid top-1"


def test_the_study_of_the_readme_writes_its_page(tree, commands):
    code, _, error = commands["map_depth"]
    assert code == 0, error[-3000:]
    page = (tree / "reports" / "map-depth-smoke.md").read_text()
    assert page.startswith("# Does the saliency head need a hidden layer?") and "SCD, linear map" in page


def test_the_method_of_the_readme_is_the_host_of_any_study(commands):
    code, said, error = commands["host"]
    assert code == 0, error[-3000:]
    assert "2 different runs" in said


def test_the_documentation_has_a_page_of_a_new_method(commands):
    code, said, error = commands["documentation"]
    assert code == 0, error[-3000:]
    modules, page = said.split("\n", 1)
    assert "'baselines.vicreg'" in modules and "'baselines.colour'" in modules
    assert page.startswith("# VICReg\n") and "| `optimizer.name` | `sgd` | `sgd` | `sgd` | `lars` |" in page
    assert "It is not an arm of a committed page." in page


def test_examples_are_short():
    assert all(len(example(*place).splitlines()) < 45 for place in EXAMPLES.values())
