"""Intervals over test images of one network's numbers: the bootstrap, with the network as it is.

Test images are drawn with replacement, as many as there are, and the number is computed of each sample. The same
samples serve every network, so that a difference of two networks is that of the same images. Probe seeds are averaged
in each sample; their spread is shown beside the interval and is no part of it.

NOTE: the networks are fixed. An interval says nothing about another training of the same method.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3 (percentile interval).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from scd.evaluation.outcomes import Outcome
from scd.seeds import generator

SAMPLES = 2000
LEVEL = 0.95
PART = 200  # samples at once; it bounds the memory
KEPT = 256  # numbers whose samples are kept


@dataclass(frozen=True)
class Interval:
    """A number, and the percentile interval of its bootstrap."""

    value: float
    low: float
    high: float


def interval(outcomes: Mapping[int, Outcome], samples: int = SAMPLES) -> Interval:
    """The mean over probe seeds, with its interval over test images.

    Args:
        outcomes: probe seed -> outcome, of one network.
        samples: of the bootstrap.
    """
    return _interval(_value(outcomes), _samples(tuple(outcomes.values()), samples))


def difference(first: Mapping[int, Outcome], second: Mapping[int, Outcome], samples: int = SAMPLES) -> Interval:
    """The number of the first network minus that of the second, with its interval over the same test images.

    Raises:
        ValueError: not the same number of images.
    """
    counts = {len(outcome.values) for outcomes in (first, second) for outcome in outcomes.values()}
    if len(counts) > 1:
        raise ValueError(f"two networks were scored on {sorted(counts)} images; a difference needs the same ones")
    drawn = _samples(tuple(first.values()), samples) - _samples(tuple(second.values()), samples)
    return _interval(_value(first) - _value(second), drawn)


def _interval(value: float, drawn: Tensor) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = torch.quantile(drawn, torch.tensor([tail, 1 - tail], dtype=drawn.dtype)).tolist()
    return Interval(value, low, high)


def _value(outcomes: Mapping[int, Outcome]) -> float:
    return sum(outcome.number for outcome in outcomes.values()) / len(outcomes)


@lru_cache(maxsize=KEPT)
def _samples(outcomes: tuple[Outcome, ...], samples: int) -> Tensor:
    """The mean over seeds in each sample, (samples,); kept, as a page asks for a number and all of its differences."""
    images = len(outcomes[0].values)
    parts = [
        torch.stack([outcome.of(counts) for outcome in outcomes]).mean(dim=0) for counts in _counts(images, samples)
    ]
    return torch.cat(parts)


def _counts(images: int, samples: int) -> Iterator[Tensor]:
    """How often each image is drawn in each sample, (PART, images) float64; the same for every network."""
    draws = generator(0, "bootstrap over test images", images)
    for start in range(0, samples, PART):
        size = min(PART, samples - start)
        rows = torch.randint(images, (size, images), generator=draws)
        yield torch.zeros(size, images, dtype=torch.float64).scatter_add_(
            1, rows, torch.ones(size, images, dtype=torch.float64)
        )
