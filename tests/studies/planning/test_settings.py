"""From settings to the configuration of a run: presets, recipes, and the order in which they win."""

from dataclasses import replace

import pytest

from scd.errors import UsageError
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import Arm

MOCO = Arm("moco", "MoCo", {}, "", "")
SCD = Arm("scd", "SCD", {"wrapper": "scd"}, "", "")
BYOL = Arm("byol", "BYOL", {"method": "byol"}, "", "")
DINO = Arm("dino", "DINO", {"method": "dino"}, "", "")
TINY_RECIPE = {
    "_target_": "a.A",
    "recipe": {
        "optimizer": {"lr": 1.0, "clip": 2.0},
        "views": {"recipe": "byol"},
        "tiers": {"paper": {"optimizer": {"lr": 9.0}}},
    },
}


@pytest.fixture(scope="module")
def smoke():
    return resolve_settings("multicrop", ["tier=smoke"])


def settings(tier="cpu", **changes):
    """Settings with one method that brings a recipe, and one wrapper, without hydra."""
    base = {
        "data": {"options": {}}, "method": "a", "wrapper": None, "backbone": {"_target_": "b.B"}, "annotations": {},
        "optimizer": {"lr": 0.1, "momentum": 0.9}, "views": {"recipe": "mocov2"},
        "training": {"budget": {"unit": "epochs", "value": 1}}, "evaluation": {"protocols": ["p"]},
    }  # fmt: skip
    wrapper = {"_target_": "w.W", "saliency": {"_target_": "m.M"}, "recipe": {"optimizer": {"clip": 3.0}}}
    oracle = {"_target_": "m.O", "recipe": {"annotations": {"masks": "own"}}}
    presets = {
        "method": {"a": TINY_RECIPE}, "wrapper": {"w": wrapper}, "map": {"oracle": oracle},
        "annotator": {"own": {"_target_": "n.N"}}, "protocol": {"p": {"_target_": "p.P", "k": 3}},
        "backbone": {"vit": {"_target_": "v.V"}},
    }  # fmt: skip
    return Settings("s", tier, (0,), base, presets=presets, **changes)


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("changes", "axis", "arm", "lr"),
    [
        ({}, {}, {}, 1.0),
        ({"tier": "paper"}, {}, {}, 9.0),
        ({"shared": {"optimizer": {"lr": 2.0}}}, {}, {}, 2.0),
        ({"shared": {"optimizer": {"lr": 2.0}}, "given": {"optimizer": {"lr": 3.0}}}, {}, {}, 3.0),
        ({"given": {"optimizer": {"lr": 3.0}}}, {"optimizer": {"lr": 4.0}}, {}, 4.0),
        ({"given": {"optimizer": {"lr": 3.0}}}, {"optimizer": {"lr": 4.0}}, {"optimizer": {"lr": 5.0}}, 5.0),
    ],
)
def test_the_order_of_precedence(changes, axis, arm, lr):
    config = settings(**changes).configure(Arm("x", "", arm, "", ""), 0, axis)
    assert config["optimizer"] == {"lr": lr, "momentum": 0.9, "clip": 2.0}
    assert config["method"] == {"_target_": "a.A"} and config["views"] == {"recipe": "byol"}


def test_wrappers_and_map_sources_bring_recipes_too():
    arm = Arm("x", "", {"wrapper": {"preset": "w", "saliency": "oracle"}}, "", "")
    config = settings().configure(arm, 0)
    assert config["optimizer"]["clip"] == 3.0 and config["annotations"] == {"masks": {"_target_": "n.N"}}
    assert config["wrapper"] == {"_target_": "w.W", "saliency": {"_target_": "m.O"}}


def test_a_recipe_may_name_a_backbone():
    own = settings()
    own.presets["method"]["b"] = {"_target_": "b.B", "recipe": {"backbone": "vit"}}
    config = own.configure(Arm("x", "", {"method": "b", "backbone": {"depth": 2}}, "", ""), 0)
    assert config["backbone"] == {"_target_": "v.V", "depth": 2}


