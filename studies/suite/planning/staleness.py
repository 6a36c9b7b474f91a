"""Whether today's code can still make a stored run, from its folder's config.json alone; no plan is needed.

A stored run is *current* where its configuration and the code on the disk give its id, and *stale* where they give
another one: the code that its configuration reaches has changed, or a run that it uses is stale. No plan of today's
code can find a stale run, whatever the settings.

A run that is *in no plan* is something else. Its configuration is none that the chosen studies list with the chosen
settings: it has another tier, other data, more seeds, or the YAML files have changed. It stays current: with those
settings, or the old YAML file, it is found again.

The id of a pretraining with earlier runs as inputs covers their ids, which config.json does not hold. They are looked
for among the stored pretrainings of the same seed. Where none fits, the run is *unknown* and not stale, because its
input may have been moved away.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Any

from scd.errors import UsageError
from studies.suite.planning.identity import (
    EVALUATION,
    MEASUREMENT,
    PRETRAINING,
    ROOT,
    evaluation_id,
    evaluation_part,
    fresh_fingerprint,
    measurement_id,
    pretraining_id,
    pretraining_part,
    target_modules,
)

MOST_TRIES = 5000  # combinations of inputs that are tried for one run


class Standing(StrEnum):
    """What today's code says of a stored run."""

    CURRENT = "current"
    STALE = "stale"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Judgement:
    """The standing of a stored run.

    Attributes:
        standing: see the module; reason: why it is not current, empty where its code has changed.
        by: the stale run that it uses, where that alone makes it stale.
        roots: the modules whose code is part of its id.
        inputs: the earlier runs that it uses, by name -> their ids; empty where they are not known.
    """

    standing: Standing
    reason: str = ""
    by: str = ""
    roots: tuple[str, ...] = ()
    inputs: dict[str, str] = field(default_factory=dict)


def is_page_stale(about: Mapping[str, Any]) -> bool:
    """Whether a page's numbers come from other code than that on disk, or an older version of the suite wrote it.

    Args:
        about: content of the page's records file, ``records/PAGE.json``.
    """
    if "metrics" not in about:
        return True
    try:
        return fresh_fingerprint(about["roots"]) != about["fingerprint"]
    except UsageError:  # a module that the page's runs used does not exist any more
        return True


def judge_pretraining(run: str, config: Mapping[str, Any], earlier: Mapping[str, Mapping[str, Any]]) -> Judgement:
    """The standing of a stored pretraining by its own configuration and code.

    Args:
        run: its id; config: content of its config.json.
        earlier: id -> configuration of the stored pretrainings that may be its inputs.
    """

    def judge() -> Judgement:
        part = pretraining_part(config)
        roots = (*PRETRAINING, *sorted(set(target_modules(part))))
        names = sorted(set(input_names(part)))
        if not names:
            return _compared(run, pretraining_id(config), roots)
        for inputs in possible_inputs(run, config, earlier):
            if pretraining_id(config, inputs) == run:
                return Judgement(Standing.CURRENT, roots=roots, inputs=inputs)
        words = f"its input '{names[0]}' is no stored run, or its code has changed"
        return Judgement(Standing.UNKNOWN, words, roots=roots)

    return _judged(config, judge)


def judge_evaluation(run: str, config: Mapping[str, Any]) -> Judgement:
    """The standing of a stored evaluation by its own configuration and code; that of its pretraining is another."""

    def judge() -> Judgement:
        part = {key: value for key, value in config.items() if key != "pretraining"}
        roots = (*EVALUATION, *sorted(set(target_modules(part))))
        whole = run_with(part)
        if evaluation_part(whole, part["protocol"]) != part:
            return Judgement(Standing.UNKNOWN, "its config.json is not of this version", roots=roots)
        return _compared(run, evaluation_id(config["pretraining"], whole, part["protocol"]), roots)

    return _judged(config, judge)


def judge_measurement(run: str, config: Mapping[str, Any]) -> Judgement:
    """The standing of a stored measurement."""

    def judge() -> Judgement:
        return _compared(run, measurement_id(config), (*MEASUREMENT, *sorted(set(target_modules(config)))))

    return _judged(config, judge)


def run_with(part: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration, as far as evaluations depend on it, from the part that an evaluation keeps of it."""
    train_limit, test_limit, of_data = part["limits"]
    return {
        "seed": part["seed"],
        "seed_of": {},
        "data": {"options": part["options"], "fingerprints": part["fingerprints"], "test_limit": of_data},
        "evaluation": {"size": part["size"], "train_limit": train_limit, "test_limit": test_limit},
    }


def possible_inputs(
    run: str, config: Mapping[str, Any], earlier: Mapping[str, Mapping[str, Any]]
) -> Iterator[dict[str, str]]:
    """Which stored pretrainings may be the inputs of a run, name -> id: those of the same seed, in all combinations."""
    names = sorted(set(input_names(pretraining_part(config))))
    usable = [other for other, its in earlier.items() if other != run and its.get("seed") == config.get("seed")]
    if len(usable) ** len(names) <= MOST_TRIES:
        yield from (dict(zip(names, tried, strict=True)) for tried in product(usable, repeat=len(names)))


def input_names(config: Any) -> Iterator[str]:
    """The names that a configuration gives to earlier runs: ``{_input_: NAME}``."""
    if isinstance(config, Mapping):
        if "_input_" in config:
            yield str(config["_input_"])
        for item in config.values():
            yield from input_names(item)
    elif isinstance(config, Sequence) and not isinstance(config, str):
        for item in config:
            yield from input_names(item)


def with_standing_of(judgement: Judgement, used: Mapping[str, "Judgement | None"]) -> Judgement:
    """The standing of a run after that of the runs that it uses.

    Args:
        used: their ids -> their standing, None for one that is not in the store.
    """
    if judgement.standing is Standing.STALE:
        return judgement
    for run, its in used.items():
        if its is not None and its.standing is Standing.STALE:
            return replace(judgement, standing=Standing.STALE, reason=f"run {run}, which it uses, is stale", by=run)
    for its in used.values():
        if judgement.standing is Standing.CURRENT and (its is None or its.standing is Standing.UNKNOWN):
            why = "not in the store" if its is None else "unknown"
            return replace(judgement, standing=Standing.UNKNOWN, reason=f"the run that it uses is {why}")
    return judgement


def module_file(name: str, base: Path = ROOT) -> str:
    """The file of a module, relative to ``base``; empty where there is none."""
    stem = "/".join(name.split("."))
    return next((path for path in (f"{stem}.py", f"{stem}/__init__.py") if (base / path).is_file()), "")


def _compared(run: str, today: str, roots: tuple[str, ...]) -> Judgement:
    return Judgement(Standing.CURRENT if run == today else Standing.STALE, roots=roots)


def _judged(config: Mapping[str, Any], judge: Callable[[], Judgement]) -> Judgement:
    """The judgement, also of configurations that today's code cannot work with."""
    gone = sorted({f"{name.replace('.', '/')}.py" for name in target_modules(config) if not module_file(name)})
    try:
        return judge()
    except (UsageError, SyntaxError, KeyError, TypeError, ValueError, AttributeError) as error:
        if gone:
            return Judgement(Standing.STALE, f"{', '.join(gone)} is not there any more")
        if isinstance(error, UsageError | SyntaxError):
            return Judgement(Standing.UNKNOWN, str(error).partition("\n")[0])
        return Judgement(Standing.UNKNOWN, "its config.json is not of this version")
