"""Invariances of single units and of the whole representation: to occlusion, viewpoint and illumination.

    G_u       share of all images in which unit u fires: in which it is above its (1 - p)-quantile, p = max(1/C, 5 %)
    L_u(c)    share of the versions of an object in which u fires, mean over those objects of class c in which it fires
              at all; a unit may fire by a high or by a low value, whichever gives the higher share for the object
    score     p times the mean over classes of the mean of the largest 10 of L_u(c) / G_u

Source: Purushwalkam and Gupta, "Demystifying Contrastive Self-Supervised Learning", NeurIPS 2020, arXiv 2007.13916,
and its code (senthilps8/demystifyssl, measure_invariances.py). With p in front the score is about L, a share.

NOTE: the paper measures photographs of the same object under other conditions (ALOI, GOT-10k, Pascal3D). Here each
object is cut out by its mask and shown under other conditions, so that nothing else changes: moved over its own
background, whose hole takes the nearest background pixel, half covered by a grey rectangle, or under another light.
NOTE: the similarity of whole representations is no measure of the paper.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.data.masks import is_object
from scd.errors import DataError, UsageError
from scd.evaluation.background import fill_holes
from scd.evaluation.features import extract
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.protocol import Context, EvaluationData, Protocol
from scd.seeds import generator

KINDS = ("occlusion", "viewpoint", "illumination")
SIDES = ("left", "right", "top", "bottom")  # from which an object is covered
LEAST_FIRING = 0.05  # p is this or more
ORDER_SEED = 0  # of which objects are used: the same in all runs
COVERED = (0.25, 0.5)  # share of the object's area that is hidden, from each side
MOVES = (  # degrees, factor of the size, shift to the right and down in sides of the image
    (-45, 1.0, 0.0, 0.0), (-20, 1.0, 0.0, 0.0), (20, 1.0, 0.0, 0.0), (45, 1.0, 0.0, 0.0),
    (0, 0.75, 0.0, 0.0), (0, 1.25, 0.0, 0.0), (0, 1.0, 0.125, 0.125), (0, 1.0, -0.125, -0.125),
)  # fmt: skip
LIGHTS = (  # factors of red, green and blue
    (0.5, 0.5, 0.5), (0.75, 0.75, 0.75), (1.25, 1.25, 1.25), (1.5, 1.5, 1.5),
    (1.3, 1.0, 0.7), (0.7, 1.0, 1.3), (1.0, 1.3, 1.0), (1.0, 0.7, 1.0),
)  # fmt: skip


@dataclass(kw_only=True)
class Invariance(Protocol):
    """How much units and representations stay the same when an object is covered, moved or lit otherwise.

    Needs masks; classes are averaged over where there are labels, else all objects are one class.

    Args:
        objects: at most this many test objects, each in 9 versions for each of the three.
        units: the number of units with the highest scores that are averaged in each class; official: 10 and 25.

    Raises:
        UsageError: no objects or no units.
    """

    objects: int = 200
    units: int = 10

    def __post_init__(self) -> None:
        if self.objects < 1 or self.units < 1:
            raise UsageError(f"invariance needs 1 object and 1 unit or more, not {self.objects} and {self.units}")

    def definitions(self) -> dict[str, Metric]:
        changes = {
            "occlusion": "whose object is covered from one side, by a quarter or a half of its area",
            "viewpoint": "whose object is turned by 20 or 45 degrees, smaller or larger by a quarter, or shifted by an "
            "eighth of the image's side on both axes",
            "illumination": "with another brightness (factors 0.5 to 1.5) or a cast of colour",
        }
        found = {}
        for kind, words in changes.items():
            found[f"{kind}_invariance"] = Metric(
                f"{kind} invariance of units",
                SHARE,
                "higher",
                f"how consistently a unit fires over the 9 versions of an image {words}: local over global firing, "
                f"times the share p of images in which a unit fires, mean over the {self.units} best units of each "
                "class (Demystifying)",
            )
            found[f"{kind}_similarity"] = Metric(
                f"{kind} invariance of features",
                "1 = the same, 0 = as another image",
                "higher",
                f"mean cosine similarity of the pooled features of an image and of its 8 versions {words}, minus that "
                "of different images, over 1 minus that of different images",
            )
        return {**found, "n_invariance": Metric("objects", "images", None, "test objects whose versions are compared")}

    def applies(self, data: EvaluationData) -> bool:
        return "mask" in data.columns(data.split)

    def check(self, data: EvaluationData) -> None:
        data.check_masks("test")
        if len(usable(data, self.objects)) < 2:
            raise DataError(
                f"'{data.source.name}' {data.split}: invariance needs two images with object and background"
            )

    def measure(self, context: Context) -> dict[str, float]:
        data = context.data
        rows = usable(data, self.objects)
        images, masks = data.test.images[rows], is_object(data.test.masks[rows])
        labels = torch.zeros(len(rows), dtype=torch.long) if data.test.labels is None else data.test.labels[rows]
        numbers: dict[str, float] = {}
        for kind in KINDS:
            versions = versions_of(kind, images, masks)
            flat = extract(context.method.backbone, versions.flatten(0, 1), context.size, device=context.device)
            features = flat.double().cpu().unflatten(0, versions.shape[:2])  # (N, V, d)
            numbers[f"{kind}_invariance"] = firing_score(features, labels, self.units)
            numbers[f"{kind}_similarity"] = relative_similarity(features)
        return {**numbers, "n_invariance": len(rows)}


def usable(data: EvaluationData, most: int) -> Tensor:
    """Rows of the test images that show an object and a background, ``most`` at most, the same in all runs."""
    masks = data.test.masks
    order = torch.randperm(len(masks), generator=generator(ORDER_SEED, "invariance", "objects"))
    good = is_object(masks).flatten(1).any(dim=1) & (masks == 0).flatten(1).any(dim=1)
    return order[good[order]][:most].sort().values


# -------------------------------------------------------------------- scores


def firing_score(features: Tensor, labels: Tensor, units: int) -> float:
    """The invariance score of the module's docstring.

    NOTE: as in the official code a unit fires globally at its threshold or above it, and locally above it only; global
    firing is that of high values also where low ones are counted locally.

    Args:
        features: (N, V, d), of V versions of N objects.
        labels: (N,) classes of the objects.
        units: averaged over in each class; all of them where there are fewer.
    """
    flat, classes = features.flatten(0, 1), labels.unique()
    share = max(1 / len(classes), LEAST_FIRING) if len(classes) > 1 else LEAST_FIRING
    place = math.floor(len(flat) * (1 - share) + 1e-9)
    ascending = flat.sort(dim=0).values
    high, low = ascending[place], ascending[len(flat) - 1 - place]
    everywhere = (flat >= high).double().mean(dim=0)
    fired = torch.maximum((features > high).sum(dim=1), (features < low).sum(dim=1)).double() / features.shape[1]
    scores = []
    for label in classes:
        own = fired[labels == label]  # (n, d)
        local = own.sum(dim=0) / (own > 0).sum(dim=0).clamp_min(1)
        scores.append((local / everywhere).topk(min(units, len(local))).values.mean())
    return float(share * torch.stack(scores).mean())


def relative_similarity(features: Tensor) -> float:
    """(s - t) / (1 - t), s: mean cosine similarity of version 0 with the others, t: of the versions 0 of two objects.

    1 where all versions of an image have one direction, 0 where they are no more similar than different images; 0 where
    different images are the same.

    Args:
        features: (N, V, d), N >= 2.
    """
    z = F.normalize(features, dim=2)
    own = float((z[:, :1] * z[:, 1:]).sum(dim=2).mean())
    first, count = z[:, 0], len(z)
    other = float(((first @ first.T).sum() - (first * first).sum()) / (count * (count - 1)))
    return (own - other) / (1 - other) if 1 - other > 1e-9 else 0.0


# -------------------------------------------------------------------- versions


def versions_of(kind: str, images: Tensor, masks: Tensor) -> Tensor:
    """Versions (N, 9, 3, S, S) uint8 of images (N, 3, S, S) uint8 with masks (N, S, S) bool, the image itself first."""
    made: list[Callable[[], Tensor]]
    if kind == "occlusion":
        made = [
            lambda side=side, share=share: covered(images, masks, side, share) for share in COVERED for side in SIDES
        ]
    elif kind == "viewpoint":
        behind = fill_holes(images, masks.to(torch.uint8))
        made = [lambda move=move: moved(images, masks, behind, *move) for move in MOVES]
    else:
        made = [lambda light=light: lit(images, light) for light in LIGHTS]
    return torch.stack([images, *(make() for make in made)], dim=1)


def covered(images: Tensor, masks: Tensor, side: str, share: float) -> Tensor:
    """Images whose objects are covered from a side by a grey rectangle, as far as ``share`` of their pixels are hidden.

    The rectangle spans the box around the object on the other axis, and ends with the first line of pixels by which the
    share is reached.
    """
    across = 2 if side in ("left", "right") else 1  # the axis of masks (N, S, S) along which the rectangle grows
    lines = masks.sum(dim=3 - across).double()  # (N, S) object pixels in each column, or row
    if side in ("right", "bottom"):
        lines = lines.flip(1)
    before = lines.cumsum(dim=1) - lines  # object pixels before each line
    hidden = (before < share * lines.sum(dim=1, keepdim=True) - 1e-9) & (lines.cumsum(dim=1) > 0)
    if side in ("right", "bottom"):
        hidden = hidden.flip(1)
    spanned = box_span(masks.any(dim=across))  # (N, S) along the other axis
    inside = hidden[:, None, :] & spanned[:, :, None] if across == 2 else hidden[:, :, None] & spanned[:, None, :]
    return torch.where(inside[:, None], torch.tensor(128, dtype=images.dtype), images)


def box_span(present: Tensor) -> Tensor:
    """(N, S) bool, True from the first to the last True of each row."""
    return present.cumsum(dim=1).bool() & present.flip(1).cumsum(dim=1).flip(1).bool()


def moved(
    images: Tensor, masks: Tensor, behind: Tensor, degrees: float, factor: float, right: float, down: float
) -> Tensor:
    """Images whose objects are turned clockwise about their centres, scaled and shifted over the images ``behind``.

    What leaves the image is cut off. Colours and masks are sampled bilinearly.
    """
    count, side = len(images), images.shape[2]
    inside = masks[:, None].float()
    centres = (torch.arange(side) + 0.5) / side * 2 - 1  # in [-1, 1], as grid_sample has them
    area = inside.sum(dim=(1, 2, 3))
    x0 = (inside[:, 0].sum(dim=1) * centres).sum(dim=1) / area
    y0 = (inside[:, 0].sum(dim=2) * centres).sum(dim=1) / area
    x = centres[None, None, :] - x0[:, None, None] - 2 * right  # seen from where the object's centre goes
    y = centres[None, :, None] - y0[:, None, None] - 2 * down
    turn = math.radians(degrees)
    source_x = (math.cos(turn) * x + math.sin(turn) * y) / factor + x0[:, None, None]  # turned back
    source_y = (-math.sin(turn) * x + math.cos(turn) * y) / factor + y0[:, None, None]
    grid = torch.stack([source_x, source_y], dim=3).view(count, side, side, 2)
    colours = F.grid_sample(images.float() * inside, grid, align_corners=False)
    cover = F.grid_sample(inside, grid, align_corners=False)
    return (colours + (1 - cover) * behind.float()).round().clamp(0, 255).to(images.dtype)


def lit(images: Tensor, light: tuple[float, float, float]) -> Tensor:
    """Images under another light: each channel times its factor, cut off at white."""
    return (images.float() * torch.tensor(light).view(1, 3, 1, 1)).round().clamp(0, 255).to(images.dtype)
