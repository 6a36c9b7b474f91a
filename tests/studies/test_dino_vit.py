"""The study on a ViT: its arms, what emerges without a learned map, and pre-trained checkpoints."""

from dataclasses import replace

import pytest
from synthetic_results import settings_of, study_results

from scd.errors import UsageError
from studies import dino_vit
from studies.dino_vit import STUDY
from studies.pretrained_vits import CHECKPOINTS, Checkpoint
from studies.suite.pages.publish import publish


def emerged(gain):
    """Scores of maps: the attention of DINO at 0.6, every arm's own map higher by ``gain``, random weights' at 0.5."""

    def numbers(arm, seed):
        base = 0.5 if arm == "random" else 0.6
        found = {"attention_maxf": base, "tokencut_maxf": base, "whole_maxf": 0.4, "centre_maxf": 0.4}
        found["attention_maxf@0.50"] = 0.55
        found["attention_maxf"] += 0.002 * (seed == 1) * (arm == "dino")  # differences of equal size have no interval
        found["tokencut_maxf"] += 0.002 * (seed == 1) * (arm == "dino")
        own = {"learned_maxf": 0.6 + gain, "inverted_maxf": 0.3, "learned_maxf@0.50": 0.5} if "scd" in arm else {}
        return {key: value + 0.001 * (seed % 3) * (1 + ("learned" in key)) for key, value in (found | own).items()}

    return numbers


def answer_of(question, text):
    return next(line for line in text.splitlines() if line.startswith(f"- *{question}"))


@pytest.mark.parametrize(("gain", "outcome"), [(0.05, "Supported"), (-0.05, "Contradicted")])
def test_what_emerges_is_judged_by_itself(gain, outcome, tmp_path, no_figures):
    results = study_results(STUDY, {}, settings_of("dino_vit", tmp_path, 5), emerged(gain))
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert f"**{outcome}:**" in answer_of("Is an explicit map", text)
    assert "| random weights: whole image " in text and "| DINO: whole image " not in text
    assert "](figures/dino_vit-curves.png)" in text
    assert "is 40.1 ± 0.1 % for a bump at the centre" in text


def test_nothing_emerged_makes_the_comparison_of_maps_uninformative(tmp_path, no_figures):
    def numbers(arm, seed):
        return {**emerged(-0.001)(arm, seed), "tokencut_maxf": 0.4 + 0.001 * seed * (-1) ** (len(arm) + seed)}

    results = study_results(STUDY, {}, settings_of("dino_vit", tmp_path, 5), numbers)
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert "**Uninformative:**" in answer_of("Is an explicit map", text)


def test_every_arm_differs_in_what_it_says_and_the_resnet_in_its_backbone():
    specs = {spec.labels["arm"]: spec for spec in dino_vit.plan(settings_of("dino_vit", seeds=1, words=("arms=all",)))}
    base = specs["dino"].config

    def changed(arm):
        return {key for key in base if specs[arm].config[key] != base[key]}

    assert changed("scd") == changed("attention") == changed("tokencut") == {"wrapper"}
    assert changed("dino_global") == {"views"} and changed("dino_resnet") == {"backbone"}
    assert changed("moco") == changed("byol") == {"views", "method", "backbone"}
    assert specs["moco"].config["backbone"] == {**base["backbone"], "fixed_patches": True}
    assert specs["moco"].config["views"]["extra"]["kind"] == "none"
    assert {key: value for key, value in specs["byol"].config["views"].items() if key != "extra"} == {
        key: value for key, value in base["views"].items() if key != "extra"
    }
    assert base["views"]["extra"]["kind"] == "local" and base["backbone"]["_target_"] == "scd.nn.vit.vit"
    assert specs["dino_resnet"].config["backbone"]["name"] == "resnet_tiny"
    assert changed("dinov2") == {"method"} and specs["groupvit"].config["views"]["recipe"] == "single"
    assert "training" not in changed("groupvit") and specs["groupvit"].config["backbone"]["embed_dim"] == 16
    protocols = {protocol["name"]: protocol for protocol in base["evaluation"]["protocols"]}
    assert protocols["maps_over_training"]["extractors"] is True and "emergence" in protocols


def groupvit_of(*words):
    """The arm of GroupViT in the plan of a command line, None where it is not planned."""
    specs = dino_vit.plan(settings_of("dino_vit", seeds=1, words=words))
    return next((spec.config["method"] for spec in specs if spec.labels["arm"] == "groupvit"), None)


def test_groupvits_captions_are_made_of_the_names_of_the_classes():
    assert groupvit_of() is None
    names = groupvit_of("arms=groupvit")["names"]
    assert names == ["amber_striped_disc", "moss_checked_triangle", "teal_dotted_star", "indigo_ringed_cross"]
    given = groupvit_of("arms=groupvit", "presets.method.groupvit.names=[a,b,c,d]")
    assert given["names"] == ["a", "b", "c", "d"]


def test_groupvit_is_left_out_of_all_arms_where_images_have_no_labels(monkeypatch):
    monkeypatch.setattr(dino_vit, "has_labels", lambda settings: False)
    assert groupvit_of("arms=all") is None and groupvit_of("arms=groupvit") is not None


def test_the_page_says_what_groupvits_maps_are_where_it_has_the_arm(tmp_path, no_figures):
    for words, said in (((), False), (("arms=random,dino,dinov2,groupvit",), True)):
        settings = settings_of("dino_vit", tmp_path, 2, words=words)
        text = publish(STUDY, study_results(STUDY, {}, settings, emerged(0.0)), tmp_path).read_text(encoding="utf-8")
        assert ("- **GroupViT:** its own map says" in text) is said
        assert ("| GroupViT " in text) is said and ("| DINOv2's losses " in text) is said


def test_checkpoints_are_planned_where_available_and_named_where_not(tmp_path, monkeypatch, no_figures):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    here = Checkpoint("a ViT on disk", "deit_tiny_patch16_224", None)  # its weights are random: what is available
    there = {"own": here, "dino": CHECKPOINTS["dino"]}
    monkeypatch.setattr(dino_vit, "CHECKPOINTS", there)
    settings = settings_of("dino_vit", tmp_path, seeds=2, axes={"pretrained": ["own", "dino"]})
    specs = [spec for spec in dino_vit.plan(settings) if spec.labels["arm"].startswith("weights_")]
    assert [spec.labels["arm"] for spec in specs] == ["weights_own"]
    config = specs[0].config
    assert config["backbone"] == {"_target_": "scd.nn.vit.vit", "name": "deit_tiny_patch16_224", "weights": None}
    assert config["training"]["budget"]["value"] == 0 and config["evaluation"]["size"] == 112
    results = study_results(STUDY, {}, settings, emerged(0.0))
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert "| a ViT on disk |       1 |" in text and "| ViT-S/16, DINO's weights | not available here |" in text
    with pytest.raises(
        UsageError, match=r"unknown pre-trained checkpoint \(axes.pretrained\) 'din'; did you mean 'dino'"
    ):
        dino_vit.plan(replace(settings, axes={**settings.axes, "pretrained": ["din"]}))
