"""The Siamese contract: an online and a momentum branch over feature maps, the pairing of views, one image-level loss.

MoCo, BYOL and DINO are three choices of projector, matcher and momentum; SCD, LEWEL and the dense methods take the very
feature maps that :meth:`Siamese.encode` returns and add their difference to :meth:`Siamese.image_loss`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scd.data.views import View
from scd.nn.ema import copy_without_grad, cosine_momentum, ema_update
from scd.nn.features import maps_and_vector

Pair = tuple[str, str]


@dataclass
class Features:
    """What a backbone says of one view: ``maps`` (B, C, h, w), and ``pooled`` (B, C): their mean, or a CLS token."""

    maps: Tensor
    pooled: Tensor


@dataclass
class Encoded:
    """All features of one batch, by view name, and the (online view, target view) pairs that are compared."""

    views: dict[str, View]
    online: dict[str, Features]
    target: dict[str, Features]
    pairs: list[Pair]


class Matcher(nn.Module):
    """Compares an online embedding with a target embedding; owns what the comparison needs (predictor, queue, centre).

    ``forward(online, target)`` takes two embeddings (B, D) and returns a scalar, the mean over the batch. ``remember``
    is called once a step with the target embeddings, each view once; ``after_step`` may then change the state (enqueue,
    move a centre), so that no loss ever sees its own step's keys as negatives.
    """

    def remember(self, targets: list[Tensor]) -> None:
        """Keep this step's target embeddings until ``after_step``; stateless matchers keep nothing."""

    def after_step(self) -> None:
        """Change the state after the optimiser step; stateless matchers do nothing."""


