"""Which further runs would decide most: the next step of a study that is read at several numbers of seeds.

A contrast of an open claim is taken to its next reading by adding the seeds that its two arms lack. How likely that
decides it is computed from its mean and spread so far, with a flat prior: given n seeds, the mean over N seeds is
distributed as t with the degrees of freedom of the spread, around the mean so far, with the scale
spread * sqrt(1 / n - 1 / N) (the predictive distribution of a normal mean, Box and Tiao 1973, Bayesian Inference in
Statistical Analysis, section 2.5). This is a rank order for spending time, not evidence, and no page prints it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import pandas
from scipy import special

from studies.suite.analysis.conditions import words
from studies.suite.analysis.readings import SETTLED, level, next_look, settled_seeds, status_by_seed
from studies.suite.analysis.results import DONE, Results
from studies.suite.analysis.statistics import PairedResult, quantile, select
from studies.suite.analysis.verdict import BETTER, CONTRADICTED, NOT_RESOLVED, SUPPORTED, Finding, Verdict

COSTS = ("seconds_pretrain", "seconds_eval")
Run = tuple[str, str, int]  # arm, condition in words, seed


@dataclass(frozen=True)
class Step:
    """One contrast, taken to its next reading.

    Attributes:
        finding: the contrast and what is known of it.
        arms: the arms that lack seeds, with the most lacking first; seeds: the number of seeds that they need.
        runs: (arm, condition in words, seed) of the missing runs that no earlier step asks for.
        chance: the probability that the reading decides the contrast; 1 where too little is known to say.
        seconds: of these runs, one after another, by the time that finished runs of the arm took.
    """

    finding: Finding
    arms: tuple[str, ...]
    seeds: int
    runs: tuple[Run, ...]
    chance: float
    seconds: float


@dataclass(frozen=True)
class NextStep:
    """What is decided, what is not, and what to run next.

    Attributes:
        decided: contrasts that have an outcome, or whose claim has an answer without them.
        waiting: contrasts that another reading may decide.
        exhausted: contrasts without an outcome after the last reading: no further seed counts.
        steps: the most useful first: the most decided contrasts per second.
    """

    decided: tuple[Finding, ...]
    waiting: tuple[Finding, ...]
    exhausted: tuple[Finding, ...]
    steps: tuple[Step, ...]

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms whose further seeds are most useful, the most useful first."""
        return tuple(dict.fromkeys(arm for step in self.steps for arm in step.arms))

    @property
    def seconds(self) -> float:
        """Of all steps together."""
        return sum(step.seconds for step in self.steps)


def next_step(results: Results, verdicts: Sequence[Verdict], minutes: float = inf) -> NextStep:
    """What to run next, given the answers so far.

    A claim that is supported or contradicted asks for nothing. Of an open claim the contrasts without an outcome count,
    and its positive controls as long as they are not better.

    Args:
        results: the runs of the study, with its readings in ``about``; their arms are arms of the study, and not rows
            that it derives from several of them.
        verdicts: of its claims, by the same results: ``judge_claims(study, results)``, or ``report.verdicts``.
        minutes: of runs, one after another; a step that does not fit is left out, and a cheaper one may follow.
    """
    looks, found = results.about.get("looks", ()), {}
    for verdict in verdicts:
        answered = verdict.outcome in (SUPPORTED, CONTRADICTED)
        for finding in verdict.findings:
            _keep(found, finding, answered or finding.outcome != NOT_RESOLVED)
        for control in verdict.controls:
            _keep(found, control, answered or control.outcome == BETTER)
    decided = tuple(finding for finding, is_decided in found.values() if is_decided)
    rest = [finding for finding, is_decided in found.values() if not is_decided]
    targets = {id(finding): next_look(finding.contrast.looks or looks, _settled(results, finding)) for finding in rest}
    waiting = tuple(finding for finding in rest if targets[id(finding)])
    exhausted = tuple(finding for finding in rest if not targets[id(finding)])
    return NextStep(decided, waiting, exhausted, _ordered(results, waiting, targets, level(looks), 60 * minutes))


