"""Vision transformers' checkpoints in timm's names: blocks in chunks, separate q, k and v, registers, another grid.

What timm itself converts is left to timm (``checkpoint_filter_fn``): DINOv2's registers and gated MLPs, layer scales
(``gamma_1``), position embeddings of another grid.

NOTE: timm resamples position embeddings bicubically with antialiasing; DINO's and MAE's code without it.
"""

import re
from collections.abc import Mapping

import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from scd.errors import DataError

CHUNK = re.compile(r"blocks\.\d+\.(\d+)\.(.+)")
QUERY = re.compile(r"(.+\.attn)\.(q_bias|q\.weight|q\.bias)$")
NO_LAYERS = ("mask_token", "masked_embed")  # learned stand-ins for hidden patches, which a whole image does not need


def in_timms_names(
    tensors: Mapping[str, Tensor], model: VisionTransformer, title: str
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]], list[str]]:
    """The tensors under the names of timm's ViT; which tensors each is made of; and what was changed, in sentences.

    Args:
        tensors: in the names of the official code.
        model: it tells which names and shapes are wanted; it is not changed.
        title: of the file, for messages.

    Raises:
        DataError: patches of another size, registers that the model lacks, or another number of prefix tokens.
    """
    notes: list[str] = []
    state: dict[str, Tensor] = {}
    made: dict[str, tuple[str, ...]] = {}
    for name, tensor in tensors.items():
        if name in NO_LAYERS:
            continue
        chunk = CHUNK.fullmatch(name)
        short = f"blocks.{chunk.group(1)}.{chunk.group(2)}" if chunk else name
        state[short], made[short] = tensor, (name,)
    if any(CHUNK.fullmatch(name) for name in tensors):
        notes.append("Its blocks are stored in chunks, blocks.CHUNK.BLOCK; the chunks' numbers are removed.")
    _fuse(state, made, notes)
    _check_tokens(state, model, title)
    before = dict(state)
    marked = {**state, "mask_token": torch.zeros(1)} if "register_tokens" in state or _gated(state) else dict(state)
    filtered = checkpoint_filter_fn(marked, model, adapt_layer_scale=True)
    _describe(before, filtered, made, notes)
    return filtered, made, notes


def _gated(state: Mapping[str, Tensor]) -> bool:
    return any(".mlp.w12." in name for name in state)


def _fuse(state: dict[str, Tensor], made: dict[str, tuple[str, ...]], notes: list[str]) -> None:
    """Put separate weights and biases of q, k and v side by side, as timm's ``qkv`` has them; no k bias is zero."""
    fused = False
    for name in list(state):
        found = QUERY.fullmatch(name)
        if found is None:
            continue
        at, kind = found.groups()
        if kind == "q_bias":
            parts, target = (f"{at}.q_bias", f"{at}.k_bias", f"{at}.v_bias"), f"{at}.qkv.bias"
        else:
            value = kind.partition(".")[2]
            parts, target = tuple(f"{at}.{part}.{value}" for part in "qkv"), f"{at}.qkv.{value}"
        absent = [part for part in parts if part not in state]
        if target in state or (absent and absent != [f"{at}.k_bias"]):
            continue  # the error of missing names says which
        tensors = [state.get(part, torch.zeros_like(state[name])) for part in parts]
        state[target] = torch.cat(tensors)
        made[target] = tuple(origin for part in parts if part in state for origin in made[part])
        for part in parts:
            state.pop(part, None)
        fused = True
    if fused:
        notes.append("Separate queries, keys and values are put side by side; a bias that the keys lack is 0.")


def _check_tokens(state: Mapping[str, Tensor], model: VisionTransformer, title: str) -> None:
    """What timm would change without a word, or could not read."""
    projection = state.get("patch_embed.proj.weight")
    side = model.patch_embed.patch_size[0]
    if projection is not None and projection.ndim == 4 and projection.shape[-1] != side:
        raise DataError(
            f"{title} is a ViT with patches of {projection.shape[-1]} px, and the backbone's are {side} px; choose "
            f"a backbone with patch{projection.shape[-1]} in its name, or backbone.patch_size={projection.shape[-1]}"
        )
    registers = state.get("register_tokens", state.get("reg_token"))
    if registers is not None and model.reg_token is None:
        raise DataError(
            f"{title} is a ViT with {registers.shape[1]} register tokens, which the backbone lacks; choose one with "
            f"reg{registers.shape[1]} in its name, for example vit_small_patch14_reg4_dinov2"
        )
    if "dist_token" in state:
        raise DataError(f"{title} has a distillation token (DeiT); choose its timm name: backbone=timm/deit_...")
    position = state.get("pos_embed")
    if position is None or model.pos_embed is None:
        return
    if position.ndim != 3 or position.shape[2] != model.pos_embed.shape[2]:
        return  # the error of shapes says it
    grid = position.shape[1] - (0 if model.no_embed_class and "register_tokens" not in state else _prefix(state, model))
    if grid < 1 or int(grid**0.5) ** 2 != grid:
        raise DataError(
            f"{title} has {position.shape[1]} position embeddings, which are not {_prefix(state, model)} prefix "
            "token(s) and a square grid of patches, as the backbone has them"
        )


def _prefix(state: Mapping[str, Tensor], model: VisionTransformer) -> int:
    """Tokens before the patches that have a position embedding of their own."""
    return 1 if "register_tokens" in state else model.num_prefix_tokens


def _describe(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], made: dict[str, tuple[str, ...]], notes: list[str]
) -> None:
    """Say what timm has changed, and of which tensors its new names are made."""
    if "register_tokens" in before:
        made["reg_token"] = made["register_tokens"]
        made["cls_token"] = (*made["cls_token"], *made["pos_embed"])
        notes.append("The class token's position embedding is added to it, as timm has it with registers.")
    for name in before:
        for old, new in (("gamma_", "ls"), (".mlp.w12.", ".mlp.fc1."), (".mlp.w3.", ".mlp.fc2.")):
            target = re.sub(r"gamma_(\d)", r"ls\1.gamma", name) if old == "gamma_" else name.replace(old, new)
            if old in name and target in after:
                made[target] = made[name]
    first, second = before.get("pos_embed"), after.get("pos_embed")
    if first is None or second is None:
        return
    expected = first.shape[1] - ("register_tokens" in before)
    if second.shape[1] != expected:
        notes.append(f"Position embeddings are resampled from {expected} to {second.shape[1]} (timm, bicubic).")
