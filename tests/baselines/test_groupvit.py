"""GroupViT against the official code's numbers and against loops: losses, captions, class scores and its map."""

import math
import multiprocessing
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from golden_numbers import assert_same, begin, follow, golden, part
from torch import Tensor, nn

from baselines.groupvit import Captions, GroupViT, caption_contrast, class_scores, noun_contrast
from scd.errors import UsageError
from scd.method import Batch, whole_view
from scd.nn import grouping
from scd.nn.backbone import build_backbone
from scd.nn.text import TextTransformer
from scd.nn.vit import ViT, vit

NAMES = ("amber_striped_disc", "moss_dotted_star", "teal disc", "Rose")
TEMPLATES = ("a photo of a {}", "the {} here", "{}")


def network(side: int = 12, **options) -> ViT:
    torch.manual_seed(0)
    given = {"img_size": side, "patch_size": 4, "embed_dim": 8, "depth": 4, "num_heads": 2, "mlp_ratio": 2}
    return vit("vit_tiny_patch16_224", **{**given, "embed_norm_layer": nn.LayerNorm, **options})


def tiny(backbone: ViT | None = None, **options) -> GroupViT:
    given = {"classes": 4, "names": NAMES, "templates": TEMPLATES, "groups": (4, 3), "hidden": 10, "dim": 6}
    text = {"text_width": 8, "text_depth": 2, "text_heads": 2, "nouns": 2}
    return GroupViT(backbone or network(), **{**given, **text, **options}).train()


def some_batch(rows: int = 6, views: tuple[str, ...] = ("v1",)) -> Batch:
    draw = torch.Generator().manual_seed(1)
    made = {name: whole_view(torch.randn(rows, 3, 12, 12, generator=draw), name) for name in views}
    return Batch(made, labels=torch.arange(rows) % 4)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


# ---------------------------------------------------------------- the official code


@pytest.fixture(scope="module")
def numbers() -> dict[str, Tensor]:
    """Inputs, weights, losses, gradients and test-time outputs of the official code."""
    return golden("groupvit")


@pytest.fixture
def official(numbers) -> GroupViT:
    """Our method with the official sizes and first weights."""
    method = tiny(network(norm_layer=nn.LayerNorm))
    method.text = TextTransformer(12, 6, 8, 2, 2)
    method = method.double()
    begin(method, numbers)
    return method


def test_three_steps_are_the_official_ones(numbers, official, monkeypatch):
    """Both encoders, projectors, losses, all gradients and the weights after three steps, with the official noise."""
    noise = iter(n for pair in zip(numbers["noise1"], numbers["noise2"], strict=True) for n in pair)
    tokens, given = iter(numbers["tokens"]), iter(zip(numbers["caption_loss"], numbers["noun_loss"], strict=True))
    monkeypatch.setattr(grouping, "gumbel", lambda like: next(noise))
    monkeypatch.setattr(Captions, "forward", lambda self, labels: next(tokens))
    forward = official.forward

    def checked(batch: Batch) -> dict[str, Tensor]:
        outputs = forward(batch)
        for name, expected in zip(("caption_loss", "noun_loss"), next(given), strict=True):
            assert_same(outputs[name], expected, name)
        return outputs

    monkeypatch.setattr(official, "forward", checked)

    def views(numbers: dict[str, Tensor], step: int) -> Batch:
        return Batch({"v1": whole_view(numbers["v1"][step], "v1")}, labels=torch.zeros(4, dtype=torch.int64))

    optimizer = torch.optim.SGD([p for p in official.parameters() if p.requires_grad], 0.01)
    assert len(list(follow(official, optimizer, numbers, views))) == 3


@pytest.fixture
def tested(numbers, official) -> GroupViT:
    """Our method with the official last weights, in evaluation mode, and with the official texts of classes."""
    state = official.state_dict()
    official.load_state_dict({**state, **part(numbers, "final.")})
    official.captions.whole = numbers["eval.texts"]
    return official.eval()


