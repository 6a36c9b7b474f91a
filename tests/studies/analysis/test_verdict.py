"""The written rule on synthetic records: the outcomes of contrasts and claims, and the rule's error rates."""

import numpy as np
import pandas
import pytest

from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import least_margin
from studies.suite.analysis.verdict import (
    BETTER,
    CONTRADICTED,
    EQUIVALENT,
    NOT_RESOLVED,
    SUPPORTED,
    UNINFORMATIVE,
    WORSE,
    family,
    find,
    joined,
    judge,
    judge_claims,
    rule,
)
from studies.suite.planning.study import Claim, Contrast, Study

CLAIM = "A beats B and C"
AT = {"rho": 0.0}
CONTRASTS = tuple(Contrast(f"a-{other}", "a", other, "top1", 0.01, CLAIM, AT) for other in "bc")
CONTROL = Contrast("a-random", "a", "random", "top1", 0.01, "A has learned something", AT)
GOOD, CLEAR, BAD = (0.020, 0.024, 0.022, 0.018), (0.010, 0.012, 0.011, 0.013), (-0.01, -0.012, -0.011, -0.013)
OPEN = (0.03, -0.02, 0.02, 0.01)
NO_EFFECT, LESS = (0.002, -0.001, 0.001, -0.002), (-0.010, -0.035, -0.018, -0.011)  # LESS: no advantage of interest
METRICS = {"top1": {"label": "top-1", "unit": "share in [0, 1]", "better": "higher", "definition": "accuracy"}}


def results(differences, rho=0.0, metrics=METRICS):
    """Results of the arm "a" and of arms that lie below it by the given differences, seed by seed."""
    rows = []
    for seed, base in enumerate(np.linspace(0.5, 0.6, max(map(len, differences.values())))):
        common = {"seed": seed, "rho": rho, "run": "", "status": "done", "reason": ""}
        rows.append({"arm": "a", **common, "top1": base})
        rows += [
            {"arm": arm, **common, "top1": base - values[seed]}
            for arm, values in differences.items()
            if seed < len(values)
        ]
    return Results({"metrics": metrics}, pandas.DataFrame(rows, columns=["arm", *common, "top1"]))


def judged(differences, contrasts=CONTRASTS, control=None, **options):
    found = results(differences | ({} if control is None else {"random": control}), **options)
    return judge(found, contrasts, () if control is None else [find(found, CONTROL)])


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [
        (CLEAR, BETTER), (BAD, WORSE), ((0.001, 0.0012, 0.0011, 0.0009), BETTER),
        ((0.002, -0.001, 0.001, -0.002), EQUIVALENT), (OPEN, NOT_RESOLVED), ((0.05,), NOT_RESOLVED),
        ((0.05,) * 4, NOT_RESOLVED), ((), NOT_RESOLVED),
    ],
)  # fmt: skip
def test_outcomes_of_a_contrast(differences, outcome):
    finding = find(results({"b": differences, "c": CLEAR}), CONTRASTS[0])
    assert finding.outcome == outcome
    if outcome == NOT_RESOLVED and len(set(differences)) > 1:
        sd = np.std(differences, ddof=1)
        assert finding.detectable == pytest.approx(least_margin(4, sd))
        assert finding.detectable > abs(np.mean(differences))


def test_an_advantage_is_counted_in_the_direction_of_the_metric():
    lower = {"top1": {**METRICS["top1"], "better": "lower"}}
    assert find(results({"b": CLEAR, "c": CLEAR}, metrics=lower), CONTRASTS[0]).outcome == WORSE
    assert find(results({"b": BAD, "c": CLEAR}, metrics=lower), CONTRASTS[0]).outcome == BETTER


