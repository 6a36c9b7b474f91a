"""The study on the reconstruction: what its specifications change, their effects, and the rule that chooses one."""

import re
from dataclasses import replace

import pytest
from scipy import stats
from synthetic_results import settings_of, study_results

from studies import reconstruction
from studies.reconstruction import CONTRASTS, STUDY, chosen_by_rule, specifications
from studies.specification_effects import Effects
from studies.suite.pages.publish import publish

AXES = {"specifications": 6}


def settings(tmp_path=None, seeds=3, words=(), **axes):
    return settings_of("reconstruction", tmp_path, seeds, {**AXES, **axes}, words)


def effects_of(results):
    axes = results.about["axes"]
    names = {arm.name: arm.label for arm in STUDY.arms}
    return Effects(results, specifications(axes), axes["choices"], CONTRASTS, names)


def with_gains(results, gains):
    """The results with (arm, specification) -> what is added to its accuracy."""
    runs = results.runs.copy()
    for (arm, number), gain in gains.items():
        runs.loc[(runs["arm"] == arm) & (runs["specification"] == number), reconstruction.METRIC] += gain
    return results.with_runs(runs)


# ---------------------------------------------------------------- plan


def test_every_arm_of_a_specification_has_its_choices_and_its_host():
    plan = reconstruction.plan(settings(seeds=1))
    specs = {(spec.labels["arm"], spec.labels["specification"]): spec.config for spec in plan}
    chosen = specifications(settings().axes)
    assert len(specs) == 6 * len(STUDY.arms)
    for each in chosen:
        levels = each.levels
        host, scd, neutral, oracle = (specs[arm.name, each.number] for arm in STUDY.arms)
        assert host["wrapper"] is None
        for config in (host, scd, neutral, oracle):
            assert config["backbone"]["padding"] == levels["padding"] and config["method"] == host["method"]
            assert config["backbone"]["widths"] == [8, 16]  # the tier's, padded
            assert {key for key in host if config[key] != host[key]} <= {"wrapper", "annotations"}
        for config in (scd, neutral, oracle):
            wrapper = config["wrapper"]
            for choice in ("foreground_weight", "anchors", "weight", "margin", "pooling"):
                assert wrapper[choice] == levels[choice]
            assert wrapper["projection_dim"] == (0 if levels["projection"] == "none" else 16)
            rest = {**wrapper, "saliency": None}
            assert rest == {**scd["wrapper"], "saliency": None}
        maps = [config["wrapper"]["saliency"] for config in (scd, neutral, oracle)]
        assert [each["_target_"].rpartition(".")[2] for each in maps] == ["SaliencyMLP", "OtherImage", "OracleMask"]
        assert maps[0]["normalisation"] == maps[1]["normalisation"] == levels["normalisation"]
        assert "normalisation" not in maps[2] and oracle["annotations"] and not scd["annotations"]


def test_hosts_with_equal_settings_are_one_run():
    plan = reconstruction.plan(settings(seeds=2))
    hosts = [spec.config for spec in plan if spec.labels["arm"] == "moco"]
    different = {(config["backbone"]["padding"], config["seed"]) for config in hosts}
    assert len(hosts) == 12 and len(different) == 4
    for config in hosts:
        assert sum(config == other for other in hosts) == 12 / 2 / 2


def test_a_positive_of_the_online_branch_has_a_symmetric_host():
    choices = {"branch": ["target", "online"], "padding": ["zeros"]}
    plan = reconstruction.plan(replace(settings(seeds=1), axes={**settings().axes, "choices": choices}))
    for spec in plan:
        online = spec.labels["specification"] == 2
        assert spec.config["method"]["symmetric"] is online
        if spec.config["wrapper"]:
            assert spec.config["wrapper"]["positive_branch"] == ("online" if online else "target")


