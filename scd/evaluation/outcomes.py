"""What happened to each test image, over the seeds of a protocol, for the uncertainty of one network's numbers.

A study compares methods over trainings. A single network has two other sources of chance: which test images were drawn,
and what a protocol itself draws (the held-out images on which a penalty is chosen). :class:`Repeated` runs a protocol
for several seeds and writes the outcome of every test image, from which intervals over images are computed
(``studies/suite/analysis/image_bootstrap.py``).
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from scd.errors import UsageError
from scd.evaluation.background import BackgroundReliance, can_mix, mixed_sets
from scd.evaluation.collapse import Collapse
from scd.evaluation.emergence import Emergence
from scd.evaluation.features import extract
from scd.evaluation.invariance import Invariance
from scd.evaluation.knn import FEATURES, KNN, knn_predict
from scd.evaluation.linear import Linear, class_probe, fit_linear_probe
from scd.evaluation.metric import Metric
from scd.evaluation.protocol import Context, EvaluationData, Protocol
from scd.evaluation.saliency import Saliency
from scd.evaluation.worst_group import WorstGroup, group_shares, groups_of, on_usual, usual_backgrounds

FILE = "outcomes.safetensors"
SEED = "_seed"  # NAME_seed3 is NAME with the seed 3
CLOSE = 1e-9
WITHOUT_CHANCE = (KNN, Collapse, Invariance, Emergence, Saliency)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A number as a function of what happened to each test image.

    Args:
        values: (N,) of each image, for example 1 where it is classified correctly.
        groups: (N,) int64 the image's group, -1 for none; None: the number is the mean over images.
        weights: (G,) float64, of the mean over groups; None with groups: the number is that of the lowest group.
    """

    values: Tensor
    groups: Tensor | None = None
    weights: Tensor | None = None

    def of(self, counts: Tensor) -> Tensor:
        """The number (R,) for samples in which image n is drawn counts[r, n] times, (R, N).

        A group of which a sample has no image is left out of that sample.
        """
        counts = counts.double()
        if self.groups is None:
            return (counts @ self.values.double()) / counts.sum(dim=1)
        total = len(self.weights) if self.weights is not None else int(self.groups.max()) + 1
        member = torch.stack([self.groups == group for group in range(total)]).double()  # (G, N)
        size = counts @ member.T  # (R, G)
        mean = (counts @ (member * self.values.double()).T) / size
        if self.weights is None:
            return torch.where(size > 0, mean, torch.inf).amin(dim=1)
        weights = torch.where(size > 0, self.weights.double(), 0.0)
        return (torch.where(size > 0, mean, 0.0) * weights).sum(dim=1) / weights.sum(dim=1)

    @property
    def number(self) -> float:
        """The number of the test images themselves."""
        return float(self.of(torch.ones(1, len(self.values))))


class SharedContext(Context):
    """A context whose features are extracted once for all seeds: no seed changes them."""

    def once(self, name: Hashable, compute: Callable[[], Any]) -> Any:
        """As :meth:`Context.once`, with features and maps under no seed."""
        is_free = name == "maps" or (isinstance(name, tuple) and name[0] == "features")
        key = (name, self.method, self.data, self.size, None if is_free else self.seed)
        if key not in self.known:
            self.known[key] = compute()
        return self.known[key]


