"""The studies on the maps: plans and what they share, verdicts from records with a known answer, and their pages."""

from dataclasses import replace
from itertools import product

import numpy
import pytest
from safetensors.numpy import load_file, save_file

from scd.errors import UsageError
from studies import dino_vit, lewel, mechanism, multicrop, scene_coco, significance
from studies.pretrained_vits import CHECKPOINTS, Checkpoint
from studies.suite.analysis.results import assemble, load
from studies.suite.pages.map_traces import maps_file, place_share, with_place_share
from studies.suite.planning.settings import resolve_settings
from studies.suite.planning.study import Standing

OF_MOCO = {"lewel": lewel, "mechanism": mechanism, "significance": significance}  # share runs with multicrop
STUDIES = {**OF_MOCO, "dino_vit": dino_vit, "scene_coco": scene_coco}
AXES = {"significance": {"main_seeds": 4, "chance": ["init", "probe"], "levels": 3}}
FIRST = {"dino_vit": "R5-c: ", "scene_coco": "R5-d: "}  # of two answers


def settings_of(name, tmp_path=None, seeds=3):
    settings = resolve_settings(name, ["tier=smoke", f"seeds={seeds}"])
    settings = replace(settings, meaningful=True, page=name, axes={**settings.axes, **AXES.get(name, {})})
    return settings if tmp_path is None else replace(settings, out=tmp_path)


def evidence_of(name, gains, settings, numbers_of=None, spread=0.002):
    """Evidence with an accuracy of 0.4 + the arm's gain + a seed's own luck and a little more; LEWEL is at 0.4."""
    specs = STUDIES[name].plan(settings)
    draw = numpy.random.default_rng(0)
    luck = draw.normal(0, 0.02, 100)
    numbers = {}
    for spec in specs:
        arm, seed = spec.labels["arm"], spec.labels["seed"]
        value = 0.4 + gains.get(arm, 0.0) + luck[seed] + draw.normal(0, spread)
        record = {
            "linear_top1": value,
            "scene_map": value,
            "knn_top1": value - 0.05,
            "steps": 10,
            "total_flops": 1e9,
            "flops_per_step": 1e8,
        }
        numbers.setdefault(spec.id, record | (numbers_of(arm, seed) if numbers_of else {}))
    standing = Standing(planned=len(numbers), done=len(numbers))
    return assemble(STUDIES[name].STUDY, settings, specs, {"name": "shapes"}, numbers, standing)


def maps_of(arm, seed):
    """Saliency numbers of arms with maps: SCD's mark the background in odd seeds, the settled ones never do."""
    if arm in ("random", "moco", "byol", "constant_map", "oracle"):
        return {}
    inverted = 0.9 if arm == "scd" and seed % 2 else 0.1
    final = {"saliency_iou": 0.5 - 0.3 * inverted, "saliency_iou_inverted": 0.2 + 0.3 * inverted, "saliency_maxf": 0.6,
             "saliency_inverted_share": inverted, "map_std": 0.1}  # fmt: skip
    return final | {f"{key}@{share:.2f}": value * share for key, value in final.items() for share in (0, 0.5, 1)}


# ---------------------------------------------------------------- plans


def test_runs_that_studies_share_are_one_run():
    """SCD on asymmetric MoCo at the tier's own settings is planned by all four studies, and is one identity."""
    ids = {}
    for name, study in {**OF_MOCO, "multicrop": multicrop}.items():
        settings = resolve_settings(name, ["tier=smoke", "seeds=1"])
        for spec in study.plan(settings):
            labels = spec.labels
            if labels.get("rho", 0.0) == 0.0 and labels["budget"] == "epochs" and labels["seed"] == 0:
                if labels.get("scenario", "as above") == "as above" and labels.get("chance", "all") == "all":
                    ids.setdefault(labels["arm"], {})[name] = spec.id
    for arm, users in {"scd": 4, "moco": 4, "lewel": 2, "scd_byol": 2, "constant_map": 2, "random": 3}.items():
        assert len(ids[arm]) == users and len(set(ids[arm].values())) == 1, arm