def test_byol_and_dino_train_as_byol_and_dino_in_every_study(smoke):
    """D8: they took MoCo's views and SGD."""
    byol, dino = smoke.configure(BYOL, 0), smoke.configure(DINO, 0)
    assert byol["views"]["recipe"] == "byol" and byol["views"]["scale"] == [0.08, 1.0]
    assert dino["optimizer"]["name"] == "adamw" and dino["optimizer"]["clip"] == 3.0
    assert dino["views"]["extra"]["kind"] == "local" and dino["schedule"]["final_weight_decay"] == 0.4
    assert "recipe" not in byol["method"]
    paper = resolve_settings("multicrop", ["tier=paper"]).configure(BYOL, 0)
    assert paper["optimizer"]["name"] == "lars"


def test_a_word_of_the_command_line_wins_over_a_recipe():
    given = resolve_settings("multicrop", ["tier=smoke", "method=dino", "optimizer.lr=0.5", "views.scale=[0.3,0.9]"])
    config = given.configure(MOCO, 0)
    assert config["method"]["_target_"] == "baselines.dino.DINO"
    assert config["optimizer"]["lr"] == 0.5 and config["optimizer"]["name"] == "adamw"
    assert config["views"]["scale"] == [0.3, 0.9]


# ---------------------------------------------------------------- protocols by name


def test_protocols_are_names_or_mappings():
    own = settings()
    assert own.protocol("p") == {"name": "p", "_target_": "p.P", "k": 3}
    assert own.protocol({"preset": "p", "k": 5}) == {"name": "p", "_target_": "p.P", "k": 5}
    assert own.protocol({"preset": "p", "name": "q"}) == {"name": "q", "_target_": "p.P", "k": 3}
    assert own.protocol({"_target_": "x.y.Thing"}) == {"name": "thing", "_target_": "x.y.Thing"}
    with pytest.raises(UsageError, match="unknown protocol 'pp'; did you mean 'p'"):
        own.protocol("pp")
    with pytest.raises(UsageError, match=r"a protocol is a name \(p\), or a mapping with preset or _target_"):
        own.protocol({"k": 3})


def test_protocols_of_the_command_line_reach_the_run():
    given = resolve_settings("multicrop", ["tier=smoke", "evaluation.protocols=[knn,finetune_10]"])
    names = [protocol["name"] for protocol in given.configure(MOCO, 0)["evaluation"]["protocols"]]
    assert names == ["knn", "finetune_10"] and "linear" in given.usual_protocols


# ---------------------------------------------------------------- specs


def test_presets_are_filled_in_with_changes(smoke):
    arm = Arm("x", "", {"wrapper": {"preset": "scd", "margin": 9.0}, "method": "byol"}, "", "")
    config = smoke.spec(arm, seed=4).config
    assert config["wrapper"] == {**smoke.presets["wrapper"]["scd"], "margin": 9.0}
    assert config["method"].items() <= smoke.presets["method"]["byol"].items()
    assert config["seed"] == 4
    with pytest.raises(UsageError, match="unknown wrapper 'sdc'; did you mean 'scd'"):
        smoke.spec(Arm("x", "", {"wrapper": "sdc"}, "", ""), seed=0)


def test_budgets(smoke):
    assert smoke.spec(MOCO, 0).config["training"]["budget"] == smoke.base["training"]["budget"]
    assert smoke.spec(MOCO, 0, "none").config["training"]["budget"] == {"unit": "steps", "value": 0}
    budget = smoke.spec(SCD, 0, "flops", reference=MOCO).config["training"]["budget"]
    assert budget["reference"]["wrapper"] is None and budget["of"] == smoke.base["training"]["budget"]
    with pytest.raises(ValueError, match="pass reference="):
        smoke.spec(SCD, 0, "flops")
    with pytest.raises(UsageError, match="unknown budget 'time'"):
        smoke.spec(SCD, 0, "time")


