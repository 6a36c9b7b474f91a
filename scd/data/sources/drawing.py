"""Drawing of the embedded images: objects and backgrounds in families that the generators share.

An object's class shows in three factors: palette, texture and outline. Every level of a factor is shared by several
classes, so that no factor alone determines the class (with 10 classes a palette or a texture leaves two candidates).
Backgrounds take their colours from the same palettes, so the image's colour statistics mix the colours of both.
Hue, brightness, contrast, texture phase, period and direction, position, size, aspect and rotation vary by instance.

Everything is drawn for a batch of N images at once, from NumPy generators that the caller names.
"""

from typing import Protocol

import numpy as np

VERSION = "1"  # of what these functions draw; raise it with every change of a pixel
CHUNK = 250  # images drawn from one seed; the first n images of a split do not depend on how many are asked for
LEVELS = 5  # of each factor

# Two hues (in turns) each: the palette of an object's texture, or of a background.
PALETTES = {
    "amber": (0.09, 0.02),
    "moss": (0.27, 0.20),
    "teal": (0.50, 0.43),
    "indigo": (0.66, 0.74),
    "rose": (0.92, 0.83),
}
TEXTURES = ("striped", "checked", "dotted", "ringed", "marbled")
OUTLINES = ("disc", "triangle", "star", "cross", "flower")
GROUNDS = ("clouds", "waves", "bricks", "grain", "slope")


class DrawingOptions(Protocol):
    """The options of a generator that drawing depends on; their meaning is that of the generators' options."""

    classes: int
    size: int
    scale: tuple[float, float]
    clutter: int


def factors(classes: int) -> np.ndarray:
    """(classes, 3) palette, texture and outline of every object class: Latin squares, every pair at most once."""
    row, column = np.divmod(np.arange(classes), LEVELS)
    return np.stack([column, (column + 2 * row) % LEVELS, (column + 3 * row) % LEVELS], axis=1)


def ground_factors(classes: int) -> np.ndarray:
    """(classes, 2) palette and texture of every background class; a partner never has its object's palette."""
    row, column = np.divmod(np.arange(classes), LEVELS)
    return np.stack([(column + 2) % LEVELS, (column + 1 + row) % LEVELS], axis=1)


def class_names(classes: int) -> tuple[str, ...]:
    """Names of the object classes: palette, texture, outline."""
    palettes = tuple(PALETTES)
    return tuple(f"{palettes[p]}_{TEXTURES[t]}_{OUTLINES[o]}" for p, t, o in factors(classes))


def background_names(classes: int) -> tuple[str, ...]:
    """Names of the background classes: palette, texture."""
    palettes = tuple(PALETTES)
    return tuple(f"{palettes[p]}_{GROUNDS[t]}" for p, t in ground_factors(classes))


# ---------------------------------------------------------------- objects


def place_objects(rng: np.random.Generator, labels: np.ndarray, options: DrawingOptions):
    """Outlines: masks (N, S, S) bool, and texture coordinates u, v (N, S, S) in image sides, turned with the object.

    All outlines of one extent have the area of the disc of that diameter. The circle around the object lies inside the
    image where it fits; the largest pointed ones are centred and are cut off at their tips.
    """
    n = len(labels)
    outline = factors(options.classes)[labels, 2]
    radius = as_column(rng.uniform(*options.scale, n) / 2 * REACH[outline])
    x, y = pixel_grid(options.size)
    room = np.maximum(1 - 2 * radius, 0)
    centre_x, centre_y = (0.5 + room * as_column(rng.random(n) - 0.5) for _ in range(2))
    turn = as_column(rng.uniform(0, 2 * np.pi, n))
    aspect = as_column(rng.uniform(0.85, 1.0, n))
    dx, dy = x - centre_x, y - centre_y
    u = np.cos(turn) * dx + np.sin(turn) * dy
    v = -np.sin(turn) * dx + np.cos(turn) * dy
    r, angle = np.hypot(u * np.sqrt(aspect), v / np.sqrt(aspect)) / radius, np.arctan2(v, u)
    return r < _by_level(outline, EDGES, angle), u, v


