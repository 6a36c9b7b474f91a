"""Words of texts, their tokens, and the causal transformer; see also ``test_groupvit.py``."""

import pytest
import torch

from scd.nn.text import PADDING, TextTransformer, Vocabulary, words_of


def test_words_are_letters_and_digits_in_lower_case():
    assert words_of("Amber_striped-DISC, no. 2!") == ["amber", "striped", "disc", "no", "2"]
    assert words_of("_!") == []


def test_texts_are_start_words_end_and_padding():
    vocabulary = Vocabulary(["a b c", "b", ""])
    assert vocabulary.words == ("a", "b", "c") and len(vocabulary) == 6 and vocabulary.length == 5
    assert vocabulary.encode(["c a", ""]).tolist() == [[4, 3, 1, 5, PADDING], [4, 5, PADDING, PADDING, PADDING]]
    with pytest.raises(KeyError):
        vocabulary.encode(["d"])


def transformer(**options) -> TextTransformer:
    torch.manual_seed(0)
    return TextTransformer(**{"tokens": 8, "length": 5, "width": 16, "depth": 2, "heads": 2, **options})


def test_a_vector_depends_on_all_words_and_not_on_what_follows_the_end():
    model = transformer()
    tokens = torch.tensor([[6, 1, 2, 7, 0], [6, 1, 2, 7, 3], [6, 2, 1, 7, 0], [6, 1, 3, 7, 0], [6, 1, 7, 0, 0]])
    vectors = model(tokens)
    torch.testing.assert_close(vectors[0], vectors[1])
    distances = torch.cdist(vectors[None, [0, 2, 3, 4]], vectors[None, [0, 2, 3, 4]])[0]
    assert vectors.shape == (5, 16) and (distances + torch.eye(4) > 1e-2).all()


def test_the_vector_is_that_of_the_end_token():
    model, outputs = transformer(), []
    model.blocks[-1].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    found = model(torch.tensor([[6, 1, 7, 0, 0], [6, 1, 2, 3, 7]]))
    expected = torch.stack([outputs[0][0, 2], outputs[0][1, 4]])
    torch.testing.assert_close(found, torch.nn.functional.layer_norm(expected, (16,)))


def test_first_weights_are_clips():
    model = transformer(tokens=600, length=300, width=128, depth=4)
    block = model.blocks[0]
    found = {
        "words": (model.embed.weight, 0.02), "positions": (model.positions, 0.01),
        "attention": (block.attn.qkv.weight, 128**-0.5), "its last layer": (block.attn.proj.weight, (128 * 8) ** -0.5),
        "MLP": (block.mlp.fc1.weight, 256**-0.5), "its last one": (block.mlp.fc2.weight, (128 * 8) ** -0.5),
    }  # fmt: skip
    for name, (weight, deviation) in found.items():
        assert weight.std().item() == pytest.approx(deviation, rel=0.05), name
