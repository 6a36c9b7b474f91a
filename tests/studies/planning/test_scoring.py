"""The words of ``studies.evaluate``: what they become, and the one line of each wrong one."""

import pytest

from scd.errors import UsageError
from scd.nn.vit import ViT
from studies.suite.planning.assembly import instantiate
from studies.suite.planning.scoring import FROZEN, TRAINED, request, small_data

GIVEN = ["checkpoint=some/where/moco.pth.tar", "backbone=resnet18"]


def asked(*words):
    return request([*GIVEN, *words])


def test_the_usual_request():
    found = asked()
    assert (found.page, found.seeds, found.device, found.supervised) == ("evaluate-moco", (0, 1, 2), "cpu", "auto")
    assert (found.size, found.settings.base["data"]["size"]) == (224, 224)
    assert [protocol["name"] for protocol in found.protocols] == list(FROZEN)
    assert found.settings.base["data"]["options"]["size"] == 224


def test_protocols_are_repeated_for_all_seeds():
    spec = asked("protocols=knn,linear_shift", "seeds=4,7").spec()
    first, second = spec.config["evaluation"]["protocols"]
    assert first["seeds"] == [4, 7] and first["name"] == "knn"
    assert second["protocol"]["prefix"] == "shift_" and second["protocol"]["learns_from"] == "train"


def test_all_protocols():
    assert [protocol["name"] for protocol in asked("protocols=all").protocols] == [*FROZEN, *TRAINED]


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["backbone=resnet_tiny"], 24),
        (["backbone=resnet_tiny", "tier=smoke"], 16),
        (["backbone=resnet50"], 224),
        (["backbone=vit_small_patch14_dinov2"], 518),
        (["backbone=vit_small_patch14_dinov2", "size=112"], 112),
        (["backbone=vit_small_patch16_224", "backbone.img_size=32"], 32),
        (["backbone=resnet18", "backbone.small_stem=true"], 24),
        (["backbone=timm/resnet18", "size=64"], 64),
    ],
)
def test_images_have_the_size_of_the_backbone(words, size):
    assert request(["checkpoint=w.pth", *words]).size == size


def test_backbones_of_libraries_and_their_options():
    options = ["backbone.img_size=32", "backbone.embed_dim=24", "backbone.depth=1", "backbone.num_heads=3"]
    found = request(["checkpoint=w.pth", "backbone=vit_tiny_patch16_224", *options, "backbone.vector=mean"])
    backbone = instantiate(found.backbone)
    assert isinstance(backbone, ViT)
    assert (backbone.dim, backbone.vector, backbone.model.blocks[0].attn.num_heads) == (24, "mean", 3)
    assert request(["checkpoint=w.pth", "backbone=convnext_atto"]).backbone["name"] == "timm/convnext_atto"


@pytest.mark.parametrize(
    ("words", "page"),
    [
        (["name=mine"], "evaluate-mine"),
        (["data=scenes", "tier=smoke"], "evaluate-moco-scenes-smoke"),
        (["branch=momentum", "protocols=knn", "seeds=9"], "evaluate-moco-momentum"),
        (["size=96"], "evaluate-moco-size-96"),
        (["name=a b/c:d"], "evaluate-a-b-c-d"),
    ],
)
def test_the_page_is_named_by_what_makes_it_another(words, page):
    assert asked(*words).page == page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "checkpoint= is missing"),
        (["checkpoint=w.pth"], "backbone= is missing"),
        (["checkpoint=w.pth", "backbone=resnet5"], "unknown backbone 'resnet5'; did you mean 'resnet50'"),
        (["checkpoint=w.pth", "backbone=timm/resnet_18x"], "unknown backbone"),
        ([*GIVEN, "protocols=knnn"], "unknown protocol 'knnn'; did you mean 'knn'"),
        ([*GIVEN, "protocols="], "protocols= needs names"),
        ([*GIVEN, "protocols=saliency"], "unknown protocol"),
        ([*GIVEN, "method=moco"], "nothing is trained"),
        ([*GIVEN, "optimizer.lr=1"], "nothing is trained"),
        ([*GIVEN, "seeds=0"], "seeds=0: give how many probe seeds"),
        ([*GIVEN, "seeds=two"], "seeds=two: give how many probe seeds"),
        ([*GIVEN, "seeds=3,3"], "each once"),
        ([*GIVEN, "size=big"], "size=big: it must be a whole number of pixels"),
        ([*GIVEN, "size=0"], "size=0"),
        ([*GIVEN, "tier=huge"], "unknown tier 'huge'"),
        ([*GIVEN, "device=tpu"], "unknown device 'tpu'"),
        ([*GIVEN, "data=nowhere/at/all"], "does not exist"),
        ([*GIVEN, "data.options.class=3"], "unknown option"),
        ([*GIVEN, "backbone=resnet34"], "backbone is given twice"),
        ([*GIVEN, "resnet"], "not of the form key=value"),
    ],
)
def test_wrong_words_end_in_one_line(words, message):
    with pytest.raises(UsageError) as caught:
        request(words)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_few_generated_images_show_which_protocols_apply():
    data = asked("tier=gpu").settings.base["data"]
    assert small_data(data)["options"]["train"] == 10 * data["options"]["classes"]
    assert small_data({**data, "options": {**data["options"], "probe": 0}})["options"]["probe"] == 0
