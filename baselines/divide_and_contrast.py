"""Divide and Contrast: experts on clusters of the images, distilled into one network (Tian et al., ICCV 2021).

    1  base model     MoCo on all images
    2  K experts      MoCo on the images of one cluster each; clusters by k-means on the base model's representations
    3  distillation   L(x) = 1/2 || r_b(z) - n(z_b) ||^2 + 1/2 || r_k(z) - n(z_k) ||^2

z is the projection of an augmented view by the network that is trained; z_b and z_k are those of the same view by the
frozen base model and by the frozen expert of the image's cluster k; r_b and r_1, ..., r_K are regressors (equation 2).

"Divide and Contrast: Self-supervised Learning from Uncurated Data", arXiv 2105.08054. No official code is known. Each
stage is a run of its own: the first is one of :class:`baselines.moco.MoCo`, the second one of :class:`Experts`, the
third one of :class:`DivideAndContrast`, which is evaluated. The clusters come from
:class:`scd.data.annotators.clusters.Clusters`. All stages start from random weights.

Settings of the paper. ResNet-50; K = 5, or 10; heads 4096-256; regressors like the head; base, experts and distillation
take 200, 600 and 200 epochs, or 1000, 1500 and 500, where the experts' are of the whole set: each gets a share in
proportion to its cluster.

NOTE: the paper's stages 1 and 2 are MoCLR: BYOL's views, a symmetric loss, negatives from the batch of 4096, BN in the
heads, LARS. Here they are MoCo v2, whose negatives come from a queue; an expert's queue holds images of its cluster.
NOTE: the frozen networks are in evaluation mode; the paper does not say.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.moco import MoCo
from scd.errors import UsageError
from scd.method import Batch, Method, Parts, View, strongest_supervision, whole_view
from scd.nn.ema import copy_without_grad
from scd.nn.features import maps_and_vector
from scd.nn.heads import MLP
from scd.nn.precision import at_least_float32, no_autocast
from scd.nn.processes import gather, place
from scd.siamese import JointEmbedding
from scd.wrapper import Wrapper

# -------------------------------------------------------------------- stage 2


class Experts(Method):
    """K MoCos, each of which learns from the images of one cluster, with whole batches of them.

    The batches of the training are of all clusters. Their views wait in a room, and each step trains one expert: that
    whose cluster has the most views waiting, with as many of the oldest as a batch has. So a step costs as much as
    MoCo's, every view is used once, and an expert gets steps in proportion to its cluster.

    NOTE: at the beginning no cluster has a whole batch waiting. Those that wait are then repeated in the batch. The log
    has the share of such rows; over a training they are K batches or less.
    NOTE: the learning rate follows the whole stage. As an expert's steps are spread over the stage, each sees the whole
    schedule. Momentum and weight decay act in an expert's own steps alone.
    NOTE: all experts start from the same weights of the backbone, each with a head and a queue of its own.

    Args:
        backbone: feature maps; each expert has a copy.
        clusters: K.
        dim, hidden, queue_size, momentum, temperature, symmetric, bn_groups: see :class:`baselines.moco.MoCo`.

    Raises:
        UsageError: fewer than one cluster.

    Attributes:
        experts: the MoCos, by cluster.
    """

    needs = frozenset({"segments"})

    def __init__(
        self,
        backbone: nn.Module,
        clusters: int = 5,
        dim: int = 128,
        hidden: int | None = None,
        queue_size: int = 65536,
        momentum: float = 0.999,
        temperature: float = 0.2,
        symmetric: bool = False,
        bn_groups: int = 1,
    ):
        super().__init__()
        if clusters < 1:
            raise UsageError(f"clusters of Divide and Contrast are 1 or more, not {clusters}")
        options = (dim, hidden, queue_size, momentum, temperature, symmetric, bn_groups)
        copies = [copy_without_grad(backbone).requires_grad_(True) for _ in range(clusters)]
        self.experts = nn.ModuleList(MoCo(each, *options) for each in copies)
        self.room = WaitingRoom()
        self.chosen = 0
        self.staying: tuple[Tensor, Tensor] | None = None

    @property
    def backbone(self) -> nn.Module:
        """The backbones of all experts side by side, which is what an evaluation of this stage sees."""
        return SideBySide([expert.backbone for expert in self.experts])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of one expert on one batch of its cluster.

        Raises:
            UsageError: other views than two global ones, or images without the number of a cluster.
        """
        first, second = two_views(batch)
        numbers = cluster_numbers(first, len(self.experts))
        count, (rank, world) = len(numbers), place()
        images = torch.cat([self.room.images_like(first), gather(torch.stack([first.images, second.images], dim=1))])
        clusters = torch.cat([self.room.clusters, gather(numbers)])
        self.chosen, rows, staying = next_batch(clusters, count * world, len(self.experts))
        self.staying = images[staying], clusters[staying]
        shown = images[rows[rank * count : (rank + 1) * count]]  # (B, 2, 3, s, s)
        expert = self.experts[self.chosen]
        pair = {name: whole_view(shown[:, i], name) for i, name in enumerate((first.name, second.name))}
        loss, logs = expert.image_loss(expert.encode(pair))
        others = [p.sum() for each in self.experts if each is not expert for p in each.parameters() if p.requires_grad]
        untouched = 0.0 * torch.stack(others).sum() if others else 0.0  # so that DDP sees every parameter
        used = rows.unique().numel() if not rows.is_meta else len(rows)
        logs |= {"repeated": loss.new_tensor(1 - used / len(rows)), "waiting": loss.new_tensor(len(self.staying[1]))}
        return {"loss": loss + untouched, **logs}

    def after_backward(self) -> None:
        """The other experts have no gradients, so that no optimiser touches them."""
        for number, expert in enumerate(self.experts):
            if number == self.chosen:
                expert.after_backward()
                continue
            for parameter in expert.parameters():
                parameter.grad = None

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """The step of the expert that was trained; its views leave the room."""
        self.experts[self.chosen].after_step(progress)
        if self.staying is not None:
            self.room.images, self.room.clusters = self.staying
            self.staying = None

    def evaluated_state(self) -> dict[str, Tensor]:
        """The tensors that an evaluation, and the third stage, need: without those that wait."""
        return {name: value for name, value in super().evaluated_state().items() if not name.startswith("room.")}

    def scheduled_values(self, progress: float) -> dict[str, float]:
        return self.experts[0].scheduled_values(progress)

    def parts(self) -> Parts:
        found = [expert.parts() for expert in self.experts]
        return Parts(root="loss", modules={module: name for each in found for module, name in each.modules.items()})


