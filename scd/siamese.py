"""Joint-embedding methods over feature maps: pairs of views, one image-level loss, with or without a momentum branch.

MoCo, BYOL and DINO are three choices of projector, matcher and momentum; SCD, LEWEL and the dense methods take the very
feature maps that :meth:`JointEmbedding.encode` returns and add their own loss to :meth:`JointEmbedding.image_loss`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from scd.errors import UsageError
from scd.method import Batch, Method, ParameterGroup, Parts, View
from scd.nn.ema import copy_without_grad, cosine_momentum, ema_update
from scd.nn.features import maps_and_vector

Pair = tuple[str, str]
Result = TypeVar("Result")


@dataclass
class Features:
    """The backbone's output for one view: ``maps`` (B, C, h, w), and ``pooled`` (B, C): their mean, or a CLS token."""

    maps: Tensor
    pooled: Tensor


@dataclass
class Encoded:
    """All features of one batch, by view name, and the (online view, target view) pairs that are compared."""

    views: dict[str, View]
    online: dict[str, Features]
    target: dict[str, Features]
    pairs: list[Pair]

    @property
    def weights(self) -> list[float]:
        """Weight of each pair in the image-level loss, that of its online view."""
        return [self.views[i].weight for i, _ in self.pairs]


class Matcher(nn.Module):
    """Compares an online embedding with a target embedding; owns what the comparison needs (predictor, queue, centre).

    ``forward(online, target)`` takes two embeddings (B, D) and returns a scalar, the mean over the batch. ``remember``
    is called once a step with the target embeddings, each view once; ``after_step`` may then change the state (enqueue,
    move a centre), so that no loss ever sees its own step's keys as negatives.
    """

    def remember(self, targets: list[Tensor]) -> None:
        """Keep this step's target embeddings until ``after_step``; stateless matchers keep nothing."""

    def after_backward(self) -> None:
        """Called between the backward pass and the optimiser step."""

    def after_step(self, progress: float) -> None:
        """Change the state after the optimiser step; stateless matchers do nothing."""


