"""Arms without a true difference, drawn for many studies at once, and how rare a false outcome must be."""

import numpy as np

STUDIES, LIMIT = 4000, 0.05
TOLERANCE = 3 * (LIMIT * (1 - LIMIT) / STUDIES) ** 0.5  # three standard errors of a share of 5 %: 0.010
NOISE = ("normal", "heavy tails", 2.0, 3.0)  # a number: the treatment varies that many times as much


def draw(noise, arms, seeds, studies=STUDIES):
    """Values (studies, arms, seeds) of arms without a true difference; the effects of the seeds cancel in pairs."""
    random = np.random.default_rng(17)
    shared = random.normal(0, 3, (studies, 1, seeds))
    if noise == "heavy tails":
        return shared + random.standard_t(3, (studies, arms, seeds)) / 3**0.5  # variance 1
    values = random.normal(0, 1, (studies, arms, seeds))
    if noise != "normal":
        values[:, 0] *= noise
    return shared + values
