"""TokenCut's cut: against scipy's solver of the generalised problem, on graphs whose cut is known, and its edges."""

import numpy as np
import pytest
import scipy.linalg
import torch
from golden_numbers import assert_same, golden

from scd.errors import UsageError
from scd.maps.tokencut import affinity, bipartition, component_of, second_eigenvector


def features_of(labels, dim=6, noise=0.1, seed=0):
    """Features (1, dim, h, w): one direction for each label of (h, w), and a little noise."""
    labels = torch.tensor(labels)
    random = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(dim, dim, generator=random)).Q
    values = directions[labels].permute(2, 0, 1) * (1 + torch.rand(labels.shape, generator=random))
    return (values + noise * torch.randn(values.shape, generator=random) / dim**0.5)[None]


OBJECT = [
    [0, 0, 0, 0, 0],
    [0, 1, 1, 0, 0],
    [0, 1, 1, 0, 1],
    [0, 0, 0, 0, 1],
]


def test_affinity_by_a_loop():
    features = torch.randn(2, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    found = affinity(features, tau=0.1, eps=1e-4)
    flat = features.flatten(2).double().numpy()
    for b in range(2):
        for i in range(6):
            for j in range(6):
                f, g = flat[b, :, i], flat[b, :, j]
                cosine = f @ g / np.linalg.norm(f) / np.linalg.norm(g)
                assert found[b, i, j].item() == (1.0 if cosine > 0.1 else 1e-4)
    assert torch.equal(affinity(5 * features, 0.1, 1e-4), found)  # lengths do not matter


def test_eigenvector_is_that_of_scipys_generalised_problem():
    features = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    weights = affinity(features)
    found = second_eigenvector(weights).numpy()
    for w, y in zip(weights.numpy(), found, strict=True):
        degrees = np.diag(w.sum(axis=1))
        values, vectors = scipy.linalg.eigh(degrees - w, degrees, subset_by_index=[1, 2])
        assert values[1] - values[0] > 1e-6  # the vector is one and no other
        expected = vectors[:, 0]
        np.testing.assert_allclose(y * np.sign(y @ expected), expected, atol=1e-9)


def test_the_cut_follows_the_papers_steps_on_random_graphs():
    """Threshold, seed, flip and component, written down a second time as TokenCut's text has them."""
    features = torch.randn(8, 3, 6, 5, generator=torch.Generator().manual_seed(2))
    cut = bipartition(features)
    for b, w in enumerate(affinity(features).numpy()):
        degrees = np.diag(w.sum(axis=1))
        y = scipy.linalg.eigh(degrees - w, degrees)[1][:, 1]
        side = y > y.mean()
        largest = np.flatnonzero(np.abs(y) > np.abs(y).max() - 1e-9)
        seed = largest[0]
        if not side[seed]:
            side, y = ~side, -y
        assert cut.seed[b] == seed
        assert np.array_equal(cut.foreground[b].flatten().numpy(), side)
        np.testing.assert_allclose(cut.eigenvector[b].flatten().numpy(), y, atol=1e-9)
        assert np.array_equal(cut.component[b].numpy(), flooded(side.reshape(6, 5), seed))


def flooded(region, seed):
    """The 4-connected part of a region that holds the seed, by walking."""
    h, w = region.shape
    part, open_ = np.zeros_like(region), [(seed // w, seed % w)]
    while open_:
        y, x = open_.pop()
        if 0 <= y < h and 0 <= x < w and region[y, x] and not part[y, x]:
            part[y, x] = True
            open_ += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return part


def test_two_cliques_are_separated_the_smaller_is_the_object_and_its_pieces_are_distinguished():
    cut = bipartition(features_of(OBJECT))
    labels = torch.tensor(OBJECT).bool()
    assert torch.equal(cut.foreground[0], labels)  # y is larger on the side with less weight
    assert cut.component[0].sum() == 4 and cut.seed == 6
    assert torch.equal(cut.component[0][:, :3], labels[:, :3]) and not cut.component[0][:, 3:].any()


def test_two_cliques_with_a_few_edges_between_them_are_separated_at_these():
    w = torch.full((1, 10, 10), 1e-5, dtype=torch.float64)
    w[:, :4, :4], w[:, 4:, 4:] = 1, 1
    w[:, 3, 4] = w[:, 4, 3] = 1
    y = second_eigenvector(w)[0]
    assert (y[:4].sign() == -y[4].sign()).all() and (y[4:].sign() == y[4].sign()).all()


def test_sign_seed_is_positive_and_in_the_component_and_the_batch_does_not_matter():
    features = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    cut = bipartition(features)
    at_seed = cut.eigenvector.flatten(1).gather(1, cut.seed[:, None])[:, 0]
    torch.testing.assert_close(at_seed, cut.eigenvector.abs().flatten(1).amax(dim=1))
    assert (at_seed > 0).all()
    assert cut.component.flatten(1).gather(1, cut.seed[:, None]).all()
    assert (cut.foreground | ~cut.component).all()
    for b in range(6):
        alone = bipartition(features[b : b + 1])
        torch.testing.assert_close(alone.eigenvector[0], cut.eigenvector[b])
        for name in ("foreground", "component", "seed"):
            assert torch.equal(getattr(alone, name)[0], getattr(cut, name)[b])


def test_equal_halves_give_the_seed_to_the_first_position():
    halves = [[0, 0, 1, 1], [0, 0, 1, 1]]
    for noise_seed in range(5):
        cut = bipartition(features_of(halves, seed=noise_seed))
        assert cut.seed == 0 and torch.equal(cut.foreground[0], torch.tensor(halves) == 0)


def test_features_that_are_all_alike_or_all_apart_are_not_cut():
    alike = torch.ones(1, 3, 2, 3)
    apart = torch.eye(6).view(1, 6, 2, 3) - 0.1
    assert affinity(apart)[0].sum() == pytest.approx(6, abs=1e-3)  # each position is its own neighbour still
    cut = bipartition(torch.cat([alike, features_of([[0, 1, 1], [0, 1, 1]], dim=3)]))
    assert torch.equal(cut.foreground[1], torch.tensor([[True, False, False]] * 2))
    for uncut in (cut, bipartition(apart)):
        assert uncut.foreground[0].all() and uncut.component[0].all() and not uncut.eigenvector[0].any()
        assert uncut.seed[0] == 0


def test_rounding_does_not_choose_the_side():
    """All are alike but for one pair: there y is 1 and -1, elsewhere 0 up to rounding, which is not above its mean."""
    degrees = torch.full((5, 7), 40.0)
    degrees[1, 2], degrees[3, 4] = 0, 80
    angles = degrees.deg2rad()
    cut = bipartition(torch.stack([angles.cos(), angles.sin()])[None])
    assert cut.seed == 9 and cut.foreground.sum() == 1 and cut.foreground[0, 1, 2]


def test_cuts_of_the_official_code():
    """Its eigenvector, side, seed and connected part; the file's metadata name the official commit."""
    numbers = golden("tokencut")
    cut = bipartition(numbers["features"])
    assert_same(cut.eigenvector, numbers["eigenvector"], "eigenvector")
    assert torch.equal(cut.foreground, numbers["foreground"])
    assert torch.equal(cut.component, numbers["component"])
    assert torch.equal(cut.seed, numbers["seed"])


def test_component_touches_by_sides_not_by_corners_and_is_empty_off_the_region():
    region = torch.tensor([[[1, 1, 0], [0, 0, 1], [0, 1, 1]]]).bool().expand(3, 3, 3)
    found = component_of(region, torch.tensor([0, 8, 2]))
    assert found[0].flatten().nonzero().flatten().tolist() == [0, 1]
    assert found[1].flatten().nonzero().flatten().tolist() == [5, 7, 8]
    assert not found[2].any()


def test_what_is_refused():
    features = torch.ones(1, 2, 2, 2)
    with pytest.raises(UsageError, match=r"TokenCut's tau is a cosine in \[-1, 1\), not 1"):
        affinity(features, tau=1)
    with pytest.raises(UsageError, match="TokenCut's eps lies strictly between 0 and 1, not at 0"):
        affinity(features, eps=0)
    with pytest.raises(UsageError, match="a cut needs at least 2 positions"):
        bipartition(torch.ones(1, 2, 1, 1))
    with pytest.raises(UsageError, match="the features to cut hold values that are not finite"):
        bipartition(torch.full((1, 2, 2, 2), float("nan")))