class WaitingRoom(nn.Module):
    """Views that no expert has seen yet, oldest first: a part of the state, so that a resumed run goes on with them.

    Attributes:
        images: (W, 2, 3, s, s), both views of each image; clusters: (W,) int64.
    """

    images: Tensor
    clusters: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("images", torch.zeros(0, 2, 3, 1, 1))
        self.register_buffer("clusters", torch.zeros(0, dtype=torch.long))

    def images_like(self, view: View) -> Tensor:
        """The images, with the shape that the view's have even where nothing waits."""
        return self.images if len(self.images) else view.images.new_zeros(0, 2, *view.images.shape[1:])

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Any number of views is taken."""
        for name in ("images", "clusters"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def next_batch(clusters: Tensor, count: int, experts: int) -> tuple[int, Tensor, Tensor]:
    """Which expert is trained next, and with what.

    Args:
        clusters: (W,) of all that wait, oldest first.
        count: rows of a batch, over all processes.
        experts: K.

    Returns:
        The expert with the most rows, of equally many the first; (count,) its oldest rows, repeated in turn where there
        are fewer; and (W,) bool, those that stay.
    """
    if clusters.is_meta:  # numbers without values: any batch has the same cost
        rows = torch.arange(count, device="meta")
        return 0, rows, torch.zeros(0, dtype=torch.long, device="meta")
    expert = int(clusters.bincount(minlength=experts).argmax())
    own = (clusters == expert).nonzero()[:, 0][:count]
    staying = torch.ones_like(clusters, dtype=torch.bool).index_fill(0, own, False)
    return expert, own[torch.arange(count, device=own.device) % len(own)], staying


class SideBySide(nn.Module):
    """Several backbones as one, whose channels are those of all."""

    def __init__(self, networks: list[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.dim = sum(network.dim for network in networks)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, K·C, h, w) and vectors (B, K·C)."""
        maps, vectors = zip(*(maps_and_vector(network(images)) for network in self.networks), strict=True)
        return torch.cat(maps, dim=1), torch.cat(vectors, dim=1)


