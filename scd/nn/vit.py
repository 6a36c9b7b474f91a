"""Vision transformers as feature maps with a class token, and the queries and keys of their last attention.

A ViT's patch tokens, after the final norm, are arranged as a map (B, C, h, w); its class token is the vector of the
image (DINO, arXiv 2104.14294). The queries and keys of the last block are attached to the map, from the same forward
pass and at no cost, for methods and protocols that read the attention (:func:`tokens_of`).

Models are timm's: any name of its plain ViTs, with any options of their constructor, so that one name covers a small
network (``vit_tiny_patch16_224`` with ``patch_size=4, embed_dim=96, depth=4``) and the papers' own.

NOTE: position embeddings are resampled to the size of the view as timm does it (bicubic, antialiased); DINO's code adds
0.1 to the target size before it interpolates.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from scd.errors import UsageError, unknown

VECTORS = ("cls", "mean")


@dataclass(frozen=True)
class Tokens:
    """Queries and keys of the last block, of one forward pass, without gradient.

    Args:
        query: of the class token, (B, H, d).
        key: of all tokens, (B, H, P + h·w, d), the P prefix tokens (class, registers) first.
        grid: h and w.
        scale: what the block multiplies query-key products by.
    """

    query: Tensor
    key: Tensor
    grid: tuple[int, int]
    scale: float

    @property
    def attention(self) -> Tensor:
        """Attention of the class token to each patch, (B, H, h, w), after the softmax over all tokens."""
        logits = (self.query[:, :, None].float() @ self.key.float().transpose(2, 3)).squeeze(2) * self.scale
        return logits.softmax(dim=2)[:, :, -math.prod(self.grid) :].unflatten(2, self.grid)

    @property
    def keys(self) -> Tensor:
        """The patches' keys with the heads side by side, (B, H·d, h, w)."""
        patches = self.key[:, :, -math.prod(self.grid) :]  # (B, H, h·w, d)
        return patches.permute(0, 1, 3, 2).flatten(1, 2).unflatten(2, self.grid)


def tokens_of(maps: Tensor) -> Tokens:
    """Queries and keys of the last block from the forward pass that made these feature maps.

    Raises:
        UsageError: the maps do not come from a :class:`ViT`, or were indexed, detached or split afterwards.
    """
    tokens = getattr(maps, "tokens", None)
    if tokens is None:
        raise UsageError("these feature maps carry no attention: use a ViT (backbone=vit) and its maps as they are")
    return tokens


class ViT(nn.Module):
    """A timm ViT that returns its patch tokens as a map and one vector per image.

    Args:
        name: for reports.
        model: timm's, built without classifier and with ``dynamic_img_size=True``.
        vector: "cls": the class token; "mean": the mean of the patch tokens (for models without class token).

    Raises:
        UsageError: a model that is no plain ViT, or one without class token for ``vector="cls"``.
    """

    def __init__(self, name: str, model: nn.Module, vector: str = "cls"):
        super().__init__()
        if vector not in VECTORS:
            raise unknown("vector of a ViT", vector, VECTORS)
        if not isinstance(model, VisionTransformer):
            raise UsageError(f"'{name}' is a {type(model).__name__}, not one of timm's plain vision transformers")
        if vector == "cls" and model.cls_token is None:
            raise UsageError(f"'{name}' has no class token; set backbone.vector=mean")
        self.name = name
        self.model = model
        self.dim = model.num_features
        self.patch = model.patch_embed.patch_size[0]
        self.prefix = model.num_prefix_tokens
        self.vector = vector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps (B, C, h, w) and vectors (B, C) of images (B, 3, s, s); the maps carry their :class:`Tokens`.

        Raises:
            UsageError: a side that the patches do not divide.
        """
        if images.shape[2] % self.patch or images.shape[3] % self.patch:
            raise UsageError(f"views of {images.shape[2]} px do not split into patches of {self.patch} px")
        grid = (images.shape[2] // self.patch, images.shape[3] // self.patch)
        attention = self.model.blocks[-1].attn
        with inputs_of_attention([attention]) as seen:
            tokens = self.model.forward_features(images)  # (B, P + h·w, C)
        maps = tokens[:, self.prefix :].transpose(1, 2).unflatten(2, grid)
        if self.model.cls_token is not None:
            query, key = (part.detach() for part in seen[0])
            maps.tokens = Tokens(query[:, :, 0], key, grid, attention.scale)
        return maps, tokens[:, 0] if self.vector == "cls" else maps.mean(dim=(2, 3))

    @torch.no_grad()
    def attentions(self, images: Tensor) -> list[Tensor]:
        """The class token's attention (B, H, h, w) in every block, first to last."""
        grid = (images.shape[2] // self.patch, images.shape[3] // self.patch)
        layers = [block.attn for block in self.model.blocks]
        with inputs_of_attention(layers) as seen:
            self.model.forward_features(images)
        return [Tokens(q[:, :, 0], k, grid, layer.scale).attention for (q, k), layer in zip(seen, layers, strict=True)]


@contextmanager
def inputs_of_attention(layers: list[nn.Module]) -> Iterator[list[list[Tensor]]]:
    """Within the context, a forward pass fills the list: query and key (B, H, T, d) of each layer, in their order.

    NOTE: they are taken before their product, so that fused attention, which does not return its weights, can be used.
    """
    seen: list[list[Tensor]] = [[] for _ in layers]

    def keep(place: list[Tensor]):
        return lambda module, inputs, output: place.append(output)

    handles = [
        norm.register_forward_hook(keep(place))
        for layer, place in zip(layers, seen, strict=True)
        for norm in (layer.q_norm, layer.k_norm)  # called in this order
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def vit(name: str, *, vector: str = "cls", weights: str | None = None, fixed_patches: bool = False, **options) -> ViT:
    """The ViT of a timm name, freshly initialised from torch's global generator or with weights of its own.

    Args:
        name: as in ``timm.list_models("vit_*")``, without a tag.
        vector: see :class:`ViT`.
        weights: None, or ``timm/TAG`` for timm's pre-trained weights of that tag (``timm/dino``, ``timm/lvd142m``,
            ``timm/mae``), from its cache on disk or over the network.
        fixed_patches: the patch projection keeps its first weights (MoCo v3, arXiv 2104.02057, section 4.2: stability).
        options: of the model's constructor: img_size, patch_size, embed_dim, depth, num_heads, drop_path_rate, …

    Raises:
        UsageError: no such model or option, weights of another form than ``timm/TAG``, or weights that are neither
            cached nor can be downloaded.
    """
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models("vit_*"), n=5, cutoff=0.4)
        raise UsageError(f"unknown timm ViT '{name}'; nearest: {', '.join(near) or 'none'}")
    full = name
    if weights is not None:
        source, _, tag = weights.partition("/")
        if source != "timm" or not tag:
            raise UsageError(f"backbone.weights is timm/TAG, for example timm/dino, not '{weights}'")
        full = f"{name}.{tag}"
    options = {"dynamic_img_size": True, "num_classes": 0, **options}
    try:
        model = timm.create_model(full, pretrained=weights is not None, **options)
    except TypeError as error:
        raise UsageError(f"timm ViT '{name}' does not take these options: {error}") from error
    except (OSError, RuntimeError, ValueError) as error:
        if weights is None:
            raise
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"weights '{weights}' of '{name}' are not available here: {reason}") from error
    if weights is None and model.cls_token is not None:
        nn.init.trunc_normal_(model.cls_token, std=0.02)  # as in the code of DINO and MAE; timm starts it at 1e-6
    model.patch_embed.requires_grad_(not fixed_patches)
    return ViT(name, model, vector)
