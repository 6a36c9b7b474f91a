"""The sentences of an answer, from findings with known numbers."""

from dataclasses import replace

import pytest

from studies.suite.analysis.answers import answer, sensitivity, sentence
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import difference_of
from studies.suite.analysis.verdict import Finding, Verdict, outcome_of
from studies.suite.planning.study import Contrast

LABELS = {"scd": "SCD", "moco": "MoCo", "constant": "SCD with a constant map", "random": "random weights", "x": "X"}
METRICS = {"top1": {"label": "linear top-1", "unit": "share in [0, 1]", "better": "higher", "definition": ""}}
RESULTS = Results({"metrics": METRICS}, None)
CLAIM = "SCD is better than everything"
# three values around a mean m with a half width h of their 95 % interval: m, m ± h / 2.4841
SPREAD = 1 / (4.302653 / 3**0.5)
MEAN, HALF = 0.033, 0.03


def values(mean, half):
    """Three differences with this mean and this half width of their t interval."""
    return [mean - half * SPREAD, mean, mean + half * SPREAD]


def finding(treatment, control, differences, conditions=None, detectable=0.042):
    contrast = Contrast(f"{treatment}-{control}", treatment, control, "top1", 0.01, CLAIM, conditions or {})
    gain = difference_of(range(len(differences)), differences)
    return Finding(contrast, gain, outcome_of(gain, 0.01), detectable if gain.sd else None)


def verdict(*findings, controls=()):
    return Verdict(CLAIM, findings, tuple(controls), len(findings))


def text(*findings, **options):
    return "\n".join(answer(verdict(*findings, **options), RESULTS, LABELS))


def test_the_example_of_the_issue():
    found = text(finding("scd", "moco", values(MEAN, HALF)), finding("scd", "constant", values(0.003, 0.036)))
    assert found == (
        "**Not resolved** whether SCD is better than everything. SCD is better than MoCo by 3.3 points [0.3, 6.3]. It "
        "cannot be told apart from SCD with a constant map: 0.3 points [−3.3, 3.9]; this page could have detected 4.2 "
        "points. (Differences in linear top-1 with 95 % intervals, 3 paired seeds.)"
    )


@pytest.mark.parametrize(
    ("differences", "sentence"),
    [
        (values(0.033, 0.03), "SCD is better than MoCo by 3.3 points [0.3, 6.3]."),
        (values(-0.033, 0.03), "SCD is worse than MoCo by 3.3 points [0.3, 6.3]."),
        (values(0.001, 0.004), "SCD is equivalent within ± 1 point to MoCo (0.10 points [−0.30, 0.50])."),
        ([0.01], "SCD differs from MoCo by 1.0 points (no interval)."),
        ([0.01] * 3, "SCD differs from MoCo by 1.0 points (no interval)."),
    ],
)
def test_one_sentence_for_each_outcome(differences, sentence):
    assert sentence in text(finding("scd", "moco", differences))


def test_findings_of_one_outcome_share_a_sentence():
    found = text(
        finding("scd", "moco", values(0.003, 0.036), detectable=0.024),
        finding("scd", "constant", values(0.006, 0.04)),
        finding("x", "moco", values(0.05, 0.03)),
        finding("x", "random", values(0.06, 0.03)),
    )
    assert (
        "SCD cannot be told apart from MoCo (0.3 points [−3.3, 3.9]) and SCD with a constant map (0.6 points [−3.4, "
        "4.6]); this page could have detected 2.4 to 4.2 points. X is better than MoCo by 5.0 points [2.0, 8.0] and "
        "than random weights by 6.0 points [3.0, 9.0]."
    ) in found


