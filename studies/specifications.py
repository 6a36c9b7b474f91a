"""The specifications of a reconstruction: a balanced fraction of the grid of its open choices.

A *choice* is something that the published description leaves open (how the map is normalised, the margin, ...), with
the *levels* that are tried; a *specification* takes one level of each. The whole grid has hundreds of specifications.
:func:`designed` takes few of them such that the levels of every choice, and the pairs of levels of every two choices,
appear about equally often: then the mean over the specifications of one level differs from that of another level by
that choice and, as far as the balance goes, by nothing else.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from math import prod
from typing import Any

from scd.errors import UsageError, unknown
from studies.suite.planning.study import merge

STARTS = 60  # random designs that are improved; the best one is taken
WRAPPER = ("foreground_weight", "anchors", "pooling", "weight", "margin")  # choices that are arguments of scd.scd.SCD
PROJECTIONS = {"mlp": {}, "none": {"projection_dim": 0}}
BRANCHES = ("target", "online")
WORDS = {
    "normalisation": "map",
    "padding": "padding",
    "projection": "projection",
    "foreground_weight": "host's loss on foregrounds",
    "branch": "positive branch",
    "anchors": "anchors",
    "pooling": "pooling",
    "weight": "triplet weight",
    "margin": "margin",
}
Choices = Mapping[str, Sequence[Any]]
Levels = dict[str, Any]


@dataclass(frozen=True)
class Specification:
    """One level of each choice, and its number on the page, from 1."""

    number: int
    levels: Levels

    def words(self, choices: Choices) -> str:
        """The levels of the choices that vary: "map softmax, margin 1"."""
        return ", ".join(f"{WORDS[choice]} {shown(self.levels[choice])}" for choice in varied(choices))


def shown(level: Any) -> str:
    """A level as it is printed."""
    return f"{level:g}" if isinstance(level, float) else str(level)


def varied(choices: Choices) -> list[str]:
    """The choices with more than one level."""
    return [choice for choice, levels in choices.items() if len(levels) > 1]


# -------------------------------------------------------------------- the design


def designed(choices: Choices, count: int, seed: int) -> tuple[Specification, ...]:
    """A balanced fraction of the grid; the first specification has the first level of every choice.

    Random designs are improved by exchanging one level at a time (coordinate exchange: Meyer and Nachtsheim 1995,
    Technometrics 37, 60-69) until no exchange lowers :func:`imbalance`. The draws are hashes of the seed, so the design
    is the same everywhere.

    Args:
        choices: choice -> its levels.
        count: how many specifications; the whole grid where it has no more.
        seed: of the draws.

    Raises:
        UsageError: an unknown choice, a choice without levels or with two equal ones, or a count below 1.
    """
    check(choices, count)
    open_ones = varied(choices)
    rows = fraction(tuple(len(choices[choice]) for choice in open_ones), count, seed)
    first = {choice: levels[0] for choice, levels in choices.items()}
    return tuple(
        Specification(number, first | {choice: choices[choice][at] for choice, at in zip(open_ones, row, strict=True)})
        for number, row in enumerate(rows, 1)
    )


@cache
def fraction(sizes: tuple[int, ...], count: int, seed: int) -> list[tuple[int, ...]]:
    """The rows of the design, each with the place of its level in every choice; see :func:`designed`."""
    if count >= prod(sizes):
        return list(product(*(range(size) for size in sizes)))
    starts = [improved(start(sizes, count, f"{seed}/{number}"), sizes) for number in range(STARTS)]
    return list(dict.fromkeys(map(tuple, min(starts, key=lambda design: unevenness(design, sizes)))))


def check(choices: Choices, count: int) -> None:
    """See :func:`designed`."""
    for choice, levels in choices.items():
        if choice not in WORDS:
            raise unknown("choice", choice, WORDS)
        if not levels or len({shown(level) for level in levels}) < len(levels):
            raise UsageError(f"axes.choices.{choice} lists one level or several different ones, not {list(levels)}")
    if count < 1:
        raise UsageError(f"axes.specifications is a number of specifications from 1 on, not {count}")


def start(sizes: Sequence[int], count: int, draw: str) -> list[list[int]]:
    """A random design, one row per specification, whose first row is 0 everywhere."""

    def level(row: int, choice: int) -> int:
        return int(hashlib.sha256(f"{draw}/{row}/{choice}".encode()).hexdigest(), 16) % sizes[choice]

    return [[0] * len(sizes), *([level(row, at) for at in range(len(sizes))] for row in range(1, count))]


def improved(design: list[list[int]], sizes: Sequence[int]) -> list[list[int]]:
    """The design after all exchanges of single levels that lower its imbalance; the first row stays."""
    changed = True
    while changed:
        changed = False
        for i, at in product(range(1, len(design)), range(len(sizes))):
            row, costs = design[i], [0] * sizes[at]
            for other in (*design[:i], *design[i + 1 :]):  # agreeing with it here costs more, the more else agrees
                costs[other[at]] += 1 + agreement(row, other, sizes) - sizes[at] * (row[at] == other[at])
            best = min(range(sizes[at]), key=costs.__getitem__)
            if costs[best] < costs[row[at]]:
                row[at], changed = best, True
    return design


def unevenness(design: Sequence[Sequence[int]], sizes: Sequence[int]) -> tuple[int, int, int]:
    """How a finished design is ranked: repeated rows, pairs of levels that never meet, imbalance."""
    places = list(combinations(range(len(sizes)), 2))
    met = sum(len({(row[f], row[g]) for row in design}) for f, g in places)
    repeated = len(design) - len(set(map(tuple, design)))
    return repeated, sum(sizes[f] * sizes[g] for f, g in places) - met, imbalance(design, sizes)


def imbalance(design: Sequence[Sequence[int]], sizes: Sequence[int]) -> int:
    """Sum of squared counts of the levels of each choice, and of each pair of choices, times their number of levels.

    It is least where all levels, and all pairs of levels, appear equally often (an orthogonal array). A squared count
    counts the pairs of rows that agree there, so the sum is taken over pairs of rows; constants are left out.
    """
    total = 0
    for a, b in combinations(design, 2):
        w = agreement(a, b, sizes)
        squares = sum(size**2 for size, one, two in zip(sizes, a, b, strict=True) if one == two)
        total += w + (w**2 - squares) // 2
    return total


def agreement(a: Sequence[int], b: Sequence[int], sizes: Sequence[int]) -> int:
    """The numbers of levels of the choices in which two rows agree, summed."""
    return sum(size for size, one, two in zip(sizes, a, b, strict=True) if one == two)


# -------------------------------------------------------------------- the configuration of a run


def host_overrides(levels: Levels) -> dict[str, Any]:
    """What a specification changes in the host, and so in every arm: its backbone and the form of its loss.

    NOTE: a positive of the online branch needs the online features of both views, so its host has a symmetric loss.
    """
    found: dict[str, Any] = {"backbone": {"padding": levels["padding"]}} if "padding" in levels else {}
    if levels.get("branch") == "online":
        found["method"] = {"symmetric": True}
    return found


def wrapper_overrides(levels: Levels, learned: bool) -> dict[str, Any]:
    """What a specification changes in SCD.

    Args:
        learned: whether the arm's map is learned, and so has a normalisation.

    Raises:
        UsageError: an unknown level of a choice that has names.
    """
    wrapper = {choice: levels[choice] for choice in WRAPPER if choice in levels}
    if "projection" in levels:
        if levels["projection"] not in PROJECTIONS:
            raise unknown("projection", levels["projection"], PROJECTIONS)
        wrapper |= PROJECTIONS[levels["projection"]]
    if "branch" in levels:
        if levels["branch"] not in BRANCHES:
            raise unknown("branch", levels["branch"], BRANCHES)
        wrapper["positive_branch"] = levels["branch"]
    if learned and "normalisation" in levels:
        wrapper["saliency"] = {"normalisation": levels["normalisation"]}
    return merge({}, {"wrapper": wrapper})