def test_supported_when_all_contrasts_are_better():
    verdict = judged({"b": GOOD, "c": CLEAR})
    assert verdict.outcome == SUPPORTED and len(verdict.having(BETTER)) == verdict.k == 2
    assert judged({"b": GOOD, "c": CLEAR}, control=OPEN).outcome == SUPPORTED  # the effect was seen
    # better, if only by a little, is no evidence against "better"
    assert judged({"b": (0.001, 0.0012, 0.0011, 0.0009)}, CONTRASTS[:1]).outcome == SUPPORTED


def test_contradicted_when_a_contrast_excludes_an_effect_of_interest():
    verdict = judged({"b": GOOD, "c": BAD}, control=GOOD)
    assert verdict.outcome == CONTRADICTED
    assert [finding.outcome for finding in verdict.findings] == [BETTER, WORSE]
    # no control declared: nothing stands against the contradiction
    assert judged({"b": GOOD, "c": BAD}).outcome == CONTRADICTED
    equivalent = judged({"b": NO_EFFECT}, CONTRASTS[:1], control=GOOD)
    assert equivalent.outcome == CONTRADICTED and equivalent.findings[0].outcome == EQUIVALENT


def test_uninformative_when_the_positive_control_fails():
    for control in (OPEN, BAD):
        assert judged({"b": GOOD, "c": NO_EFFECT}, control=control).outcome == UNINFORMATIVE
        assert judged({"b": GOOD, "c": OPEN}, control=control).outcome == UNINFORMATIVE


def test_a_disadvantage_contradicts_whatever_the_control_shows():
    """A page said that it could not see whether SCD is better, and that SCD is worse, in one sentence."""
    for control in (OPEN, BAD, (0.05,), ()):
        assert judged({"b": GOOD, "c": BAD}, control=control).outcome == CONTRADICTED
    finding = judged({"b": LESS, "c": GOOD}, control=OPEN).findings[0]
    assert finding.outcome == WORSE and finding.is_worse_of(1) and not finding.is_worse_of(40)
    many = tuple(Contrast(f"{n}", "a", "b" if n == 0 else "c", "top1", 0.01, CLAIM, AT) for n in range(40))
    assert judged({"b": LESS, "c": GOOD}, many, control=OPEN).outcome == UNINFORMATIVE


def test_a_positive_control_without_an_interval_has_not_failed_and_supports_no_contradiction():
    for control in ((0.05,), ()):  # one pair, none: arms that are not asked for, or not finished
        assert judged({"b": GOOD, "c": NO_EFFECT}, control=control).outcome == NOT_RESOLVED
        assert judged({"b": GOOD, "c": OPEN}, control=control).outcome == NOT_RESOLVED


def test_not_resolved_when_a_contrast_is_open_and_the_control_holds():
    verdict = judged({"b": GOOD, "c": OPEN}, control=GOOD)
    assert verdict.outcome == NOT_RESOLVED
    assert [finding.outcome for finding in verdict.findings] == [BETTER, NOT_RESOLVED]


def test_one_seed_no_seed_and_equal_differences_decide_nothing():
    assert judged({"b": (0.05,), "c": (0.05,)}).outcome == NOT_RESOLVED
    assert judged({"b": (0.05,) * 4, "c": (0.05,) * 4}).outcome == NOT_RESOLVED
    assert judged({"b": (), "c": (0.01,)}).outcome == NOT_RESOLVED
    empty = results({"b": (0.01,)})
    nothing = judge(empty.with_runs(empty.runs.iloc[:0]), CONTRASTS, [find(empty, CONTROL)])
    assert nothing.outcome == NOT_RESOLVED  # nothing was measured, so nothing is uninformative either


def test_excluding_is_corrected_for_the_number_of_contrasts_and_better_is_not():
    finding = judged({"b": (0.004, -0.002, 0.003, -0.001), "c": GOOD}).findings[0]
    assert finding.excludes_interest(1) and not finding.excludes_interest(20)
    assert (
        judged({"b": BAD, "c": GOOD}).findings[1].gain.ci_low
        == judged({"c": GOOD}, CONTRASTS[1:]).findings[0].gain.ci_low
    )


