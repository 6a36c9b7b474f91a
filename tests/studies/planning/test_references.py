"""References of nested dicts and lists, against OmegaConf."""

from copy import deepcopy

from omegaconf import OmegaConf

from studies.suite.planning import command_line
from studies.suite.planning.references import followed, references_in

NESTED = {"a": ["${x}", {"b": "text ${y.z}"}], "c": "plain", "d": {"e": "${x}", "f": None, "g": 2.5, "h": "???"}}


def test_references_are_found_in_their_order():
    assert list(references_in(NESTED)) == ["${x}", "text ${y.z}", "${x}"]


def test_every_place_receives_a_copy_of_its_own():
    before, values = deepcopy(NESTED), [1, 2]
    found = followed(NESTED, {"${x}": values, "text ${y.z}": "text 3"})
    config = OmegaConf.create({"x": [1, 2], "y": {"z": 3}, "n": NESTED})
    assert found == OmegaConf.to_container(config, resolve=True)["n"] and before == NESTED
    found["a"][0].append(3)
    assert found["d"]["e"] == values == [1, 2]


def test_named_configurations_are_those_that_omegaconf_resolves():
    whole = deepcopy(command_line._compose("tier=smoke", "+study=related", "sizes.dim=7"))
    OmegaConf.set_struct(whole, False)
    whole.presets = command_line.presets()
    expected = OmegaConf.to_container(whole, resolve=True)["presets"]
    settings = command_line.resolve_settings("related", ["tier=smoke", "sizes.dim=7"])
    assert settings.presets == expected and settings.presets["method"]["moco"]["dim"] == 7
    assert not list(references_in(settings.presets))


def test_a_preset_that_refers_to_a_changed_one_follows_it(monkeypatch):
    named = deepcopy(command_line.presets())
    named["method"]["byol"]["dim"] = "${presets.method.moco.dim}"
    named["map"]["mlp"]["beside"] = "${.hidden}"
    monkeypatch.setattr(command_line, "presets", lambda: named)
    for words, dim in ((["sizes.dim=7"], 7), (["presets.method.moco.dim=5"], 5)):
        found = command_line.resolve_settings("multicrop", ["tier=smoke", *words]).presets
        assert found["method"]["byol"]["dim"] == found["method"]["moco"]["dim"] == dim
        assert found["map"]["mlp"]["beside"] == found["map"]["mlp"]["hidden"] != "${.hidden}"