def paint_objects(rng, labels: np.ndarray, u: np.ndarray, v: np.ndarray, options: DrawingOptions) -> np.ndarray:
    """Textured colours (N, S, S, 3) of the objects, as if they filled the image."""
    n = len(labels)
    palette, texture = factors(options.classes)[labels, 0], factors(options.classes)[labels, 1]
    period = as_column(rng.uniform(0.11, 0.16, n))
    phase_u, phase_v = (as_column(rng.random(n)) for _ in range(2))
    a, b = 2 * np.pi * (u / period + phase_u), 2 * np.pi * (v / period + phase_v)
    warp = smooth_field(rng, n, options.size, low=2.0, high=4.0)
    patterns = (
        lambda a, b, w: np.sin(a),
        lambda a, b, w: np.sign(np.sin(a / 1.3)) * np.sign(np.sin(b / 1.3)),
        lambda a, b, w: 2.2 * (np.cos(a / 1.2) + np.cos(b / 1.2)) - 1.6,
        lambda a, b, w: np.sin(np.hypot(a - 2 * np.pi, b) * 1.1),
        lambda a, b, w: np.sin(a / 2 + 3.2 * w),
    )
    share = 0.5 + 0.5 * np.clip(2.5 * _by_level(texture, patterns, a, b, warp), -1, 1)
    light = 0.92 + 0.16 * (0.5 + u)  # a gentle shade across the object
    return _colour(rng, palette, share, n, contrast=(0.22, 0.5), saturation=(0.4, 0.95)) * light[..., None]


# ---------------------------------------------------------------- backgrounds


def paint_backgrounds(rng, backgrounds: np.ndarray, options: DrawingOptions) -> np.ndarray:
    """Background colours (N, S, S, 3) in [0, 1]."""
    n = len(backgrounds)
    palette, ground = ground_factors(options.classes)[backgrounds].T
    x, y = pixel_grid(options.size)
    phase = as_column(rng.random(n))
    tilt = rng.normal(0, 0.25, n)
    u = (x - 0.5) * as_column(np.cos(tilt)) + (y - 0.5) * as_column(np.sin(tilt))
    v = (y - 0.5) * as_column(np.cos(tilt)) - (x - 0.5) * as_column(np.sin(tilt))
    clouds = smooth_field(rng, n, options.size, low=1.0, high=3.5)
    grain = smooth_field(rng, n, options.size, low=2.5, high=5.0, stretch=(3.5, 0.8), tilt=tilt)
    period = as_column(rng.uniform(0.2, 0.3, n))
    patterns = (
        lambda u, v, p, o, c, g: c,
        lambda u, v, p, o, c, g: np.sin(2 * np.pi * (v / p + o) + 1.4 * np.sin(2 * np.pi * u / (1.6 * p))),
        lambda u, v, p, o, c, g: _bricks(u / p + o, v / p + o) + 0.3 * c,
        lambda u, v, p, o, c, g: g,
        lambda u, v, p, o, c, g: 2.2 * (v + 0.5 * (o - 0.5)) + 0.25 * c,
    )
    share = 0.5 + 0.5 * np.clip(_by_level(ground, patterns, u, v, period, phase, clouds, grain), -1, 1)
    return _colour(rng, palette, share, n, contrast=(0.12, 0.35), saturation=(0.25, 0.85))


def add_clutter(image: np.ndarray, rng, options: DrawingOptions) -> None:
    """Up to ``clutter`` small blobs of any palette on each background, in place; they are not part of the mask."""
    n = len(image)
    x, y = pixel_grid(options.size)
    hues = np.array(list(PALETTES.values()), dtype=np.float32)
    number = rng.integers(options.clutter + 1, size=n)
    for blob in range(options.clutter):
        draw = rng.random((7, n))
        radius = as_column(0.03 + 0.05 * draw[0])
        inside = np.hypot(x - as_column(draw[1]), (y - as_column(draw[2])) * as_column(0.7 + 0.6 * draw[3])) < radius
        hue = hues[(draw[4] * LEVELS).astype(int), 0]
        colour = _hsv(hue, 0.3 + 0.6 * draw[5], 0.3 + 0.65 * draw[6])
        which, row, column = np.nonzero(inside & as_column(number > blob))
        image[which, row, column] = colour[which]


# ---------------------------------------------------------------- parts


def _colour(rng, palette: np.ndarray, share: np.ndarray, n: int, contrast, saturation) -> np.ndarray:
    """Two shades of a palette mixed by ``share`` (N, S, S) in [0, 1], jittered by instance -> (N, S, S, 3)."""
    hues = np.array(list(PALETTES.values()))[palette]  # (N, 2)
    hue = hues + rng.normal(0, 0.035, (n, 1)) + rng.normal(0, 0.015, (n, 2))
    value = rng.uniform(0.42, 0.78, n)
    half = rng.uniform(*contrast, n) / 2
    first = _hsv(hue[:, 0], rng.uniform(*saturation, n), value + half)
    second = _hsv(hue[:, 1], rng.uniform(*saturation, n), value - half)
    share = share[..., None].astype(np.float32)
    return first[:, None, None, :] * share + second[:, None, None, :] * (1 - share)


