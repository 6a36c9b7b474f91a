"""What a study is made of: arms, contrasts declared before the numbers, and the runs that it plans.

Everything here is plain data: a study file (``studies/NAME.py`` with a constant ``STUDY``) can be read, and its plan
listed, without data, torch or a trained network.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scd.errors import unknown

if TYPE_CHECKING:
    import pandas

BUDGETS = ("epochs", "flops", "none")
PRESETS = ("method", "wrapper")


def merge(base: Mapping[str, Any], *overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The nested ``base`` with every entry of ``overrides`` in its place; neither is changed.

    Mappings are merged key by key; anything else (lists too) is replaced. A mapping that names another ``_target_`` or
    another ``name`` than the one it meets replaces it whole: arguments of one class mean nothing to the next.
    """
    result = deepcopy(dict(base))
    for override in overrides:
        for key, new in override.items():
            old = result.get(key)
            if isinstance(old, Mapping) and isinstance(new, Mapping) and not _is_another(old, new):
                result[key] = merge(old, new)
            else:
                result[key] = deepcopy(dict(new)) if isinstance(new, Mapping) else deepcopy(new)
    return result


def _is_another(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return any(key in new and old.get(key) != new[key] for key in ("_target_", "name"))


@dataclass(frozen=True)
class Arm:
    """One way of training: what is merged into the run configuration, and in words what is shared and what differs.

    ``overrides["method"]`` and ``overrides["wrapper"]`` may name a configuration of ``studies/conf/method`` or
    ``studies/conf/wrapper``, so that its numbers stand there only: ``{"method": "byol"}``, ``{"wrapper": "scd"}``, or
    with changes ``{"wrapper": {"preset": "scd", "saliency": {"_target_": "scd.maps.source.ConstantMap"}}}``. An arm
    that names no method takes the command line's (``method=moco``).
    """

    name: str
    label: str
    overrides: dict[str, Any]
    shares: str
    differs: str


@dataclass(frozen=True)
class Contrast:
    """A claim about two arms, with the smallest difference of ``metric`` that would matter, declared beforehand.

    ``conditions`` picks the records that are compared, by label: ``{"budget": "epochs", "rho": 0.0}``.
    """

    name: str
    treatment: str
    control: str
    metric: str
    sesoi: float
    claim: str
    conditions: dict[str, Any] = field(default_factory=dict)


def declarer(metric: str, sesoi: float, claim: str) -> Callable[..., Contrast]:
    """What declares a study's contrasts: ``contrast(treatment, control)`` of its claim, or of the claim given third."""

    def contrast(treatment: str, control: str, claim: str = claim) -> Contrast:
        return Contrast(f"{treatment}-{control}", treatment, control, metric, sesoi, claim)

    return contrast


@dataclass(frozen=True)
class RunSpec:
    """One run. ``config`` is everything that changes its numbers; ``labels`` and ``locations`` never do.

    ``labels`` are how the study speaks of the run (arm, budget, rho, seed, ...): two specs with equal configurations
    and different labels are one run that is shown twice. ``locations`` says where its data lie on this machine.
    """

    config: dict[str, Any]
    labels: dict[str, Any]
    locations: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """16 hexadecimal digits of the configuration and of the code that can change its numbers."""
        from studies.suite.planning.identity import run_id

        return run_id(self.config)


@dataclass(frozen=True)
class Settings:
    """What the command line resolved to.

    Attributes:
        study: name of the study; tier: name of the tier.
        seeds: the paired seeds; base: the run configuration that every arm starts from.
        data: display name of the data ("shapes", "cifar10", a folder's name); locations: where they lie.
        axes: the study's own knobs from the tier and command line, e.g. ``{"rho": [0.0, 0.8], "budgets": [...]}``.
        presets: the configurations that an arm may name, ``{"method": {"moco": {...}}, "wrapper": {"scd": {...}}}``.
        arms: names of the chosen arms, empty for all.
        store, out: where runs and pages go; launcher: how runs are executed.
        page: name of the page without ``.md``: the study, with ``-DATA`` for other than the embedded data and
            ``-TIER`` for the smoke tier.
        meaningful: False for a tier whose numbers only prove the wiring; the page says so.
        overrides: the command line's words, as typed; command: the whole command.
    """

    study: str
    tier: str
    seeds: tuple[int, ...]
    base: dict[str, Any]
    data: str = "shapes"
    locations: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)
    arms: tuple[str, ...] = ()
    store: Path = Path("runs")
    out: Path = Path("reports")
    launcher: dict[str, Any] = field(default_factory=dict)
    page: str = ""
    meaningful: bool = True
    overrides: tuple[str, ...] = ()
    command: str = ""

    def select(self, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        """The chosen arms in the study's order, all when none is chosen.

        Raises:
            UsageError: a chosen arm that the study does not have.
        """
        valid = [arm.name for arm in arms]
        for name in self.arms:
            if name not in valid:
                raise unknown("arm", name, valid)
        return tuple(arm for arm in arms if not self.arms or arm.name in self.arms)

    def spec(
        self,
        arm: Arm,
        seed: int,
        budget: str = "epochs",
        reference: Arm | None = None,
        overrides: Mapping[str, Any] | None = None,
        **labels: Any,
    ) -> RunSpec:
        """One run of an arm; its labels are arm, budget, seed, data and ``labels``.

        Args:
            arm: merged into the base configuration.
            seed: the number that pairs arms.
            budget: "epochs" trains as the base says; "flops" trains as long as costs the training FLOPs that
                ``reference`` needs for the base's budget (same axes); "none" does not train (random weights).
            overrides: an axis of the study, e.g. ``{"data": {"options": {"rho_train": 0.8}}}``; it applies to the
                reference too.
        """
        if budget not in BUDGETS:
            raise unknown("budget", budget, BUDGETS)
        base = merge(self.base, overrides or {})
        config = self._configure(base, arm, seed)
        if budget == "flops":
            if reference is None:
                raise ValueError("a FLOPs budget is counted in the training of a reference arm: pass reference=")
            compared = self._configure(base, reference, seed)
            config["training"]["budget"] = {
                "unit": "flops",
                "reference": {key: compared[key] for key in ("views", "backbone", "method", "wrapper")},
                "of": base["training"]["budget"],
            }
        elif budget == "none":
            config["training"]["budget"] = {"unit": "steps", "value": 0}
        named = {"arm": arm.name, "budget": budget, "seed": seed, "data": self.data, **labels}
        return RunSpec(config, named, dict(self.locations))

    def at_equal_epochs(
        self, arm: Arm, seed: int, trained: bool = True, overrides: Mapping[str, Any] | None = None, **labels: Any
    ) -> RunSpec:
        """One run of a study whose arms all train as the base says; an untrained arm stands among them."""
        spec = self.spec(arm, seed, "epochs" if trained else "none", overrides=overrides, **labels)
        return replace(spec, labels={**spec.labels, "budget": "epochs"})

    def _configure(self, base: Mapping[str, Any], arm: Arm, seed: int) -> dict[str, Any]:
        config = merge(base, self._fill(arm.overrides), {"seed": seed})
        return {**config, **self._fill({group: config.get(group) for group in PRESETS})}

    def _fill(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with named presets replaced by their content."""
        filled = dict(config)
        for group in PRESETS:
            chosen = filled.get(group)
            changes = {}
            if isinstance(chosen, Mapping) and "preset" in chosen:
                changes = {key: value for key, value in chosen.items() if key != "preset"}
                chosen = chosen["preset"]
            if isinstance(chosen, str):
                if chosen not in self.presets.get(group, {}):
                    raise unknown(group, chosen, self.presets.get(group, {}))
                filled[group] = merge(self.presets[group][chosen], changes)
        return filled


@dataclass(frozen=True)
class Standing:
    """How far a study is when its page is written.

    Attributes:
        planned, done: numbers of different runs; failed: run id -> its reason in one line.
        fingerprint: of the code that the records come from, and that lies beside the page now.
        environments: the different machines and libraries that made the records (see environment.py).
        seconds: time spent in the finished runs, summed.
        plan: the complete specs of all runs, finished or not, in the study's order; one that is shown twice, twice.
    """

    planned: int
    done: int
    failed: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    environments: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    plan: tuple[RunSpec, ...] = ()


@dataclass(frozen=True)
class Study:
    """A question of QUESTIONS, the arms that answer it, and the contrasts declared before the numbers.

    ``plan(settings)`` lists the runs. ``render(settings, records, standing)`` writes the page and returns its path:
    ``records`` has one row per finished spec, its labels and the record's numbers as columns, and ``run`` (the id).
    ``primary`` names the contrast that the page's first sentence is about.
    """

    name: str
    question_ids: tuple[str, ...]
    question: str
    arms: tuple[Arm, ...]
    contrasts: tuple[Contrast, ...]
    primary: str
    plan: Callable[[Settings], list[RunSpec]]
    render: Callable[[Settings, "pandas.DataFrame", Standing], Path]

    def arm(self, name: str) -> Arm:
        """The arm of that name, or the UsageError that lists the valid ones."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise unknown("arm", name, [arm.name for arm in self.arms])
