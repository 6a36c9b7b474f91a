"""The table of systems: each is declared whole, and as its method and its files say."""

import re

import pytest
from hydra.utils import get_class
from synthetic_results import settings_of

from studies.related import ARMS
from studies.systems.table import SYSTEMS

IDS = re.compile(r"R[1-5]-[a-e]")


@pytest.mark.parametrize("system", SYSTEMS, ids=[system.name for system in SYSTEMS])
def test_a_system_is_declared_whole(system):
    assert system.compares and system.shares and system.differs
    assert system.questions and all(IDS.fullmatch(question) for question in system.questions)
    assert all(text and source for text, source in system.published)
    own = [arm.default for arm in system.arms]
    assert own == [system.default] + [False] * (bool(system.given) + len(system.variants))


@pytest.mark.parametrize("system", SYSTEMS, ids=[system.name for system in SYSTEMS])
def test_what_it_is_given_is_what_its_method_needs(system):
    settings = settings_of("related")
    ways = 2 if system.given else 1
    config, *told = [settings.configure(arm, 0) for arm in system.arms[:ways]]
    needs = get_class(config["method"]["_target_"]).needs
    if config["wrapper"]:
        needs |= get_class(config["wrapper"]["_target_"]).needs
    assert needs == ({system.given} if system.given else set()) == set(config["annotations"])
    for kind, annotator in config["annotations"].items():
        assert annotator["_target_"] != "scd.data.annotators.oracle.OracleAnnotator"
        assert [each["annotations"] for each in told] == [
            {kind: {"_target_": "scd.data.annotators.oracle.OracleAnnotator", "provides": kind}}
        ]
        assert {key: value for key, value in told[0].items() if key != "annotations"} == {
            key: value for key, value in config.items() if key != "annotations"
        }


def test_names_are_unique():
    names = [arm.name for system in SYSTEMS for arm in system.arms]
    assert len(set(names)) == len(names)


def test_phrases_that_a_sentence_goes_on_with_have_no_end():
    for system in SYSTEMS:
        for phrase in (system.compares, system.shares, system.differs, *(text for text, _ in system.published)):
            assert not phrase.endswith((".", ";")) and "  " not in phrase


def test_each_system_has_a_file_of_its_own():
    settings = settings_of("related")
    for system in SYSTEMS:
        config = settings.configure(system.arms[0], 0)
        part = config["wrapper"] or config["method"]
        if part["_target_"] == "scd.scd.SCD":  # its map is the system
            part = part["saliency"]
        module = part["_target_"].rpartition(".")[0]
        assert module.startswith(("baselines.", "scd.maps.")) and module not in {"baselines.moco", "baselines.byol"}


def test_effects_are_between_arms_of_the_study():
    names = {arm.name for arm in ARMS}
    effects = [effect for system in SYSTEMS for effect in system.effects]
    assert effects and all({effect.better, effect.worse} <= names for effect in effects)