@dataclass(kw_only=True)
class Repeated(Protocol):
    """Another protocol, for several seeds, with the outcome of each test image in the context's folder.

    The number under its own name is the mean over seeds; NAME_seed3 is that of the seed 3. A protocol that draws
    nothing is run once.

    Args:
        protocol: what is repeated; its prefix, its own images and limits hold.
        seeds: of what it draws.

    Raises:
        UsageError: no seeds, or one twice.
    """

    protocol: Protocol
    seeds: Sequence[int] = (0, 1, 2)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"a repeated protocol needs one seed or more, each once, not {list(self.seeds)}")
        self.prefix = self.protocol.prefix

    def definitions(self) -> dict[str, Metric]:
        own = self.protocol.definitions()
        return own | {f"{name}{SEED}{seed}": metric for name, metric in own.items() for seed in self.seeds}

    def own_data(self, data: EvaluationData) -> EvaluationData:
        return self.protocol.own_data(data)

    def applies(self, data: EvaluationData) -> bool:
        return self.protocol.applies(data)

    def check(self, data: EvaluationData) -> None:
        self.protocol.check(data)

    def measure(self, context: Context) -> dict[str, float]:
        seeds = self.seeds if draws(self.protocol) else self.seeds[:1]
        found: dict[int, dict[str, float]] = {}
        written: dict[str, Tensor] = {}
        for seed in seeds:
            own = replace(context, seed=seed)
            outcomes = outcomes_of(self.protocol, own)
            if isinstance(self.protocol, BackgroundReliance):  # its mixed images are not put through the network twice
                found[seed] = {name: outcome.number for name, outcome in outcomes.items()}
                found[seed] |= mixed_count(self.protocol, own)
            else:
                found[seed] = self.protocol.measure(own)
            check_outcomes(outcomes, found[seed])
            written |= as_tensors(outcomes, self.prefix, seed)
        if context.folder is not None and written:
            save_file(written, context.folder / FILE)
        names = [name for name in found[seeds[0]] if all(name in numbers for numbers in found.values())]
        means = {name: fmean(numbers[name] for numbers in found.values()) for name in names}
        return means | {f"{name}{SEED}{seed}": numbers[name] for seed, numbers in found.items() for name in names}


def draws(protocol: Protocol) -> bool:
    """Whether a protocol draws something: all but those that are known not to."""
    return not isinstance(protocol, WITHOUT_CHANCE)


def check_outcomes(outcomes: Mapping[str, Outcome], numbers: Mapping[str, float]) -> None:
    """Raise RuntimeError where a number is not that of its images."""
    for name, outcome in outcomes.items():
        if name in numbers and not abs(outcome.number - numbers[name]) <= CLOSE:
            raise RuntimeError(f"'{name}' is {numbers[name]!r}, and {outcome.number!r} over its images")


# ---------------------------------------------------------------- outcomes of the protocols


def outcomes_of(protocol: Protocol, context: Context) -> dict[str, Outcome]:
    """The numbers of a protocol, without its prefix, that are sums over test images; {} where it has none.

    Args:
        context: with the protocol's own images.
    """
    if isinstance(protocol, KNN):
        return _knn(protocol, context) if protocol.features == next(iter(FEATURES)) else {}
    for kind, function in ((Linear, _linear), (BackgroundReliance, _background), (WorstGroup, _worst_group)):
        if isinstance(protocol, kind):
            return function(protocol, context)
    return {}


def _right(predicted: Tensor, labels: Tensor) -> Tensor:
    return (predicted.cpu() == labels.cpu()).double()


def _knn(protocol: KNN, context: Context) -> dict[str, Outcome]:
    known, labels = protocol.learned(context.data).labels, context.data.test.labels
    classes = int(max(known.max(), labels.max())) + 1
    bank, queries = context.features(protocol.learns_from), context.features("test")
    predicted = knn_predict(bank, known, queries, classes, protocol.k, protocol.temperature)
    return {"knn_top1": Outcome(_right(predicted, labels))}


def _linear(protocol: Linear, context: Context) -> dict[str, Outcome]:
    labels = context.data.test.labels
    probe = class_probe(context, protocol.l2, protocol.learns_from)
    right = _right(probe.predict(context.features("test")), labels)
    classes, group = labels.cpu().unique(return_inverse=True)
    balanced = Outcome(right, group, torch.full((len(classes),), 1 / len(classes), dtype=torch.float64))
    return {"linear_top1": Outcome(right), "linear_balanced": balanced}