def test_mechanism_changes_the_wrapper_alone():
    specs = {spec.labels["arm"]: spec for spec in mechanism.plan(settings_of("mechanism", seeds=1))}
    base = specs["scd"].config
    for arm in set(specs) - {"random"}:
        assert {key for key in base if specs[arm].config[key] != base[key]} <= {"wrapper"}, arm
    sources = {arm: (spec.config["wrapper"] or {}).get("saliency", {}) for arm, spec in specs.items()}
    assert [sources[arm]["depth"] for arm in ("depth1", "scd", "depth3")] == [1, 2, 3]
    assert sources["oracle"]["_target_"].endswith("OracleMask")
    assert specs["no_gradient"].config["wrapper"]["map_gradient"] is False
    assert specs["discrimination"].config["wrapper"]["terms"] == "discrimination"


def test_lewel_sweeps_one_thing_at_a_time():
    settings = settings_of("lewel", seeds=2)
    specs = {(s.labels["scenario"], s.labels["arm"], s.labels["seed"]): s for s in lewel.plan(settings)}
    names = [scenario.name for scenario in lewel.SCENARIOS]
    assert len(specs) == 2 * (len(lewel.ARMS) + 2 * (len(names) - 1)) and len(set(names)) == len(names)
    base = specs["as above", "scd", 0].config
    for name, arm in product(names[1:], ("scd", "lewel")):
        changed = specs[name, arm, 0].config
        assert {key for key in base if changed[key] != specs["as above", arm, 0].config[key]} < {"data", "views"}
    assert specs["4 objects", "scd", 0].config["data"]["options"]["objects"] == 4
    assert specs["crops from 0.5 of the area", "scd", 0].config["views"]["scale"] == [0.5, 1.0]
    real = replace(
        settings, base={**settings.base, "data": {**settings.base["data"], "name": "parquet", "options": {}}}
    )
    assert {s.labels["scenario"] for s in lewel.plan(real)} == {names[0], *(n for n in names if n.startswith("crops"))}


def test_significance_varies_one_source_of_chance_at_a_time():
    specs = significance.plan(settings_of("significance"))
    whole = [s for s in specs if s.labels["chance"] == "all"]
    seeds = {arm.name: {s.labels["seed"] for s in whole if s.labels["arm"] == arm.name} for arm in significance.ARMS}
    assert seeds["scd"] == seeds["moco"] == {0, 1, 2, 3} and seeds["scd_byol"] == {0, 1, 2}
    main = {s.labels["arm"]: s for s in whole if s.labels["seed"] == 0}
    for source, arm in product(("init", "probe"), significance.VARIED):
        levels = {s.labels["seed"]: s for s in specs if (s.labels["chance"], s.labels["arm"]) == (source, arm)}
        assert set(levels) == {0, 1, 2} and levels[0].id == main[arm].id
        for level in (1, 2):
            assert levels[level].config["seed_of"] == {**main[arm].config["seed_of"], source: level}
            assert {**levels[level].config, "seed_of": None} == {**main[arm].config, "seed_of": None}


# ---------------------------------------------------------------- verdicts and pages


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize(
    ("gain", "spread", "outcome"),
    [(0.03, 0.002, "supported"), (-0.03, 0.002, "contradicted"), (0.005, 0.02, "undecided")],
)
def test_each_verdict_follows_from_records(name, gain, spread, outcome, tmp_path):
    settings = settings_of(name, tmp_path)
    gains = {"scd": gain, "scd_symmetric": gain, "scd_byol": gain, "scd_global": gain}
    evidence = evidence_of(name, gains, settings, spread=spread)
    text = STUDIES[name].compose(evidence, tmp_path).read_text(encoding="utf-8")
    assert text.split("\n\n")[2].startswith(f"{FIRST.get(name, '')}**{outcome.capitalize()}")
    assert load(tmp_path, name).about["outcome"] == outcome
    assert f"| {outcome} " in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", STUDIES)
