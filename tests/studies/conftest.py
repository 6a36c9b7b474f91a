"""Makes ``synthetic_results`` importable in the tests of analysis and pages; pages without figures where they are "
"slow."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


DRAWINGS = {
    "figures": ("seed_points", "cost_points", "differences", "curves", "power_curves", "specification_curve"),
    "map_figures": ("curves_over_training", "map_grid", "heat"),
}


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn, which takes most of the time of a page; what would be drawn is put together.

    The figures of every study are drawn by the test that writes each page again from its records.
    """
    for module, names in DRAWINGS.items():
        for name in names:
            monkeypatch.setattr(f"studies.suite.pages.{module}.{name}", lambda path, *args, **options: path)
