"""The design of a fraction of a grid, and the configuration that a specification gives a run."""

from collections import Counter
from itertools import combinations, product

import pytest

from scd.errors import UsageError
from studies import specifications
from studies.specifications import designed, host_overrides, wrapper_overrides

TWO = {"padding": ["zeros", "reflect"], "projection": ["mlp", "none"], "anchors": ["foreground", "both"]}
CHOICES = {
    "normalisation": ["sigmoid", "softmax", "centred"], **TWO, "foreground_weight": [0.0, 1.0], "weight": [1.0, 0.3],
    "margin": [0.5, 1.0], "pooling": ["mean"],
}  # fmt: skip


def rows(chosen):
    return [tuple(each.levels.values()) for each in chosen]


def test_a_grid_that_is_asked_for_in_full_is_complete():
    chosen = designed(TWO, 100, seed=0)
    assert set(rows(chosen)) == set(product(*TWO.values())) and len(chosen) == 8
    assert [each.number for each in chosen] == list(range(1, 9))


def test_half_a_grid_of_three_choices_is_the_orthogonal_array():
    chosen = designed(TWO, 4, seed=0)
    for first, second in combinations(TWO, 2):
        pairs = Counter((each.levels[first], each.levels[second]) for each in chosen)
        assert pairs == dict.fromkeys(product(TWO[first], TWO[second]), 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_fraction_has_every_pair_of_levels_and_nearly_even_counts(seed):
    chosen = designed(CHOICES, 12, seed)
    assert len(set(rows(chosen))) == 12
    assert rows(chosen)[0] == tuple(levels[0] for levels in CHOICES.values())
    for choice, levels in CHOICES.items():
        counts = Counter(each.levels[choice] for each in chosen)
        assert set(counts) == set(levels) and max(counts.values()) - min(counts.values()) <= 1
    for first, second in combinations(CHOICES, 2):
        met = {(each.levels[first], each.levels[second]) for each in chosen}
        assert met == set(product(CHOICES[first], CHOICES[second]))


def test_the_seed_fixes_the_design_and_a_choice_of_one_level_does_not_change_it():
    chosen = designed(CHOICES, 6, seed=0)
    assert chosen == designed(CHOICES, 6, seed=0) and chosen != designed(CHOICES, 6, seed=1)
    more = designed({**CHOICES, "branch": ["target"]}, 6, seed=0)
    assert [{**each.levels, "branch": "target"} for each in chosen] == [each.levels for each in more]
    few = {"weight": [1.0, 0.3], "margin": [0.5, 1.0]}
    expected = [(1.0, 0.5), (0.3, 1.0)]  # by hand: the only row that shares no level with the first
    assert rows(designed(few, 2, seed=0)) == rows(designed(few, 2, seed=5)) == expected


def test_imbalance_is_the_sum_of_squared_counts():
    sizes, design = [3, 2, 2], [[0, 0, 0], [1, 1, 0], [0, 1, 1], [2, 0, 1], [0, 0, 0]]
    expected = 0
    for size in (1, 2):
        for places in combinations(range(3), size):
            factor = 1
            for at in places:
                factor *= sizes[at]
            counts = Counter(tuple(row[at] for at in places) for row in design)
            expected += factor * sum(count**2 - count for count in counts.values()) / 2  # without each row's own share
    assert specifications.imbalance(design, sizes) == expected


def test_the_words_name_what_varies():
    text = designed(CHOICES, 6, seed=0)[0].words(CHOICES)
    assert text == (
        "map sigmoid, padding zeros, projection mlp, anchors foreground, host's loss on foregrounds 0, "
        "triplet weight 1, margin 0.5"
    )


def test_the_levels_become_a_configuration():
    levels = {
        "normalisation": "softmax", "padding": "reflect", "projection": "none", "foreground_weight": 1.0,
        "branch": "online", "anchors": "both", "pooling": "sum", "weight": 0.3, "margin": 1.0,
    }  # fmt: skip
    assert host_overrides(levels) == {"backbone": {"padding": "reflect"}, "method": {"symmetric": True}}
    shared = {
        "foreground_weight": 1.0, "anchors": "both", "pooling": "sum", "weight": 0.3, "margin": 1.0,
        "projection_dim": 0, "positive_branch": "online",
    }  # fmt: skip
    assert wrapper_overrides(levels, learned=False) == {"wrapper": shared}
    assert wrapper_overrides(levels, learned=True) == {"wrapper": {**shared, "saliency": {"normalisation": "softmax"}}}
    assert host_overrides({"branch": "target", "margin": 1.0}) == {}
    assert wrapper_overrides({"projection": "mlp"}, learned=True) == {"wrapper": {}}


@pytest.mark.parametrize(
    ("choices", "count", "text"),
    [
        ({"margins": [0.5]}, 1, "unknown choice 'margins'; did you mean 'margin'"),
        ({"margin": []}, 1, "axes.choices.margin lists one level or several different ones, not \\[\\]"),
        ({"margin": [0.5, 0.5]}, 1, "axes.choices.margin lists one level or several different ones"),
        ({"margin": [0.5]}, 0, "axes.specifications is a number of specifications from 1 on, not 0"),
    ],
)
def test_wrong_options_are_named(choices, count, text):
    with pytest.raises(UsageError, match=text):
        designed(choices, count, seed=0)


@pytest.mark.parametrize(
    ("levels", "text"), [({"projection": "mpl"}, "unknown projection"), ({"branch": "momentum"}, "unknown branch")]
)
def test_wrong_levels_are_named(levels, text):
    with pytest.raises(UsageError, match=text):
        wrapper_overrides(levels, learned=True)