def _hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Colours (N, 3) in [0, 1] from hue in turns, saturation and value (N,)."""
    k = (np.array([5, 3, 1]) + 6 * hue[:, None]) % 6
    share = np.clip(np.minimum(k, 4 - k), 0, 1)
    return (np.clip(value, 0, 1)[:, None] * (1 - saturation[:, None] * share)).astype(np.float32)


def smooth_field(
    rng, n: int, size: int, low: float, high: float, stretch=(1.0, 1.0), tilt=0.0, terms: int = 6
) -> np.ndarray:
    """A smooth random field (N, S, S) of about unit spread: a sum of plane waves of ``low`` to ``high`` periods.

    ``stretch`` multiplies the frequencies along the two axes, which ``tilt`` (N,) then turns. By the addition theorem
    each wave is a sum of two products of a function of x and one of y, so that the sum is a matrix product.
    """
    angle, frequency, phase = rng.random((3, terms, n)) * np.array([2 * np.pi, high - low, 1]).reshape(3, 1, 1)
    along_u, along_v = (frequency + low) * np.cos(angle) * stretch[0], (frequency + low) * np.sin(angle) * stretch[1]
    kx = along_u * np.cos(tilt) - along_v * np.sin(tilt)  # (terms, N)
    ky = along_u * np.sin(tilt) + along_v * np.cos(tilt)
    centres = (np.arange(size) + 0.5) / size
    by_x = 2 * np.pi * kx.T[:, :, None] * centres  # (N, terms, S)
    by_y = 2 * np.pi * (ky.T[:, :, None] * centres + phase.T[:, :, None])
    left = np.concatenate([np.sin(by_y), np.cos(by_y)], axis=1).astype(np.float32)
    right = np.concatenate([np.cos(by_x), np.sin(by_x)], axis=1).astype(np.float32)
    return left.transpose(0, 2, 1) @ right / np.float32(np.sqrt(terms / 2))


def _bricks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 on bricks and -1 on the joints of a wall whose courses are half as high as long."""
    course = np.floor(2 * y)
    joint = ((x + 0.5 * (course % 2)) % 1 < 0.16) | ((2 * y) % 1 < 0.24)
    return np.where(joint, -1.0, 0.7)


def _by_level(level: np.ndarray, functions, *fields: np.ndarray) -> np.ndarray:
    """``functions[level[i]]`` of image i of every field; each field is (N, S, S) or (N, 1, 1)."""
    out = np.empty(fields[0].shape, np.float32)
    for number, function in enumerate(functions):
        chosen = level == number
        if chosen.any():
            out[chosen] = function(*(field[chosen] for field in fields))
    return out


def _polygon(angle: np.ndarray, corners: int, cut: float) -> np.ndarray:
    """Distance to the edge of a regular polygon of circumradius 1, its tips cut off at ``cut``."""
    step = 2 * np.pi / corners
    return np.minimum(np.cos(step / 2) / np.cos(angle % step - step / 2), cut) / cut


def _cross(angle: np.ndarray) -> np.ndarray:
    """Distance to the edge of a plus of circumradius about 1."""
    along = np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle)))
    across = np.minimum(np.abs(np.cos(angle)), np.abs(np.sin(angle)))
    return np.minimum(0.9 / along, 0.42 / np.maximum(across, 1e-6))


# Distance to the edge by direction, for the outlines in their order, and the circumradius of each at the area of the
# unit disc.
EDGES = (
    lambda a: np.ones_like(a),
    lambda a: _polygon(a, 3, cut=0.8),
    lambda a: 0.8 + 0.2 * np.cos(5 * a),
    _cross,
    lambda a: 0.88 + 0.12 * np.cos(8 * a),
)
_ANGLES = np.linspace(0, 2 * np.pi, 3600, endpoint=False)
REACH = np.array([1 / np.sqrt(np.mean(edge(_ANGLES) ** 2)) for edge in EDGES])


def pixel_grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x (1, 1, S) and y (1, S, 1) of the pixels' centres in [0, 1]."""
    centres = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centres[None, None, :], centres[None, :, None]


def as_column(values: np.ndarray) -> np.ndarray:
    """(N,) -> (N, 1, 1), float32 unless bool."""
    return values[:, None, None] if values.dtype == bool else values.astype(np.float32)[:, None, None]
