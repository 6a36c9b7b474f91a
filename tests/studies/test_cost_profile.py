"""The cost profile: its arms, its plan, and what a measurement's configuration holds."""

import json
import subprocess
import sys

import pytest

from studies.cost_profile import ARMS, BY_NAME, CHANGES, HOSTS, LABELS, NEEDS_VIT, PAIRED, STUDY, WRAPPERS, config_of
from studies.cost_tables import RESNET50, VIT
from studies.suite.execution.measurement import measure, workload
from studies.suite.planning.command_line import choices, resolve_settings
from studies.suite.planning.identity import MEASUREMENT, ROOT, measurement_id, reachable, target_modules


@pytest.fixture(scope="module")
def settings():
    return resolve_settings("cost_profile", ["tier=cpu"])


@pytest.fixture(scope="module")
def plan(settings):
    return STUDY.plan(settings)


def of_kind(plan, kind):
    return [spec for spec in plan if spec.labels["kind"] == kind]


def test_every_method_alone_under_every_wrapper_and_with_more_crops():
    names = {arm.name for arm in ARMS}
    assert set(choices("method")) <= names and len(names) == len(ARMS)
    assert {f"scd_{host}" for host in PAIRED} <= names
    assert {f"{wrapper}_{host}" for wrapper, (*_, hosts) in WRAPPERS.items() for host in hosts} <= names
    assert {"moco_same_rectangle", "moco_random", "moco_local", "scd_constant_moco", "dino_global"} <= names
    assert all(HOSTS[name] == name for name in choices("method"))
    assert "lewel_dino" not in names  # DINO's loss compares distributions over prototypes, not further vectors


def test_a_method_that_is_new_is_an_arm(monkeypatch):
    from studies import cost_profile

    monkeypatch.setattr(cost_profile, "choices", lambda group: [*choices(group), "new"])
    arms = cost_profile.build_arms()
    assert arms["new"][0].label == "new" and list(arms)[: len(LABELS)] == list(LABELS)


def test_each_arm_is_counted_at_both_scales(plan):
    counted = {(spec.labels["arm"], spec.labels["setting"]) for spec in of_kind(plan, "counted")}
    assert counted == {
        (arm.name, scale) for arm in ARMS for scale in (RESNET50, VIT) if scale == VIT or arm.name not in NEEDS_VIT
    }
    for spec in of_kind(plan, "counted"):
        backbone = spec.config["arms"]["arm"]["backbone"]["_target_"]
        assert backbone.endswith("vit" if spec.labels["setting"] == VIT else "build_backbone")
        views = spec.config["arms"]["arm"]["views"]
        whole = views["scale"] == [1.0, 1.0]  # of methods that cut their views of 224 px themselves
        assert views["size"] == (256 if whole else 224) and not spec.alone


def test_time_is_measured_alone_and_beside_the_host(plan):
    timed = {spec.labels["arm"]: spec for spec in of_kind(plan, "timed")}
    assert set(timed) == set(BY_NAME) and all(spec.alone for spec in timed.values())
    roles = {name: list(spec.config["arms"]) for name, spec in timed.items()}
    assert roles["moco"] == ["arm"] and roles["scd_moco"] == ["arm", "moco"] and roles["byol"] == ["arm", "moco"]
    assert roles["scd_byol"] == ["arm", "moco", "host"]
    assert roles["mae"] == ["arm"]  # on another backbone
    rounds = {name: spec.config["measurement"]["rounds"] for name, spec in timed.items()}
    assert rounds["scd_moco"] == 60 and set(rounds.values()) == {6, 60}
    assert timed["moco"].labels["setting"] == "resnet_tiny, 24 px, batch 32"
    assert {spec.alone for spec in of_kind(plan, "memory")} == {False}


def test_all_arms_have_the_batch_size_of_the_tier_and_their_own_views(settings):
    configs = {name: config_of(settings, name, 0) for name in ("moco", "byol", "mae", "dino", "dino_global")}
    assert {config["training"]["batch_size"] for config in configs.values()} == {32}
    assert [configs[name]["views"]["recipe"] for name in ("moco", "byol", "mae")] == ["mocov2", "byol", "single"]
    assert configs["dino"]["views"]["extra"]["count"] == 4 and configs["dino_global"]["views"]["extra"]["count"] == 0
    assert "evaluation" not in configs["moco"] and "schedule" not in configs["moco"]