def chance_to_decide(gain: PairedResult, sesoi: float, seeds: int, alpha: float) -> float:
    """The probability that a contrast has an outcome at this number of seeds, see the module; 1 where it is unknown."""
    if not gain.spread or gain.n >= seeds:
        return 1.0
    later = gain.df * (seeds - 1) // (gain.n - 1)
    half, scale = quantile(alpha, later) * gain.spread / sqrt(seeds), gain.spread * sqrt(1 / gain.n - 1 / seeds)

    def below(value: float) -> float:
        return float(special.stdtr(gain.df, (value - gain.mean) / scale))

    differs = below(-half) + 1 - below(half)
    inside = min(sesoi - half, half)  # an equivalent mean that is not better or worse as well
    return differs + (below(inside) - below(-inside) if inside > 0 else 0.0)


# -------------------------------------------------------------------- contrasts and their runs


def _keep(found: dict[tuple, tuple[Finding, bool]], finding: Finding, is_decided: bool) -> None:
    """Each comparison once; what one claim leaves open is open."""
    contrast = finding.contrast
    key = contrast.treatment, contrast.control, contrast.metric, words(contrast.conditions)
    found[key] = found.get(key, (finding, True))[0], is_decided and found.get(key, (finding, True))[1]


def _settled(results: Results, finding: Finding) -> int:
    contrast = finding.contrast
    runs = select(results.runs, **contrast.conditions)
    states = (status_by_seed(select(runs, arm=arm)) for arm in (contrast.treatment, contrast.control))
    return len(settled_seeds(*states))


def _ordered(
    results: Results, waiting: Iterable[Finding], targets: dict[int, int | None], alpha: float, budget: float
) -> tuple[Step, ...]:
    """The steps, greedily: each time the one with the most chance per second, counting no run twice."""
    left, steps, asked = list(waiting), [], set()
    while left:
        options = [_step(results, finding, targets[id(finding)], alpha, asked) for finding in left]
        fitting = [option for option in options if option.seconds <= budget]
        if not fitting:
            break
        best = max(fitting, key=lambda step: step.chance / max(step.seconds, 1e-9))
        steps.append(best)
        asked |= {_identity(results, run, best.finding.contrast.conditions) for run in best.runs}
        budget -= best.seconds
        left = [finding for finding in left if finding is not best.finding]
    return tuple(steps)


def _step(results: Results, finding: Finding, seeds: int, alpha: float, asked: set[Run]) -> Step:
    """A contrast taken to a number of seeds, without the runs that are asked for already."""
    contrast, lacking, seconds = finding.contrast, {}, 0.0
    runs = select(results.runs, **contrast.conditions)
    for arm in (contrast.treatment, contrast.control):
        own = select(runs, arm=arm)
        states = status_by_seed(own)
        wanted = [(arm, words(contrast.conditions), seed) for seed in range(seeds) if states.get(seed) not in SETTLED]
        lacking[arm] = [run for run in wanted if _identity(results, run, contrast.conditions) not in asked]
        seconds += len(lacking[arm]) * _seconds(results, own)
    arms = tuple(sorted((arm for arm in lacking if lacking[arm]), key=lambda arm: -len(lacking[arm])))
    chance = chance_to_decide(finding.gain, contrast.sesoi, seeds, alpha)
    return Step(finding, arms, seeds, tuple(run for own in lacking.values() for run in own), chance, seconds)


def _identity(results: Results, run: Run, conditions: dict[str, Any]) -> Run:
    """The run under one name: arms may be the same runs in several conditions, as their finished seeds show."""
    arm, where, seed = run
    own = select(results.runs, **conditions, arm=arm)
    return arm, where if own.empty or "run" not in own else str(own["run"].iloc[0]), seed


def _seconds(results: Results, own: pandas.DataFrame) -> float:
    """The mean time of a run of an arm, of any run where the arm has none, 0 where nothing is known."""
    for runs in (own[own["status"] == DONE], results.finished):
        columns = [column for column in COSTS if column in runs]
        if columns and len(runs) and runs[columns].notna().any(axis=None):
            return float(runs[columns].sum(axis=1).mean())
    return 0.0