def test_labels_and_axes(smoke):
    spec = smoke.spec(SCD, 1, overrides={"data": {"options": {"rho_train": 0.8}}}, rho=0.8)
    assert spec.labels == {"arm": "scd", "budget": "epochs", "seed": 1, "data": "shapes", "rho": 0.8}
    assert spec.config["data"]["options"]["rho_train"] == 0.8
    assert smoke.base["data"]["options"]["rho_train"] == 0.0


def test_arms_are_selected_in_the_studys_order():
    settings = Settings("s", "cpu", (0,), {}, arms=("scd", "moco"))
    assert settings.select((MOCO, SCD)) == (MOCO, SCD)
    with pytest.raises(UsageError, match="unknown arm 'scd'"):
        settings.select((MOCO,))


def test_arms_outside_the_default_are_chosen_by_name_or_all():
    extra = replace(SCD, name="extra", default=False)
    for words, names in (((), ["moco", "scd"]), (("extra",), ["extra"]), (("all",), ["moco", "scd", "extra"])):
        settings = Settings("s", "cpu", (0,), {}, arms=words)
        assert [arm.name for arm in settings.select((MOCO, SCD, extra))] == names


def test_another_map_source_is_named(smoke):
    arm = Arm("x", "", {"wrapper": {"preset": "scd", "saliency": "constant"}}, "", "")
    saliency = smoke.configure(arm, 0)["wrapper"]["saliency"]
    assert saliency["_target_"].endswith("ConstantMap") and "depth" not in saliency


def test_embedded_data_and_their_options(smoke, tmp_path):
    assert smoke.embedded and smoke.has_option("rho_train")
    own = resolve_settings("multicrop", [f"data={tmp_path}"])
    assert not own.embedded and not own.has_option("rho_train")


# ---------------------------------------------------------------- a method's own arguments in its recipe

WITH_ARGUMENTS = {
    "_target_": "a.A",
    "dim": 1,
    "width": 1,
    "recipe": {
        "method": {"width": 2},
        "deviations": {"scale": "small", "width": "narrow"},
        "tiers": {"paper": {"method": {"dim": 9}, "deviations": {"scale": None}}},
        "backbones": {"V": {"backbone": {"drop": 0.1}, "tiers": {"paper": {"optimizer": {"lr": 7.0}}}}},
    },
}


def with_arguments(tier="paper", **changes):
    own = settings(tier, **changes)
    own.presets["method"]["b"] = WITH_ARGUMENTS
    return own


@pytest.mark.parametrize(
    ("changes", "axis", "arm", "dim"),
    [
        ({"tier": "cpu"}, {}, {"method": "b"}, 1),
        ({}, {}, {"method": "b"}, 9),
        ({"arguments": {"presets": {"method": {"b": {"dim": 3}}}}}, {}, {"method": "b"}, 3),
        ({"arguments": {"presets": {"method": {"b": {"dim": 3}}}}}, {"method": "b"}, {"method": {"dim": 4}}, 4),
        ({"arguments": {"presets": {"method": {"b": {"dim": 3}}}}}, {}, {"method": {"preset": "b", "dim": 5}}, 5),
        ({}, {"method": {"preset": "b", "dim": 4}}, {"method": {"dim": 5}}, 5),
        ({}, {"method": {"preset": "b", "dim": 4}}, {"method": "b"}, 9),
    ],
)
def test_arguments_of_a_recipe_are_weaker_than_words_axes_and_arms(changes, axis, arm, dim):
    config = with_arguments(**changes).configure(Arm("x", "", arm, "", ""), 0, axis)
    assert config["method"] == {"_target_": "a.A", "dim": dim, "width": 2}


