"""Tokens of the official vision transformers, in float64, from the files that their code saves.

``golden/checkpoints.safetensors`` holds the state dicts of small networks of the repositories and commits that its
metadata name, under their own names, and the normalised tokens of two images.
"""

import pytest
import torch
from golden_numbers import golden

from scd.checkpoints.fitting import load_checkpoint
from scd.nn.vit import vit

SMALL = {"img_size": 24, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3}
SCALED = {"init_values": 1.0}
REGISTERS = {"init_values": 1.0, "reg_tokens": 4, "no_embed_class": True}


def dino(state):
    heads = {"head.mlp.0.weight": torch.ones(2)}
    student = {f"module.backbone.{name}": torch.zeros_like(value) for name, value in state.items()}
    student |= {f"module.{name}": value for name, value in heads.items()}
    return {"student": student, "teacher": {f"backbone.{name}": value for name, value in state.items()} | heads}


def dinov2(state):
    return {"teacher": {f"backbone.{name}": value for name, value in state.items()} | {"dino_head.last": torch.ones(2)}}


FILES = {  # what the official code saves, options of the backbone, the format, the number of tensors that are left
    "dino": (dino, {}, "DINO"),
    "ibot": (dino, {}, "iBOT"),
    "mae": (lambda state: {"model": state}, {}, "MAE"),
    "dinov2": (dinov2, SCALED, "DINOv2, teacher"),
    "dinov2_reg": (lambda state: state, REGISTERS, "a plain state dict"),
}


@pytest.mark.parametrize("name", FILES)
def test_tokens_are_those_of_the_official_network(name, tmp_path):
    content, options, title = FILES[name]
    numbers = {
        key.partition("/")[2]: value for key, value in golden("checkpoints").items() if key.startswith(f"{name}/")
    }
    state = {key.removeprefix("state/"): value for key, value in numbers.items() if key.startswith("state/")}
    torch.save(content(state), tmp_path / "official.pth")
    backbone = vit("vit_tiny_patch16_224", **SMALL, **options).double().eval()
    fitted = load_checkpoint(tmp_path / "official.pth", backbone)
    assert fitted.format == title
    with torch.no_grad():
        maps, vector = backbone(numbers["images"])
    tokens = numbers["tokens"]
    assert torch.allclose(vector, tokens[:, 0], rtol=0, atol=1e-10)
    assert torch.allclose(maps.flatten(2).transpose(1, 2), tokens[:, 1:], rtol=0, atol=1e-10)