def test_curves_and_changes_belong_to_moco(plan):
    pairs = [spec.labels for spec in of_kind(plan, "counted_scaling")]
    assert {labels["arm"] for labels in pairs} == {"moco", "scd_moco"} and len(pairs) == 2 * 11
    curves = {spec.labels["setting"] for spec in of_kind(plan, "timed_scaling")}
    assert curves == {"image side (px)", "images per step", "width of the last stage", "layers in the backbone"}
    speed = {spec.labels["setting"]: spec for spec in of_kind(plan, "speed")}
    assert set(speed) == {*CHANGES, "memory layout: channels first"}
    turned = speed["memory layout: channels first"].config["arms"]
    assert turned["usual"]["backbone"]["channels_last"] and not turned["arm"]["backbone"]["channels_last"]


def test_a_backbone_without_stages_has_fewer_curves():
    plan = STUDY.plan(resolve_settings("cost_profile", ["tier=cpu", "backbone=vit", "axes.kinds=[timed_scaling]"]))
    assert {spec.labels["setting"] for spec in plan} == {"image side (px)", "images per step"}
    assert "mae" in HOSTS


def test_seeds_repeat_what_is_measured_and_not_what_is_counted():
    words = ["tier=smoke", "seeds=2", "axes.kinds=[counted,memory]"]
    plan = STUDY.plan(resolve_settings("cost_profile", words))
    assert {spec.labels["seed"] for spec in of_kind(plan, "counted")} == {0}
    assert {spec.labels["seed"] for spec in of_kind(plan, "memory")} == {0, 1}


def test_the_smoke_tier_has_a_few_of_each_kind():
    plan = STUDY.plan(resolve_settings("cost_profile", ["tier=smoke"]))
    assert {spec.labels["arm"] for spec in plan} == {"moco", "scd_moco", "moco_local"}
    kinds = [spec.labels["kind"] for spec in plan]
    assert set(kinds) == {"counted", "counted_scaling", "memory", "timed", "speed", "timed_scaling"} and len(kinds) < 20


def test_a_measurement_runs_from_its_configuration():
    words = ["tier=smoke", "arms=byol", "axes.kinds=[memory]"]
    settings = resolve_settings("cost_profile", words)
    config = config_of(settings, "scd_byol", 0)
    built = workload(config)
    assert type(built.method).__name__ == "SCD" and built.batch_size == settings.base["training"]["batch_size"]
    numbers = measure({"measurement": {"_target_": "scd.profiling.counted.CountedCost"}, "arms": {"arm": config}})
    assert numbers["passes_online"] == numbers["passes_target"] == 2
    timing = {"_target_": "scd.profiling.timed.StepTiming", "rounds": 1, "steps": 1, "phase_rounds": 0}
    numbers = measure({"measurement": timing, "arms": {"arm": config, "host": config_of(settings, "byol", 0)}})
    assert numbers["time_to_host"] > 0 and numbers["step_seconds"] > 0


def test_the_identity_of_a_measurement_is_its_configuration(plan):
    ids = [measurement_id(spec.config) for spec in of_kind(plan, "timed")]
    assert len(set(ids)) == len(ids)
    one, *_ = of_kind(plan, "timed")
    assert measurement_id({**one.config, "measurement": {**one.config["measurement"], "rounds": 7}}) not in ids


MEASURED = """
import json, sys
from studies.suite.execution.measurement import measure
measure(json.loads(sys.argv[1]))
files = {name for name, module in sys.modules.items() if getattr(module, "__file__", None)}
print("\\n".join(sorted(name for name in files if name.split(".")[0] in ("scd", "baselines"))))
"""


def test_every_module_that_a_measurement_uses_is_part_of_its_identity():
    settings = resolve_settings("cost_profile", ["tier=smoke"])
    timing = {"_target_": "scd.profiling.timed.StepTiming", "rounds": 1, "steps": 1, "phase_rounds": 0}
    config = {"measurement": timing, "arms": {"arm": config_of(settings, "scd_moco", 0)}}
    config["arms"]["host"] = config_of(settings, "moco", 0)
    command = [sys.executable, "-c", MEASURED, json.dumps(config)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    used = set(done.stdout.split())
    assert {"scd.siamese", "scd.training.step", "scd.scd", "baselines.moco"} <= used
    assert used <= set(reachable((*MEASUREMENT, *target_modules(config))))
