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
    """A copy of the tree with the new files; every one of them is new."""
    tree = tmp_path_factory.mktemp("extended")
    for name in ("scd", "baselines", "studies", "tests", "docs"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "extension"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    new = {str(path.relative_to(EXTENSION)): path.read_text() for path in EXTENSION.rglob("*") if path.is_file()}
    new = {name: text for name, text in new.items() if name.endswith((".py", ".yaml"))}
    for name, text in {**new, **{path: example(*place) for path, place in EXAMPLES.items()}}.items():
        assert not (tree / name).exists(), name
        (tree / name).write_text(text)
    return tree


def run(tree: Path, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
    return subprocess.run([sys.executable, "-m", *words], cwd=tree, env=environment, capture_output=True, text=True)


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
    result = run(tree, "pytest", "-v", "-p", "no:cacheprovider", *CONTRACTS, "-k", names)
    assert result.returncode == 0, result.stdout[-3000:]
    passed = [line for line in result.stdout.splitlines() if " PASSED" in line]
    for tests, added in CONTRACTS.items():
        for name in added:
            assert sum(line.startswith(tests) and name in line for line in passed) >= 3, (tests, name)


def test_a_new_study_uses_all_of_them(tree):
    images = tree / "images"
    images.mkdir()
    code = f"from scd.data.sources.npz import Npz; from pathlib import Path; Npz.example(Path({str(images)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=tree, check=True)
    words = [f"data.locations.{split}={images / split}.npz" for split in ("train", "test")]
    words += ["tier=smoke", "seeds=1", "data=npz", "evaluation.protocols=[centroid]", "launcher.workers=0"]
    result = run(tree, "studies", "extended", *words)
    assert result.returncode == 0, result.stderr[-3000:]
    page = (tree / "reports" / "extended-npz-smoke.md").read_text()
    assert page.startswith("# Extended") and "colour regression" in page
    about = json.loads((tree / "reports" / "records" / "extended-npz-smoke.json").read_text())
    assert about["done"] == about["planned"] == 4 and about["metrics"]["centroid_top1"]["label"] == "centroid top-1"


def test_the_study_of_the_readme_writes_its_page(tree):
    words = ["tier=smoke", "seeds=1", "launcher.workers=0", "evaluation.protocols=[linear]"]
    result = run(tree, "studies", "map_depth", *words)
    assert result.returncode == 0, result.stderr[-3000:]
    page = (tree / "reports" / "map-depth-smoke.md").read_text()
    assert page.startswith("# Does the saliency head need a hidden layer?") and "SCD, linear map" in page


def test_the_method_of_the_readme_is_the_host_of_any_study(tree):
    words = ["tier=smoke", "seeds=1", "method=vicreg", "arms=moco,scd", "axes.rho=[0.0]", "axes.budgets=[epochs]"]
    result = run(tree, "studies", "multicrop", *words, "--dry-run")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "2 different runs" in result.stdout


def test_the_documentation_has_a_page_of_a_new_method(tree):
    code = "from docs.generators import method_pages as m; print(m.modules()); print(m.page('baselines.vicreg'))"
    result = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    modules, page = result.stdout.split("\n", 1)
    assert "'baselines.vicreg'" in modules and "'baselines.colour'" in modules
    assert page.startswith("# VICReg\n") and "| `optimizer.name` | `sgd` | `sgd` | `sgd` | `lars` |" in page
    assert "It is not an arm of a committed page." in page


def test_examples_are_short():
    assert all(len(example(*place).splitlines()) < 45 for place in EXAMPLES.values())