class Siamese(nn.Module):
    """An online branch, its exponential moving average, and a mean loss over (online view, target view) pairs.

    Args:
        backbone: module with ``.dim`` that maps images (B, 3, s, s) to feature maps (B, C, h, w).
        projector: maps pooled features (B, C), or tokens (B, T, C), to embeddings of dimension D.
        matcher: the framework's own loss between two embeddings.
        momentum: share of the target that stays at each step, the EMA's m at the start of training.
        momentum_schedule: "constant" (MoCo) or "cosine", which brings m to 1 at the last step (BYOL, DINO).
        symmetric: False pairs the first global view (query) with the second (key); True pairs both ways.

    NOTE: the loss is the mean over pairs. MoCo's and BYOL's symmetric losses are sums over two directions; the mean
    keeps the gradient's scale independent of the number of views, so that arms with more views differ in views only.
    NOTE: the EMA runs in ``after_step``. MoCo runs it between the query's and the key's forward pass; both give the
    same sequence of target weights at every key forward pass, since the online weights do not change in between.
    """

    needs = "none"
    supervision = "unsupervised"

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        matcher: Matcher,
        momentum: float,
        momentum_schedule: str = "constant",
        symmetric: bool = False,
    ):
        super().__init__()
        if momentum_schedule not in ("constant", "cosine"):
            raise ValueError(f"momentum_schedule is 'constant' or 'cosine', not '{momentum_schedule}'")
        self.backbone = backbone
        self.projector = projector
        self.target_backbone = copy_without_grad(backbone)
        self.target_projector = copy_without_grad(projector)
        self.matcher = matcher
        self.base_momentum = momentum
        self.momentum_schedule = momentum_schedule
        self.symmetric = symmetric

    # ---------------------------------------------------------------- views and features

    def pairs(self, views: dict[str, View]) -> list[Pair]:
        """Which online view is compared with which target view.

        Two global views: (v1, v2), and (v2, v1) when symmetric. An extra view (role "extra") is online only: it is
        compared with every target view that the global views use, the second one in the asymmetric form.

        Raises:
            ValueError: not exactly two views have the role "global".
        """
        globals_ = [name for name, view in views.items() if view.role == "global"]
        if len(globals_) != 2:
            raise ValueError(f"{type(self).__name__} pairs two global views, the recipe gives {len(globals_)}")
        first, second = globals_
        pairs = [(first, second)] + ([(second, first)] if self.symmetric else [])
        targets = [second, first] if self.symmetric else [second]
        extras = [name for name, view in views.items() if view.role == "extra"]
        return pairs + [(extra, target) for extra in extras for target in targets]

    def encode(self, views: dict[str, View]) -> Encoded:
        """Feature maps of every view that a pair needs: online ones with, target ones without gradient.

        NOTE: a global view has a forward pass of its own; extra views of one size share one, as in SwAV and DINO, so BN
        never mixes resolutions, and never an extra view with a global one.
        """
        pairs = self.pairs(views)
        online: dict[str, Features] = {}
        for names in passes(views, unique(i for i, _ in pairs)):
            if len(names) == 1:
                online[names[0]] = self.encode_online(views[names[0]].images)
                continue
            together = self.encode_online(torch.stack([views[name].images for name in names], dim=1).flatten(0, 1))
            shape = (-1, len(names))  # (B·V, ...) -> (B, V, ...): all views of an image stay in its BN group
            parts = zip(*(part.unflatten(0, shape).unbind(1) for part in (together.maps, together.pooled)), strict=True)
            online |= {name: Features(*part) for name, part in zip(names, parts, strict=True)}
        with torch.no_grad():
            target = {name: self.encode_target(views[name].images) for name in unique(j for _, j in pairs)}
        return Encoded(views, online, target, pairs)

    def encode_online(self, images: Tensor) -> Features:
        """Features (of one view, or of several of one size in a row) from the online backbone."""
        return Features(*maps_and_vector(self.backbone(images)))

    def encode_target(self, images: Tensor) -> Features:
        """Features of the momentum backbone; a framework with its own rule for keys (shuffling) overrides this."""
        return Features(*maps_and_vector(self.target_backbone(images)))

    # ---------------------------------------------------------------- loss

    def image_loss(self, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """The framework's own loss on pooled features, averaged over pairs, and scalars worth logging."""
        online = {name: self.projector(features.pooled) for name, features in encoded.online.items()}
        with torch.no_grad():
            target = {name: self.target_projector(features.pooled) for name, features in encoded.target.items()}
        loss = match(self.matcher, encoded.pairs, online, target)
        return loss, {"image_loss": loss.detach()}

    def forward(self, views: dict[str, View]) -> dict[str, Tensor]:
        """One step's loss from the views of a batch: ``{"loss": scalar, ...}``."""
        loss, logs = self.image_loss(self.encode(views))
        return {"loss": loss, **logs}

    # ---------------------------------------------------------------- momentum

    def momentum(self, progress: float) -> float:
        """The EMA's m at a point of training, ``progress`` in [0, 1]."""
        if self.momentum_schedule == "constant":
            return self.base_momentum
        return cosine_momentum(self.base_momentum, progress)

    def after_step(self, progress: float) -> None:
        """Move the target towards the online branch and let the matcher change its state.

        NOTE: parameters only; the target's BN buffers come from its own forward passes (MoCo, BYOL).
        """
        m = self.momentum(progress)
        ema_update(self.target_backbone, self.backbone, m)
        ema_update(self.target_projector, self.projector, m)
        self.matcher.after_step()

    def saliency(self, images: Tensor) -> Tensor | None:
        """A map (B, h, w) in [0, 1] of where the foreground is, or None: an image-level method has none."""
        return None


def match(matcher: Matcher, pairs: list[Pair], online: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
    """Mean of the matcher's loss over pairs; the matcher is then told this step's target embeddings, each view once."""
    losses = [matcher(online[i], target[j]) for i, j in pairs]
    matcher.remember([target[name] for name in unique(j for _, j in pairs)])
    return torch.stack(losses).mean()


def passes(views: dict[str, View], names: list[str]) -> list[list[str]]:
    """The names in groups that go through the backbone together: each global view alone, extra views by size."""
    groups: dict[tuple, list[str]] = {}
    for name in names:
        view = views[name]
        key = (name,) if view.role == "global" else tuple(view.images.shape)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def unique(names: Iterable[str]) -> list[str]:
    """The names in their first order, each once."""
    return list(dict.fromkeys(names))