def test_the_cpu_tier_plans_130_runs():
    found = settings_of("reconstruction", seeds=5, words=("tier=cpu",))
    plan = reconstruction.plan(found)
    different = {(spec.labels["arm"], spec.labels["seed"], str(spec.config)) for spec in plan}
    assert found.seeds == (0, 1, 2, 3, 4) and found.axes["specifications"] == 8
    assert len(different) == 5 * (8 * 3 + 2)


# ---------------------------------------------------------------- effects


def test_effects_of_each_specification_and_level_by_hand():
    results = study_results(STUDY, {}, settings(), spread=0.002)
    results = with_gains(results, {("scd", 2): 0.05, ("scd", 3): -0.04})
    effects = effects_of(results)
    value = {
        (run["arm"], run["specification"], run["seed"]): run[reconstruction.METRIC]
        for run in results.runs.to_dict("records")
    }
    for each in effects.chosen:
        gain = effects.gain(each, CONTRASTS[0])
        assert gain.differences == pytest.approx(
            [value["scd", each.number, seed] - value["moco", each.number, seed] for seed in range(3)]
        )
    assert [effects.in_order[0].number, effects.in_order[-1].number] == [3, 2]
    for choice, level in effects.levels():
        numbers = [each.number for each in effects.chosen if each.levels[choice] == level]
        others = [each.number for each in effects.chosen if each.levels[choice] == effects.choices[choice][0]]
        means = [
            [
                sum(value["oracle", n, seed] - value["moco", n, seed] for n in group) / len(group)
                for seed in range(3)
            ]
            for group in (numbers, others)
        ]  # fmt: skip
        found = effects.level_means(choice, level, CONTRASTS[2])
        assert list(found.values()) == pytest.approx(means[0])
        main = effects.main_effect(choice, level, CONTRASTS[2])
        assert main.differences == pytest.approx([a - b for a, b in zip(*means, strict=True)])


def test_averages_need_every_specification_of_a_seed():
    results = study_results(STUDY, {}, settings())
    chosen = specifications(results.about["axes"])
    whole = reconstruction.averaged(results, chosen).runs
    runs = results.runs
    for arm in ("moco", "scd", "neutral", "oracle"):
        for seed in range(3):
            mean = runs[(runs["arm"] == arm) & (runs["seed"] == seed)][reconstruction.METRIC].mean()
            found = whole[(whole["arm"] == arm) & (whole["seed"] == seed)][reconstruction.METRIC].tolist()
            assert found == pytest.approx([mean])
    lost = (runs["arm"] == "scd") & (runs["seed"] == 1) & (runs["specification"] == 4)
    for status in ("failed", "missing"):
        partial = results.with_runs(runs.assign(status=runs["status"].where(~lost, status)))
        part = reconstruction.averaged(partial, chosen)
        assert part.of("scd")["seed"].tolist() == [0, 2] and part.of("moco")["seed"].tolist() == [0, 1, 2]
        assert part.runs["status"].value_counts().to_dict() == {"done": 11, status: 1}


def test_the_positive_control_allows_for_the_number_of_specifications():
    results = with_gains(study_results(STUDY, {}, settings(seeds=5)), {("oracle", 5): 0.05})
    effects = effects_of(results)
    best, plain = reconstruction.positive_control(effects), effects.findings[5, "oracle-moco"]
    assert best.outcome == "better" and best.gain.differences == plain.gain.differences
    wide, narrow = best.gain.ci_high - best.gain.ci_low, plain.gain.ci_high - plain.gain.ci_low
    error, df = 0.025, plain.gain.df  # one reading
    assert wide / narrow == pytest.approx(stats.t.isf(error / 6, df) / stats.t.isf(error, df))
    assert best.detectable > plain.detectable


# ---------------------------------------------------------------- rule