def test_the_parts_of_a_claim_agree_with_the_whole():
    halves = tuple(Contrast(f"a-b, {rho}", "a", "b", "top1", 0.01, CLAIM, {"rho": rho}) for rho in (0.0, 0.8))
    good, bad = results({"b": GOOD}), results({"b": BAD}, rho=0.8)
    whole = judge(good.with_runs(pandas.concat([good.runs, bad.runs])), halves, ())
    assert whole.outcome == CONTRADICTED
    assert [whole.within({"rho": rho}).outcome for rho in (0.0, 0.8)] == [SUPPORTED, CONTRADICTED]
    assert whole.within({"rho": 0.0}).k == 2


def test_a_control_speaks_for_its_own_conditions_alone():
    halves = tuple(Contrast(f"a-b, {rho}", "a", "b", "top1", 0.01, CLAIM, {"rho": rho}) for rho in (0.0, 0.8))
    controls = [Contrast(f"control, {rho}", "a", "random", "top1", 0.01, "", {"rho": rho}) for rho in (0.0, 0.8)]

    def outcome(first, second):
        """Of the differences and the control's, in either condition."""
        runs = pandas.concat(
            [
                results({"b": values, "random": control}, rho).runs
                for rho, (values, control) in ((0.0, first), (0.8, second))
            ]
        )
        both = Results({"metrics": METRICS}, runs)
        return judge(both, halves, [find(both, control) for control in controls]).outcome

    assert outcome((NO_EFFECT, GOOD), (BAD, OPEN)) == CONTRADICTED  # by the first condition, which can see
    assert outcome((GOOD, GOOD), (NO_EFFECT, OPEN)) == UNINFORMATIVE  # the second decides, and cannot see
    assert outcome((GOOD, GOOD), (BAD, OPEN)) == CONTRADICTED  # by the second, in which the treatment is worse
    assert outcome((GOOD, OPEN), (BAD, GOOD)) == CONTRADICTED
    assert outcome((GOOD, OPEN), (GOOD, OPEN)) == SUPPORTED


@pytest.mark.parametrize("truth, wrong", [(0.0, SUPPORTED), (0.01, CONTRADICTED)])
def test_error_rates_over_repeated_studies(truth, wrong):
    random, outcomes = np.random.default_rng(1), []
    for _ in range(150):
        draws = {arm: tuple(random.normal(truth, 0.006, 5)) for arm in "bc"}
        outcomes.append(judged(draws).outcome)
    assert np.mean([outcome == wrong for outcome in outcomes]) < 0.064  # 0.025 and three standard errors


def test_a_family_is_what_shares_the_claim():
    other = Contrast("d-b", "d", "b", "top1", 0.01, "another claim")
    assert family((*CONTRASTS, other), CLAIM) == CONTRASTS and family((*CONTRASTS, other), "another claim") == (other,)
    with pytest.raises(ValueError, match="one claim is judged at a time, got 2"):
        judge(results({"b": (0.1,)}), (*CONTRASTS, other), ())


def test_the_rule_is_printed_with_its_numbers():
    printed = " ".join(rule(20, "1 point"))
    assert "all of its 20 contrasts are better" in printed and "at the error of one end divided by 20" in printed
    assert "within ± 1 point" in printed and "The interval has an error of 2.5 % at each end." in printed
    for outcome in (BETTER, WORSE, EQUIVALENT, NOT_RESOLVED, SUPPORTED, CONTRADICTED, UNINFORMATIVE):
        assert f"**{outcome}**" in printed
    alone = " ".join(rule(1, "1 point", has_control=False))
    assert "when it is better" in alone and "at the error of one end, below" in alone
    assert "correction" not in alone and "positive control" not in alone
    several = " ".join(rule(2, "1 point", looks=(3, 5, 10)))
    assert "may be read at 3, 5 and 10 seeds" in several and "each end of an interval has 0.83 %" in several
    assert "The study is read once, at 5 seeds" in " ".join(rule(2, "1 point", looks=(5,)))


