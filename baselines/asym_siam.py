"""Asym-Siam: a source branch of higher variance than the target branch (Wang et al., CVPR 2022, arXiv 2204.00613).

The paper's baseline is MoCo v2 with a head of three layers. Each switch raises the variance of the source (query) or
lowers that of the target (key):

    scale_mix   source   a box of one augmented view, pasted into another view of the image; its side: sqrt(1 - lambda)
    asym_aug    both     source: its augmentation, then RandAugment; target: crop and flip only
    asym_bn     target   BN of the target's head over the whole batch, the source's over its groups
    mean_enc    target   key = n((z'(v) + z'(w)) / 2) of two augmented views v, w, z' = g'(GAP f'(.)) of any length

MultiCrop, six small views as further queries, needs no switch: they are extra views of the recipe.

The source view is the recipe's first global view, the target view its second. The switches take the recipe's first
extra views: ``scale_mix`` and ``mean_enc`` one each, in this order and of the global views' distribution. With
``asym_aug`` the extra views are the target's, one, or two with ``mean_enc``, of crops and flips only; the second global
view is then the second view of ``scale_mix``, and without that it is not used. Extra views that are left are queries.

Official code: facebookresearch/asym-siam (CC-BY-NC 4.0).

NOTE: the loss is the mean over pairs. With MultiCrop and the weight 1 / count of each small view it is half of the
official loss, which adds the mean over the small views to the loss of the large one.
NOTE: small views of one size share a forward pass, and with it BN's statistics; in the official code each has its own.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment, rand_augment_transform
from torch import Tensor, nn

from baselines.moco import QUEUE_SIZE, MoCo, QueueContrast
from scd.data.cut_views import uniform
from scd.errors import UsageError
from scd.method import View
from scd.nn.features import maps_and_vector
from scd.nn.heads import MLP
from scd.nn.norm import group_batch_norm, has_batch_norm
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from scd.nn.processes import gather, place
from scd.siamese import Encoded, Features, MomentumSiamese

# timm's name for 2 operations of magnitude 10, whose standard deviation is 0.5. The official code also sets the option
# translate_const, which the operations of this policy do not read.
RAND_AUGMENT = "rand-m10-n2-mstd0.5"
SEEDS = 2**24  # different values of torch's uniform numbers


@dataclass
class Keys(Features):
    """Features of target views, and what the target's head makes of them: (B, D), of any length."""

    embeddings: Tensor