def test_features_and_assignments_are_the_official_ones(numbers, tested):
    with torch.no_grad():
        found = tested.backbone.segments(numbers["v1"][0])
        _, pooled = tested.backbone(numbers["v1"][0])
    assert_same(found.vectors, numbers["eval.segments"], "segments")
    assert_same(pooled, numbers["eval.pooled"], "pooled")
    for stage, soft in enumerate(found.soft, start=1):
        assert_same(soft, numbers[f"eval.soft{stage}"], f"assignment of stage {stage}")
    assert_same(found.memberships().flatten(2), numbers["eval.memberships"], "their product")


def test_class_scores_are_the_official_ones(numbers, tested):
    with torch.no_grad():
        classes = tested.class_vectors()
        segments, image = (tested.projector(numbers[f"eval.{name}"]) for name in ("segments", "pooled"))
        found = class_scores(segments, image, classes, tested.scale(tested.log_scale))
    assert_same(classes, numbers["eval.classes"], "texts of classes")
    assert_same(found, numbers["eval.scores"], "scores")


@pytest.mark.parametrize("threshold", [0.95, 0.15])
def test_the_map_marks_what_is_no_background_officially(numbers, tested, threshold):
    tested.background = threshold
    shows = 1 - numbers[f"eval.background_{threshold}"]  # (B, G)
    memberships = numbers["eval.memberships"]  # (B, G, N)
    map_ = tested.saliency(whole_view(numbers["v1"][0])).flatten(1)
    official_foreground = shows.bool().take_along_dim(memberships.argmax(dim=1), dim=1)
    assert torch.equal(map_ >= 0.5, official_foreground)
    for b in range(len(shows)):
        for n in range(memberships.shape[2]):
            inside, outside = (
                max(m for m, s in zip(memberships[b, :, n], shows[b], strict=True) if s == k) for k in (1, 0)
            )
            assert map_[b, n].item() == pytest.approx((inside / (inside + outside)).item())
    assert 0 < shows.double().mean() < 1 and (threshold == 0.95 or shows.sum(dim=1).max() == 2)


# ---------------------------------------------------------------- the losses, number by number


def test_caption_loss_by_loops():
    image, text = torch.randn(2, 5, 6, dtype=torch.float64).unbind()
    similarity, terms = 3.0 * unit(image) @ unit(text).T, []
    for i in range(5):
        to_text = -math.log(math.exp(similarity[i, i]) / sum(math.exp(s) for s in similarity[i]))
        to_image = -math.log(math.exp(similarity[i, i]) / sum(math.exp(s) for s in similarity[:, i]))
        terms.append((to_text + to_image) / 2)
    assert caption_contrast(image, text, torch.tensor(3.0)).item() == pytest.approx(sum(terms) / 5)


def test_noun_loss_by_loops():
    image, nouns = torch.randn(5, 6, dtype=torch.float64), torch.randn(5, 3, 6, dtype=torch.float64)
    similarity = 2.0 * torch.einsum("id,jnd->ijn", unit(image), unit(nouns))
    to_nouns, to_image = [], []
    for i in range(5):
        for n in range(3):
            to_nouns.append(-(similarity[i, i, n] - similarity[i].flatten().logsumexp(0)))
            to_image.append(-(similarity[i, i, n] - similarity[:, i, n].logsumexp(0)))
    expected = (torch.stack(to_nouns).mean() + torch.stack(to_image).mean()) / 2
    torch.testing.assert_close(noun_contrast(image, nouns, torch.tensor(2.0)), expected)


def test_one_noun_of_each_image_is_a_caption():
    image, text = torch.randn(2, 5, 6).unbind()
    scale = torch.tensor(4.0)
    torch.testing.assert_close(noun_contrast(image, text[:, None], scale), caption_contrast(image, text, scale))


