"""The study of backbones: its networks, its claims and its trend, from known numbers."""

import pytest
from synthetic_results import settings_of, study_results

from studies import backbones
from studies.backbones import CLAIMS, NETWORKS, STUDY
from studies.suite.pages.publish import publish

COSTS = {"the small CNN": 1e8, "the medium CNN": 2e8, "the deep CNN": 4e8, "the wide CNN": 8e8, "the ViT": 2e8}


def results_with(gain_of, tmp_path=None, seeds=5, spread=0.0005, **gains):
    """Results in which SCD's gain over MoCo on a network is ``gain_of(network)``, beside a control that holds."""
    settings = settings_of("backbones", tmp_path, seeds)
    results = study_results(STUDY, {"oracle": 0.1, **gains}, settings, spread=spread)
    network, is_scd = results.runs["network"], results.runs["arm"] == "scd"
    gain = network.map(gain_of) * is_scd
    changed = {metric: results.runs[metric] + gain for metric in ("knn_top1", "linear_top1")}
    return results.with_runs(results.runs.assign(**changed, flops_per_step=network.map(COSTS)))


def test_every_arm_on_every_network():
    specs = backbones.plan(settings_of("backbones", seeds=2))
    keys = [(s.labels["seed"], s.labels["network"], s.labels["arm"]) for s in specs]
    arms = ("random", "moco", "scd", "oracle")
    assert keys == [(seed, name, arm) for seed in (0, 1) for name in NETWORKS.values() for arm in arms]
    configs = {(s.labels["network"], s.labels["arm"]): s.config for s in specs}
    medium = configs["the medium CNN", "moco"]
    for name in NETWORKS.values():
        assert configs[name, "scd"]["backbone"] == configs[name, "moco"]["backbone"]
        assert configs[name, "random"]["training"]["budget"]["value"] == 0
        changed = {key for key in medium if configs[name, "moco"][key] != medium[key]}
        vit = {"backbone", "optimizer", "schedule", "training"}
        assert changed == set() if name == "the medium CNN" else changed <= (vit if "ViT" in name else {"backbone"})
    assert configs["the ViT", "moco"]["optimizer"]["name"] == "adamw"


@pytest.mark.parametrize("tier", ["smoke", "cpu", "gpu", "paper"])
def test_every_tier_has_the_networks(tier):
    settings = settings_of("backbones", seeds=1, words=(f"tier={tier}",))
    assert list(settings.axes["networks"]) == list(NETWORKS)


def test_one_claim_for_each_network_with_its_control(tmp_path, no_figures):
    results = results_with(lambda name: 0.03 if "small" in name else -0.03 if "wide" in name else 0.0, tmp_path)
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    lines = {line.split("*")[1]: line for line in text.splitlines() if line.startswith("- *With")}
    assert len(lines) == len(CLAIMS) == 5
    assert "**Supported:** with the small CNN SCD is better than MoCo" in lines["With the small CNN?"]
    assert "**Contradicted:**" in lines["With the wide CNN?"] and "worse" in lines["With the wide CNN?"]
    assert "equivalent" in lines["With the ViT?"]


def test_a_network_on_which_the_true_mask_does_not_help_is_uninformative(tmp_path, no_figures):
    results = results_with(lambda name: 0.0, tmp_path)
    hurt = (results.runs["network"] == "the deep CNN") & (results.runs["arm"] == "oracle")
    shifted = results.runs["knn_top1"] - 0.1 * hurt
    text = publish(STUDY, results.with_runs(results.runs.assign(knn_top1=shifted)), tmp_path).read_text("utf-8")
    assert text.count("**Uninformative:**") == 1
    assert "*With the deep CNN?* **Uninformative:**" in text


@pytest.mark.parametrize(("slope", "words"), [(0.01, "grows"), (-0.01, "falls"), (0.0, "cannot be said")])
def test_the_trend_is_the_slope_over_doublings_of_the_cost(slope, words):
    steps = {"the small CNN": 0, "the medium CNN": 1, "the deep CNN": 2, "the wide CNN": 3, "the ViT": 40}
    results = results_with(lambda name: slope * steps[name])
    found = backbones.slopes(results, "knn_top1")
    assert found.n == 5 and found.mean == pytest.approx(slope, abs=3 * found.half)
    assert words in backbones.trend_sentence(results, "knn_top1")


def test_a_trend_needs_three_networks_and_two_seeds():
    results = results_with(lambda name: 0.0, seeds=1)
    assert "is not known yet" in backbones.trend_sentence(results, "knn_top1")
    two = results_with(lambda name: 0.0, seeds=5)
    two = two.with_runs(two.runs[two.runs["network"].isin(["the small CNN", "the wide CNN", "the ViT"])])
    assert backbones.slopes(two, "knn_top1").n == 0


def test_the_page_states_each_network_and_its_cost(tmp_path, no_figures):
    text = publish(STUDY, results_with(lambda name: 0.0, tmp_path), tmp_path).read_text(encoding="utf-8")
    section = text.split("<b>The networks</b>")[1].split("</details>")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows[2:]] == [name.removeprefix("the ") for name in NETWORKS.values()]
    assert [row[3] for row in rows[2:]] == ["1.00", "2.00", "4.00", "8.00", "2.00"]
    assert "widths" in rows[2][1]