# -------------------------------------------------------------------- stage 3


class DivideAndContrast(Method):
    """One network that predicts the base model's projections, and those of the expert of each image's cluster.

    Both views are used, and their losses averaged, so that an epoch shows as many views as in the other stages.

    NOTE: the projector is the host's, two layers without BN, and so are the regressors, "the same as the projection
    head" without its last BN; the paper's have BN after the hidden layer, and the head after the last one as well.

    Args:
        backbone: feature maps.
        base: the trained first stage, or a wrapper around one; experts: the trained second stage. They are copied and
            frozen. None: the backbone with its first weights and new heads, a variant without stages that is not in
            the paper.
        clusters: K, where there are no trained experts.
        dim: D of the projection.
        hidden: width of the hidden layer of the head and of the regressors; C when None, 0 for single linear layers.
        base_weight: of the base model's term; the expert's has the rest. Paper: 1/2.

    Raises:
        UsageError: an earlier network of another kind, fewer than one cluster, or a weight outside [0, 1].
    """

    needs = frozenset({"segments"})

    def __init__(
        self,
        backbone: nn.Module,
        base: nn.Module | None = None,
        experts: nn.Module | None = None,
        clusters: int = 5,
        dim: int = 128,
        hidden: int | None = None,
        base_weight: float = 0.5,
    ):
        super().__init__()
        host = base.siamese if isinstance(base, Wrapper) else base
        if host is not None and not isinstance(host, JointEmbedding):
            raise UsageError(f"Divide and Contrast's base is a trained MoCo or the like, not {type(base).__name__}")
        if experts is not None and not isinstance(experts, Experts):
            raise UsageError(f"Divide and Contrast's experts are a trained second stage, not {type(experts).__name__}")
        if clusters < 1:
            raise UsageError(f"clusters of Divide and Contrast are 1 or more, not {clusters}")
        if not 0 <= base_weight <= 1:
            raise UsageError(f"Divide and Contrast's base_weight is a share in [0, 1], not {base_weight}")
        width = backbone.dim if hidden is None else hidden

        def head(dim_in: int, dim_out: int) -> MLP:
            return MLP((dim_in, width, dim_out) if width else (dim_in, dim_out))

        def teacher(network: JointEmbedding | None) -> Frozen:
            if network is None:
                return Frozen(backbone, head(backbone.dim, dim))
            return Frozen(network.backbone, network.projector)

        self.backbone = backbone
        self.projector = head(backbone.dim, dim)
        self.base_matcher = teacher(host)
        trained = [None] * clusters if experts is None else list(experts.experts)
        self.experts_matcher = nn.ModuleList(teacher(each) for each in trained)
        targets = [self.base_matcher, *self.experts_matcher]
        base_regressor, *others = [head(dim, each.projector.dim) for each in targets]
        self.base_regressor = base_regressor
        self.expert_regressors = nn.ModuleList(others)
        self.base_weight = base_weight
        for earlier in (base, experts):
            if earlier is not None:
                self.supervision = strongest_supervision(self.supervision, earlier.supervision)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The mean over both views of the loss, and its two terms without their weights.

        Raises:
            UsageError: other views than two global ones, or images without the number of a cluster.
        """
        views = two_views(batch)
        numbers = cluster_numbers(views[0], len(self.experts_matcher))
        terms = torch.stack([torch.stack(self.terms(view.images, numbers)) for view in views]).mean(dim=0)
        loss = self.base_weight * terms[0] + (1 - self.base_weight) * terms[1]
        return {"loss": loss, "base_loss": terms[0].detach(), "expert_loss": terms[1].detach()}

    def terms(self, images: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared distances of the regressors' outputs from the frozen networks' unit projections.

        Args:
            images: (B, 3, s, s), normalised; numbers: (B,) the cluster of each.
        """
        z = self.projector(maps_and_vector(self.backbone(images))[1])
        with torch.no_grad():
            base, expert = self.base_matcher(images), self.by_experts(images, numbers)
        predicted = torch.stack([regressor(z) for regressor in self.expert_regressors], dim=1)  # (B, K, D)
        own = predicted.take_along_dim(numbers[:, None, None], dim=1)[:, 0]
        return squared_distance(self.base_regressor(z), base), squared_distance(own, expert)

    def by_experts(self, images: Tensor, numbers: Tensor) -> Tensor:
        """The projection (B, D) of each image by the frozen expert of its cluster, each image through one expert."""
        count = len(self.experts_matcher)
        order = numbers.argsort(stable=True)
        if numbers.is_meta:  # numbers without values: any division has the same cost
            parts = list(images.tensor_split(count))
        else:
            parts = list(images[order].split(numbers.bincount(minlength=count).tolist()))
        found = [expert(part) for expert, part in zip(self.experts_matcher, parts, strict=True) if len(part)]
        return torch.cat(found)[order.argsort()]

    def parts(self) -> Parts:
        frozen = {each.backbone: "backbone, earlier stages" for each in (self.base_matcher, *self.experts_matcher)}
        heads = dict.fromkeys((self.projector, self.base_regressor, *self.expert_regressors), "heads")
        return Parts(root="loss", modules={self.backbone: "backbone, online", **heads, **frozen})