def test_several_conditions_become_a_list():
    first, second = ({"budget": budget, "rho": 0.8} for budget in ("epochs", "flops"))
    paragraphs = answer(
        verdict(finding("scd", "moco", values(MEAN, HALF), first), finding("scd", "moco", values(-0.05, HALF), second)),
        RESULTS, LABELS,
    )  # fmt: skip
    assert paragraphs[0].startswith(
        "**Contradicted:** it does not hold that SCD is better than everything, at equal epochs and at equal training "
        "FLOPs, for ρ = 0.8. Differences in linear top-1"
    )
    assert paragraphs[1].splitlines() == [
        "- *equal epochs, ρ = 0.8:* SCD is better than MoCo by 3.3 points [0.3, 6.3].",
        "- *equal training FLOPs, ρ = 0.8:* SCD is worse than MoCo by 5.0 points [2.0, 8.0].",
    ]


def test_a_failed_control_is_said_first():
    control = finding("moco", "random", values(0.003, 0.036))
    found = verdict(finding("scd", "moco", values(-0.01, HALF)), controls=[control])
    assert text(*found.findings, controls=[control]).startswith(
        "**Uninformative:** this page does not reproduce its positive control, so it cannot say whether SCD is better "
        "than everything."
    )
    assert sensitivity(found, RESULTS, LABELS) == (
        "**What this page could have seen.** Positive control: MoCo cannot be told apart from random weights: 0.3 "
        "points [−3.3, 3.9]; this page could have detected 4.2 points. With 3 paired seeds the page could have "
        "detected (80 % power) a difference of 4.2 points in linear top-1; the smallest effect of interest is 1 point."
    )


def test_controls_that_are_the_same_runs_are_named_once():
    conditions = [{"budget": budget, "rho": rho} for rho in (0.0, 0.8) for budget in ("epochs", "flops")]
    controls = [finding("moco", "random", values(0.05 + each["rho"] / 100, 0.03), each) for each in conditions]
    found = sensitivity(verdict(finding("scd", "moco", [], conditions[0]), controls=controls), RESULTS, LABELS)
    assert found == (
        "**What this page could have seen.** Positive control (ρ = 0): MoCo is better than random weights by 5.0 "
        "points [2.0, 8.0]. Positive control (ρ = 0.8): MoCo is better than random weights by 5.8 points [2.8, 8.8]. "
        "No detectable difference can be stated before two pairs of a contrast differ."
    )
    alone = sensitivity(verdict(finding("scd", "moco", [])), RESULTS, LABELS)
    assert "No positive control is declared." in alone
    absent = sensitivity(verdict(finding("scd", "moco", []), controls=[finding("moco", "random", [])]), RESULTS, LABELS)
    assert "Positive control: MoCo vs. random weights is not measured." in absent


def test_what_is_missing_is_counted():
    assert text(finding("scd", "moco", [])).endswith("No contrast has a pair of seeds yet.")
    partly = text(finding("scd", "moco", values(MEAN, HALF)), finding("scd", "constant", []))
    assert "1 of 2 contrasts have no pair of seeds." in partly


def test_what_correction_leaves_open_is_said():
    found = text(finding("scd", "moco", values(-0.02, 0.019)), finding("scd", "constant", values(0.05, 0.03)))
    assert found.startswith("**Contradicted")  # -0.1 at 0.025 / 2 lies below one point
    weak = verdict(finding("scd", "moco", values(-0.033, 0.032)), finding("scd", "constant", values(0.05, 0.03)))
    assert "none of them rules out an effect of interest" in "\n".join(
        answer(Verdict(CLAIM, weak.findings, (), 50), RESULTS, LABELS)
    )


def test_a_significant_difference_below_the_smallest_effect_of_interest_is_not_a_contradiction():
    small = values(0.005, 0.003)
    found = text(finding("scd", "moco", small))
    assert found == (
        "**Supported, by less than the smallest effect of interest:** SCD is better than everything. SCD is better "
        "than MoCo by 0.50 points [0.20, 0.80], less than the smallest effect of interest. (Differences in linear "
        "top-1 with 95 % intervals, 3 paired seeds.)"
    )
    mixed = text(finding("scd", "moco", small), finding("scd", "constant", values(0.05, 0.03)))
    assert (
        mixed.startswith("**Supported:**")
        and (
            "SCD is better than SCD with a constant map by 5.0 points [2.0, 8.0]. It is better than MoCo by 0.50 "
            "points [0.20, 0.80], less than the smallest effect of interest."
        )
        in mixed
    )
    less = text(finding("scd", "moco", values(-0.005, 0.003)))
    assert "SCD is worse than MoCo by 0.50 points [0.20, 0.80], less than the smallest effect of interest." in less