class AsymSiam(MoCo):
    """MoCo v2 with the switches of Asym-Siam, and the asymmetric loss.

    Args:
        backbone, dim, queue_size, momentum, temperature: as of :class:`baselines.moco.MoCo`.
        hidden: width of the head's hidden layers; C when None (official).
        bn_groups: as of MoCo; the head's BN is split as the backbone's.
        three_layers: True: the head of the paper's baseline, Linear-BN-ReLU-Linear-ReLU-Linear; False: that of MoCo v2.
        scale_mix, asym_aug, asym_bn, mean_enc: the switches.

    Raises:
        UsageError: ``asym_bn`` and a head without BN. In a step: fewer extra views than the switches take, or views of
            another size than the global ones.

    NOTE: in one process with ``bn_groups=1`` BN is over the whole batch in both branches, and ``asym_bn`` changes
    nothing.
    NOTE: a wrapper around this method sees the mixed source view with the rectangle of the view that was pasted into,
    and the features of the first target view alone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int = 128,
        hidden: int | None = None,
        queue_size: int = QUEUE_SIZE,
        momentum: float = 0.999,
        temperature: float = 0.2,
        bn_groups: int = 1,
        three_layers: bool = True,
        scale_mix: bool = False,
        asym_aug: bool = False,
        asym_bn: bool = False,
        mean_enc: bool = False,
    ):
        if asym_bn and not three_layers:
            raise UsageError("asym_bn needs a head with batch norm; set three_layers=true")
        width = backbone.dim if hidden is None else hidden
        MomentumSiamese.__init__(  # of MoCo's own, the head differs
            self,
            backbone=group_batch_norm(backbone, bn_groups),
            projector=three_layer_head(backbone.dim, width, dim) if three_layers else MLP((backbone.dim, width, dim)),
            matcher=QueueContrast(dim, queue_size, temperature),
            momentum=momentum,
        )
        group_batch_norm(self.projector, bn_groups)
        if not asym_bn:
            group_batch_norm(self.target_projector, bn_groups)
        self.bn_groups = bn_groups
        self.shuffles = has_batch_norm(backbone) or three_layers
        self.scale_mix, self.asym_aug, self.asym_bn, self.mean_enc = scale_mix, asym_aug, asym_bn, mean_enc
        self.rand_augment = rand_augment_transform(RAND_AUGMENT, {})

    # ---------------------------------------------------------------- views

    def encode(self, views: dict[str, View]) -> Encoded:
        """Features of the source's views, and under the second global view's name those of the target's."""
        views, targets = self.by_branch(views)
        pairs = self.pairs(views)
        online = self.encode_each(views, self.online_views(pairs), self.encode_online)
        return Encoded(views, online, {pairs[0][1]: self.encode_targets(targets)}, pairs)

    def by_branch(self, views: dict[str, View]) -> tuple[dict[str, View], list[View]]:
        """The views with the source's, by name, and the first of the target's in their places; and the target's views.

        Raises:
            UsageError: see the class.
        """
        first, second = self.pairs(views)[0]
        extras = [view for view in views.values() if view.role == "extra"]
        taken = extras[: self.extra_views]
        shapes = {tuple(view.images.shape) for view in (views[first], *taken)}
        if len(taken) < self.extra_views or len(shapes) > 1:
            distribution = ", photometric: none, scale: [0.08, 1.0]" if self.asym_aug else ""
            raise UsageError(
                f"AsymSiam's switches take {self.extra_views} extra views of the global views' size; set views.extra="
                f"{{kind: random, count: {self.extra_views}{distribution}}}"
            )
        further = [views[second], *taken]  # in the order of their use
        if self.asym_aug and not self.scale_mix:
            further.pop(0)
        elif self.scale_mix and not self.asym_aug:
            further[:2] = reversed(further[:2])
        source = self.strong(views[first])
        if self.scale_mix:
            source = scale_mixed(source, self.strong(further.pop(0)))
        left = {view.name: view for view in extras[self.extra_views :]}
        target = replace(further[0], name=second, role="global", weight=views[second].weight)
        return {first: source, second: target, **left}, further

    @property
    def extra_views(self) -> int:
        """How many of the recipe's extra views the switches take."""
        return 1 + self.mean_enc if self.asym_aug else self.scale_mix + self.mean_enc

    def strong(self, view: View) -> View:
        """A view of the source, after RandAugment where ``asym_aug`` is on."""
        return replace(view, images=rand_augmented(view.images, self.rand_augment)) if self.asym_aug else view

    # ---------------------------------------------------------------- the target branch

    @torch.no_grad()
    def encode_targets(self, targets: list[View]) -> Keys:
        """Features of the first target view, and the mean of the embeddings of all, which share a forward pass."""
        keys = self.encode_target(torch.cat([view.images for view in targets]))
        maps, pooled, embeddings = (
            x.unflatten(0, (len(targets), -1)) for x in (keys.maps, keys.pooled, keys.embeddings)
        )
        return Keys(maps[0], pooled[0], embeddings.mean(dim=0))

    def encode_target(self, images: Tensor) -> Keys:
        """Features and embeddings of images (B, 3, s, s), shuffled as in MoCo.

        The head's BN has the groups of the backbone's; with ``asym_bn`` it is over the whole batch of all processes.
        """
        rank, world = place()
        count = len(images)
        own = slice(rank * count, (rank + 1) * count)  # this process's rows of the whole batch
        shuffled = self.shuffles and self.training and self.bn_groups * world > 1
        if shuffled:
            order = torch.randperm(count * world, device="cpu").to(images.device)
            images = gather(images)[order[own]]
        maps, pooled = maps_and_vector(self.target_backbone(images))
        embeddings = self.target_projector(gather(pooled))[own] if self.asym_bn else self.target_projector(pooled)
        if not shuffled:
            return Keys(maps, pooled, embeddings)
        back = order.argsort()[own]
        return Keys(gather(maps)[back], gather(pooled)[back], gather(embeddings)[back])

    def target_embeddings(self, encoded: Encoded, online: dict[str, Tensor]) -> dict[str, Tensor]:
        """The embeddings that :meth:`encode_targets` has made."""
        return {name: keys.embeddings for name, keys in encoded.target.items()}


