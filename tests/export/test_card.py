"""The model card: Hugging Face reads its front matter, every fact is in it, and what is not known is said."""

import math
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from scd.export.card import Facts, Score, model_card

SCORE = Score("knn", "shapes (test=80)", "knn_top1", "kNN top-1", "share", 0.625, "weighted kNN", True, "e" * 16,
              "c" * 40)  # fmt: skip
FACTS = Facts(
    run="a" * 16,
    backbone="resnet18",
    builder="build_backbone",
    options={"name": "resnet18", "small_stem": True},
    parameters=11_168_832,
    is_small=True,
    method="MoCo",
    wrapper="SCD",
    supervision="unsupervised teacher",
    data="shapes",
    images="`shapes`, drawn by the embedded generator `Shapes`",
    licence="drawn by the suite's own code",
    is_embedded=True,
    budget="4 epochs: 500 steps",
    is_trained=True,
    recipe="sgd, learning rate 0.03",
    numerics="ab8eca22 (processor GenuineIntel 6 167)",
    commit="c" * 40,
    is_uncommitted=False,
    seed=3,
    libraries={"torch": "2.15.0"},
    scores=(SCORE,),
)
FILES = ("config.json", "model.safetensors")


def card(facts=FACTS, naming="timm"):
    return ModelCard(model_card(facts, naming, FILES))


def unknown(text: str) -> str:
    return text.partition("## What is not known")[2]


def test_hugging_face_reads_the_front_matter():
    data = card().data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "timm", "image-feature-extraction")
    assert {"scd-suite", "moco", "scd"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("knn_top1", 0.625, "shapes (test=80)")
    assert result.metric_args == {"protocol": "knn", "evaluation": "e" * 16}
    assert data.scd_suite == {
        "run": "a" * 16, "commit": "c" * 40, "uncommitted_changes": False, "seed": 3, "data": "shapes",
        "licence_of_the_images": "drawn by the suite's own code", "method": "MoCo", "wrapper": "SCD",
        "supervision": "unsupervised teacher", "backbone": "resnet18",
        "backbone_options": {"name": "resnet18", "small_stem": True}, "weights_named_as_in": "timm",
        "budget": "4 epochs: 500 steps", "numerics": "ab8eca22 (processor GenuineIntel 6 167)",
    }  # fmt: skip


def test_the_text_has_every_fact():
    text = card().text
    for fact in (
        "SCD around MoCo, resnet18, run aaaa", "11,168,832 parameters", "unsupervised teacher", "drawn by the embedded",
        "drawn by the suite's own code", "4 epochs: 500 steps", "sgd, learning rate 0.03", "ab8eca22", "seed 3",
        f"`{'c' * 40}`, without further changes", "torch 2.15.0", "small_stem=True",
        f"| knn | shapes (test=80) | kNN top-1 (`knn_top1`) | 0.625 | share | `{'e' * 16}` |",
        "- `knn_top1`: weighted kNN", "`config.json`, `model.safetensors`",
    ):  # fmt: skip
        assert fact in text, fact
    assert unknown(text).strip() == "- How it behaves on other images than those of the table."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"is_embedded": False, "licence": ""}, "The licence of the images, and so that of these weights."),
        ({"is_embedded": False, "licence": "CC BY 4.0"}, "The licence of these weights: it depends on the terms"),
        ({"commit": "", "is_uncommitted": None}, "The commit of the code that trained it"),
        ({"is_uncommitted": True}, "The exact code: it may have had changes that no commit has."),
        ({"numerics": ""}, "The numerics class of the machine."),
        ({"budget": ""}, "How long it was trained."),
        ({"earlier": ("experts",)}, "The ids of the earlier runs that it uses (experts)"),
        ({"scores": ()}, "How good its features are: no protocol has been run on it."),
        ({"scores": (replace(SCORE, commit="d" * 40),)}, f"evaluations of another commit are `{'e' * 16}`"),
        ({"options": {"name": "vit", "weights": "timm/dino"}}, "The licence of the initial weights (timm/dino)"),
    ],
)
def test_what_is_not_known_is_said(changes, said):
    assert said in unknown(card(replace(FACTS, **changes)).text)
    assert said not in unknown(card().text)


@pytest.mark.parametrize("changes", [{"is_embedded": False}, {"options": {"name": "vit", "weights": "timm/dino"}}])
def test_a_licence_is_given_only_where_everything_is_the_suites_own(changes):
    assert card(replace(FACTS, **changes)).data.license == "unknown"


def test_what_is_not_recorded_has_no_value():
    empty = replace(FACTS, supervision="", licence="", budget="", numerics="", commit="", wrapper="", seed=None,
                    is_embedded=False, scores=(), libraries={})  # fmt: skip
    found = card(empty, "suite")
    for name in ("commit", "licence_of_the_images", "wrapper", "supervision", "budget", "numerics", "seed"):
        assert found.data.scd_suite[name] is None, name
    assert found.data.eval_results is None and "No finished evaluation" in found.text
    assert "not known: nobody has stated" in found.text and found.data.library_name == "scd-suite"
    assert "MoCo, resnet18" in found.text and "around" not in found.text.partition("##")[0]


def test_random_weights_are_not_called_trained():
    text = card(replace(FACTS, is_trained=False)).text
    assert "with random weights" in text and "has not trained it" in text and "after pretraining" not in text


def test_only_scores_go_into_the_front_matter():
    count = replace(SCORE, name="n_test", label="test images", value=80, is_scored=False)
    broken = replace(SCORE, name="bad", value=math.nan)
    found = card(replace(FACTS, scores=(SCORE, count, broken)))
    assert [result.metric_type for result in found.data.eval_results] == ["knn_top1"]
    assert "| 80 |" in found.text and "| nan |" in found.text


def test_a_bar_in_a_name_does_not_end_a_cell():
    text = card(replace(FACTS, scores=(replace(SCORE, images="a|b", unit="|W|"),))).text
    assert "a\\|b" in text and "\\|W\\|" in text
