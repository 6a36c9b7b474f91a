"""The bootstrap over images: against formulas of known cases, and paired by image."""

import pytest
import torch

from scd.evaluation.outcomes import Outcome
from studies.suite.analysis.image_bootstrap import difference, interval


def coins(share, images=400, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return Outcome((torch.rand(images, generator=draws) < share).double())


def test_a_share_has_the_interval_of_its_standard_error():
    outcome = coins(0.3, 2000)
    found, share = interval({0: outcome}), outcome.number
    half = 1.96 * (share * (1 - share) / 2000) ** 0.5
    assert found.value == share
    assert found.low == pytest.approx(share - half, abs=0.1 * half + 1 / 2000)
    assert found.high == pytest.approx(share + half, abs=0.1 * half + 1 / 2000)


def test_equal_calls_give_equal_intervals():
    assert interval({0: coins(0.3)}) == interval({0: coins(0.3)})


def test_a_difference_is_paired_by_image():
    one = coins(0.3)
    assert difference({0: one}, {0: one}) == difference({0: one}, {0: one})
    same = difference({0: one}, {0: one})
    assert (same.value, same.low, same.high) == (0, 0, 0)
    better = Outcome(one.values.clone())
    wrong = (one.values == 0).nonzero()[:40, 0]
    better.values[wrong] = 1
    found = difference({0: better}, {0: one})
    half = 1.96 * (0.1 * 0.9 / 400) ** 0.5  # of the 10 % of images that differ, not of two independent shares
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1 - half, abs=0.005)
    assert found.high == pytest.approx(0.1 + half, abs=0.005)
    mirrored = difference({0: one}, {0: better})
    assert (mirrored.value, mirrored.low, mirrored.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_seeds_are_averaged_in_each_sample():
    one, other = coins(0.3, seed=1), coins(0.3, seed=2)
    found = interval({0: one, 1: other})
    mean = interval({0: Outcome((one.values + other.values) / 2)})
    assert (found.value, found.low, found.high) == pytest.approx((mean.value, mean.low, mean.high))


def test_networks_of_other_images_are_not_compared():
    with pytest.raises(ValueError, match="the same ones"):
        difference({0: coins(0.3, 400)}, {0: coins(0.3, 300)})
