"""The supervised reference is planned where the images have labels."""

from dataclasses import replace

import pytest
from synthetic_results import settings_of

from scd.errors import DataError
from studies import multicrop, references


def with_options(settings, **options):
    data = {**settings.base["data"], "options": {**settings.base["data"]["options"], **options}}
    return replace(settings, base={**settings.base, "data": data})


def test_embedded_images_of_one_object_have_labels():
    settings = settings_of("multicrop", seeds=1)
    arms = (*multicrop.ARMS[:3], references.SUPERVISED)
    assert references.has_labels(settings) and references.has_labels(with_options(settings, objects=4))
    assert references.has_labels(with_options(settings, objects=[1, 1]))
    scenes = with_options(settings, objects=[2, 6])
    assert not references.has_labels(scenes)
    assert references.chosen_arms(settings, arms) == arms
    assert references.chosen_arms(scenes, arms) == arms[:3]
    named = replace(scenes, arms=("moco", "supervised"))
    assert references.SUPERVISED in references.chosen_arms(named, arms)  # refused when the plan is made


def test_an_arm_of_true_masks_is_refused_before_any_training_where_the_training_images_have_none(monkeypatch):
    monkeypatch.setattr("studies.references.has_masks", lambda settings: False)
    settings, arms = settings_of("multicrop", seeds=1), (*multicrop.ARMS[:3], references.ORACLE)
    assert references.ORACLE not in references.chosen_arms(settings, arms)
    named = replace(settings, arms=("moco", "oracle"))
    with pytest.raises(DataError, match="the arm 'oracle' learns from masks, and the training images have none"):
        references.chosen_arms(named, arms)