def test_the_records_beside_a_page_write_it_again(name, tmp_path):
    evidence = evidence_of(name, {"scd": 0.01}, settings_of(name, tmp_path), maps_of)
    first = STUDIES[name].compose(evidence, tmp_path).read_text(encoding="utf-8")
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    again = STUDIES[name].compose(load(tmp_path, name), tmp_path).read_text(encoding="utf-8")
    assert again == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()} == pictures


def test_polarity_is_counted_seed_by_seed(tmp_path):
    evidence = evidence_of("mechanism", {}, settings_of("mechanism", tmp_path), maps_of)
    assert mechanism.inverted_seeds(evidence, "scd") == (1, 3) and mechanism.inverted_seeds(evidence, "moco") is None
    assert mechanism.polarity_sentence(evidence) == (
        "**Polarity:** the learned map marks the background in 1 of 3 seeds, with the border rule (no label) in 0 of 3."
    )
    text = mechanism.compose(evidence, tmp_path).read_text(encoding="utf-8")
    assert "1 of 3 |" in text and "10, 90, 10" in text
    assert "images are not the suite's own" in text  # no maps were kept
    assert "](figures/mechanism-courses.png)" in text


def test_kept_maps_become_a_figure(tmp_path):
    evidence = evidence_of("mechanism", {}, settings_of("mechanism", tmp_path), maps_of)
    path = maps_file(tmp_path, "mechanism")
    path.parent.mkdir()
    maps = numpy.linspace(0, 1, 2 * 16, dtype="float32").reshape(2, 4, 4)
    kept = {"images": numpy.zeros((2, 8, 8, 3), "uint8"), "masks": numpy.ones((2, 8, 8), "uint8")}
    save_file({**kept, "scd@0.50": maps, "settled@1.00": maps}, path)
    text = mechanism.compose(evidence, tmp_path).read_text(encoding="utf-8")
    assert "](figures/mechanism-maps.png)" in text and (tmp_path / "figures" / "mechanism-maps.png").is_file()
    assert set(load_file(path)) == {"images", "masks", "scd@0.50", "settled@1.00"}


def test_where_scd_wins_ties_loses_or_is_open(tmp_path):
    evidence = evidence_of("lewel", {"scd": 0.03}, settings_of("lewel", tmp_path, seeds=5))
    sweep = lewel.swept(evidence, "linear_top1")
    assert {lewel.outcome_of(result) for result in sweep.values()} == {"wins"}
    for gain, spread, expected in ((-0.03, 0.002, "loses"), (0.0, 0.001, "ties"), (0.002, 0.03, "open")):
        sweep = lewel.swept(
            evidence_of("lewel", {"scd": gain}, settings_of("lewel", seeds=5), spread=spread), "linear_top1"
        )
        counts = [lewel.outcome_of(result) for result in sweep.values()]
        assert counts.count(expected) >= 8, (expected, counts)
    text = lewel.compose(evidence, tmp_path).read_text(encoding="utf-8")
    assert "**Where SCD-MoCo against LEWEL-MoCo** wins: as above, background correlation 0.8" in text
    assert "ties: nowhere; loses: nowhere; open: nowhere (10 scenarios, not corrected)." in text


def test_unlabelled_images_are_judged_by_their_maps(tmp_path):
    settings = settings_of("lewel", tmp_path)
    evidence = evidence_of("lewel", {}, settings, maps_of)
    evidence = replace(evidence, runs=evidence.runs.drop(columns=["linear_top1", "knn_top1"]))
    text = lewel.compose(evidence, tmp_path).read_text(encoding="utf-8")
    assert "Paired differences in saliency maxF, in points" in text


