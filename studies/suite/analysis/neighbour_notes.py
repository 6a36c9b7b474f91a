"""What a reader must know of numbered images of which scored ones look like frames between training images.

A random split of independent photographs deals numbers to both splits as well. The pixels tell: of a recording, an
image is more like its neighbour by number than like nearly all others, and of photographs it is not.
"""

import re
from collections import defaultdict
from pathlib import PurePosixPath

import torch
from torch import Tensor

from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.altered_notes import SIDE, in_grey, in_memory, spread, thumbnails
from studies.suite.analysis.name_notes import original_of, used_paths

PLACES = (-1, 0, 1)  # of the number in a name: "r0_7" of a rotation, "7_100", "r2_7_100"
SERIES = tuple[int, tuple[str, ...]]  # label, and the name without the number
FEWEST_TRAIN, FEWEST_SCORED = 6, 12  # training images of a series, and scored images in all that are compared
MOST_OTHERS = 200  # training images of a series with which one is compared, evenly spread
ABOVE = 0.9  # share of the others that are less alike than the neighbour
ALIKE = 0.8  # correlation of thumbnails
MOST = 0.5  # share of the scored images that is not noted


def notes_on_neighbours(images: EvaluationData) -> list[str]:
    """A note on scored images that are much more like the training image of the nearest number than like others.

    Images that are generated, and those that do not fit into memory, are not compared.

    Raises:
        DataError: an image that cannot be decoded.
    """
    if images.source.embedded:
        return []
    names = [[PurePosixPath(path or "").name for path in paths] for paths in used_paths(images)]
    if not any(names[1]) or (both := in_memory(images)) is None:
        return []
    train, test = both
    ours, theirs = ([0] * len(one) if one.labels is None else one.labels.tolist() for one in (train, test))
    small = [thumbnails(in_grey(one.images), min(SIDE, one.images.shape[-1])) for one in (train, test)]
    for place in PLACES:
        first, second = by_series(names[0], ours, place), by_series(names[1], theirs, place)
        pairs, compared = [], 0
        for series in first.keys() & second.keys():
            if len(first[series]) >= FEWEST_TRAIN:
                compared += len(second[series])
                pairs += like_neighbours(first[series], second[series], *small)
        if compared >= FEWEST_SCORED and len(pairs) > MOST * len(test):
            one, other = min((names[1][row], names[0][neighbour]) for row, neighbour in pairs)
            return [
                f"By their pixels, {len(pairs):,} of the {len(test):,} scored images are more like the training image "
                f"of the nearest number (such as '{one}' and '{other}') than like nearly all other images of the same "
                "class and series of names, as frames of one video or views of one object are: scores are too high. "
                "Give each video or object to one split."
            ]
    return []


def by_series(names: list[str], labels: list[int], place: int) -> dict[SERIES, list[tuple[int, int]]]:
    """Label and rest of the name -> the number at this place and the row of each image, sorted."""
    found: dict[SERIES, list[tuple[int, int]]] = defaultdict(list)
    for row, (file, label) in enumerate(zip(names, labels, strict=True)):
        name = original_of(PurePosixPath(file).stem)[0]  # without the hash that a tool puts behind it
        numbers = list(re.finditer(r"\d+", name))
        if -len(numbers) <= place < len(numbers):
            number = numbers[place]
            found[label, (name[: number.start()], name[number.end() :])].append((int(number[0]), row))
    return {series: sorted(members) for series, members in found.items()}


def like_neighbours(
    train: list[tuple[int, int]],
    test: list[tuple[int, int]],
    small_train: tuple[Tensor, Tensor],
    small_test: tuple[Tensor, Tensor],
) -> list[tuple[int, int]]:
    """Rows of scored images between training numbers that look like their neighbour alone, and the neighbours' rows.

    Args:
        train, test: number and row of each image of a series.
        small_train, small_test: thumbnails (N, P), and whether each has contrast (N,).
    """
    numbers = torch.tensor([number for number, _ in train])
    rows = torch.tensor([row for _, row in train])
    others = spread(len(train), MOST_OTHERS)
    found = []
    for number, row in test:
        if not numbers[0] < number < numbers[-1] or not small_test[1][row]:
            continue
        nearest = int((numbers - number).abs().argmin())
        correlations = small_train[0][rows[others[others != nearest]]] @ small_test[0][row]
        best = small_train[0][rows[nearest]] @ small_test[0][row]
        if best >= ALIKE and (correlations < best).float().mean() >= ABOVE:
            found.append((row, int(rows[nearest])))
    return found
