"""Makes ``synthetic_results`` importable in the tests of analysis and pages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
