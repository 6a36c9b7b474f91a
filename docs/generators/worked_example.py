"""The numbers of the worked example in *How to read a page*: one contrast of a committed page, computed again."""

from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

from docs.generators.declarations import ROOT
from docs.generators.method_pages import markdown_table
from studies.suite.analysis import notation
from studies.suite.analysis.answers import sentence
from studies.suite.analysis.results import Results, load
from studies.suite.analysis.statistics import by_seed, quantile, select
from studies.suite.analysis.verdict import Finding, Verdict, judge_claims
from studies.suite.planning.command_line import load_study

PAGE = "multicrop"
CLAIM = "Does the separation add at the same cost?"
POINTS = 100.0  # per share


def found(reports: Path = ROOT / "reports") -> tuple[Results, Verdict, Mapping[str, str]]:
    """The records of the page, the verdict of the claim by the code that writes pages, and the labels of its arms."""
    results, study = load(reports, PAGE), load_study(PAGE)
    claims = [claim for claim in study.claims if claim.question == CLAIM]
    (verdict,) = judge_claims(study, results, claims)
    return results, verdict, {arm.name: arm.label for arm in study.arms}


def values(reports: Path = ROOT / "reports") -> dict[str, Any]:
    """What the page ``how-to-read.md`` names, in points where it is a difference."""
    results, verdict, labels = found(reports)
    finding = verdict.findings[0]
    contrast, gain = finding.contrast, finding.gain
    metric = results.metric(contrast.metric)
    control = verdict.controls_of(finding)[0]
    half = quantile(gain.alpha, gain.df) * gain.spread / sqrt(gain.n)
    classes = sorted(set(results.finished["numerics"]) - {""})
    return {
        "page": PAGE,
        "claim": verdict.claim,
        "question": CLAIM,
        "sentence": sentence(verdict, results, labels),
        "answer": verdict.outcome,
        "outcome": finding.outcome,
        "treatment": labels[contrast.treatment],
        "control": labels[contrast.control],
        "metric": metric.label,
        "seed_table": seed_table(results, finding, labels),
        "n": gain.n,
        "mean": points(gain.mean),
        "own_sd": points(gain.sd),
        "spread": points(gain.spread),
        "df": gain.df,
        "arms": gain.df // (gain.n - 1) + 1,
        "is_pooled": gain.is_pooled,
        "quantile": f"{quantile(gain.alpha, gain.df):.3f}",
        "error": f"{100 * gain.alpha:.3g}",
        "half": points(half),
        "low": points(gain.ci_low),
        "high": points(gain.ci_high),
        "sesoi": notation.size(metric, contrast.sesoi),
        "detectable": notation.size(metric, finding.detectable),
        "looks": ", ".join(map(str, results.about["looks"])),
        "positive_control": f"{labels[control.contrast.treatment]} against {labels[control.contrast.control]}",
        "control_outcome": control.outcome,
        "control_amount": notation.amount(results.metric(control.contrast.metric), control.gain),
        "classes": ", ".join(f"`{name}`" for name in classes),
        "mixed": len(gain.mixed),
    }


def seed_table(results: Results, finding: Finding, labels: Mapping[str, str]) -> str:
    """Both arms and their difference, seed by seed, in points."""
    contrast = finding.contrast
    first, second = (
        by_seed(select(results.finished, arm=arm, **contrast.conditions), contrast.metric)
        for arm in (contrast.treatment, contrast.control)
    )
    rows = [
        (seed, f"{POINTS * first[seed]:.2f}", f"{POINTS * second[seed]:.2f}", points(difference, signed=True))
        for seed, difference in zip(finding.gain.seeds, finding.gain.differences, strict=True)
    ]
    return markdown_table(("seed", labels[contrast.treatment], labels[contrast.control], "difference"), rows)


def points(share: float, signed: bool = False) -> str:
    """A share in points, with a minus sign that is one."""
    return f"{POINTS * share:{'+' if signed else ''}.2f}".replace("-", "−")
