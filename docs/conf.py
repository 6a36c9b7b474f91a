"""Sphinx's configuration; the sources come from ``docs/build.py``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "SCD suite"
author = "The SCD suite authors"
html_title = project
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["fieldlist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Committed pages put headings of the third level under details without one of the second; that is no error of theirs.
suppress_warnings = ["myst.header"]
