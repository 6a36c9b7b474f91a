"""Which verdicts decide what a time budget adds."""

from synthetic_results import settings_of, study_results

from studies.lewel import STUDY
from studies.suite.analysis.open_contrasts import open_verdicts


def test_a_claim_about_some_contrasts_stays_one():
    results = study_results(STUDY, {"scd": 0.03}, settings_of("lewel", seeds=5))
    verdicts = {verdict.claim: verdict for verdict in open_verdicts(STUDY, results)}
    assert {claim.text: claim.some for claim in STUDY.claims} == {text: found.some for text, found in verdicts.items()}
    assert any(found.some for found in verdicts.values())