def three_layer_head(channels: int, hidden: int, dim: int) -> MLP:
    """The head of the paper's baseline: batch norm after the first linear layer alone."""
    head = MLP((channels, hidden, hidden, dim), norm="batch")
    del head.layers[4]  # the batch norm after the second linear layer
    return head


# -------------------------------------------------------------------- ScaleMix


def scale_mixed(view: View, other: View) -> View:
    """ScaleMix: a view with a box of another view of the same size; masks and segments are mixed as the pixels are.

    NOTE: rectangles, flips and boxes are those of the first view, of which the pasted box shows nothing.
    """
    pasted = box_pixels(uniform(len(view.images), 3), view.images.shape[-1]).to(view.images.device)
    images = torch.where(pasted[:, None], other.images, view.images)
    masks, segments = (
        None if mine is None else torch.where(pasted, theirs, mine)
        for mine, theirs in ((view.masks, other.masks), (view.segments, other.segments))
    )
    return replace(view, images=images, masks=masks, segments=segments)


def box_pixels(draws: Tensor, side: int) -> Tensor:
    """CutMix's box as bool (B, side, side): of the side floor(side sqrt(1 - lambda)), cut at the borders.

    Args:
        draws: (B, 3) uniform numbers in [0, 1): lambda, and the row and the column of the centre.
        side: of the view, in pixels.
    """
    draws = draws.double()
    half = (side * (1 - draws[:, :1]).sqrt()).long() // 2  # (B, 1)
    centre = (side * draws[:, 1:]).long()  # (B, 2)
    low, high = (end.clamp(0, side)[:, :, None] for end in (centre - half, centre + half))
    line = torch.arange(side)
    rows, columns = ((line >= low) & (line < high)).unbind(dim=1)  # (B, side) each
    return rows[:, :, None] & columns[:, None, :]


# -------------------------------------------------------------------- AsymAug


@torch.no_grad()
def rand_augmented(images: Tensor, transform: RandAugment) -> Tensor:
    """RandAugment of each image (B, 3, s, s) by random numbers of its own; a new tensor, on the images' device.

    The policy is timm's, which the official code takes as well. It works on 8-bit images and draws from Python's and
    numpy's generators; a number from torch's generator seeds both for each image, and then they are put back.

    NOTE: the views are rounded to 8 bits for it, after the photometric augmentation, which here works on floats.
    """
    if images.is_meta:
        return images
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (images * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8)
    pixels = pixels.permute(0, 2, 3, 1).cpu().numpy()
    seeds = (uniform(len(images), 1)[:, 0].double() * SEEDS).long().tolist()
    changed = []
    with own_random_numbers():
        for image, seed in zip(pixels, seeds, strict=True):
            random.seed(seed)
            np.random.seed(seed)
            changed.append(np.asarray(transform(Image.fromarray(np.ascontiguousarray(image)))))
    result = torch.from_numpy(np.stack(changed)).to(images.device).permute(0, 3, 1, 2)
    return normalise(result.to(images.dtype).div_(255).contiguous())


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """Keep the states of Python's and numpy's generators while they are used otherwise."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