class JointEmbedding(Method):
    """One network, pairs of views, and the mean of a loss over pairs; the target of a pair is the network itself.

    The matcher decides whether a gradient flows through the target: SimSiam's detaches it, Barlow Twins' does not.

    Args:
        backbone: module with ``.dim`` that maps images (B, 3, s, s) to feature maps (B, C, h, w).
        projector: maps pooled features (B, C), or tokens (B, T, C), to embeddings of dimension D.
        matcher: the method's own loss between two embeddings.
        symmetric: False pairs the first global view with the second; True pairs both ways.

    NOTE: the loss is the mean over pairs. Papers with symmetric losses often sum over the two directions; the mean
    keeps the gradient's scale independent of the number of views, so that arms with more views differ in views only.
    NOTE: by default all pairs have equal weights, as in SwAV and DINO: with 2 extra views the pair of global views has
    weight 1/3 in the asymmetric form. Asym-Siam gives it the same weight as all small views together: that is
    ``views.extra.weight``, one over their number. The weights hold in the image-level loss; the dense loss of DenseCL,
    the aligned one of LEWEL and both of SlotCon are plain means over pairs.

    Attributes:
        global_views_together: whether the two global views share a forward pass, and with it BN's statistics (DINO).
    """

    global_views_together = False

    def __init__(self, backbone: nn.Module, projector: nn.Module, matcher: Matcher, symmetric: bool = True):
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.matcher = matcher
        self.symmetric = symmetric

    # ---------------------------------------------------------------- views and features

    def pairs(self, views: dict[str, View]) -> list[Pair]:
        """Which online view is compared with which target view.

        Two global views: (v1, v2), and (v2, v1) when symmetric. An extra view (role "extra") is online only: it is
        compared with every target view that the global views use, the second one in the asymmetric form.

        Raises:
            UsageError: not exactly two views have the role "global".
        """
        globals_ = [name for name, view in views.items() if view.role == "global"]
        if len(globals_) != 2:
            raise UsageError(f"{type(self).__name__} pairs two global views, the recipe gives {len(globals_)}")
        first, second = globals_
        pairs = [(first, second)] + ([(second, first)] if self.symmetric else [])
        targets = [second, first] if self.symmetric else [second]
        extras = [name for name, view in views.items() if view.role == "extra"]
        return pairs + [(extra, target) for extra in extras for target in targets]

    def encode(self, views: dict[str, View]) -> Encoded:
        """Feature maps of every view that a pair needs.

        NOTE: a global view has a forward pass of its own, or one together with the other global view; extra views of
        one size share one, as in SwAV and DINO. So BN never mixes resolutions, and never an extra view with a global
        one.
        """
        pairs = self.pairs(views)
        online = self.encode_each(views, self.online_views(pairs), self.encode_online)
        return Encoded(views, online, self.target_features(views, pairs, online), pairs)

    def encode_each(
        self, views: dict[str, View], names: Iterable[str], encode: Callable[[Tensor], Features]
    ) -> dict[str, Features]:
        """Features of each named view by one branch, in as few passes as :func:`passes` says."""
        found: dict[str, Features] = {}
        for group in passes(views, unique(names), self.global_views_together):
            if len(group) == 1:
                found[group[0]] = encode(views[group[0]].images)
                continue
            together = encode(torch.stack([views[name].images for name in group], dim=1).flatten(0, 1))
            shape = (-1, len(group))  # (B·V, ...) -> (B, V, ...): all views of an image stay in its BN group
            parts = zip(*(part.unflatten(0, shape).unbind(1) for part in (together.maps, together.pooled)), strict=True)
            found |= {name: Features(*part) for name, part in zip(group, parts, strict=True)}
        return found

    def online_views(self, pairs: list[Pair]) -> Iterable[str]:
        """Names of the views that pass through the online network."""
        return [name for pair in pairs for name in pair]

    def target_features(
        self, views: dict[str, View], pairs: list[Pair], online: dict[str, Features]
    ) -> dict[str, Features]:
        """Features of the target views: here the online network's own."""
        return {j: online[j] for j in unique(j for _, j in pairs)}

    def encode_online(self, images: Tensor) -> Features:
        """Features of one view, or of several of one size in a row, from the online backbone."""
        return Features(*maps_and_vector(self.backbone(images)))

    # ---------------------------------------------------------------- loss

    def image_loss(self, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """The method's own loss on pooled features, averaged over pairs, and scalars worth logging."""
        online = {name: self.projector(features.pooled) for name, features in encoded.online.items()}
        target = self.target_embeddings(encoded, online)
        loss = match(self.matcher, encoded.pairs, online, target, encoded.weights)
        return loss, {"image_loss": loss.detach()}

    def target_embeddings(self, encoded: Encoded, online: dict[str, Tensor]) -> dict[str, Tensor]:
        """Embeddings of the target views: here the online network's own."""
        return {name: online[name] for name in encoded.target}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        loss, logs = self.image_loss(self.encode(batch.views))
        return {"loss": loss, **logs}

    def after_backward(self) -> None:
        self.matcher.after_backward()

    def after_step(self, progress: float) -> None:
        self.matcher.after_step(progress)

    def parameter_groups(self) -> list[ParameterGroup]:
        return self.groups_of(self)

    def groups_of(self, module: nn.Module) -> list[ParameterGroup]:
        """The trainable parameters of a module in groups by this method's rules.

        Args:
            module: the method itself, or a wrapper around it, whose additions follow the same rules.
        """
        return [ParameterGroup([parameter for parameter in module.parameters() if parameter.requires_grad])]

    # ---------------------------------------------------------------- what wrappers use

    def target_of(self, module: nn.Module) -> nn.Module:
        """The module that target features go through in a wrapper: here the module itself, as for the backbone."""
        return module

    def target_results(
        self, encoded: Encoded, online: dict[str, Result], compute: Callable[[Features, View], Result]
    ) -> dict[str, Result]:
        """What a wrapper computes from the features of the target views: here the results of the online views.

        Args:
            encoded: this step's features.
            online: the results of the online views, by name.
            compute: the result of one target view, by modules that came from :meth:`target_of`.
        """
        return {name: online[name] for name in encoded.target}

    def new_matcher(self) -> Matcher:
        """Another matcher of the same settings with a state of its own, for wrappers that compare further vectors.

        Raises:
            UsageError: this method's matcher cannot compare further vectors.
        """
        raise UsageError(f"{type(self).__name__} has no second matcher, which this wrapper needs; choose another host")

    def parts(self) -> Parts:
        heads = {child: "heads" for child in self.matcher.children() if any(True for _ in child.parameters())}
        modules = {self.backbone: "backbone, online", self.projector: "heads", self.matcher: "loss", **heads}
        return Parts(root="loss", modules=modules)


class MomentumSiamese(JointEmbedding):
    """An online branch, its exponential moving average, and a mean loss over (online view, target view) pairs.

    Args:
        backbone, projector, matcher, symmetric: see :class:`JointEmbedding`.
        momentum: share of the target that stays at each step, the EMA's m at the start of training.
        momentum_schedule: "constant" (MoCo) or "cosine", which brings m to 1 at the end of training (BYOL, DINO).

    Raises:
        UsageError: an unknown momentum schedule, or a momentum outside [0, 1].

    NOTE: the EMA runs in ``after_step``. MoCo runs it between the query's and the key's forward pass; both give the
    same sequence of target weights at every key forward pass, since the online weights do not change in between.

    Attributes:
        progress: share of the training that is done.
        next_steps_momentum: False: after step t = 0, 1, ... of T the target moves by m(t / T), as in the code of BYOL,
            DINO and LEWEL. True: by m((t + 1) / T), as in a code that moves it before the next forward pass (SlotCon).
    """

    next_steps_momentum = False

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        matcher: Matcher,
        momentum: float,
        momentum_schedule: str = "constant",
        symmetric: bool = False,
    ):
        super().__init__(backbone, projector, matcher, symmetric)
        if momentum_schedule not in ("constant", "cosine"):
            raise UsageError(f"momentum_schedule is 'constant' or 'cosine', not '{momentum_schedule}'")
        if not 0 <= momentum <= 1:
            raise UsageError(f"momentum is a share in [0, 1], not {momentum}")
        self.base_momentum = momentum
        self.momentum_schedule = momentum_schedule
        self.progress = 0.0
        self.momentum_pairs: list[tuple[nn.Module, nn.Module]] = []  # (momentum copy, online module)
        self.target_backbone = self.target_of(backbone)
        self.target_projector = self.target_of(projector)

    def target_of(self, module: nn.Module) -> nn.Module:
        """A momentum copy of an online module, which :meth:`after_step` then moves along.

        The caller keeps the copy as an attribute whose name begins with ``target_``.
        """
        copy = copy_without_grad(module)
        self.momentum_pairs.append((copy, module))
        return copy

    # ---------------------------------------------------------------- features and embeddings

    def online_views(self, pairs: list[Pair]) -> Iterable[str]:
        return [i for i, _ in pairs]

    @torch.no_grad()
    def target_features(
        self, views: dict[str, View], pairs: list[Pair], online: dict[str, Features]
    ) -> dict[str, Features]:
        """Features of the target views from the momentum branch, without gradient."""
        return self.encode_each(views, (j for _, j in pairs), self.encode_target)

    def encode_target(self, images: Tensor) -> Features:
        """Features of the momentum backbone; a method with its own rule for keys (shuffling) overrides this."""
        return Features(*maps_and_vector(self.target_backbone(images)))

    @torch.no_grad()
    def target_embeddings(self, encoded: Encoded, online: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.target_projector(features.pooled) for name, features in encoded.target.items()}

    @torch.no_grad()
    def target_results(
        self, encoded: Encoded, online: dict[str, Result], compute: Callable[[Features, View], Result]
    ) -> dict[str, Result]:
        """What a wrapper computes from the target features, by momentum copies and without gradient."""
        return {name: compute(features, encoded.views[name]) for name, features in encoded.target.items()}

    # ---------------------------------------------------------------- momentum

    def momentum(self, progress: float) -> float:
        """The EMA's m at a point of training, ``progress`` in [0, 1]."""
        if self.momentum_schedule == "constant":
            return self.base_momentum
        return cosine_momentum(self.base_momentum, progress)

    def momentum_of_step(self, progress: float) -> float:
        """The m of the step that has just been taken, after which the share ``progress`` of the training is done."""
        return self.momentum(progress if self.next_steps_momentum else self.progress)

    def scheduled_values(self, progress: float) -> dict[str, float]:
        return {"momentum": self.momentum(progress)}

    def after_step(self, progress: float) -> None:
        """Move every momentum copy towards its online module, then let the matcher change its state.

        NOTE: parameters only; the target's BN buffers come from its own forward passes (MoCo, BYOL).
        """
        m = self.momentum_of_step(progress)
        for copy, module in self.momentum_pairs:
            ema_update(copy, module, m)
        self.progress = progress
        super().after_step(progress)

    def get_extra_state(self) -> Tensor:
        """The progress, for the state dict: a resumed run goes on with its momentum."""
        return torch.tensor(self.progress, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the progress over from a state dict."""
        self.progress = float(state)

    def parts(self) -> Parts:
        own = super().parts()
        targets = {self.target_backbone: "backbone, target", self.target_projector: "heads"}
        return Parts(root=own.root, modules={**own.modules, **targets})


def match(
    matcher: Matcher,
    pairs: list[Pair],
    online: dict[str, Tensor],
    target: dict[str, Tensor],
    weights: list[float] | None = None,
) -> Tensor:
    """Mean of the matcher's loss over pairs; the matcher then receives this step's targets, each view once.

    Args:
        weights: of the pairs in the mean; None: all alike.
    """
    losses = torch.stack([matcher(online[i], target[j]) for i, j in pairs])
    matcher.remember([target[name] for name in unique(j for _, j in pairs)])
    if weights is None or len(set(weights)) == 1:
        return losses.mean()
    shares = losses.new_tensor(weights)
    return (losses * (shares / shares.sum())).sum()


def passes(views: dict[str, View], names: list[str], global_views_together: bool = False) -> list[list[str]]:
    """The names in groups that go through the backbone together.

    A global view goes by itself, unless global views go together; extra views go by size.
    """
    groups: dict[tuple, list[str]] = {}
    for name in names:
        view = views[name]
        alone = view.role == "global" and not global_views_together
        key = (name,) if alone else (view.role, *view.images.shape)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def unique(names: Iterable[str]) -> list[str]:
    """The names in their first order, each once."""
    return list(dict.fromkeys(names))
