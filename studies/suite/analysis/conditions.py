"""The conditions of a page: the labels beside arm and seed (budget, correlation), as values and as words."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from studies.suite.analysis.results import Evidence
from studies.suite.planning.study import Contrast

BUDGETS = {"epochs": "equal epochs", "flops": "equal training FLOPs"}
SYMBOLS = {"rho": "ρ"}
Condition = dict[str, Any]


def conditions(evidence: Evidence, labels: Sequence[str]) -> list[Condition]:
    """Every combination of the values that these labels take in the plan; labels that no run has are left out."""
    axes = {label: levels for label in labels if (levels := evidence.levels(label))}
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def everywhere(contrasts: Sequence[Contrast], found: Sequence[Condition]) -> list[Contrast]:
    """Each contrast in each condition, under a name of its own; its claim says in which budgets it is made."""
    budgets = " and at ".join(dict.fromkeys(BUDGETS[each["budget"]] for each in found if "budget" in each))
    at = f", at {budgets}" if budgets else ""
    return [
        replace(
            contrast, name=f"{contrast.name}, {words(condition)}", conditions=condition, claim=f"{contrast.claim}{at}"
        )
        for condition in found
        for contrast in contrasts
    ]


def by_what_there_is(contrasts: Sequence[Contrast], evidence: Evidence, fallback: str) -> list[Contrast]:
    """The contrasts as they are, or all on ``fallback`` where no finished run has their metric (unlabelled images)."""
    done = evidence.finished

    def there(metric: str) -> bool:
        return metric in done and bool(done[metric].notna().any())

    if there(contrasts[0].metric) or not there(fallback):
        return list(contrasts)
    return [replace(each, metric=fallback) for each in contrasts]


def words(condition: Condition) -> str:
    """A condition as a reader says it: "equal epochs, ρ = 0.8"."""
    budget = [BUDGETS[condition["budget"]]] if "budget" in condition else []
    return ", ".join([*budget, *filter(None, [axis_words(condition)])])


def axis_words(condition: Condition) -> str:
    """The condition without its budget: "ρ = 0.8"; empty where there is nothing else."""
    axes = {label: value for label, value in condition.items() if label != "budget"}
    return ", ".join(f"{SYMBOLS.get(label, label)} = {_value(value)}" for label, value in axes.items())


def title(condition: Condition) -> str:
    """The words as a heading; a symbol such as ρ stays as it is."""
    text = words(condition)
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def versus(contrast: Contrast, labels: Mapping[str, str]) -> str:
    """What a contrast compares: "SCD vs. MoCo"."""
    return f"{labels[contrast.treatment]} vs. {labels[contrast.control]}"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
