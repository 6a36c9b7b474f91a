"""The conditions of a page: the labels beside arm and seed (budget, correlation), as values and in words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import select
from studies.suite.planning.study import Claim, Contrast

BUDGET_WORDS = {"epochs": "equal epochs", "flops": "equal training FLOPs"}
SYMBOLS = {"rho": "ρ"}
Condition = dict[str, Any]


def conditions(results: Results, labels: Sequence[str]) -> list[Condition]:
    """Every combination of the values of these labels in the plan; labels that no run has are left out."""
    axes = {label: levels for label in labels if (levels := results.levels(label))}
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def cross_conditions(contrasts: Sequence[Contrast], found: Sequence[Condition]) -> list[Contrast]:
    """Each contrast in each condition, under a name of its own; the claims stay."""
    return [
        replace(contrast, name=", ".join(filter(None, [contrast.name, words(condition)])), conditions=condition)
        for condition in found
        for contrast in contrasts
    ]


def fit_conditions(contrasts: Sequence[Contrast], results: Results) -> list[Contrast]:
    """The contrasts without the conditions on labels that no run has, such as ``rho`` on photographs."""

    def of_runs(given: Condition) -> Condition:
        return {label: value for label, value in given.items() if results.levels(label)}

    return [replace(contrast, conditions=of_runs(contrast.conditions)) for contrast in contrasts]


def planned(contrasts: Sequence[Contrast], results: Results) -> list[Contrast]:
    """The contrasts whose two arms are planned."""
    arms = set(results.about["arms"])
    return [contrast for contrast in contrasts if {contrast.treatment, contrast.control} <= arms]


def planned_claims(claims: Sequence[Claim], results: Results, arms: Iterable[str]) -> list[Claim]:
    """The claims without those about arms that are not planned; all claims where none is left.

    Args:
        arms: names of a study's arms. A claim may also compare rows that are derived from runs, under other names.
    """
    absent = set(arms) - {*results.about["arms"], *results.levels("arm")}
    return [
        claim for claim in claims if not any({each.treatment, each.control} & absent for each in claim.contrasts)
    ] or list(claims)


def planned_there(contrasts: Sequence[Contrast], results: Results) -> list[Contrast]:
    """The contrasts whose two arms are planned in the contrast's own conditions."""

    def arms(contrast: Contrast) -> set[str]:
        return set(select(results.runs, **contrast.conditions)["arm"])

    return [each for each in contrasts if {each.treatment, each.control} <= arms(each)]


def fall_back_to_metric(contrasts: Sequence[Contrast], results: Results, metric: str) -> list[Contrast]:
    """The contrasts, on ``metric`` where no finished run has theirs (images without labels)."""
    if not results.has(metric):
        return list(contrasts)
    return [each if results.has(each.metric) else replace(each, metric=metric) for each in contrasts]


def words(condition: Condition) -> str:
    """A condition in words: "equal epochs, ρ = 0.8"."""
    budget = [BUDGET_WORDS[condition["budget"]]] if "budget" in condition else []
    return ", ".join([*budget, *filter(None, [axis_words(condition)])])


def axis_words(condition: Condition) -> str:
    """The condition without its budget: "ρ = 0.8", "small objects"; empty where there is nothing else."""
    axes = {label: value for label, value in condition.items() if label != "budget"}
    return ", ".join(
        value if isinstance(value, str) else f"{SYMBOLS.get(label, label)} = {_value(value)}"
        for label, value in axes.items()
    )


def title(condition: Condition) -> str:
    """The words as a heading; a symbol such as ρ stays as it is."""
    text = words(condition)
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def versus(contrast: Contrast, labels: Mapping[str, str]) -> str:
    """What a contrast compares: "SCD vs. MoCo"."""
    return f"{labels[contrast.treatment]} vs. {labels[contrast.control]}"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
