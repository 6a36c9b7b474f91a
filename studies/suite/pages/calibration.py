"""One line on every page: how many known effects its tier reproduces, and what it could have detected.

The numbers are those that the study of known effects (``studies/calibration.py``) wrote into its own records beside
the pages; nothing is judged here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scd.errors import DataError
from scd.evaluation.metric import Metric
from studies.suite.analysis import notation
from studies.suite.analysis.results import FOLDER, read_about

STUDY = "calibration"
KEY = "known_effects"  # of the numbers in the page's JSON file
USUAL_TIER = "cpu"


def summary(reproduced: int, expected: int, control: bool, detectable: Mapping[str, float]) -> dict[str, Any]:
    """What the calibration page keeps for the other pages.

    Args:
        reproduced, expected: numbers of known effects.
        control: whether the positive control is better.
        detectable: metric -> the difference of two self-supervised arms that the page could have detected.
    """
    return {"reproduced": reproduced, "expected": expected, "control": control, "detectable": dict(detectable)}


def line(about: Mapping[str, Any], out: Path) -> str:
    """The line of a page; empty on calibration pages and on pages without training runs.

    Args:
        about: of the page's results.
        out: folder of the pages.
    """
    if about["study"] == STUDY or not about["base"]:
        return ""
    opening = f"**Known effects at tier `{about['tier']}`.**"
    found = calibration_of(about, out)
    if found is None:
        tier = "" if about["tier"] == USUAL_TIER else f" -- tier={about['tier']}"
        return f"{opening} Not calibrated: run `nox -s study-{STUDY}{tier}`."
    known, page = found[KEY], found["page"]
    on = "these images" if found["data"] == about["data"] else f"the embedded images ({found['data']})"
    text = f"{opening} On {on} it reproduces {known['reproduced']} of {known['expected']} effects that are known"
    parts = [
        f"{notation.size(Metric(**found['metrics'][name]), value)} in {found['metrics'][name]['label']}"
        for name, value in known["detectable"].items()
    ]
    seeds = f"with {len(found['seeds'])} seeds " if found["seeds"] else ""
    text += f", and could have detected {seeds}a difference of {' and '.join(parts)}" if parts else ""
    failed = "" if known["control"] else " Its own control fails: MoCo cannot be told apart from random weights."
    return f"{text}: [{page}]({quote(page)}.md).{failed}"


def calibration_of(about: Mapping[str, Any], out: Path) -> dict[str, Any] | None:
    """The calibration of a page's tier on its own images, else on embedded ones; None where there is none."""
    pages = [each for each in _calibrations(Path(out)) if each["tier"] == about["tier"]]
    same = [each for each in pages if each["data"] == about["data"]]
    embedded = [each for each in pages if each["source"].get("place") is None]
    # of several pages the one with the fewest changed options, which has the shortest name
    return next(iter(sorted(same or embedded, key=lambda each: (len(each["page"]), each["page"]))), None)


def _calibrations(out: Path) -> Sequence[dict[str, Any]]:
    found = []
    for path in sorted((out / FOLDER).glob(f"{STUDY}*.json")):
        try:
            about = read_about(path)
        except DataError:  # the index names it
            continue
        if about.get("study") == STUDY and KEY in about:
            found.append(about)
    return found
