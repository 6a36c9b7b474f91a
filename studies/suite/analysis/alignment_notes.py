"""What a reader must know of masks that do not lie on what their images show.

Masks that were written upside down, that belong to other images, or that have another scale or place; and images that
were mirrored or turned without their masks. Boxes count as well where the masks were drawn from them. The masks are
compared with the pixels: at the edge of an object, colours differ more than at the edge of a region that means nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from scd.data.images import ImageSet
from scd.data.masks import is_object
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.altered_notes import SIDE, TURNS, in_grey, in_memory, spread, thumbnails

MOST, LARGEST, PART = 400, 64, 100  # images of a split that are compared, their pixels a side, and images at once
BAND, FEWEST_PIXELS = 2, 3  # pixels on either side of an edge, and in each of these bands at least
LIKE_FRAMES = 0.8  # correlation of thumbnails, from which images are taken for frames of one scene
DIFFERENT = 0.7  # overlap (IoU) of two masks above which they are not compared
FEWEST, DEVIATIONS = 12, 3.0  # images, and standard deviations of a share of 0.5 by which more of them fit better
OTHERS, FEWEST_OWN, FITS = (0.5, 0.31, 0.17), 24, 0.66  # how far other images are, as shares of all; images; see below
# In 66 % of the comparisons at least, edges of a mask are those of its own image and not of another one: in COCO, DUTS,
# ECSSD and Flowers-17 in 83 to 99 %, in COCO with boxes for masks in 70 %, and in 50 % if masks are dealt at random.
NORMAL = 1.645  # quantile of the normal distribution: an error of 5 %
MOST_COPIES, BLOCK, ALIKE = 8000, 1000, 0.98  # images among which copies are looked for; correlation of thumbnails
SAME, TURNED = 0.9, 0.75  # overlap from which two masks are one, and below which a turned mask is another one
FEWEST_COPIES, SHARE = 2, 0.01  # copies with a mask that was not turned


def notes_on_alignment(images: EvaluationData) -> list[str]:
    """Notes on masks of the training and scored images that do not lie on what the images show.

    Images that are generated, and those that do not fit into memory, are not compared.

    Raises:
        DataError: an image or a mask that cannot be decoded.
    """
    if images.source.embedded or not images.has("mask") or (both := in_memory(images)) is None:
        return []
    notes = []
    for found, words in zip(both, ("training", "scored"), strict=True):
        notes += [*notes_on_edges_of_masks(found, words), *notes_on_turned_copies(found, words)]
    return notes


# ---------------------------------------------------------------- edges of masks, and edges in images


def notes_on_edges_of_masks(found: ImageSet, words: str) -> list[str]:
    """A note on masks that would fit their images better if they were turned, or that fit other images as well.

    NOTE: it is a statement about a split. A few masks among many that fit are not noticed.
    """
    pixels, masks = small(found)
    own, is_known = contrasts(pixels, masks)
    better: dict[str, tuple[float, int]] = {}
    for name, turn in TURNS.items():
        turned = turn(masks)
        of_turned, is_edge = contrasts(pixels, turned)
        used = is_known & is_edge & (overlap(masks, turned) < DIFFERENT)
        if (count := int(used.sum())) >= FEWEST:
            better[name] = float((of_turned > own)[used].float().mean()), count
    if better:
        name, (share, count) = max(better.items(), key=lambda item: item[1][0])
        if share >= 0.5 + DEVIATIONS * 0.5 / count**0.5:
            return [
                f"The edges of {share:.0%} of the {count} {words} masks that were compared fit their images better if "
                f"the masks are {name}: check that masks and boxes lie as the images do."
            ]
    shares, count = [], int(is_known.sum())
    for far in OTHERS:
        other = masks.roll(max(1, round(far * len(masks))), 0)
        of_other, is_edge = contrasts(pixels, other)
        used = is_known & is_edge & (overlap(masks, other) < DIFFERENT)
        count = min(count, int(used.sum()))
        if count < FEWEST_OWN:
            return []
        shares.append(float((own > of_other)[used].float().mean()))
    share = sum(shares) / len(shares)
    if share + NORMAL * 0.5 / count**0.5 >= FITS:
        return []
    return [
        f"The edges of the {words} masks fit their own images no better than the masks of other images do (better in "
        f"{share:.0%} of the comparisons): check that each image has its own mask, with the place and the scale of "
        "what it shows."
    ]


def small(found: ImageSet) -> tuple[Tensor, Tensor]:
    """Some different images (N, 3, s, s) and where they have an object (N, 1, s, s), as float, with few pixels."""
    rows = spread(len(found), MOST)
    rows = rows[different(found.images[rows]) & of_their_own(found.masks[rows])]
    pixels, masks = found.images[rows].float(), is_object(found.masks[rows]).float().unsqueeze(1)
    if pixels.shape[-1] > LARGEST:
        pixels = F.interpolate(pixels, LARGEST, mode="area")
        masks = F.interpolate(masks, LARGEST, mode="nearest-exact")
    return pixels, masks


def different(images: Tensor) -> Tensor:
    """Whether each image (N, 3, S, S) is unlike all earlier ones that are so, (N,) bool: one frame of each scene."""
    flat, _ = thumbnails(in_grey(images), min(SIDE, images.shape[-1]))
    return first_ones(flat @ flat.T >= LIKE_FRAMES)


def of_their_own(masks: Tensor) -> Tensor:
    """Whether each mask (N, S, S) differs from all earlier ones that do, (N,) bool: a fixed camera has one mask."""
    flat = is_object(masks).float().flatten(1)
    shared = flat @ flat.T
    areas = flat.sum(dim=1)
    return first_ones(shared >= SAME * (areas.unsqueeze(1) + areas - shared).clamp(min=1))


def first_ones(alike: Tensor) -> Tensor:
    """Which of N things, of which (N, N) bool says that two are alike, are unlike all earlier ones that are so."""
    kept = torch.ones(len(alike), dtype=torch.bool)
    for row in range(1, len(alike)):
        kept[row] = not (alike[row, :row] & kept[:row]).any()
    return kept


def contrasts(pixels: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """How far the mean colours just inside and just outside of masks are apart, (N,), and whether there are both."""
    parts = zip(pixels.split(PART), masks.split(PART), strict=True)
    values, known = zip(*(contrast(*part) for part in parts), strict=True)
    return torch.cat(values), torch.cat(known)


def contrast(pixels: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`contrasts` of a few images."""
    side = 2 * BAND + 1
    inside = masks + F.max_pool2d(1 - masks, side, 1, BAND) - 1
    outside = F.max_pool2d(masks, side, 1, BAND) - masks
    sizes = [band.sum(dim=(1, 2, 3)) for band in (inside, outside)]
    means = [
        (pixels * band).sum(dim=(2, 3)) / size.clamp(min=1).unsqueeze(1)
        for band, size in zip((inside, outside), sizes, strict=True)
    ]
    return (means[0] - means[1]).norm(dim=1), torch.minimum(*sizes) >= FEWEST_PIXELS