def test_the_loss_is_the_sum_of_both_and_each_has_a_temperature_of_its_own():
    method = tiny(noun_weight=0.3).double()
    with torch.no_grad():
        method.log_scale.fill_(math.log(200.0))
        method.noun_log_scale.fill_(math.log(5.0))
    batch = some_batch()
    batch.views = {"v1": replace(batch.views["v1"], images=batch.views["v1"].images.double())}
    torch.manual_seed(3)
    outputs = method(batch)
    torch.manual_seed(3)
    _, pooled = method.backbone(batch.views["v1"].images)
    tokens = method.captions(batch.labels)
    image, texts = method.projector(pooled), method.text_projector(method.text(tokens.flatten(0, 1))).view(6, 3, 6)
    caption = caption_contrast(image, texts[:, 0], torch.tensor(100.0))  # 200, bounded
    nouns = noun_contrast(image, texts[:, 1:], torch.tensor(5.0))
    torch.testing.assert_close(outputs["caption_loss"], caption, rtol=1e-5, atol=0)
    torch.testing.assert_close(outputs["noun_loss"], nouns, rtol=1e-5, atol=0)
    torch.testing.assert_close(outputs["loss"], caption + 0.3 * nouns, rtol=1e-5, atol=0)
    assert outputs["temperature"].item() == pytest.approx(0.01)


def test_temperatures_start_at_7_hundredths():
    method = GroupViT(network(), 4, text_width=8, text_depth=1)
    assert [scale.exp().item() for scale in (method.log_scale, method.noun_log_scale)] == pytest.approx([1 / 0.07] * 2)


def test_without_nouns_there_is_one_loss():
    method = tiny(nouns=0)
    outputs = method(some_batch())
    outputs["loss"].backward()
    assert torch.equal(outputs["loss"], outputs["caption_loss"]) and "noun_loss" not in outputs
    assert method.captions(torch.tensor([0, 1])).shape[1] == 1 and not method.noun_log_scale.requires_grad


