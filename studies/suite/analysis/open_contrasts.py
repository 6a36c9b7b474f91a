"""The verdicts that decide which seeds are added: of a study's claims, as far as its plan can answer them."""

from collections.abc import Sequence
from dataclasses import replace

from studies.suite.analysis.conditions import fall_back_to_metric, fit_conditions
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import select
from studies.suite.analysis.verdict import Verdict, judge, measure_controls
from studies.suite.planning.study import Claim, Contrast, Study


def open_verdicts(study: Study, results: Results) -> tuple[Verdict, ...]:
    """The verdicts of the claims, without the contrasts and controls that no further seed of this plan can decide.

    A study without claims has each of its contrasts as a claim of its own. A contrast is left out where the plan lacks
    one of its arms (``arms=``), has fewer seeds of it than the last reading, or where no finished run has its metric.
    One that does not say in which conditions it is taken is taken in all of them.

    Args:
        results: of the whole plan, with rows for the runs that have not begun.
    """
    verdicts = []
    for claim in study.claims or _each_alone(study):
        contrasts = [
            replace(each, claim=claim.text)
            for declared in fall_back_to_metric(fit_conditions(claim.contrasts, results), results, study.fallback)
            for each in _planned(results, declared, (declared.looks or study.looks)[-1])
        ]
        if not contrasts:
            continue
        declared = study.control if claim.controls is None else claim.controls
        controls = [
            control
            for control in measure_controls(results, contrasts, fall_back_to_metric(declared, results, study.fallback))
            if _planned(results, control.contrast, (control.contrast.looks or study.looks)[-1])
        ]
        verdicts.append(judge(results, contrasts, controls, claim.some))
    return tuple(verdicts)


def _each_alone(study: Study) -> tuple[Claim, ...]:
    claimed = [contrast for contrast in study.contrasts if contrast not in study.control]
    return tuple(Claim(contrast.claim, (contrast,)) for contrast in claimed)


def _planned(results: Results, contrast: Contrast, seeds: int) -> Sequence[Contrast]:
    """The contrast in each of the conditions that it leaves open and that have so many seeds of both arms."""
    if not results.finished.empty and not results.has(contrast.metric):
        return []
    labels = [label for label in results.labels if label not in ("arm", "seed", *contrast.conditions)]
    labels = [label for label in labels if len(results.levels(label)) > 1]
    runs = select(results.runs, **contrast.conditions)
    runs = runs[runs["arm"].isin([contrast.treatment, contrast.control])]
    found = []
    for condition, group in _groups(runs, labels):
        counts = group.groupby("arm")["seed"].nunique()
        if len(counts) == 2 and counts.min() >= seeds:
            name = ", ".join([contrast.name, *(f"{label}={value}" for label, value in condition.items())])
            found.append(replace(contrast, name=name, conditions={**contrast.conditions, **condition}))
    return found


def _groups(runs, labels):
    """The runs by their values of these labels, runs without one of them left out."""
    if not labels:
        return [({}, runs)]
    grouped = runs.groupby(labels, sort=False, dropna=True)
    return [(dict(zip(labels, values, strict=True)), group) for values, group in grouped]
