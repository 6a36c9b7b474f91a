"""The next step of a study: what is decided, what to run, and whether its chances are right."""

import numpy as np
import pandas
import pytest

from studies.suite.analysis.next_step import chance_to_decide, next_step
from studies.suite.analysis.readings import level
from studies.suite.analysis.results import Results
from studies.suite.analysis.statistics import difference_of, quantile
from studies.suite.analysis.verdict import find, judge
from studies.suite.planning.study import Contrast

SPREAD = np.array([-1.0, 0.0, 1.0]) / 100
ARMS = {"base": 0.50, "clear": 0.60, "near": 0.512, "far": 0.502, "random": 0.30}
TIMES = {"base": 10.0, "clear": 10.0, "near": 10.0, "far": 40.0, "random": 1.0}
PATTERN = {"base": 0 * SPREAD, "clear": SPREAD, "near": SPREAD, "far": 2 * SPREAD, "random": -SPREAD}


def results(seeds=3, looks=(3, 5, 10), conditions=("epochs",)):
    """Three seeds of five arms, in each budget; run names tell conditions apart, but for random weights."""
    rows = [
        {
            "arm": arm, "budget": budget, "seed": seed, "run": f"{arm}{'' if arm == 'random' else budget}{seed}",
            "status": "done", "reason": "", "top1": mean + PATTERN[arm][seed % 3],
            "seconds_pretrain": TIMES[arm] - 0.5, "seconds_eval": 0.5,
        }
        for budget in conditions for arm, mean in ARMS.items() for seed in range(seeds)
    ]  # fmt: skip
    about = {"looks": list(looks), "pools": {}, "metrics": {}}
    return Results(about, pandas.DataFrame(rows))


def contrast(treatment, control="base", budget="epochs", looks=()):
    name, claim = f"{treatment}-{control}, {budget}", f"{treatment} is better"
    return Contrast(name, treatment, control, "top1", 0.01, claim, {"budget": budget}, looks=looks)


def verdicts(found, *treatments, budgets=("epochs",), control=None):
    return [
        judge(found, [contrast(each, budget=budget)], [] if control is None else [find(found, control)])
        for each in treatments
        for budget in budgets
    ]


def names(findings):
    return [finding.contrast.name for finding in findings]


def test_a_contrast_with_readings_of_its_own_waits_for_these():
    found = results()
    own = [judge(found, [contrast("near", looks=looks)], []) for looks in ((3, 4), (3,))]
    waiting, exhausted = (next_step(found, [each]) for each in own)
    assert names(waiting.waiting) == names(exhausted.exhausted) == ["near-base, epochs"]
    assert waiting.steps[0].seeds == 4 and not exhausted.steps


def test_what_is_decided_asks_for_nothing_and_what_is_open_for_the_next_reading():
    found = results()
    step = next_step(found, verdicts(found, "clear", "near"))
    assert names(step.decided) == ["clear-base, epochs"] and names(step.waiting) == ["near-base, epochs"]
    (only,) = step.steps
    assert only.seeds == 5 and set(only.arms) == {"near", "base"}
    assert set(only.runs) == {(arm, "equal epochs", seed) for arm in ("near", "base") for seed in (3, 4)}
    assert only.seconds == pytest.approx(4 * 10) and 0 < only.chance < 1
    assert step.seconds == only.seconds and set(step.arms) == {"near", "base"}


def test_the_most_decided_per_second_comes_first_and_shared_runs_count_once():
    found = results()
    step = next_step(found, verdicts(found, "far", "near"))
    assert names(each.finding for each in step.steps) == ["near-base, epochs", "far-base, epochs"]
    first, second = step.steps
    assert first.chance > second.chance and step.arms[-1] == "far"
    assert second.arms == ("far",) and second.seconds == pytest.approx(2 * 40)  # base has its seeds by then


def test_a_budget_of_time_leaves_out_what_does_not_fit():
    found = results()
    near, far = verdicts(found, "near", "far")
    assert names(each.finding for each in next_step(found, [near, far], minutes=1).steps) == ["near-base, epochs"]
    assert next_step(found, [near, far], minutes=0.5).steps == ()
    assert len(next_step(found, [near, far], minutes=2).steps) == 2
    assert names(next_step(found, [near, far], minutes=0.5).waiting) == ["near-base, epochs", "far-base, epochs"]


def test_after_the_last_reading_nothing_is_left_to_run():
    found = results(seeds=5, looks=(3, 5))
    step = next_step(found, verdicts(found, "far"))
    assert names(step.exhausted) == ["far-base, epochs"] and step.waiting == step.steps == step.arms == ()


def test_a_control_is_open_until_it_is_better():
    found = results()
    weak = contrast("far")
    step = next_step(found, verdicts(found, "near", control=weak))
    assert set(names(step.waiting)) == {"near-base, epochs", "far-base, epochs"}
    good = next_step(found, verdicts(found, "near", control=contrast("clear")))
    assert names(good.decided) == ["clear-base, epochs"]


def test_a_run_that_is_shown_under_two_conditions_is_asked_for_once():
    budgets = ("epochs", "flops")
    whole = results(conditions=budgets)
    found = whole.with_runs(whole.runs[whole.runs["seed"] < 2])  # before the first reading
    asked = next_step(found, [judge(found, [contrast("near", "random", budget)], []) for budget in budgets])
    runs = [run for step in asked.steps for run in step.runs]
    assert sorted(run[0] for run in runs) == ["near", "near", "random"] and {run[2] for run in runs} == {2}


def test_arms_that_were_never_run_come_with_all_their_seeds():
    found = results()
    bare = found.with_runs(found.runs[found.runs["arm"] != "near"])
    (step,) = next_step(bare, verdicts(bare, "near")).steps
    assert step.seeds == 3 and step.arms == ("near",) and step.chance == 1.0 and len(step.runs) == 3
    assert step.seconds == pytest.approx(3 * np.mean(list(TIMES[arm] for arm in TIMES if arm != "near")))


def test_the_chance_is_how_often_the_next_reading_decides():
    """Over true differences and spreads that are spread widely, as the flat prior supposes."""
    random, sesoi, alpha, draws = np.random.default_rng(2), 2.5, level((5, 10)), 2500
    predicted, realised = [], []
    for truth, spread in zip(random.uniform(-12, 12, draws), np.exp(random.uniform(-0.7, 1.8, draws)), strict=True):
        values = random.normal(truth, spread, 10)
        predicted.append(chance_to_decide(difference_of(range(5), values[:5]), sesoi, 10, alpha))
        half = quantile(alpha, 9) * values.std(ddof=1) / 10**0.5
        realised.append(abs(values.mean()) > half or abs(values.mean()) + half < sesoi)
    predicted, realised = np.array(predicted), np.array(realised)
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 0.95), (0.95, 1.01)):
        part = (predicted >= low) & (predicted < high)
        assert part.sum() > 100 and realised[part].mean() == pytest.approx(predicted[part].mean(), abs=0.1)
