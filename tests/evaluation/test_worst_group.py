"""Groups of class and background, their accuracies by loops, and data that have no such groups."""

import pytest
import torch
from tiny_evaluation import ChannelMethod, context_of, objects, source_of

from scd.errors import UsageError
from scd.evaluation.linear import class_probe
from scd.evaluation.worst_group import WorstGroup, group_shares, on_usual, usual_backgrounds

L2 = (0.01,)


@pytest.fixture(scope="module")
def context():
    """Training images whose background is their class's in nine of ten cases, test images where it is drawn."""
    train, test = objects(80, 0, correlated=True), objects(120, 1, correlated=False)
    train.backgrounds[::10] = (train.backgrounds[::10] + 1) % 4
    return context_of(ChannelMethod(0, 2), source_of(train=train, test=test), 16)


def test_numbers_by_a_loop_over_images(context):
    numbers = WorstGroup(l2=L2, least=3)(context)
    test, train = context.data.test, context.data.train
    predicted = class_probe(context, L2, "train").predict(context.features("test"))
    seen, shares = {}, {}
    for guess, label, background in zip(predicted, test.labels, test.backgrounds, strict=True):
        group = (int(label), int(background) == int(label))
        seen.setdefault(group, []).append(float(guess == label))
    for label, background in zip(train.labels, train.backgrounds, strict=True):
        group = (int(label), int(background) == int(label))
        shares[group] = shares.get(group, 0) + 1 / len(train)
    means = {group: sum(own) / len(own) for group, own in seen.items() if len(own) >= 3}
    assert numbers["groups"] == len(means) == 8
    assert numbers["worst_group_top1"] == pytest.approx(min(means.values()))
    weight = sum(shares.get(group, 0) for group in means)
    weighted = sum(score * shares.get(group, 0) for group, score in means.items()) / weight
    assert numbers["group_weighted_top1"] == pytest.approx(weighted)
    for name, flag in (("usual", True), ("other", False)):
        own = [value for group, values in seen.items() if group[1] is flag for value in values]
        assert numbers[f"{name}_background_top1"] == pytest.approx(sum(own) / len(own))


def test_small_groups_do_not_count(context):
    all_groups, few = WorstGroup(l2=L2, least=1)(context), WorstGroup(l2=L2, least=15)(context)
    assert few["groups"] == 4 < all_groups["groups"]  # on other backgrounds there are three times as many
    none = WorstGroup(l2=L2, least=1000)(context)
    assert none["groups"] == 0 and "worst_group_top1" not in none and "other_background_top1" in none


def test_the_usual_background_is_the_most_frequent_one():
    labels, backgrounds = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([3, 1, 3, 2, 0, 1])
    usual = usual_backgrounds(labels, backgrounds)
    assert usual == {0: 3, 1: 0, 2: 1}
    flags = on_usual(torch.tensor([0, 1, 1, 5]), torch.tensor([3, 2, 0, 3]), usual)
    assert flags.tolist() == [True, False, True, False]
    assert group_shares(torch.tensor([0, 0, 1, 1]), torch.tensor([True, False, True, True])) == {
        (0, True): 0.25, (0, False): 0.25, (1, True): 0.5,
    }  # fmt: skip


def test_images_without_backgrounds_have_no_groups():
    data = source_of(leave_out=("background",), train=objects(40, 0, True), test=objects(40, 1, False))
    assert WorstGroup(l2=L2)(context_of(ChannelMethod(0, 2), data, 16)) == {}


def test_impossible_settings_say_so():
    with pytest.raises(UsageError, match="worst group: least is 0, a group has at least 1 image"):
        WorstGroup(least=0)
    with pytest.raises(UsageError, match="l2 needs one penalty or more"):
        WorstGroup(l2=())
