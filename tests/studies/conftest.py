"""Makes ``synthetic_results`` importable in the tests of analysis and pages; pages without figures where they are "
"slow."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are laid out but not drawn, which takes most of the time of a page."""
    from studies.suite.pages import figures, map_figures

    for module in (figures, map_figures):
        monkeypatch.setattr(module, "save", lambda figure, path: figures.plt.close(figure))
