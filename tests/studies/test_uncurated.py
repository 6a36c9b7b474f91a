"""The study of uncurated images: three kinds of as many images, one clean test set, and the stages of one arm."""

import json
from dataclasses import replace

import pytest
import torch
from synthetic_results import settings_of, study_results

from baselines.divide_and_contrast import DivideAndContrast
from scd.data.sources.scenes import ScenesOptions
from scd.data.sources.web import WebOptions
from scd.errors import UsageError
from studies import uncurated
from studies.suite.execution.evaluation import load_method
from studies.suite.execution.pretraining import Runtime
from studies.suite.execution.run import Ending, Execution, load_inputs
from studies.suite.execution.store import Store
from studies.suite.pages.publish import publish
from studies.suite.planning.resolve import Resolver, unique
from studies.uncurated import IMAGES, OBJECTS, SCENES, STUDY, WEB


@pytest.fixture(scope="module")
def specs():
    runs = uncurated.plan(settings_of("uncurated", seeds=1))
    return {(spec.labels["images"], spec.labels["arm"]): spec for spec in runs}


def test_each_arm_is_trained_on_each_kind_and_divide_and_contrast_on_one(specs):
    everywhere, once = ("random", "moco", "scd", "oracle"), ("moco_long", "dnc", "dnc_random")
    expected = {(kind, arm) for kind in IMAGES for arm in everywhere} | {(WEB, arm) for arm in once}
    assert set(specs) == expected
    assert len({specs[kind, "random"].key for kind in IMAGES}) == 1
    everything = uncurated.plan(settings_of("uncurated", seeds=1, axes={"divided": list(IMAGES)}))
    assert len(everything) == len(specs) + 6


def test_kinds_have_as_many_images_of_the_same_classes(specs):
    options = {kind: specs[kind, "scd"].config["data"]["options"] for kind in IMAGES}
    for name in ("classes", "size", "train", "test", "seed", "rho_train"):
        assert len({options[kind][name] for kind in IMAGES}) == 1, name
    assert options[OBJECTS]["rho_train"] == 0.8
    for kind, made in ((SCENES, ScenesOptions), (WEB, WebOptions)):
        made(**{name: value for name, value in options[kind].items() if name != "_target_"})


def test_all_arms_are_scored_on_the_same_clean_images(specs):
    protocols = {json.dumps(spec.config["evaluation"]["protocols"], sort_keys=True) for spec in specs.values()}
    assert len(protocols) == 1
    found = {each["name"]: each for each in json.loads(protocols.pop())}
    clean = specs[OBJECTS, "moco"].config["data"]["options"]
    assert all(found[name]["data"] == clean for name in ("transfer", "invariance", "collapse"))
    assert found["scenes"]["data"] == specs[SCENES, "moco"].config["data"]["options"]
    probes = [(each["_target_"].rpartition(".")[2], each["learns_from"]) for each in found["transfer"]["protocols"]]
    assert probes == [("KNN", "probe"), ("Linear", "probe"), ("KNN", "train"), ("Linear", "train")]


def test_the_stages_are_runs_of_one_seed_on_the_same_images(specs):
    for name, partition in (("dnc", "clusters"), ("dnc_random", "random")):
        spec = specs[WEB, name]
        base, experts = spec.inputs["base"], spec.inputs["experts"]
        assert base.id == specs[WEB, "moco"].id and experts.inputs["base"].id == base.id
        assert experts.config["data"] == base.config["data"] == spec.config["data"]
        assert experts.config["seed"] == spec.config["seed"]
        annotator = spec.config["annotations"]["segments"]
        assert annotator == experts.config["annotations"]["segments"] and annotator["partition"] == partition
        trained = spec.config["data"]["options"]
        differing = {key for key in trained if trained[key] != annotator["images"].get(key)}
        assert set(annotator["images"]) == set(trained) and differing == {"test"}  # a test set changes no partition
        counts = {annotator["clusters"], spec.config["method"]["clusters"], experts.config["method"]["clusters"]}
        assert counts == {5}
        assert spec.config["method"]["base"] == {"_input_": "base"}
    assert specs[WEB, "dnc"].id != specs[WEB, "dnc_random"].id