def test_what_a_margin_means_is_computed_from_the_published_runs(tmp_path):
    evidence = evidence_of("significance", {"scd": 0.003}, settings_of("significance", tmp_path))
    text = significance.compose(evidence, tmp_path).read_text(encoding="utf-8")
    sd = numpy.std(significance.PUBLISHED, ddof=1)
    assert f"(standard deviation {sd:.2f} points)" in text
    assert f"differ by up to {2.776 * sd * 2**0.5:.2f} points" in text  # t with 4 degrees of freedom: 2.776
    assert "as differences of single runs, both margins are within chance" in text
    assert "Complete: " in text and "at least 3 seeds in every arm and setting" in text
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    counts = [rows[name].split("|")[2].strip() for name in ("initial weights", "all of them (the seeds)")]
    assert counts == ["3", "4"]


def test_place_share_tells_a_map_of_the_place_from_a_map_of_the_image():
    draw = numpy.random.default_rng(0)
    place = draw.random((1, 6, 6))
    assert place_share(numpy.repeat(place, 8, axis=0)) == pytest.approx(1.0)
    assert abs(numpy.mean([place_share(draw.random((8, 6, 6))) for _ in range(200)])) < 0.01  # nothing but the image
    mixed = [place_share(place + draw.normal(0, place.std(), (8, 6, 6))) for _ in range(200)]
    assert numpy.mean(mixed) == pytest.approx(0.5, abs=0.05)
    assert place_share(numpy.ones((8, 6, 6))) is None and place_share(place) is None


def test_the_page_says_how_much_is_place(tmp_path):
    settings = replace(settings_of("mechanism", tmp_path), store=tmp_path / "runs")
    evidence = evidence_of("mechanism", {}, settings, maps_of)
    for run in evidence.runs[evidence.runs["arm"] == "scd"]["run"]:
        folder = tmp_path / "runs" / run / "trace"
        folder.mkdir(parents=True)
        save_file(
            {"maps": numpy.repeat(numpy.eye(4, dtype="float32")[None], 8, axis=0)}, folder / "00000010.safetensors"
        )
    text = mechanism.compose(with_place_share(evidence, settings), tmp_path).read_text(encoding="utf-8")
    assert "**Place or content:** 100 ± 0 % of the learned map's variance" in text
    assert load(tmp_path, "mechanism").finished["place_share"].notna().sum() == 3


# ---------------------------------------------------------------- on a ViT


def emerged(gain):
    """Scores of maps: the attention of DINO at 0.6, every arm's own map higher by ``gain``, random weights' at 0.5."""

    def numbers(arm, seed):
        base = 0.5 if arm == "random" else 0.6
        found = {"attention_maxf": base, "tokencut_maxf": base, "whole_maxf": 0.4, "attention_maxf@0.50": 0.55}
        own = {"learned_maxf": 0.6 + gain, "inverted_maxf": 0.3, "learned_maxf@0.50": 0.5} if "scd" in arm else {}
        return {key: value + 0.001 * (seed % 3) * (1 + ("learned" in key)) for key, value in (found | own).items()}

    return numbers


@pytest.mark.parametrize(("gain", "outcome"), [(0.05, "supported"), (-0.05, "contradicted"), (0.0, "contradicted")])
def test_what_emerges_is_judged_by_itself(gain, outcome, tmp_path):
    evidence = evidence_of("dino_vit", {}, settings_of("dino_vit", tmp_path), emerged(gain))
    text = dino_vit.compose(evidence, tmp_path).read_text(encoding="utf-8")
    assert f"R1-e: **{outcome.capitalize()}:**" in text.split("\n\n")[2]
    assert "| random weights: whole image " in text and "| DINO: whole image " not in text
    assert "](figures/dino_vit-courses.png)" in text


def test_every_arm_on_the_vit_differs_in_what_it_says_and_the_resnet_in_its_backbone():
    specs = {spec.labels["arm"]: spec for spec in dino_vit.plan(settings_of("dino_vit", seeds=1))}
    base = specs["dino"].config

    def changed(arm):
        return {key for key in base if specs[arm].config[key] != base[key]}

    assert changed("scd") == changed("attention") == changed("tokencut") == {"wrapper"}
    assert changed("dino_global") == {"views"} and changed("dino_resnet") == {"backbone"}
    assert changed("moco") == {"views", "method", "backbone"}
    assert specs["moco"].config["backbone"] == {**base["backbone"], "fixed_patches": True}
    assert base["views"]["extra"]["count"] == 4 and base["backbone"]["_target_"] == "scd.nn.vit.vit"
    assert specs["dino_resnet"].config["backbone"]["name"] == "resnet_tiny"


