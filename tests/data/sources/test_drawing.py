"""The families that the generators draw from."""

import numpy as np
import pytest

from scd.data.sources.drawing import EDGES, REACH, background_names, class_names, factors, ground_factors


def test_classes_are_distinct_combinations_of_shared_factors():
    for classes in (2, 10, 25):
        table = factors(classes)
        assert len(np.unique(table[:, :2], axis=0)) == classes  # palette and texture together say the class
        assert len(np.unique(ground_factors(classes), axis=0)) == classes
        assert len(set(class_names(classes))) == len(set(background_names(classes))) == classes
    table = factors(10)
    assert all((np.bincount(table[:, factor]) == 2).all() for factor in range(3))  # no factor alone does
    assert (factors(25)[:, 0] != ground_factors(25)[:, 0]).all()


def test_outlines_have_equal_area():
    angles = np.linspace(0, 2 * np.pi, 7200, endpoint=False)
    for edge, reach in zip(EDGES, REACH, strict=True):
        radius = edge(angles) * reach
        assert np.pi * np.mean(radius**2) == pytest.approx(np.pi, rel=1e-3)
        assert edge(angles).max() == pytest.approx(1.0, abs=0.02)
