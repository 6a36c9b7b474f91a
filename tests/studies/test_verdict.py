"""The written rule on synthetic records: the three outcomes, its sentence, and its error rates."""

import numpy as np
import pandas
import pytest

from studies.suite.analysis.verdict import CONTRADICTED, SUPPORTED, UNDECIDED, family, judge, rule, sentence
from studies.suite.planning.study import Contrast

CLAIM = "A beats B and C"
CONTRASTS = tuple(Contrast(f"a-{other}", "a", other, "top1", 0.01, CLAIM, {"rho": 0.0}) for other in "bc")


def records(differences):
    """Records of the arm "a" and of arms that lie below it by the given differences, seed by seed."""
    rows = []
    for seed, base in enumerate(np.linspace(0.5, 0.6, max(map(len, differences.values())))):
        rows.append({"arm": "a", "seed": seed, "rho": 0.0, "top1": base})
        rows += [
            {"arm": arm, "seed": seed, "rho": 0.0, "top1": base - values[seed]}
            for arm, values in differences.items()
            if seed < len(values)
        ]
    return pandas.DataFrame(rows, columns=["arm", "seed", "rho", "top1"])


def text(verdict):
    return sentence(verdict, lambda result: f"{result.mean:+.4f} n={result.n}", lambda contrast: contrast.name)


def test_supported_when_every_contrast_holds():
    verdict = judge(records({"b": (0.020, 0.024, 0.022, 0.018), "c": (0.010, 0.012, 0.011, 0.013)}), CONTRASTS)
    assert verdict.outcome == SUPPORTED and verdict.seeds is None
    assert {part.outcome for part in verdict.parts} == {"holds"}
    assert text(verdict) == (
        "**Supported:** A beats B and C; all 2 contrasts are above 0, the closest being a-c: +0.0115 n=4."
    )


def test_contradicted_when_one_contrast_excludes_the_difference_of_interest():
    verdict = judge(records({"b": (0.020, 0.024, 0.022, 0.018), "c": (-0.01, -0.012, -0.011, -0.013)}), CONTRASTS)
    assert verdict.outcome == CONTRADICTED and verdict.seeds is None
    assert [part.outcome for part in verdict.parts] == ["holds", "fails"]
    assert text(verdict) == (
        "**Contradicted:** it does not hold that A beats B and C; a-c: -0.0115 n=4, which excludes the smallest "
        "difference of interest (1 of 2 contrasts fail)."
    )


def test_a_positive_but_negligible_difference_contradicts():
    verdict = judge(records({"b": (0.001, 0.0012, 0.0011, 0.0009)}), CONTRASTS[:1])
    assert verdict.parts[0].result.ci_low > 0 and verdict.outcome == CONTRADICTED


def test_undecided_when_a_contrast_is_open_with_the_seeds_that_would_decide():
    verdict = judge(records({"b": (0.020, 0.024, 0.022, 0.018), "c": (0.03, -0.02, 0.02, 0.01)}), CONTRASTS)
    assert verdict.outcome == UNDECIDED
    assert [part.outcome for part in verdict.parts] == ["holds", "open"]
    # mean .01, sd .0216: t(.975, n-1) * .0216 / sqrt(n) < .01 first at n = 21 (2.086 * .0216 / 4.583 = .00983)
    assert verdict.seeds == verdict.parts[1].holds_at == 21
    assert text(verdict).endswith("about 21 paired seeds would decide, if means and spreads stay as they are.")
    assert "1 of 2 contrasts are above 0, none fails; the lowest open one is a-c: +0.0100 n=4" in text(verdict)


def test_one_seed_no_seed_and_equal_differences_decide_nothing():
    one = judge(records({"b": (0.05,), "c": (0.05,)}), CONTRASTS)
    assert one.outcome == UNDECIDED and one.seeds is None
    assert "no number of seeds can be given" in text(one)
    assert judge(records({"b": (0.05,) * 4, "c": (0.05,) * 4}), CONTRASTS).outcome == UNDECIDED
    none = judge(records({"b": ()}).iloc[:0], CONTRASTS)
    assert text(none) == "**Undecided** whether A beats B and C: no contrast has a pair of seeds yet."
    partly = judge(records({"b": (0.020, 0.024, 0.022, 0.018)}), CONTRASTS)
    assert partly.outcome == UNDECIDED and text(partly).startswith("**Undecided** whether A beats B and C: no contrast")


def test_failing_is_corrected_for_the_number_of_contrasts_and_holding_is_not():
    data = records({"b": (0.004, -0.002, 0.003, -0.001), "c": (0.020, 0.024, 0.022, 0.018)})
    alone, together = judge(data, CONTRASTS[:1]), judge(data, CONTRASTS)
    assert together.parts[0].upper > alone.parts[0].upper
    assert together.parts[1].result.ci_low == judge(data, CONTRASTS[1:]).parts[0].result.ci_low


def test_the_parts_of_a_claim_agree_with_the_whole():
    halves = tuple(Contrast(f"a-b, {rho}", "a", "b", "top1", 0.01, CLAIM, {"rho": rho}) for rho in (0.0, 0.8))
    bad = records({"b": (-0.01, -0.012, -0.011, -0.013)}).assign(rho=0.8)
    whole = judge(pandas.concat([records({"b": (0.020, 0.024, 0.022, 0.018)}), bad]), halves)
    assert whole.outcome == CONTRADICTED
    assert [whole.within({"rho": rho}).outcome for rho in (0.0, 0.8)] == [SUPPORTED, CONTRADICTED]


@pytest.mark.parametrize("truth, wrong", [(0.0, SUPPORTED), (0.01, CONTRADICTED)])
def test_error_rates_over_repeated_studies(truth, wrong):
    random, outcomes = np.random.default_rng(1), []
    for _ in range(150):
        draws = {arm: tuple(random.normal(truth, 0.006, 5)) for arm in "bc"}
        outcomes.append(judge(records(draws), CONTRASTS).outcome)
    assert np.mean([outcome == wrong for outcome in outcomes]) < 0.064  # 0.025 and three standard errors


def test_a_family_is_what_shares_the_claim():
    other = Contrast("d-b", "d", "b", "top1", 0.01, "another claim")
    assert family((*CONTRASTS, other), "a-c") == CONTRASTS
    with pytest.raises(KeyError):
        family(CONTRASTS, "x")
    with pytest.raises(ValueError, match="one claim is judged at a time, got 2"):
        judge(records({"b": (0.1,)}), (*CONTRASTS, other))


def test_the_rule_is_printed_with_its_numbers():
    printed = rule(20, "1 point of linear top-1")
    assert "error 0.025 / 20 lies below 1 point of linear top-1" in printed
    for outcome in (SUPPORTED, CONTRADICTED, UNDECIDED):
        assert f"**{outcome}**" in printed


def test_a_claim_of_one_contrast_is_told_without_counting():
    single = judge(records({"c": (0.03, -0.02, 0.02, 0.01)}), CONTRASTS[1:])
    assert text(single).startswith("**Undecided** whether A beats B and C: a-c: +0.0100 n=4; about 21 paired seeds")
    assert rule(1, "1 point").startswith("The claim is one contrast") and "below 1 point" in rule(1, "1 point")
    assert rule(3, "1 point").startswith("The claim is made of 3 contrasts") and "0.025 / 3" in rule(3, "1 point")
