"""Seeds of named axes: fixed numbers, one stream per axis."""

import torch

from scd.seeds import derive_seed, generator


def test_seeds_are_fixed():
    """A change of these numbers would change every run."""
    assert derive_seed(0, "order", 3) == 228291028133782092
    assert 0 <= derive_seed(7) < 2**63


def test_axes_have_streams_of_their_own():
    seeds = {derive_seed(seed, *axes) for seed in (0, 1) for axes in ((), ("a",), ("a", 1), ("b",), ("a", "b"))}
    assert len(seeds) == 10
    assert torch.equal(torch.rand(3, generator=generator(0, "a")), torch.rand(3, generator=generator(0, "a")))
    assert not torch.equal(torch.rand(3, generator=generator(0, "a")), torch.rand(3, generator=generator(0, "b")))