@pytest.fixture(scope="module")
def complete(specs):
    """The runs of Divide and Contrast and of MoCo at its cost, with their steps; inputs have theirs."""
    resolver = Resolver(check=False)
    return {name: resolver.complete(specs[WEB, name].with_protocols([])) for name in ("dnc", "moco_long")}


def test_moco_at_its_cost_spends_what_all_stages_spend(complete):
    dnc, long = complete["dnc"].spec, complete["moco_long"].spec
    spent = sum(flops(each) for each in (dnc, *dnc.inputs.values()))
    assert flops(long) - 2 * dnc.flops_per_step <= spent <= flops(long) * (1 + 1e-9)
    assert dnc.inputs["experts"].flops_per_step == dnc.inputs["base"].flops_per_step


def flops(spec):
    return spec.flops_per_step * spec.config["training"]["budget"]["value"]


def test_the_stages_run_one_after_the_other(complete, tmp_path):
    """The three trainings, through the store; the partition comes from the base model's weights."""
    store, done = Store(tmp_path), unique([complete["dnc"]])
    for item in done.values():
        outcome = Execution(item.spec, store, Runtime()).perform()
        assert outcome.ending is Ending.DONE, outcome.reason
    spec = complete["dnc"].spec
    assert [item.spec.id for item in done.values()] == [*(each.id for each in spec.inputs.values()), spec.id]
    base, experts = load_inputs(spec, store).values()
    method = load_method(spec.config, store.pretraining.folder(spec.id), {"base": base, "experts": experts})
    assert isinstance(method, DivideAndContrast) and len(method.experts_matcher) == len(experts.experts) == 5
    first = method.base_matcher.backbone.state_dict()
    assert all(torch.equal(value, first[name]) for name, value in base.backbone.state_dict().items())
    trained = [any(parameter.requires_grad for parameter in each.parameters()) for each in method.experts_matcher]
    assert not any(trained)


def test_the_page_has_the_stages_and_their_cost(tmp_path, no_figures):
    settings = settings_of("uncurated", tmp_path, 5)
    results = uncurated.prepare(study_results(STUDY, {"oracle": 0.1}, settings), settings)
    assert set(results.about["stages"]) == {"dnc", "moco_long"}
    assert set(results.about["stages"]["dnc"]) == {"base", "experts", "dnc"}
    text = publish(STUDY, results, tmp_path).read_text(encoding="utf-8")
    assert "| base model: MoCo's run" in text and "| distillation" in text and "| whole training" in text


def test_a_gain_on_object_centric_images_alone_supports_that_scd_is_limited_to_them(tmp_path, no_figures):
    results = study_results(STUDY, {"oracle": 0.1, "dnc": 0.05}, settings_of("uncurated", tmp_path, 5))
    centric = (results.runs["images"] == OBJECTS) & (results.runs["arm"] == "scd")
    results = results.with_runs(
        results.runs.assign(**{uncurated.METRIC: results.runs[uncurated.METRIC] + 0.05 * centric})
    )
    first = publish(STUDY, results, tmp_path).read_text(encoding="utf-8").split("<details>")[0]
    assert "*Is it limited to object-centric images?* **Supported:**" in first
    assert "*Does SCD help on uncurated images?* **Contradicted:**" in first
    assert "*Do its clusters matter?* **Supported:**" in first
    assert "*Does a method for uncurated images help more?* **Supported:**" in first


def test_folders_beside_generated_images_are_refused():
    settings = settings_of("uncurated", seeds=1)
    with pytest.raises(UsageError, match="are for real images"):
        uncurated.plan(replace(settings, axes={**settings.axes, "uncurated": "there"}))