def test_checkpoints_are_planned_where_they_can_be_had_and_named_where_not(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    here = Checkpoint("a ViT on disk", "deit_tiny_patch16_224", None)  # its weights are random: what is at hand
    there = {"own": here, "dino": CHECKPOINTS["dino"]}
    monkeypatch.setattr(dino_vit, "CHECKPOINTS", there)
    settings = settings_of("dino_vit", tmp_path, seeds=2)
    settings = replace(settings, axes={**settings.axes, "pretrained": ["own", "dino"]})
    specs = [spec for spec in dino_vit.plan(settings) if spec.labels["arm"].startswith("weights_")]
    assert [spec.labels["arm"] for spec in specs] == ["weights_own"]
    config = specs[0].config
    assert config["backbone"] == {"_target_": "scd.nn.vit.vit", "name": "deit_tiny_patch16_224", "weights": None}
    assert config["training"]["budget"]["value"] == 0 and config["evaluation"]["size"] == 112
    text = dino_vit.compose(evidence_of("dino_vit", {}, settings, emerged(0.0)), tmp_path).read_text(encoding="utf-8")
    assert "| a ViT on disk |       1 |" in text and "| ViT-S/16, DINO's weights | not available here |" in text
    with pytest.raises(
        UsageError, match=r"unknown pre-trained checkpoint \(axes.pretrained\) 'din'; did you mean 'dino'"
    ):
        dino_vit.plan(replace(settings, axes={**settings.axes, "pretrained": ["din"]}))


# ---------------------------------------------------------------- on scenes


def test_scenes_and_object_centric_images_differ_in_composition_alone():
    settings = settings_of("scene_coco", seeds=1)
    specs = {(spec.labels["images"], spec.labels["arm"]): spec.config for spec in scene_coco.plan(settings)}
    scenes, objects = (specs[images, "scd"]["data"]["options"] for images in ("scenes", "object-centric images"))
    assert {key for key in scenes if scenes[key] != objects[key]} == {"objects", "scale", "regions"}
    assert objects["objects"] == [1, 1] and ("object-centric images", "random") not in specs
    for images in ("scenes", "object-centric images"):  # both are scored on the same two sets
        first, second = specs[images, "scd"]["evaluation"]["further"][:2]
        assert first["data"] == scenes and second["data"] == objects
    for count in settings.axes["counts"]:
        config = specs[scene_coco.objects(count), "lewel"]
        assert config["data"]["options"]["objects"] == [count, count] and len(config["evaluation"]["further"]) == 1
    real = {**settings.base, "data": {**settings.base["data"], "name": "parquet", "options": {}}}
    planned = scene_coco.plan(replace(settings, base=real))
    assert {spec.labels["images"] for spec in planned} == {"scenes"}
    assert planned[1].config["evaluation"]["further"][0]["data"] is None


def test_a_gain_on_object_centric_images_alone_supports_that_scd_is_limited_to_them(tmp_path):
    settings = settings_of("scene_coco", tmp_path)
    evidence = evidence_of("scene_coco", {}, settings)
    centric = (evidence.runs["images"] == "object-centric images") & (evidence.runs["arm"] == "scd")
    runs = evidence.runs.assign(scene_map=evidence.runs["scene_map"] + 0.05 * centric)
    text = scene_coco.compose(replace(evidence, runs=runs), tmp_path).read_text(encoding="utf-8")
    assert "R1-c: **Supported:**" in text.split("\n\n")[2]
    assert "](figures/scene_coco-objects.png)" in text and "| 6 " in text
    assert "Not measured: no finished run has detected anything" in text
