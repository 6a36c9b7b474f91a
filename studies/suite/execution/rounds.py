"""A study with a time budget (``minutes=20``): paired seeds are added in rounds until its claims are decided.

The first reading of all arms comes first, seed by seed. After each round the claims are judged, and the next round
takes the contrasts that are open to their next reading, the most decided contrasts per second first (next_step.py), as
far as they fit into the time that is left by the forecast. Contrasts are judged at the study's declared readings alone,
whose errors are shared (readings.py), so that seeds may be added where a difference is not clear yet; a simulation
measures the error rates of this rule (tests/studies/analysis/test_added_seeds.py).

A run that has begun is finished, and none begins after the end of the time. Finished runs are kept: the same command
continues with the time that it is given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from scd.errors import UsageError
from studies.suite.analysis.next_step import NextStep, Step, next_step
from studies.suite.analysis.open_contrasts import open_verdicts
from studies.suite.analysis.results import Results, gather
from studies.suite.execution.clock import Clock, in_words
from studies.suite.execution.forecast import seconds_of
from studies.suite.execution.launcher import check_clock
from studies.suite.execution.progress import Launched
from studies.suite.execution.store import Status, Store
from studies.suite.planning.resolve import Planned, unique
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Study

INTERRUPTED = "it was stopped from outside"


@dataclass(frozen=True)
class Round:
    """The runs of a round.

    Attributes:
        runs: by key, in the order in which they are started; empty where the study is over.
        seconds: that they take by the forecast, so many at a time.
        text: what the round does, or why the study is over.
    """

    runs: dict[str, Planned]
    seconds: float
    text: str


class Rounds:
    """Chooses the runs of each round.

    Args:
        planned: the runs of all arms at as many seeds as the last reading has.
        workers: runs at the same time.

    Raises:
        UsageError: a study that compares nothing, so that no number of seeds can decide it.
    """

    def __init__(
        self, study: Study, settings: Settings, planned: Sequence[Planned], store: Store, clock: Clock, workers: int
    ):
        check_clock(settings.launcher, clock)
        if not study.claims and not study.contrasts:
            raise UsageError(f"study '{study.name}' compares nothing that more seeds could decide: give seeds=")
        self.study, self.settings, self.planned, self.store = study, settings, planned, store
        self.clock, self.workers = clock, workers
        self.runs = unique(planned)
        self.first = [item for item in planned if item.spec.labels.get("seed", 0) < study.looks[0]]
        self.asked = set(unique(self.first))
        self.failed: set[str] = set()
        self.slowness = 1.0  # seconds of a worker per second of a run, as the last round had it
        self.stopped = INTERRUPTED

    # ---------------------------------------------------------------- what is shown

    def shown(self) -> list[Planned]:
        """The runs that the page is about: the first reading, what was asked for since, and all that have ended."""
        ended = (Status.DONE, Status.FAILED)
        return [each for each in self.planned if each.spec.key in self.asked or self.store.status(each.spec) in ended]

    def page_results(self) -> Results:
        """The results of these runs, with what became of the time."""
        shown = self.shown()
        used = {item.spec.labels.get("seed") for item in shown}
        settings = replace(self.settings, seeds=tuple(seed for seed in self.settings.seeds if seed in used))
        results = gather(self.study, settings, shown, self.store)
        time = {"minutes": self.clock.minutes, "stopped": self.stopped}
        return replace(results, about={**results.about, "time_budget": time})

    # ---------------------------------------------------------------- what is run

    def missing_of_first_reading(self) -> dict[str, Planned]:
        """The runs of the first reading that are not done."""
        return self._missing(self.first)

    def run(self, execute: Callable[[Mapping[str, Planned], Clock], Launched], say: Callable[[str], None]) -> Launched:
        """Round after round until the study is over.

        Args:
            execute: runs a round, see :func:`studies.suite.execution.launcher.launch`.
            say: is told what each round does.
        """
        total = Launched()
        while True:
            chosen = self.next()
            if not chosen.runs:
                self.stopped = chosen.text
                say(f"time budget {self.clock.minutes:g} min: {self.stopped}")
                return total
            say(f"{chosen.text}: {counted(len(chosen.runs), 'run')}, about {in_words(chosen.seconds)}; "
                f"{in_words(self.clock.left)} left")  # fmt: skip
            self.asked |= set(chosen.runs)
            began = self.clock.seconds
            result = execute(chosen.runs, self.clock)
            total.done += result.done
            total.failed |= result.failed
            self.failed |= set(result.failed)
            done = [item.spec for item in chosen.runs.values() if self.store.status(item.spec) is Status.DONE]
            spent = sum(self.store.seconds(spec) for spec in done)
            if spent > 0:
                busy = (self.clock.seconds - began) * max(1, min(self.workers, len(chosen.runs)))
                self.slowness = max(1.0, busy / spent)

    def next(self) -> Round:
        """The next round, or why there is none."""
        missing = self.missing_of_first_reading()
        if self.clock.is_over:
            return Round({}, 0.0, "the time was over" + (", before the first reading" if missing else ""))
        return self._first_reading(missing) if missing else self._further_reading()

    def _first_reading(self, missing: dict[str, Planned]) -> Round:
        """As many of the missing runs as fit, seed by seed; one per worker where nothing is known of their time."""
        seconds, _, is_known = seconds_of(missing, self.store)
        count = self._fitting([self.slowness * each for each in seconds.values()])
        count = count if is_known else max(count, self.workers)
        runs = dict(list(missing.items())[:count])
        words = f"the first reading, at {self.study.looks[0]} seeds"
        if not runs:
            rest = self.slowness * sum(seconds.values()) / self.workers
            rest = f"the missing {counted(len(missing), 'run')} of {words}, need about {in_words(rest)}"
            return Round({}, 0.0, f"no further run fits into the time; {rest}")
        total = self.slowness * sum(seconds[run] for run in runs)
        return Round(runs, total / min(self.workers, len(runs)), words)

    def _further_reading(self) -> Round:
        """The steps that fit, the most useful first."""
        results = self.results()
        verdicts = open_verdicts(self.study, results)
        left = self.clock.left * self.workers / self.slowness
        step = next_step(results, verdicts, left / 60)
        runs = self._runs(step.steps)
        if runs:
            seconds = step.seconds * self.slowness / min(self.workers, len(runs))
            names = dict.fromkeys(str(each.seeds) for each in step.steps)
            what = counted(len(step.steps), "open contrast")
            return Round(runs, seconds, f"{what} to the reading at {' and '.join(names)} seeds")
        return Round({}, 0.0, self._why_over(step, next_step(results, verdicts)))

    def _why_over(self, step: NextStep, whole: NextStep) -> str:
        total = len(step.decided) + len(step.waiting) + len(step.exhausted)
        if not total:
            return "no contrast of the study is part of this plan"
        if not step.waiting and not step.exhausted:
            return "every contrast of the claims is decided"
        some = f"{len(step.decided)} of {counted(total, 'contrast')} are decided"
        if not step.waiting:
            return f"{some}, and the others have had their last reading, at {self.study.looks[-1]} seeds"
        seconds = min((each.seconds for each in whole.steps), default=0.0) * self.slowness / self.workers
        return f"{some}, and the next reading of another one does not fit: it needs about {in_words(seconds)}"

    def results(self) -> Results:
        """Of the whole plan, with the time of the evaluations beside that of the training."""
        results = gather(self.study, self.settings, self.planned, self.store)
        by_id = {item.spec.id: self.store.seconds(item.spec) for item in self.planned}
        trained = results.runs.get("seconds_pretrain", 0.0)
        return results.with_runs(results.runs.assign(seconds_eval=results.runs["run"].map(by_id) - trained))

    def _runs(self, steps: Sequence[Step]) -> dict[str, Planned]:
        """The missing runs of some steps, in their order; those of a step seed by seed."""
        found: dict[str, Planned] = {}
        for step in steps:
            wanted = {(arm, seed) for arm, _, seed in step.runs}
            where = step.finding.contrast.conditions
            chosen = [
                item
                for item in self.planned
                if (item.spec.labels["arm"], item.spec.labels.get("seed")) in wanted
                and all(item.spec.labels.get(label) == value for label, value in where.items())
            ]
            found |= {run: item for run, item in self._missing(chosen).items() if run not in found}
        return found

    def _missing(self, items: Sequence[Planned]) -> dict[str, Planned]:
        """The different runs that are not done and have not failed in this call."""
        return {
            run: self.runs[run]
            for run in unique(items)
            if run not in self.failed and self.store.status(self.runs[run].spec) is not Status.DONE
        }

    def _fitting(self, seconds: Sequence[float]) -> int:
        """How many of the first runs fit into the time that is left."""
        total, left = 0.0, self.clock.left
        for count, each in enumerate(seconds):
            total += each
            if max(total / self.workers, each) > left:
                return count
        return len(seconds)


def counted(number: int, noun: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
