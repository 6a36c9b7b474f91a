"""What different readings of one trained method find on the same images: is the object there without a learned map?

    learned    the method's own map, where it has one          found where map >= 0.5
    inverted   1 - learned                                     found where 1 - map >= 0.5
    attention  class token to patches, mean over heads (ViT)   smallest set of positions with 60 % of the mass
    best_head  the one head with the highest IoU (ViT)         the same rule
    tokencut   cut of the keys (ViT) or feature maps (CNN)     the component that TokenCut calls the object
    whole      everything                                      everything: a floor
    centre     Gaussian bump at the centre, sigma 0.3          60 % of the mass: a floor

Rules: attention, DINO (arXiv 2104.14294) and its authors' answers on how its masks were scored; tokencut, arXiv
2202.11539.

All are scored alike, see :mod:`scd.evaluation.localization`; soft maps are stretched from 0 to 1 in each image before.

NOTE: ``learned_jaccard`` therefore differs a little from ``saliency_iou``, which resizes before the threshold, and
``learned_maxf`` from ``saliency_maxf``, which does not stretch.
NOTE: ``best_head`` looks at the mask before it chooses, for each image anew: it bounds what a head could show and is
no result. DINO's Jaccard chooses like this for each object; a mask here is the union of an image's objects.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from scd.atomic import write_atomically
from scd.data.images import ImageSet, load_images
from scd.data.recipes import centre_view
from scd.data.sources.source import Source
from scd.errors import DataError, UsageError
from scd.evaluation.collapse import map_indicators
from scd.evaluation.features import extract_saliency, frozen
from scd.evaluation.localization import Found, mass_set, overlaps, scores
from scd.evaluation.map_trace import MapTrace
from scd.maps.attention import stretched
from scd.maps.controls import CentrePrior
from scd.maps.tokencut import bipartition
from scd.nn.features import maps_and_vector
from scd.nn.vit import tokens_of
from scd.training.loop import Observer

SPLITS = ("test", "validation")


@dataclass
class Readings:
    """What one method says of n images, on the CPU.

    Args:
        learned: its own map (n, h, w) in [0, 1], or None.
        heads: the class token's attention (n, H, h, w), or None.
        object: TokenCut's component (n, h, w) bool.
    """

    learned: Tensor | None
    heads: Tensor | None
    object: Tensor


# ---------------------------------------------------------------- reading


def read(
    method: nn.Module, images: Tensor, size: int, tau: float, batch: int = 256, device: str | torch.device = "cpu"
) -> Readings:
    """Look at the test-time views of images (N, 3, S, S) uint8; the method is left as it was found.

    Args:
        method: has ``.backbone`` and ``saliency(images)``, lives on ``device``.
        size: side in pixels of the view that the network sees.
        tau: of TokenCut, see :func:`scd.maps.tokencut.affinity`.
        batch: images per forward pass; it does not change the result.

    Raises:
        UsageError: no images, a map outside [0, 1], features that are not finite.
    """
    learned = extract_saliency(method, images, size, batch, device)
    heads, objects = [], []
    with frozen(method):
        for part in images.split(batch):
            maps, _ = maps_and_vector(method.backbone(centre_view(part.to(device), size)))
            try:
                tokens = tokens_of(maps)
            except UsageError:  # a CNN's maps, or a ViT's without class token
                objects.append(bipartition(maps, tau).component.cpu())
                continue
            heads.append(tokens.attention.float().cpu())
            objects.append(bipartition(tokens.keys, tau).component.cpu())
    return Readings(
        learned=None if learned is None else learned.cpu(),
        heads=torch.cat(heads) if heads else None,
        object=torch.cat(objects),
    )


def label_free(readings: Readings) -> dict[str, Found]:
    """The answers that take nothing but the method: learned, inverted, attention, tokencut, as far as it has them."""
    answers = {}
    if readings.learned is not None:
        answers["learned"] = Found(stretched(readings.learned), readings.learned >= 0.5)
        answers["inverted"] = Found(1 - answers["learned"].soft, 1 - readings.learned >= 0.5)
    if readings.heads is not None:
        attention = readings.heads.mean(dim=1)
        answers["attention"] = Found(stretched(attention), mass_set(attention))
    answers["tokencut"] = Found(readings.object.float(), readings.object)
    return answers


def best_head(heads: Tensor, masks: Tensor) -> Found:
    """In each image the head whose found positions have the highest IoU with the mask, the first of several equal ones.

    Args:
        heads: attention (n, H, h, w).
        masks: (n, S, S), foreground where > 0.
    """
    hard = torch.stack([mass_set(head) for head in heads.unbind(1)], dim=1)
    overlap = torch.stack([overlaps(head, masks) for head in hard.unbind(1)], dim=1)  # (n, H)
    rows, chosen = torch.arange(len(heads)), overlap.argmax(dim=1)
    return Found(stretched(heads[rows, chosen]), hard[rows, chosen])


def floors(like: Tensor) -> dict[str, Found]:
    """What can be said without a look at the images, on the grid of ``like`` (n, h, w): whole and centre."""
    bump = CentrePrior(sigma=0.3)(like[:, None].float())
    return {
        "whole": Found(torch.ones_like(bump), torch.ones_like(bump, dtype=torch.bool)),
        "centre": Found(stretched(bump), mass_set(bump)),
    }


# ---------------------------------------------------------------- protocols


class Emergence:
    """A further protocol: every extractor's numbers on the evaluated images, after the training.

    Args:
        images: how many of the evaluated images, the first ones.
        tau: of TokenCut. NOTE: 0.2 is the paper's, for DINO's ViTs; whoever compares other features chooses it for
            them, on training images.
        batch: images per forward pass; it does not change the result.

    Raises:
        UsageError: fewer than 1 image, or than 1 in a batch.
    """

    def __init__(self, images: int = 500, tau: float = 0.2, batch: int = 256):
        for name, value in (("images", images), ("batch", batch)):
            if value < 1:
                raise UsageError(f"Emergence's {name} is 1 or more, not {value}")
        self.images = images
        self.tau = tau
        self.batch = batch

    def __call__(
        self, method: nn.Module, source: Source, config: Mapping[str, Any], device: str | torch.device
    ) -> dict[str, float]:
        """The numbers by name, see :data:`scd.evaluation.further.FURTHER`; none for images without masks.

        Args:
            method: has ``.backbone`` and ``saliency(images)``, lives on ``device``; left as it was found.
            source: where the images come from; its split "test", or "validation" without one.
            config: of the run; its ``data.size``, ``data.test_limit``, ``evaluation.test_limit``, ``evaluation.size``.

        Raises:
            UsageError: a tau outside [-1, 1), maps outside [0, 1], features that are not finite.
            DataError: a source without a split to evaluate on.
        """
        test = evaluated_images(source, config)
        if test.masks is None:
            return {}
        test = test.subset(range(min(self.images, len(test))))
        readings = read(method, test.images, config["evaluation"]["size"], self.tau, self.batch, device)
        answers = label_free(readings)
        if readings.heads is not None:
            answers["best_head"] = best_head(readings.heads, test.masks)
        return scores(answers | floors(readings.object), test.masks)


def evaluated_images(source: Source, config: Mapping[str, Any]) -> ImageSet:
    """The images on which a run is evaluated: "test", or "validation" where the set has no test labels of its own.

    Raises:
        DataError: neither of the two.
    """
    split = next((name for name in SPLITS if name in source.splits), None)
    if split is None:
        raise DataError(f"data '{source.name}' has no split to evaluate on; it has {', '.join(source.splits)}")
    limits = [config[part]["test_limit"] for part in ("data", "evaluation")]
    return load_images(source, split, config["data"]["size"], min((n for n in limits if n is not None), default=None))


class EmergenceTrace(MapTrace):
    """The extractors while a method learns, for methods with or without a map of their own.

    Each look writes ``STEP.json``, the numbers of learned, inverted, attention and tokencut and the learned map's
    ``map_entropy`` and ``map_area``, and ``STEP.safetensors``, of the first images ``learned`` as it is, ``attention``
    (mean over heads) stretched from 0 to 1 and ``tokencut``, 0 or 1, each (n, h, w) float; what the method has of them.

    Args:
        test, size, device, folder, points, images, kept: see :class:`scd.evaluation.map_trace.MapTrace`.
        tau: of TokenCut.

    Raises:
        UsageError: a negative number.
    """

    def __init__(
        self,
        test: ImageSet,
        size: int,
        device: str | torch.device,
        folder: Path,
        points: int = 4,
        images: int = 500,
        kept: int = 8,
        tau: float = 0.2,
    ):
        super().__init__(test, size, device, folder, points, images, kept)
        self.tau = tau

    def observer(self, method: nn.Module, steps: int | None) -> Observer | None:
        """What the training loop calls; None where the number of steps is not known, or for no images."""
        if steps is None or not self.points or not len(self.test):
            return None
        self.steps = steps
        places = sorted({round(steps * point / self.points) for point in range(self.points + 1)})
        return Observer(tuple(places), lambda step: self.look(method, step))

    def look(self, method: nn.Module, step: int) -> None:
        """Read the method as it is and write down what was found."""
        readings = read(method, self.test.images, self.size, self.tau, device=self.device)
        answers = label_free(readings)
        numbers = {} if self.test.masks is None else scores(answers, self.test.masks)
        kept = {name: answers[name].soft for name in ("attention", "tokencut") if name in answers}
        if readings.learned is not None:
            indicators = map_indicators(readings.learned)
            numbers |= {name: indicators[name] for name in ("map_entropy", "map_area")}
            kept["learned"] = readings.learned
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {name: maps[: self.kept].contiguous() for name, maps in kept.items()}
        text = json.dumps({name: round(value, 6) for name, value in numbers.items()})
        write_atomically(self.folder / f"{step:08d}.safetensors", lambda path: save_file(kept, path))
        write_atomically(self.folder / f"{step:08d}.json", lambda path: path.write_text(text, encoding="utf-8"))
