"""What a study is made of: arms, contrasts declared before the numbers, and the runs that it plans.

Everything here is plain data: a study file (``studies/NAME.py`` with a constant ``STUDY``) can be read, and its plan
listed, without data, torch or a trained network.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from scd.errors import unknown

if TYPE_CHECKING:
    from scd.evaluation.protocol import Metric
    from studies.suite.planning.settings import Settings

TRAINING, MEASUREMENT = "training", "measurement"


def merge(base: Mapping[str, Any], *overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The nested ``base`` with every entry of ``overrides`` in its place; neither is changed.

    Mappings are merged key by key; anything else (lists too) is replaced. A mapping that names another ``_target_``,
    ``name`` or ``preset`` than the one in its place replaces it completely: arguments of one class mean nothing to
    another.
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
    return any(key in new and old.get(key) != new[key] for key in ("_target_", "name", "preset"))


@dataclass(frozen=True)
class Arm:
    """One way of training: what is merged into the run configuration, and in words what is shared and what differs.

    Overrides may name configurations of ``studies/conf`` instead of repeating their numbers: ``{"method": "byol"}``,
    ``{"wrapper": "scd"}``, ``{"backbone": "vit"}``, or with changes ``{"wrapper": {"preset": "scd", "saliency":
    "constant"}}``. A method's or wrapper's own recipe (views, optimiser, schedule) comes with it. An arm that names no
    method takes the command line's (``method=moco``).

    Arms of one ``pool`` are taken to vary alike over seeds, and their spread is estimated together
    (studies/suite/analysis/spread.py). Arms that are known to vary otherwise, such as references without training or
    with labels, have a pool of their own, or none ("").

    Arms with ``default=False`` run where the command line names them or says ``arms=all``: no claim needs them.
    """

    name: str
    label: str
    overrides: dict[str, Any]
    shares: str
    differs: str
    pool: str = "arms"
    default: bool = True


@dataclass(frozen=True)
class Contrast:
    """A claim about two arms, with the smallest difference of ``metric`` that would matter, declared beforehand.

    ``conditions`` picks the records that are compared, by label: ``{"budget": "epochs", "rho": 0.0}``.

    ``remedy`` is for a positive control: what to change where it is not better, in the words that follow "try". A page
    that is uninformative prints it.

    ``looks`` are readings of its own in the place of the study's (``Study.looks``): fewer seeds for a difference that
    needs no more, as those of positive controls.
    """

    name: str
    treatment: str
    control: str
    metric: str
    sesoi: float
    claim: str
    conditions: dict[str, Any] = field(default_factory=dict)
    remedy: str = ""
    looks: tuple[int, ...] = ()


def contrast_factory(metric: str, sesoi: float, claim: str) -> Callable[..., Contrast]:
    """A function that declares a study's contrasts: ``contrast(treatment, control)``.

    Its third argument is the claim, ``conditions`` those of the contrast.
    """

    def contrast(
        treatment: str, control: str, claim: str = claim, conditions: Mapping[str, Any] | None = None
    ) -> Contrast:
        given = dict(conditions or {})
        name = ", ".join([f"{treatment}-{control}", *(f"{label}={value}" for label, value in given.items())])
        return Contrast(name, treatment, control, metric, sesoi, claim, given)

    return contrast


MOST_CONTRASTS = 3  # of a claim that all of them have to support


@dataclass(frozen=True)
class Claim:
    """A small statement that one sentence of the page answers, declared before the numbers.

    A claim says that the treatment is better in each of its contrasts. It has few of them, because the power of "all
    are better" falls with their number: where one contrast is found in 80 % of cases, three independent ones are found
    together in 51 %, and twenty in 1 %. A question with several sides is asked as several claims::

        at_cost = {"budget": "flops", "rho": 0.0}
        Claim(
            "the separation adds to SCD with a constant map at equal training FLOPs",
            (contrast("scd", "constant_map", conditions=at_cost),),
            question="Does the separation add at the same cost?",
        )

    Attributes:
        text: what is claimed, as it stands after "whether" and "it does not hold that"; it names its conditions.
        contrasts: one to three, or more where ``some``; each with its conditions. A condition on a label that the runs
            of a page do not have (``rho`` on photographs) is left out of it.
        question: what the claim answers, in words or as a reviewers' id; printed before the answer.
        controls: positive controls, measured in the conditions of each contrast; those of the study where None. Where
            one of them fails, a claim is "contradicted" by a treatment that is worse, and "uninformative" else.
        some: the claim says that the treatment is better in at least one of its contrasts. How many there are is paid
            for by the error of each, which is divided by their number.
    """

    text: str
    contrasts: tuple[Contrast, ...]
    question: str = ""
    controls: tuple[Contrast, ...] | None = None
    some: bool = False

    def __post_init__(self):
        if not self.contrasts or (len(self.contrasts) > MOST_CONTRASTS and not self.some):
            raise ValueError(
                f"a claim has 1 to {MOST_CONTRASTS} contrasts, '{self.text}' has {len(self.contrasts)}: declare several"
            )


@dataclass(frozen=True)
class RunSpec:
    """One run: a pretraining and its evaluations, or a measurement.

    Attributes:
        config: everything that changes the numbers.
        labels: how the study names the run (arm, budget, rho, seed, ...). They change no number: two specs with equal
            configurations and different labels are one run that is shown twice.
        locations: where the data lie on this machine.
        inputs: earlier runs that this one uses, by the name that the configuration gives them (``{_input_: NAME}``).
        kind: "training", or "measurement": the configuration's ``measurement`` is called instead of training.
        alone: True for a measurement of time, during which no other run may share the machine.
        flops_per_step: of the training, counted by the planner.
        deviations: where the run departs from the papers of its parts: class name -> point -> sentence.
    """

    config: dict[str, Any]
    labels: dict[str, Any]
    locations: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, "RunSpec"] = field(default_factory=dict)
    kind: str = TRAINING
    alone: bool = False
    flops_per_step: float = 0.0
    deviations: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """16 hexadecimal digits of the pretraining (or measurement): its configuration, code and inputs."""
        return self._identities[0]

    @property
    def evaluations(self) -> dict[str, dict[str, Any]]:
        """Evaluation id -> the configuration of its protocol, in the order of the configuration."""
        protocols = self.config["evaluation"]["protocols"] if self.kind == TRAINING else []
        return dict(zip(self._identities[1:], protocols, strict=True))

    @cached_property
    def key(self) -> str:
        """Equal for specs that can be executed together: one pretraining, scored on the same images with one seed."""
        from studies.suite.planning.identity import evaluation_id

        return evaluation_id(self.id, self.config, {}) if self.kind == TRAINING else self.id

    @cached_property
    def _identities(self) -> tuple[str, ...]:
        return self.identities()

    def identities(self, fresh: bool = False) -> tuple[str, ...]:
        """The id of the pretraining or measurement, then those of the evaluations.

        Args:
            fresh: from the code as it is on the disk now.
        """
        from studies.suite.planning.identity import evaluation_id, measurement_id, pretraining_id

        if self.kind != TRAINING:
            return (measurement_id(self.config, fresh),)
        own = pretraining_id(self.config, {name: spec.id for name, spec in self.inputs.items()}, fresh)
        protocols = self.config["evaluation"]["protocols"]
        return own, *(evaluation_id(own, self.config, protocol, fresh) for protocol in protocols)

    def with_protocols(self, protocols: Sequence[Mapping[str, Any]]) -> "RunSpec":
        """The same run with other evaluations."""
        evaluation = {**self.config["evaluation"], "protocols": [dict(protocol) for protocol in protocols]}
        return replace(self, config={**self.config, "evaluation": evaluation})


@dataclass(frozen=True)
class Study:
    """A question of the reviewers, the arms that answer it, and the contrasts declared before the numbers.

    Attributes:
        name: that of its file; question_ids: the reviewers' questions, none for a study that serves all of them;
            question: in words; title: of the page.
        arms, contrasts: declared before any number.
        control: positive controls, contrasts that must come out "better" for the page to be informative.
        primary: name of the contrast whose claim the page's first sentence answers; unused where there are ``claims``.
        claims: what the page answers, one sentence each (``report.judge_claims()``), in the place of one claim that
            joins all contrasts.
        looks: the numbers of paired seeds at which the page may be read, ascending; the last is the most that counts.
            The readings share the error (studies/suite/analysis/readings.py), so that fewer of them see smaller
            differences; ``looks=(N,)`` is the plain test of a page that is read once, at ``seeds=N``. Simulated for
            paired differences with a standard deviation of 2 points, seven arms and five seeds: 80 % power for 2.9
            points with ``(5,)``, 3.2 with ``(5, 10)``, 3.4 with ``(3, 5, 10)``; 3.4 with ``(5,)`` and two arms.
        plan: lists the runs of some settings, seed by seed.
        sections: called with a page under construction; contributes the study's first table and figure, its sections
            and its prose (see :mod:`studies.suite.pages.publish`).
        prepare: called once with (results, settings) before the page is written, for what is copied or computed from
            the store (maps); returns results.
        deviations: where the study departs from the papers, one sentence each.
        notes: called with the results; what only this study has to say about how it was measured, by heading.
        metrics: definitions of numbers that the study derives itself, by name.
        fallback: the metric of contrasts whose own no finished run has (images without labels, or without a split for
            probes).
    """

    name: str
    question_ids: tuple[str, ...]
    question: str
    title: str
    arms: tuple[Arm, ...]
    contrasts: tuple[Contrast, ...]
    control: tuple[Contrast, ...]
    primary: str
    plan: Callable[["Settings"], list[RunSpec]]
    sections: Callable[..., Any]
    prepare: Callable[..., Any] | None = None
    deviations: tuple[str, ...] = ()
    notes: Callable[..., dict[str, str]] | None = None
    metrics: dict[str, "Metric"] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    looks: tuple[int, ...] = (3, 5, 10)
    fallback: str = ""

    def __post_init__(self):
        if list(self.looks) != sorted(set(self.looks)) or min(self.looks, default=0) < 2:
            raise ValueError(f"looks are ascending numbers of at least two seeds, got {self.looks}")

    @property
    def design(self) -> dict[str, Any]:
        """What a comparison has to know of the study: its readings, and the pool of every arm."""
        return {"looks": list(self.looks), "pools": {arm.name: arm.pool for arm in self.arms if arm.pool}}

    def arm(self, name: str) -> Arm:
        """The arm of that name, or the UsageError that lists the valid ones."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise unknown("arm", name, [arm.name for arm in self.arms])


@dataclass(frozen=True)
class Progress:
    """How far a study is when its page is written.

    Attributes:
        planned, done: numbers of different runs; failed: run id -> its reason in one line.
        fingerprint: of the code that the numbers come from; roots: the modules that it covers.
        environments: the different machines and libraries that made the records (see machine.py).
        seconds: time spent in the finished runs, summed.
    """

    planned: int
    done: int
    failed: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    roots: tuple[str, ...] = ()
    environments: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
