"""Folders of pages without runs, for the tests of the answer sheet."""

from dataclasses import replace

from synthetic_results import settings_of, study_results

from studies.suite.analysis.results import save
from studies.suite.pages.reread import _Judged, _Rereading
from studies.suite.planning.command_line import load_study
from studies.suite.planning.identity import fresh_fingerprint

ROOTS = ["scd.seeds"]


def save_page(out, name, gains, page=None, numbers_of=None, is_current=True, seeds=5, **about):
    """The records of a study's page, with the answer that the page would have."""
    study = load_study(name)
    results = study_results(study, gains, settings_of(name, out, seeds=seeds), numbers_of)
    report = _Rereading(study, results, out)
    try:
        study.sections(report)
    except _Judged:
        pass
    page = page or name.replace("_", "-")
    fingerprint = fresh_fingerprint(ROOTS) if is_current else "0" * 16
    told = {"page": page, "roots": ROOTS, "fingerprint": fingerprint, **about}
    answered = report.answered()
    save(replace(answered, about={**answered.about, **told}), out)
    return report.parts
