"""The notebook: small, committed without outputs, and it runs from its first cell to its last."""

import json
import subprocess
import sys

import pytest

from docs.build import NOTEBOOK, ROOT
from docs.generators import notebooks


def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_it_is_committed_without_outputs_and_is_small():
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells())
    assert NOTEBOOK.stat().st_size < 10_000


def test_its_code_runs_in_a_process_of_its_own(tmp_path):
    """As a script: the cells one after the other, in the folder of the notebook."""
    script = tmp_path / "cells.py"
    script.write_text("\n".join("".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code"))
    done = subprocess.run([sys.executable, str(script)], cwd=NOTEBOOK.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    first, own, pooled, drawn = done.stdout.splitlines()
    assert first.split(",")[0].split()[0] == own.split(": ")[1].split()[0] == pooled.split(": ")[1].split()[0]
    assert first.split("[")[1].split("]")[0] == own.split("[")[1].split("]")[0]
    assert drawn.startswith("map (1, ")


def test_it_runs_in_a_kernel(monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra docs)")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (extra docs)")
    import nbformat

    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel shows figures in the notebook

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    kinds = [output.output_type for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert "error" not in kinds and "display_data" in kinds


def test_the_page_has_all_cells():
    page = notebooks.page(NOTEBOOK)
    assert page.startswith("# A paired difference") and "{download}`paired_difference.ipynb`" in page
    assert all("".join(cell["source"]) in page for cell in cells())
