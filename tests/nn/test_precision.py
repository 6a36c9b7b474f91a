"""Types that are widened and types that stay; no autocast inside."""

import pytest
import torch

from scd.nn.precision import at_least_float32, no_autocast


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_narrower_types_become_float32_and_others_stay(given, expected):
    x = torch.ones(2, dtype=given)
    assert at_least_float32(x).dtype == expected
    assert (at_least_float32(x) is x) == (given == expected)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_products_stay_in_float32_under_autocast(device):
    x = torch.ones(2, 2, device=device)
    with torch.autocast("cpu", dtype=torch.bfloat16), no_autocast(x):
        assert (x @ x).dtype == torch.float32