def test_a_small_advantage_supports_a_claim_and_is_named_so():
    """A significant +0.1 points, and every interval within ± 1 point."""
    small = judged({"b": (0.001, 0.0012, 0.0011, 0.0009)}, CONTRASTS[:1], control=GOOD)
    assert small.outcome == SUPPORTED and small.is_small and small.findings[0].is_small
    clear = judged({"b": GOOD}, CONTRASTS[:1], control=GOOD)
    assert clear.outcome == SUPPORTED and not clear.is_small
    less = find(results({"b": (-0.001, -0.0012, -0.0011, -0.0009), "c": GOOD}), CONTRASTS[0])
    assert less.outcome == WORSE and less.is_small


def test_nothing_is_judged_before_the_first_reading():
    early = results({"b": BAD, "c": BAD, "random": GOOD})
    early.about["looks"] = [5, 10]
    verdict = judge(early, CONTRASTS, [find(early, CONTROL)])
    assert verdict.outcome == NOT_RESOLVED and {each.outcome for each in verdict.findings} == {NOT_RESOLVED}
    early.about["looks"] = [4]
    assert judge(early, CONTRASTS, [find(early, CONTROL)]).outcome == CONTRADICTED


def test_claims_of_a_study_are_judged_each_by_itself():
    """A claim leaves out conditions on labels that the runs lack, and has the study's positive control or its own."""
    at = Contrast("a-b, budget", "a", "b", "top1", 0.01, "", {**AT, "budget": "epochs"})
    claims = (
        Claim("A beats B", (at,)),
        Claim("A beats C", CONTRASTS[1:]),
        Claim("A beats C again", CONTRASTS[1:], "", ()),
    )
    study = Study("toy", (), "?", "", (), (), (CONTROL,), "", list, list, claims=claims)
    found = judge_claims(study, results({"b": GOOD, "c": NO_EFFECT, "random": OPEN}))
    assert [verdict.claim for verdict in found] == [claim.text for claim in claims]
    assert [verdict.outcome for verdict in found] == [SUPPORTED, UNINFORMATIVE, CONTRADICTED]
    assert found[0].findings[0].contrast.conditions == AT
    whole = joined(found)
    assert len(whole.findings) == 2 and len(whole.controls) == 1


@pytest.mark.parametrize(
    ("b", "c", "control", "outcome"),
    [
        (GOOD, BAD, GOOD, SUPPORTED),  # one is enough
        (BAD, BAD, GOOD, CONTRADICTED),
        (BAD, OPEN, GOOD, NOT_RESOLVED),  # all have to exclude an effect of interest
        (BAD, BAD, OPEN, CONTRADICTED),  # a resolved disadvantage, whatever the control shows
        (NO_EFFECT, BAD, OPEN, UNINFORMATIVE),
    ],
)
def test_a_claim_about_some_contrasts(b, c, control, outcome):
    found = results({"b": b, "c": c, "random": control})
    assert judge(found, CONTRASTS, [find(found, CONTROL)], some=True).outcome == outcome


def test_support_by_one_of_many_is_corrected_for_their_number():
    found = results({"b": (0.010, 0.035, 0.018, 0.011), "c": BAD})
    lower = find(found, CONTRASTS[0])
    assert lower.outcome == BETTER and lower.is_better_of(1) and not lower.is_better_of(40)
    many = tuple(Contrast(f"{n}", "a", "b" if n == 0 else "c", "top1", 0.01, CLAIM, AT) for n in range(40))
    assert judge(found, many, (), some=True).outcome == NOT_RESOLVED
    assert judge(found, many[:1], (), some=True).outcome == SUPPORTED


def test_more_than_three_contrasts_are_for_claims_about_some_of_them():
    with pytest.raises(ValueError, match="1 to 3 contrasts"):
        Claim("all", CONTRASTS * 2)
    assert Claim("some", CONTRASTS * 2, some=True).contrasts == CONTRASTS * 2