def test_a_claim_is_answered_in_one_sentence():
    def said(*findings, **options):
        return sentence(verdict(*findings, **options), RESULTS, LABELS)

    assert said(finding("scd", "moco", values(MEAN, HALF))) == (
        "**Supported:** SCD is better than everything: SCD is better than MoCo by 3.3 points [0.3, 6.3] (3 paired "
        "seeds)."
    )
    two = said(finding("scd", "moco", values(MEAN, HALF)), finding("scd", "constant", values(0.003, 0.036)))
    assert two == (
        "**Not resolved** whether SCD is better than everything: SCD is better than MoCo by 3.3 points [0.3, 6.3], and "
        "it cannot be told apart from SCD with a constant map: 0.3 points [−3.3, 3.9]; this page could have detected "
        "4.2 points (3 paired seeds)."
    )
    first, second = ({"budget": budget} for budget in ("epochs", "flops"))
    apart = said(finding("scd", "moco", values(MEAN, HALF), first), finding("scd", "moco", values(-0.05, HALF), second))
    assert apart == (
        "**Contradicted:** it does not hold that SCD is better than everything: equal epochs: SCD is better than MoCo "
        "by 3.3 points [0.3, 6.3]; equal training FLOPs: SCD is worse than MoCo by 5.0 points [2.0, 8.0] (3 paired "
        "seeds)."
    )
    control = finding("moco", "random", values(0.003, 0.036))
    blind = said(finding("scd", "moco", values(-0.01, HALF)), controls=[control])
    assert blind.startswith("**Uninformative:** this page does not reproduce its positive control, so it cannot say")
    worse = said(finding("scd", "moco", values(-0.05, HALF)), controls=[control])
    assert worse == (
        "**Contradicted:** it does not hold that SCD is better than everything: SCD is worse than MoCo by 5.0 points "
        "[2.0, 8.0] (3 paired seeds). Its positive control fails here (MoCo vs. random weights: 0.3 points [−3.3, "
        "3.9]), so this holds for these images and this training alone."
    )
    seen = finding("moco", "random", values(MEAN, HALF))
    assert "control" not in said(finding("scd", "moco", values(-0.05, HALF)), controls=[seen])
    nothing = said(finding("scd", "moco", []))
    assert nothing == "**Not resolved** whether SCD is better than everything: no contrast has a pair of seeds yet."
    assert said(finding("scd", "moco", values(MEAN, HALF)), finding("scd", "x", [])).endswith(
        "; 1 of 2 contrasts have no pair of seeds (3 paired seeds)."
    )


def test_readings_are_named_and_what_is_not_read_yet_is_not_judged():
    several = Results({**RESULTS.about, "looks": [5, 10]}, None)
    found = finding("scd", "moco", values(MEAN, HALF))
    early = replace(found, gain=replace(found.gain, is_read=False), outcome="not resolved")
    text = "\n".join(answer(verdict(early), several, LABELS))
    assert text == (
        "**Not resolved** whether SCD is better than everything. SCD differs from MoCo by 3.3 points [0.3, 6.3], which "
        "is not judged before 5 seeds. (Differences in linear top-1 with 95 % intervals over all readings, 3 paired "
        "seeds.)"
    )
    assert "It is read at 5 and 10 seeds." in sensitivity(verdict(early), several, LABELS)
    once = Results({**RESULTS.about, "looks": [5]}, None)
    assert "It is read once, at 5 seeds." in sensitivity(verdict(early), once, LABELS)
    own = replace(early, contrast=replace(early.contrast, looks=(6,)))
    assert "is not judged before 6 seeds." in "\n".join(answer(verdict(own), several, LABELS))
    text = "It is read once, at 5 seeds; some contrasts have a reading of their own, at 6 seeds."
    assert text in sensitivity(verdict(own), once, LABELS)
