"""A ViT that groups its patches into segments: the backbone of GroupViT (Xu et al., CVPR 2022, arXiv 2202.11094).

Its blocks are divided into stages. Learned group tokens go through the blocks of a stage together with the N segments
s_j (at first the patches). Each of the G groups then takes the segments that are assigned to it, and the groups are the
segments of the next stage:

    A_ij = softmax over groups i of (q_i . k_j / sqrt(C) + gamma_ij)     gamma: Gumbel noise, in training alone
    H    = one_hot(argmax over i of A_ij), with the gradient of A        (straight-through)
    s'_i = g_i + W_o ( sum_j H_ij v_j / (1 + sum_j H_ij) )               and an MLP with a residual connection

q comes from the group g_i, k and v from the segments. The 1 leaves a group without segments as it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from scd.errors import UsageError
from scd.nn.precision import at_least_float32
from scd.nn.vit import ViT


@dataclass(frozen=True)
class Segments:
    """What a grouping ViT found in B images.

    Args:
        patches: (B, N, C), after the first stage's blocks and a norm.
        keys: (B, N, C), what the first assignment compares the patches by.
        vectors: (B, G, C), of the last stage's segments, after the final norm.
        soft: the assignment of each stage (B, groups, segments before it) without noise; its sums over groups are 1.
        grid: h and w, N = h·w.
    """

    patches: Tensor
    keys: Tensor
    vectors: Tensor
    soft: tuple[Tensor, ...]
    grid: tuple[int, int]

    def memberships(self) -> Tensor:
        """How much of each patch belongs to each last segment, (B, G, h, w): the product of the soft assignments."""
        return chained(self.soft).unflatten(2, self.grid)

    @property
    def pooled(self) -> Tensor:
        """The vector (B, C) of each image."""
        return self.vectors.mean(dim=1)


@dataclass(frozen=True)
class SegmentTokens:
    """Stands in for :class:`scd.nn.vit.Tokens` on a ViT without class token, for what reads its attention.

    Args:
        soft: as of :class:`Segments`, without gradient.
        key: (B, N, C), without gradient.
        grid: h and w.
    """

    soft: tuple[Tensor, ...]
    key: Tensor
    grid: tuple[int, int]

    @property
    def attention(self) -> Tensor:
        """What part of each segment comes from each patch, (B, G, h, w): a head is a segment.

        The mean over heads is what part of the image's vector, the mean of its segments, comes from each patch. Each
        assignment is divided by the same sums as in the grouping. Residual connections and MLPs are left out, as in any
        map of attention.
        """
        return chained([normalised(soft) for soft in self.soft]).unflatten(2, self.grid)

    @property
    def keys(self) -> Tensor:
        """What the first assignment compares the patches by, (B, C, h, w)."""
        return self.key.transpose(1, 2).unflatten(2, self.grid)


class GroupingViT(nn.Module):
    """A ViT whose blocks are divided into stages, with an assignment of segments to groups after each but the last.

    Args:
        vit: its blocks, embeddings and norms are used. A class token and registers are taken out of it.
        groups: number of groups of each stage that ends in an assignment.
        blocks: of each stage and of the rest; when None, half of them in the first stage and the others in equal parts.

    Feature maps are the patches after the first stage: the last ones that each patch has for itself.

    Raises:
        UsageError: numbers of groups or blocks that do not fit.

    NOTE: all stages have the same width, as in the official models.
    """

    def __init__(self, vit: ViT, groups: Sequence[int], blocks: Sequence[int] | None = None):
        super().__init__()
        if not groups or min(groups) < 1:
            raise UsageError(f"GroupViT's groups are one or more numbers of 1 or more, not {list(groups)}")
        depth, dim = len(vit.model.blocks), vit.dim
        blocks = divided(depth, len(groups)) if blocks is None else list(blocks)
        if len(blocks) != len(groups) + 1 or sum(blocks) != depth or min(blocks) < 0:
            raise UsageError(
                f"GroupViT's blocks are {len(groups) + 1} numbers, of each stage and of the rest, that sum to {depth}, "
                f"not {blocks}"
            )
        self.vit = without_prefix(vit)
        self.dim = dim
        self.name = f"grouping {vit.name}"
        self.ends = [sum(blocks[: i + 1]) for i in range(len(blocks))]
        heads = vit.model.blocks[0].attn.num_heads
        # the first stage's tokens are learned freely; later ones start at 0, beside what the stage before passes on
        self.tokens = nn.ParameterList([nn.Parameter(torch.zeros(1, count, dim)) for count in groups])
        nn.init.trunc_normal_(self.tokens[0], std=0.02)
        self.passed_on = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), AlongTokens(before, dim // 2, count))
            for before, count in zip(groups[:-1], groups[1:], strict=True)
        )
        self.grouping = nn.ModuleList(Grouping(dim, heads, count) for count in groups)
        for part in (self.passed_on, self.grouping):
            part.apply(start)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps (B, C, h, w) and vectors (B, C) of images (B, 3, s, s); maps carry :class:`SegmentTokens`."""
        found = self.segments(images)
        maps = found.patches.transpose(1, 2).unflatten(2, found.grid)
        maps.tokens = SegmentTokens(tuple(each.detach() for each in found.soft), found.keys.detach(), found.grid)
        return maps, found.pooled

    def segments(self, images: Tensor) -> Segments:
        """The segments of images (B, 3, s, s).

        Raises:
            UsageError: a side that the patches do not divide.
        """
        model, side = self.vit.model, self.vit.patch
        if images.shape[2] % side or images.shape[3] % side:
            raise UsageError(f"views of {images.shape[2]} px do not split into patches of {side} px")
        x = model.norm_pre(model._pos_embed(model.patch_embed(images)))  # (B, N, C)
        before, first, soft = None, None, []
        for stage, (grouping, end) in enumerate(zip(self.grouping, self.ends[:-1], strict=True)):
            tokens = self.tokens[stage].expand(len(x), -1, -1)
            if stage:
                tokens = tokens + self.passed_on[stage - 1](before)
            count = x.shape[1]
            both = torch.cat([x, tokens], dim=1)
            for block in model.blocks[self.ends[stage - 1] if stage else 0 : end]:
                both = block(both)
            x, before = both[:, :count], both[:, count:]
            seen = grouping.norm(x)
            if first is None:
                first = (seen, grouping.key(seen))
            x, assigned = grouping(seen, before)
            soft.append(assigned)
        for block in model.blocks[self.ends[-2] :]:
            x = block(x)
        grid = (images.shape[2] // side, images.shape[3] // side)
        return Segments(*first, model.norm(x), tuple(soft), grid)


class Grouping(nn.Module):
    """Groups take the segments that are assigned to them.

    Args:
        dim: C. heads: of the attention before the assignment, which itself has one. groups: G.
    """

    def __init__(self, dim: int, heads: int, groups: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)  # of the segments
        self.norm_tokens, self.mix = nn.LayerNorm(dim), AlongTokens(groups, dim // 2, groups)
        self.norm_mixed = nn.LayerNorm(dim)
        # the groups look at the segments
        self.look = nn.ModuleDict({name: nn.Linear(dim, dim) for name in ("query", "key", "value", "out")})
        self.norm_looked, self.look_mlp, self.norm_groups = nn.LayerNorm(dim), Mlp(dim, 4 * dim), nn.LayerNorm(dim)
        # the assignment
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_segments, self.mlp = nn.LayerNorm(dim), Mlp(dim, 4 * dim)

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """New segments (B, G, C), and the soft assignment (B, G, N) without noise.

        Args:
            x: segments (B, N, C), after ``norm``.
            tokens: group tokens (B, G, C).
        """
        groups = self.norm_mixed(self.mix(self.norm_tokens(tokens)))
        groups = groups + self.looked(groups, x)
        groups = self.norm_groups(groups + self.look_mlp(self.norm_looked(groups)))

        logits = at_least_float32(self.query(groups) @ self.key(x).transpose(1, 2)) * x.shape[2] ** -0.5  # (B, G, N)
        soft = logits.softmax(dim=1)
        assigned = hard((logits + gumbel(logits)).softmax(dim=1) if self.training else soft)
        taken = normalised(assigned).to(x.dtype) @ self.value(x)
        segments = groups + self.out(taken)
        return segments + self.mlp(self.norm_segments(segments)), soft

    def looked(self, groups: Tensor, x: Tensor) -> Tensor:
        """What each group (B, G, C) sees of the segments (B, N, C), by attention of several heads."""
        parts = {"query": groups, "key": x, "value": x}
        q, k, v = (self.look[name](part).unflatten(2, (self.heads, -1)).transpose(1, 2) for name, part in parts.items())
        return self.look["out"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class AlongTokens(nn.Module):
    """An MLP over the token axis, from T to T' tokens (B, T, C), each channel on its own."""

    def __init__(self, tokens: int, hidden: int, tokens_out: int):
        super().__init__()
        self.mlp = Mlp(tokens, hidden, tokens_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x.transpose(1, 2)).transpose(1, 2)


@torch.no_grad()
def without_prefix(vit: ViT) -> ViT:
    """The same ViT without class token, registers and their positions."""
    model = vit.model
    if vit.prefix and not model.no_embed_class:
        free = model.pos_embed.requires_grad
        model.pos_embed = nn.Parameter(model.pos_embed[:, vit.prefix :].clone(), requires_grad=free)
    model.cls_token = model.reg_token = None
    model.has_class_token, model.num_reg_tokens, model.num_prefix_tokens = False, 0, 0
    vit.prefix, vit.vector = 0, "mean"
    return vit


def start(module: nn.Module) -> None:
    """First weights as in the ViT's blocks."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def divided(depth: int, stages: int) -> list[int]:
    """Numbers of blocks: half of them in the first stage, the others in ``stages`` further parts, larger ones first."""
    first = math.ceil(depth / 2)
    return [first, *((depth - first + stages - 1 - part) // stages for part in range(stages))]


def gumbel(like: Tensor) -> Tensor:
    """Gumbel(0, 1) noise of a tensor's shape, from torch's global generator on the CPU, so that all devices agree."""
    draw = torch.empty(like.shape, device="cpu").exponential_()
    return -draw.clamp_min(torch.finfo(draw.dtype).tiny).log().to(like)


def hard(soft: Tensor) -> Tensor:
    """One-hot of the largest over dimension 1 of (B, G, N), with the gradient of ``soft`` (straight-through)."""
    one_hot = torch.zeros_like(soft).scatter(1, soft.argmax(dim=1, keepdim=True), 1.0)
    return one_hot - soft.detach() + soft


def normalised(assigned: Tensor) -> Tensor:
    """What part of each group comes from each segment, of assignments (B, G, N): a mean that counts one further row."""
    return assigned / (assigned.sum(dim=2, keepdim=True) + 1)


def chained(assignments: Sequence[Tensor]) -> Tensor:
    """The product (B, G_last, N) of each stage's matrix (B, groups, segments before it), first to last."""
    product = assignments[0]
    for each in assignments[1:]:
        product = each @ product
    return product