def test_a_word_of_the_command_line_wins_over_the_arguments_of_a_recipe():
    words = ["tier=paper", "method=byol"]
    assert resolve_settings("multicrop", words).configure(MOCO, 0)["method"]["dim"] == 256
    assert resolve_settings("multicrop", [*words, "method.dim=64"]).configure(MOCO, 0)["method"]["dim"] == 64
    preset = resolve_settings("multicrop", ["tier=paper", "presets.method.byol.dim=64"])
    assert preset.configure(BYOL, 0)["method"]["dim"] == 64 and preset.configure(BYOL, 0)["method"]["hidden"] == 4096


def test_a_recipe_may_depend_on_the_kind_of_backbone():
    own, vit = with_arguments(), {"backbone": "vit"}
    assert own.configure(Arm("x", "", {"method": "b"}, "", ""), 0)["backbone"] == {"_target_": "b.B"}
    config = own.configure(Arm("x", "", {"method": "b"}, "", ""), 0, vit)
    assert config["backbone"] == {"_target_": "v.V", "drop": 0.1} and config["optimizer"]["lr"] == 7.0
    arm = Arm("x", "", {"method": "b", "backbone": {"drop": 0.5}}, "", "")
    assert own.configure(arm, 0, vit)["backbone"] == {"_target_": "v.V", "drop": 0.5}
    config = own.configure(Arm("x", "", {"method": "b", "backbone": {"_target_": "w.W"}}, "", ""), 0, vit)
    assert config["backbone"] == {"_target_": "w.W"} and config["optimizer"]["lr"] == 0.1


def test_dinos_drop_path_is_on_a_vit_alone_also_where_the_command_line_names_it():
    words = ["tier=paper", "method=dino"]
    assert "drop_path_rate" not in resolve_settings("multicrop", words).configure(MOCO, 0)["backbone"]
    vit = [*words, "backbone=vit"]
    assert resolve_settings("multicrop", vit).configure(MOCO, 0)["backbone"]["drop_path_rate"] == 0.1
    own = resolve_settings("multicrop", [*vit, "backbone.drop_path_rate=0.3"])
    assert own.configure(MOCO, 0)["backbone"]["drop_path_rate"] == 0.3
    assert own.configure(BYOL, 0)["backbone"]["drop_path_rate"] == 0.3
    assert resolve_settings("multicrop", vit).configure(BYOL, 0)["backbone"]["drop_path_rate"] == 0.0


def test_a_wrappers_recipe_sets_its_own_arguments_and_leaves_its_map_source():
    own = settings()
    own.presets["wrapper"]["w"]["recipe"] = {"tiers": {"cpu": {"wrapper": {"dim": 3}}}}
    arm = Arm("x", "", {"wrapper": {"preset": "w", "saliency": "oracle"}}, "", "")
    assert own.configure(arm, 0)["wrapper"] == {"_target_": "w.W", "saliency": {"_target_": "m.O"}, "dim": 3}


def test_a_recipe_sets_no_other_parts_arguments():
    own = settings()
    own.presets["method"]["b"] = {"_target_": "b.B", "recipe": {"wrapper": {"dim": 3}}}
    with pytest.raises(UsageError, match="the recipe of b.B sets the wrapper; only the wrapper's own recipe may"):
        own.configure(Arm("x", "", {"method": "b"}, "", ""), 0)


def test_deviations_are_those_of_the_tier_and_change_no_run():
    arm = Arm("x", "", {"method": "b"}, "", "")
    assert with_arguments("cpu").deviations(arm) == {"A": {"scale": "small", "width": "narrow"}}
    spec = with_arguments().spec(arm, 0)
    assert spec.deviations == {"A": {"width": "narrow"}} and "deviations" not in spec.config


def test_every_run_declares_the_central_square_and_the_paper_tier_its_probes():
    cpu, paper = (resolve_settings("multicrop", [f"tier={tier}"]).departures for tier in ("cpu", "paper"))
    assert "central square" in cpu["squares"] and "probes" not in cpu and "50,000 training images" in paper["probes"]
    assert "squares" not in resolve_settings("multicrop", ["deviations.squares=null"]).departures