class Frozen(nn.Module):
    """The online network of an earlier stage: images to projections; never trained, always in evaluation mode."""

    def __init__(self, backbone: nn.Module, projector: nn.Module):
        super().__init__()
        self.backbone = copy_without_grad(backbone)
        self.projector = copy_without_grad(projector)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.projector(maps_and_vector(self.backbone(images))[1])

    def train(self, mode: bool = True) -> "Frozen":
        """Stay in evaluation mode."""
        return super().train(False)


def squared_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of || r - n(z) ||^2; n(z) has unit length, r any.

    Args:
        predicted: r (B, D); target: z (B, D), without gradient.
    """
    with no_autocast(predicted):
        r, z = at_least_float32(predicted), F.normalize(at_least_float32(target), dim=1)
        return (r - z).square().sum(dim=1).mean()


# -------------------------------------------------------------------- what a batch holds


def two_views(batch: Batch) -> tuple[View, View]:
    """The two global views of a batch, which has no others. Raises UsageError for other views."""
    views = list(batch.views.values())
    if len(views) != 2 or any(view.role != "global" for view in views):
        raise UsageError(f"Divide and Contrast takes two global views and no others, the recipe gives {len(views)}")
    return views[0], views[1]


def cluster_numbers(view: View, clusters: int) -> Tensor:
    """The cluster (B,) of each image: its segment is the whole image.

    Raises:
        UsageError: no segments, or a number that is none of the clusters.
    """
    if view.segments is None:
        raise UsageError("Divide and Contrast needs clusters: name what makes them, annotations.segments=clusters")
    numbers = view.segments[:, 0, 0]
    if not numbers.is_meta and not ((numbers >= 0) & (numbers < clusters)).all():
        found = f"{int(numbers.min())} to {int(numbers.max())}"
        raise UsageError(f"Divide and Contrast has {clusters} clusters, and its annotations the numbers {found}")
    return numbers
