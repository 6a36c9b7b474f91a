"""The supervised reference is planned where the images have labels."""

from dataclasses import replace

from synthetic_results import settings_of

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