def overlap(masks: Tensor, others: Tensor) -> Tensor:
    """Intersection over union (N,) of masks (N, ...) of 0 and 1; 1 for two empty ones."""
    masks, others = masks.flatten(1), others.flatten(1)
    union = torch.maximum(masks, others).sum(dim=1)
    return torch.where(union > 0, torch.minimum(masks, others).sum(dim=1) / union.clamp(min=1), 1.0)


# ---------------------------------------------------------------- mirrored and turned copies


def notes_on_turned_copies(found: ImageSet, words: str) -> list[str]:
    """A note on images that are mirrored or turned copies of others of the split and have the same mask as these."""
    rows = spread(len(found), MOST_COPIES)
    masks = is_object(found.masks[rows]).float()
    wrong: set[int] = set()
    for first, second, name in turned_pairs(found.images[rows]):
        turned = TURNS[name](masks[first])
        kept = (overlap(masks[first], masks[second]) >= SAME) & (overlap(turned, masks[second]) < TURNED)
        wrong |= set(second[kept].tolist())
    if len(wrong) < max(FEWEST_COPIES, SHARE * len(rows)):
        return []
    return [
        f"By their pixels, {len(wrong):,} of the {len(rows):,} {words} images that were compared are mirrored or "
        "turned copies of others and have the masks of these, which were not turned: they mark something else there. "
        "Turn masks and boxes as well, or leave these copies out."
    ]


def turned_pairs(images: Tensor) -> list[tuple[Tensor, Tensor, str]]:
    """Rows of images (N, 3, S, S) and of later ones that look like them after a turn, with the turn's name."""
    side = min(SIDE, images.shape[-1])
    flat, has_contrast = thumbnails(in_grey(images), side)
    pairs = []
    for name, turn in TURNS.items():
        turned = turn(flat.unflatten(1, (side, side))).flatten(1)
        for start in range(0, len(flat), BLOCK):
            block = slice(start, start + BLOCK)
            is_alike = (turned[block] @ flat.T >= ALIKE) & (flat[block] @ flat.T < ALIKE)
            is_alike &= has_contrast[block].unsqueeze(1) & has_contrast
            first, second = is_alike.nonzero(as_tuple=True)
            later = second > first + start
            pairs.append((first[later] + start, second[later], name))
    return pairs
