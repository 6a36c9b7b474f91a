"""Which verdicts decide what a time budget adds."""

from synthetic_results import settings_of, study_results

from studies import multicrop
from studies.lewel import STUDY
from studies.suite.analysis.open_contrasts import open_verdicts


def test_contrasts_with_a_reading_of_their_own_need_no_more_seeds():
    """The reference arms of the study multicrop have fewer seeds than it is read at."""
    study = multicrop.STUDY
    results = study_results(study, {"oracle": 0.05}, settings_of("multicrop", seeds=multicrop.ALL))
    verdicts = {verdict.claim: verdict for verdict in open_verdicts(study, results)}
    assert set(verdicts) == {claim.text for claim in study.claims}
    separation = verdicts["SCD is better than SCD with a constant map at equal training FLOPs"]
    counts = {(each.contrast.treatment, each.contrast.control): each.gain.n for each in separation.controls}
    assert counts == {("oracle", "constant_map"): multicrop.FEW, ("moco", "random"): multicrop.FEW}


def test_images_without_the_metric_are_judged_by_the_fallback():
    results = study_results(multicrop.STUDY, {}, settings_of("multicrop", seeds=multicrop.ALL))
    photographs = results.with_runs(results.runs.drop(columns=multicrop.METRIC))
    verdicts = open_verdicts(multicrop.STUDY, photographs)
    assert len(verdicts) == len(multicrop.STUDY.claims)
    for verdict in verdicts:
        assert {each.contrast.metric for each in verdict.findings} == {multicrop.FALLBACK}


def test_a_claim_about_some_contrasts_stays_one():
    results = study_results(STUDY, {"scd": 0.03}, settings_of("lewel", seeds=5))
    verdicts = {verdict.claim: verdict for verdict in open_verdicts(STUDY, results)}
    assert {claim.text: claim.some for claim in STUDY.claims} == {text: found.some for text, found in verdicts.items()}
    assert any(found.some for found in verdicts.values())