def _background(protocol: BackgroundReliance, context: Context) -> dict[str, Outcome]:
    data, found = context.data, {}
    if can_mix(data):
        sets = mixed_sets(data.train, data.test, protocol.objects)
        probe = class_probe(context, protocol.l2, "train")
        same, other = (
            _right(probe.predict(_mixed_features(context, kind, images, protocol.objects)), sets.labels)
            for kind, images in (("same", sets.same), ("other", sets.other))
        )
        found = {
            "mixed_same_top1": Outcome(same),
            "mixed_rand_top1": Outcome(other),
            "bg_gap": Outcome(same - other),
        }
    if data.has("background"):
        learned = fit_linear_probe(context.features("train"), data.train.backgrounds, context.seed, protocol.l2)
        found["background_top1"] = Outcome(_right(learned.predict(context.features("test")), data.test.backgrounds))
    return found


def _mixed_features(context: Context, kind: str, images: Tensor, objects: int) -> Tensor:
    return context.once(
        ("features", "mixed", kind, objects),
        lambda: extract(context.method.backbone, images, context.size, device=context.device),
    )


def mixed_count(protocol: BackgroundReliance, context: Context) -> dict[str, float]:
    """The number of mixed images, where there are any."""
    data = context.data
    return {"n_mixed": len(mixed_sets(data.train, data.test, protocol.objects).labels)} if can_mix(data) else {}


def _worst_group(protocol: WorstGroup, context: Context) -> dict[str, Outcome]:
    train, test = context.data.train, context.data.test
    right = _right(class_probe(context, protocol.l2, "train").predict(context.features("test")), test.labels)
    usual = usual_backgrounds(train.labels, train.backgrounds)
    is_usual = on_usual(test.labels, test.backgrounds, usual)
    shares = group_shares(train.labels, on_usual(train.labels, train.backgrounds, usual))
    counted = {group: rows for group, rows in groups_of(test.labels, is_usual).items() if len(rows) >= protocol.least}
    found: dict[str, Outcome] = {}
    if counted:
        groups = torch.full((len(right),), -1)
        for place, rows in enumerate(counted.values()):
            groups[rows] = place
        weights = torch.tensor([shares.get(group, 0.0) for group in counted], dtype=torch.float64)
        found["worst_group_top1"] = Outcome(right, groups)
        if weights.sum() > 0:
            found["group_weighted_top1"] = Outcome(right, groups, weights)
    for name, rows in (("usual", is_usual), ("other", ~is_usual)):
        if rows.any():
            chosen = torch.where(rows, 0, -1)
            found[f"{name}_background_top1"] = Outcome(right, chosen, torch.ones(1, dtype=torch.float64))
    return found


# ---------------------------------------------------------------- the file


def as_tensors(outcomes: Mapping[str, Outcome], prefix: str, seed: int) -> dict[str, Tensor]:
    """Outcomes as the tensors of a file: ``NAME/SEED/values``, ``.../groups``, ``.../weights``."""
    found = {}
    for name, outcome in outcomes.items():
        for part in ("values", "groups", "weights"):
            tensor = getattr(outcome, part)
            if tensor is not None:
                found[f"{prefix}{name}/{seed}/{part}"] = tensor.contiguous().clone()
    return found


def from_tensors(tensors: Mapping[str, Tensor]) -> dict[str, dict[int, Outcome]]:
    """The outcomes of a file: name of the number -> seed -> outcome."""
    found: dict[str, dict[int, dict[str, Tensor]]] = {}
    for key, tensor in tensors.items():
        name, seed, part = key.split("/")
        found.setdefault(name, {}).setdefault(int(seed), {})[part] = tensor
    return {name: {seed: Outcome(**parts) for seed, parts in sorted(seeds.items())} for name, seeds in found.items()}


def read_outcomes(folder: Path) -> dict[str, dict[int, Outcome]]:
    """The outcomes in a folder of an evaluation; {} where it has none."""
    path = folder / FILE
    return from_tensors(load_file(path)) if path.is_file() else {}