def test_gradients_reach_every_trainable_parameter():
    method = tiny(network(depth=2))
    method(some_batch())["loss"].backward()
    missing = [n for n, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    keys_only = ("look.key.bias", ".attn.qkv")  # a softmax over keys does not change with their bias
    assert [name for name in missing if not any(part in name for part in keys_only)] == []


# ---------------------------------------------------------------- captions


def sentences(captions: Captions, tokens: Tensor) -> list[str]:
    """The texts (T,) of tokens (T, L)."""
    words = dict(enumerate(captions.vocabulary.words, start=1))
    return [" ".join(words[t] for t in row if t in words) for row in tokens.tolist()]


def test_a_caption_names_the_class_and_its_prompts_words_of_the_name():
    captions, labels = Captions(NAMES, TEMPLATES, 2), torch.tensor([0, 1, 2, 3] * 50)
    torch.manual_seed(0)
    tokens = captions(labels)
    assert tokens.shape == (200, 3, captions.vocabulary.length) and captions.vocabulary.length == 7 + 2
    names = ["amber striped disc", "moss dotted star", "teal disc", "rose"]
    used = set()
    for label, row in zip(labels.tolist(), tokens, strict=True):
        caption, *prompts = sentences(captions, row)
        whole = [template.format(names[label]) for template in TEMPLATES]
        assert caption in whole
        used.add((label, caption))
        if label == 3:  # one word, then the caption itself
            assert prompts[0] in whole and prompts[1] == caption
            continue
        found = [
            {word for word in names[label].split() if prompt in [t.format(word) for t in TEMPLATES]}
            for prompt in prompts
        ]
        assert all(len(words) == 1 for words in found) and found[0] != found[1]
        used |= {(label, prompt) for prompt in prompts}
    assert len(used) == 2 * (3 + 9) + (3 + 6) + 3  # every template with every name and every word


def test_captions_come_from_the_global_generator():
    captions, labels = Captions(NAMES, TEMPLATES, 2), torch.tensor([0, 1, 2, 3] * 10)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(captions(labels))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_a_class_without_name_has_a_word_of_its_own():
    method = tiny(names=None)
    assert {"class0", "class1", "class2", "class3"} <= set(method.captions.vocabulary.words)


def test_captions_are_no_part_of_the_state():
    assert not any(name.startswith("captions") for name in tiny().state_dict())


# ---------------------------------------------------------------- class scores


def test_class_scores_by_loops():
    draw = torch.Generator().manual_seed(2)
    segments, image, classes = (torch.randn(*shape, 6, generator=draw) for shape in ((3, 4), (3,), (8,)))
    found = class_scores(segments, image, unit(classes), torch.tensor(7.0))
    for b in range(3):
        cosines = unit(classes) @ unit(image[b])
        likely = cosines.argsort(descending=True)[:5].tolist()
        for g in range(4):
            logits = (7.0 * unit(classes) @ unit(segments[b, g])).tolist()
            every, some = sum(math.exp(x) for x in logits), sum(math.exp(logits[c]) for c in likely)
            best = max(math.exp(logits[c]) ** 2 / every / some for c in likely)
            assert found[b, g].item() == pytest.approx(best, rel=1e-4)


def test_the_map_is_1_where_every_segment_shows_a_class():
    method = tiny(background=1e-6).eval()
    maps = method.saliency(some_batch().views["v1"])
    torch.testing.assert_close(maps, torch.ones(6, 3, 3))


# ---------------------------------------------------------------- several processes


def share_of_two(rank: int, folder) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    image, nouns = torch.load(folder / "rows.pt", weights_only=True)
    own = slice(3 * rank, 3 * rank + 3)
    image, nouns = image[own].requires_grad_(), nouns[own].requires_grad_()
    scale = torch.tensor(3.0)
    loss = caption_contrast(image, nouns[:, 0], scale) + noun_contrast(image, nouns, scale)
    loss.backward()
    torch.save([loss.detach(), image.grad, nouns.grad], folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_share_their_negatives_and_their_mean_gradient_is_that_of_the_whole_batch(tmp_path):
    image, nouns = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 2, 5, dtype=torch.float64)
    torch.save([image, nouns], tmp_path / "rows.pt")
    context = multiprocessing.get_context("fork")
    pair = [context.Process(target=share_of_two, args=(rank, tmp_path)) for rank in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(timeout=60)
    assert [process.exitcode for process in pair] == [0, 0]
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    image.requires_grad_()
    nouns.requires_grad_()
    scale = torch.tensor(3.0)
    loss = caption_contrast(image, nouns[:, 0], scale) + noun_contrast(image, nouns, scale)
    loss.backward()
    torch.testing.assert_close((found[0][0] + found[1][0]) / 2, loss.detach())
    for place, gradient in ((1, image.grad), (2, nouns.grad)):
        torch.testing.assert_close(torch.cat([found[0][place], found[1][place]]) / 2, gradient)


# ---------------------------------------------------------------- declarations and refusals


def test_declares_that_it_learns_from_labels():
    assert tiny().needs == {"labels"} and tiny().supervision == "labels"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"classes": 1, "names": None}, "two classes or more and a name of each, not 1 with no names"),
        ({"names": NAMES[:3]}, "not 4 with 3 names"),
        ({"names": ("a", "b", "c", "_!")}, "need a word each, '_!' has none"),
        ({"templates": ("a photo",)}, "one place '{}' each"),
        ({"templates": ()}, "one place '{}' each"),
        ({"nouns": -1}, "nouns is 0 or more"),
        ({"noun_weight": -1.0}, "noun_weight is 0 or more"),
        ({"temperature": 0.0}, "temperature is above 0"),
        ({"background": 0.0}, "background is above 0"),
        ({"text_heads": 3}, "3 heads must divide its width 8"),
    ],
)
def test_refuses_impossible_options(options, text):
    with pytest.raises(UsageError, match=text):
        tiny(**options)


def test_refuses_a_backbone_that_is_no_vit():
    with pytest.raises(UsageError, match="needs a ViT .backbone=vit., not a FeatureMaps"):
        GroupViT(build_backbone("resnet_tiny", widths=(4, 6, 8)), 4)


def test_refuses_several_views():
    with pytest.raises(UsageError, match="GroupViT has one view, the recipe gives 2: set views.recipe=single"):
        tiny()(some_batch(views=("v1", "v2")))
