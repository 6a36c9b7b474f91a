"""What a reader must know of ids in masks of classes, and what was seen of some masks.

Ids that count as background, that only one split has, that lie on edges alone, that number objects and are no classes,
and an id 0 that may mean unlabelled.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from scipy.ndimage import binary_fill_holes, find_objects, label, maximum_filter, minimum_filter

from scd.data.masks import END, UNKNOWN, VOID

MOST_NAMED = 8  # ids that a note names
MANY_IDS = 65536
ON_EDGES, FEWEST_ON_EDGES = 0.9, 3  # share of an id's pixels between two other ids; ids that are noted
OFTEN = 0.25  # share of the scored masks that show an id which the training masks lack
RARE, USUAL, BESIDE = 0.12, 0.5, 2  # of an id 0: most of the pixels, fewest of the masks, and fewest other ids
EVEN = 12  # levels by which a pixel and its neighbours may differ after JPEG compression
PEAK, LEVEL, FLANKS = 3, 0.01, 0.25  # levels on either side of a peak, its share of all pixels, and what lies beside it
MIDDLE, UNSURE = 127, 24  # of a trimap: the level of what is unknown, and levels that it may differ by
FEWEST_NUMBERED, FEWEST_MASKS = 3, 4  # objects of one image, and masks, from which ids may be seen to number objects
FIRST, GAPLESS, CHANCE = 0.9, 0.5, 0.1  # shares of such masks: that show 1, that show 1 to n, by which a count may rise


@dataclass
class SeenMasks:
    """What was seen of the masks of a split.

    Attributes:
        count: how many there are.
        covered: those in which the object covers most of the border.
        shares: of the pixels of each that are object.
        filled: the object's share of its pixels with the holes filled; 0 without an object.
        boxes: those whose object consists of upright rectangles and does not cover the whole mask.
        ids: id -> masks that show it; empty for masks of grey levels.
        pixels, on_edges: id -> its pixels, and those that lie between a lower and a higher id; of masks of five ids or
            more.
        contents: hashes of the values.
        shown: the ids of each mask, without 0 and 255; of masks with ids.
        zeros: of the pixels of each that have the id 0; of masks with ids.
        levels: (256,) pixels by grey level, of those that are like their neighbours; of masks of grey levels.
    """

    count: int = 0
    covered: int = 0
    boxes: int = 0
    shares: list[float] = field(default_factory=list)
    filled: list[float] = field(default_factory=list)
    ids: Counter[int] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    on_edges: Counter[int] = field(default_factory=Counter)
    contents: set[bytes] = field(default_factory=set)
    shown: list[frozenset[int]] = field(default_factory=list)
    zeros: list[float] = field(default_factory=list)
    levels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))

    def add(self, values: np.ndarray, shown: np.ndarray, has_ids: bool) -> None:
        """The values (H, W) of a mask, and where they show the object."""
        border = np.concatenate([shown[0], shown[-1], shown[1:-1, 0], shown[1:-1, -1]])
        known = border[border != UNKNOWN]
        self.count += 1
        self.covered += bool(2 * (known == 1).sum() > len(known))
        self.shares.append(float((shown == 1).mean()))
        self.filled.append(share_of_filled(shown == 1))
        self.boxes += is_of_rectangles(shown == 1)
        self.contents.add(blake2b(np.array(values.shape).tobytes() + values.tobytes(), digest_size=16).digest())
        if not has_ids:
            is_even = maximum_filter(values, 3) - minimum_filter(values, 3) <= EVEN  # no soft border
            self.levels += np.bincount(values[is_even], minlength=256)
        if has_ids:
            shown_ids = np.unique(values).tolist()
            self.ids.update(shown_ids)
            self.shown.append(frozenset(shown_ids) - {0, VOID})
            self.zeros.append(float((values == 0).mean()))
            if len(shown_ids) >= FEWEST_ON_EDGES + 2 and shown_ids[-1] < MANY_IDS:
                for counted, found in ((self.pixels, values.ravel()), (self.on_edges, values[between(values)])):
                    counts = np.bincount(found)
                    counted.update({int(number): int(counts[number]) for number in counts.nonzero()[0]})

    def edge_ids(self) -> list[int]:
        """Ids of which nearly all pixels lie between a lower and a higher id."""
        return sorted(id_ for id_, count in self.pixels.items() if self.on_edges[id_] >= ON_EDGES * count)


def share_of_filled(shown: np.ndarray) -> float:
    """The share of an object (H, W) bool in its pixels with its holes filled; 0 without pixels."""
    return float(shown.sum() / max(1, binary_fill_holes(shown).sum()))


def is_of_rectangles(shown: np.ndarray) -> bool:
    """Whether each part of an object (H, W) bool fills an upright rectangle; False for an empty or a full mask."""
    parts, count = label(shown)
    places = find_objects(parts)
    return count > 0 and not shown.all() and all(shown[place].all() for place in places)


def between(values: np.ndarray) -> np.ndarray:
    """Where a pixel (H, W) lies between a lower and a higher one among its four neighbours: bool."""
    padded = np.pad(values.astype(np.int32), 1, mode="edge")
    centre = padded[1:-1, 1:-1]
    lower, higher = np.zeros(values.shape, bool), np.zeros(values.shape, bool)
    for beside in (padded[1:-1, 2:], padded[1:-1, :-2], padded[2:, 1:-1], padded[:-2, 1:-1]):
        lower |= beside < centre
        higher |= beside > centre
    return lower & higher


def notes_on_edges(seen: SeenMasks, words: str) -> list[str]:
    """A note on ids that lie on the edges between others alone, as where masks of ids were resized with smoothing."""
    found = seen.edge_ids()
    if len(found) < FEWEST_ON_EDGES or 2 * len(found) < len(seen.ids):
        return []
    listed = ", ".join(map(str, found[:MOST_NAMED])) + (", ..." if len(found) > MOST_NAMED else "")
    return [
        f"Ids of the {words} masks that show on edges between other ids alone, as where masks were resized with "
        f"smoothing, which makes ids that are no classes: {listed}. Resize masks of ids with the nearest neighbour."
    ]


def notes_on_new_ids(seen: Mapping[str, SeenMasks], scored: str) -> list[str]:
    """A note on class ids that many scored masks show and no training mask does, of those that were looked at."""
    if "train" not in seen or scored not in seen or not seen["train"].ids:
        return []
    test = seen[scored]
    new = sorted(id_ for id_, count in test.ids.items() if not seen["train"].ids[id_] and count >= OFTEN * test.count)
    if not new:
        return []
    listed = ", ".join(map(str, new[:MOST_NAMED])) + (", ..." if len(new) > MOST_NAMED else "")
    return [
        f"Ids that many of the {test.count} {scored} masks that were looked at show, and none of the "
        f"{seen['train'].count} training masks: {listed}. Check that both splits have the same ids."
    ]


def notes_on_background(ids: set[int], chosen: tuple[int, ...] | None) -> list[str]:
    """A note on several ids that count as background where the ids of the object are named: one may mean unknown."""
    others = sorted(ids - {VOID, *(chosen or ())})
    if chosen is None or len(others) < 2:
        return []
    listed = ", ".join(map(str, others[:MOST_NAMED])) + (", ..." if len(others) > MOST_NAMED else "")
    return [
        f"Ids of the masks that count as background, because data.options.foreground does not name them: {listed}. "
        f"Only {VOID} means unknown; write it in the place of an id that does, such as that of a trimap's border."
    ]


def notes_on_zero(seen: Collection[SeenMasks]) -> list[str]:
    """A note on an id 0 that shows in most masks and covers little of them, as where it means unlabelled or other.

    A background covers more, and so do most classes that show in most images.
    """
    zeros = [share for found in seen for share in found.zeros]
    others = {id_ for found in seen for id_ in found.ids} - {0, VOID}
    with_it = sum(share > 0 for share in zeros)
    if not zeros or with_it < USUAL * len(zeros) or np.mean(zeros) >= RARE or len(others) < BESIDE:
        return []
    return [
        f"The id 0 shows in {with_it} of the {len(zeros)} masks that were looked at, and on {np.mean(zeros):.1%} of "
        f"their pixels alone, beside {len(others)} other ids, as where 0 means unlabelled or other (ADE20K). It counts "
        f"as a class in the mean IoU; if it means unlabelled, write {VOID} in its place."
    ]


def notes_on_numbers(seen: SeenMasks, words: str) -> list[str]:
    """A note on ids that number the objects of each image, as DAVIS does, and are no classes.

    Nearly all masks show 1, a higher number shows in no more masks than a lower one, and most show 1 to n, with more
    than one n.
    """
    shown = [ids for ids in seen.shown if ids]
    counts = Counter(id_ for ids in shown for id_ in ids)
    last = max(counts, default=0)
    if len(shown) < FEWEST_MASKS or last < FEWEST_NUMBERED or set(counts) != set(range(1, last + 1)):
        return []
    falls = all(counts[number + 1] <= counts[number] + CHANCE * len(shown) for number in range(1, last))
    gapless = sum(len(ids) == max(ids) for ids in shown)
    is_numbered = counts[1] >= FIRST * len(shown) and gapless >= GAPLESS * len(shown) and len(set(map(len, shown))) > 1
    if not falls or not is_numbered:
        return []
    return [
        f"The ids of the {words} masks may number the objects of each image from 1 and be no classes, as in DAVIS: 1 "
        f"shows in {counts[1]} of the {len(shown)} that were looked at, {last} in {counts[last]}. Their mean IoU would "
        "mean nothing; say data.options.mask_kind=instances if they are numbers of objects."
    ]


def notes_on_levels_between(seen: SeenMasks, kind: str | None, words: str) -> list[str]:
    """A note on masks of grey levels that have a level of their own between black and white, as several classes have.

    The soft border of an object has all levels between, and a trimap its middle ones.
    """
    total = seen.levels.sum()
    found: list[int] = []
    for level in range(END, 256 - END) if total else ():
        around = seen.levels[max(0, level - 3 * PEAK) : level + 3 * PEAK + 1]
        peak = seen.levels[level - PEAK : level + PEAK + 1]
        is_top = seen.levels[level] == peak.max() and (not found or level - found[-1] > PEAK)
        is_unknown = kind == "trimap" and abs(level - MIDDLE) <= UNSURE
        is_apart = around.sum() <= (1 + FLANKS) * peak.sum() and peak.sum() >= LEVEL * total
        if is_top and is_apart and not is_unknown:
            found.append(level)
    if not found:
        return []
    share = sum(seen.levels[level - PEAK : level + PEAK + 1].sum() for level in found) / total
    named = ", ".join(map(str, found[:MOST_NAMED])) + (", ..." if len(found) > MOST_NAMED else "")
    return [
        f"The {words} masks are read as grey levels of one object, and {share:.0%} of their pixels have a level of "
        f"their own between black and white ({named}), as ids of several classes or objects have: the lower ones count "
        "as background. If they are ids, say so: data.options.mask_kind=classes or instances."
    ]