def test_the_rule_takes_the_surest_gain_of_the_true_mask_and_reads_no_accuracy_of_scd():
    settled = study_results(STUDY, {}, settings(seeds=5), spread=0.001)
    assert chosen_by_rule(effects_of(with_gains(settled, {("oracle", n): -0.02 for n in range(1, 7)}))) is None
    gains = {("oracle", n): -0.02 for n in range(1, 7)}
    gains |= {("oracle", 2): 0.03, ("oracle", 4): 0.05, ("oracle", 6): 0.08, ("neutral", 6): 0.09}
    results = with_gains(settled, gains)
    assert chosen_by_rule(effects_of(results)).number == 4  # 6 gains most, but another image's map gains more
    for shift in (-0.2, 0.2):
        moved = with_gains(results, {("scd", n): shift * (n - 3) for n in range(1, 7)})
        assert chosen_by_rule(effects_of(moved)).number == 4
    runs = results.runs
    without = results.with_runs(runs[runs["arm"] != "scd"])
    assert chosen_by_rule(effects_of(without)).number == 4


# ---------------------------------------------------------------- page


def page(results, tmp_path):
    return publish(STUDY, results, tmp_path).read_text(encoding="utf-8")


def test_the_first_screen_has_shares_curve_and_rule(tmp_path, no_figures):
    results = study_results(STUDY, {"oracle": 0.04, "scd": -0.03}, settings(tmp_path, seeds=5))
    first = page(results, tmp_path).split("<details>")[0]
    assert re.search(r"\| SCD vs\. MoCo +\| +0 \(0 %\) \| 6 \(100 %\) \| +0 \(0 %\) \| +0 \(0 %\) \|", first)
    assert re.search(r"\| SCD with the true mask vs\. MoCo +\| 6 \(100 %\) \|", first)
    assert "](figures/reconstruction-specifications.png)" in first
    assert "On draw 1 of the images it chooses specification" in first
    assert "The default is to be chosen on draw 0, not here." in first
    assert "**Contradicted:** it does not hold that on average over the specifications SCD is better than MoCo" in first


def test_on_the_draw_that_it_is_meant_for_the_rule_chooses_the_default(tmp_path, no_figures):
    results = study_results(STUDY, {"oracle": 0.04}, settings(tmp_path, 5, ("data.options.seed=0",)))
    assert "On draw 0 of the images it chooses specification" in (text := page(results, tmp_path))
    assert "The default is to be chosen" not in text
    none = study_results(STUDY, {"oracle": -0.04}, settings(tmp_path, 5, ("data.options.seed=0",)))
    assert "On draw 0 of the images it chooses no specification: in none" in page(none, tmp_path)


def test_a_page_shows_each_specification_each_choice_and_the_maps(tmp_path, no_figures):
    maps = {"saliency_iou": 0.3, "saliency_iou_inverted": 0.2, "saliency_maxf": 0.5, "map_std": 0.1}
    results = study_results(
        STUDY, {}, settings(tmp_path), lambda arm, seed: maps if arm in reconstruction.LEARNED else {}
    )
    text = page(results, tmp_path)
    assert "| positive branch" not in text and "**positive branch:** target (not varied on this page)" in text
    assert "| map " in text and "| softmax − sigmoid |" in text and "| 0.3 − 1 " in text
    assert "6 of the 192 specifications of the grid" in text
    assert "Neutral in every specification" in text and "Not measured" not in text


def test_a_page_without_pairs_says_so(tmp_path, no_figures):
    results = study_results(STUDY, {}, settings(tmp_path, seeds=1))
    text = page(results, tmp_path)
    assert text.split("\n\n")[2].startswith("**Not resolved") and "which is not judged before 5 seeds" in text
    runs = results.runs
    alone = results.with_runs(runs[runs["arm"] == "moco"])
    assert "No contrast has a pair of seeds yet" in page(alone, tmp_path)


def test_another_host_is_named(tmp_path, no_figures):
    results = study_results(STUDY, {}, settings(tmp_path, words=("method=byol",)))
    text = page(results, tmp_path)
    assert "SCD vs. BYOL" in text and "SCD vs. MoCo" not in text
