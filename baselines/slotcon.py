"""SlotCon: positions are grouped around learned prototypes, and the groups are contrasted (arXiv 2205.15288).

    s_k(p)  = cos(prototype_k, x_p)                     scores of a view's projected positions x = g(F), k = 1 ... N
    a_k(p)  = softmax over k of s_k(p) / tau_t          the slots compete for each position
    slot_k  = sum_p a_k(p) x_p / sum_p a_k(p)           pooled over the whole view
    L_g     = mean over the overlap of CE(softmax((s' - c) / tau_t), softmax(s / tau_s))     aligned scores
    L_s     = 2 tau * mean of InfoNCE(n(q(slot_k)), n(slot'_k), other active slots' n(slot'), tau)
    loss    = w * L_g + (1 - w) * L_s                   student of one view against teacher of the other, '

A slot is active in a view when it has the highest score at one position at least. L_s has a term for each slot that is
active in both views of an image; its negatives are the active teacher slots of all images. Wen et al., NeurIPS 2022.
SCD has one learned map and its complement; SlotCon has N maps, among which the positions are divided.

Official settings. ResNet-50, heads of 3 layers with BN and GELU, hidden 4096, dim 256; N = 256 on COCO, 2048 on
ImageNet; tau_s 0.1, tau_t 0.07, tau 0.2, w 0.5; m from 0.99 on a cosine to 1; BYOL's photometrics, crops of 0.08 to 1;
LARS with lr 1.0 at batch 256; batch 512, 800 epochs on COCO.

NOTE: the loss is the mean over the two directions; both official terms are sums over them.
NOTE: the EMA runs after the optimiser step, see :class:`scd.siamese.MomentumSiamese`; the sequence of weights is the
official one.
NOTE: the official loader draws the second crop again, up to 10 times, until it shares 1 % of its area with the first.
Here both crops are drawn as in every other arm; images whose views do not overlap are left out of L_g.
NOTE: weights start from torch's defaults, the official Linears from a normal of 0.02. BN is per process, not
synchronised.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.data.crops import interpolation_matrix, resample
from scd.errors import UsageError
from scd.method import View
from scd.nn.heads import MLP
from scd.nn.precision import at_least_float32, no_autocast
from scd.nn.queue import gather
from scd.siamese import Encoded, Features, Matcher, MomentumSiamese, unique

EPSILON = 1e-6  # added to every attention, so that a slot without any position still has a mean


@dataclass
class Groups:
    """What one branch computes of a view: ``scores`` s (B, N, h, w), ``slots`` (B, N, D), ``active`` (B, N) bool."""

    scores: Tensor
    slots: Tensor
    active: Tensor


class Prototypes(nn.Module):
    """N = ``count`` vectors (N, D), shared by all images, around which the positions of a map are grouped.

    ``temperature`` is that of the softmax over slots at each position.
    """

    def __init__(self, count: int, dim: int, temperature: float):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, dim))
        self.temperature = temperature

    def forward(self, maps: Tensor) -> Groups:
        """Scores, slots and activity of projected maps (B, D, h, w)."""
        x = maps.flatten(2)  # (B, D, hw)
        scores = F.normalize(self.weight, dim=1) @ F.normalize(x, dim=1)  # (B, N, hw)
        attention = (scores / self.temperature).softmax(dim=1) + EPSILON
        slots = (attention / attention.sum(dim=2, keepdim=True)) @ x.transpose(1, 2)  # (B, N, D), x at its own length
        best = scores.detach().argmax(dim=1)  # (B, hw)
        active = torch.zeros_like(scores[:, :, 0]).scatter(1, best, 1.0) > 0
        return Groups(scores.unflatten(2, maps.shape[2:]), slots, active)


class GroupDistillation(Matcher):
    """Cross-entropy of a student's grouping of positions with a teacher's; owns the centre c of the teacher's scores.

    Args:
        prototypes: N.
        student_temperature, teacher_temperature: tau_s and tau_t.
        momentum: share of the centre that stays at each step.
    """

    centre: Tensor

    def __init__(self, prototypes: int, student_temperature: float, teacher_temperature: float, momentum: float):
        super().__init__()
        self.register_buffer("centre", torch.zeros(prototypes))
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.momentum = momentum
        self.waiting: list[Tensor] = []

    def forward(self, online: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Mean cross-entropy in nats over the positions of the images that count; 0 when none does.

        Args:
            online, target: raw aligned scores (B, N, h, w).
            counted: (B,) bool.
        """
        teacher = ((target - self.centre[:, None, None]) / self.teacher_temperature).softmax(dim=1)
        student = (online / self.student_temperature).log_softmax(dim=1)
        return masked_mean(-(teacher * student).sum(dim=1).mean(dim=(1, 2)), counted)

    def remember(self, targets: list[Tensor]) -> None:
        """Keep the mean (N,) of this step's teacher scores (B, N, h, w), all positions of each view."""
        self.waiting = [at_least_float32(target.detach()).mean(dim=(0, 2, 3)) for target in targets]

    def after_step(self, progress: float) -> None:
        """c <- m c + (1 - m) * mean of the teacher's scores, over views and processes."""
        if self.waiting:
            mean = gather(torch.stack(self.waiting).mean(dim=0, keepdim=True)).mean(dim=0)
            self.centre.lerp_(mean.to(self.centre.dtype), 1 - self.momentum)
        self.waiting = []


class SlotContrast(Matcher):
    """InfoNCE of an image's predicted slots with the teacher's slots of the same index, times 2 tau.

    Args:
        predictor: maps slots (Q, D) to (Q, D), with batch statistics of those that count (Q,); of the online branch
            only, it has no momentum copy.
        temperature: tau.
    """

    def __init__(self, predictor: nn.Module, temperature: float):
        super().__init__()
        self.predictor = predictor
        self.temperature = temperature

    def forward(self, online: Groups, target: Groups) -> Tensor:
        """Mean over the slots that are active in both views; 0, with a gradient of 0, where there is none.

        A view of hw positions has at most hw active slots: no more rows than that are compared for each image. Rows
        that hold no query fill up the shape, so that it does not depend on the data; neither the loss nor the
        predictor's batch norm counts them.
        """
        common, closed = online.active & target.active, ~target.active  # (B, N)
        rows = first(common, min(positions(online), positions(target)))
        columns = first(target.active, positions(target))
        keys = F.normalize(target.slots, dim=2)
        is_query = take(common, rows)  # (Q,)
        queries = F.normalize(self.predictor(take(online.slots, rows), is_query), dim=1)  # (Q, D)
        own = (queries * take(keys, rows)).sum(dim=1) / self.temperature
        closed = gather(take(closed.float(), columns)[:, None])[:, 0] > 0  # (K,), of all processes
        logits = queries @ gather(take(keys, columns)).T / self.temperature  # (Q, K)
        losses = logits.masked_fill(closed, -torch.inf).logsumexp(dim=1) - own
        return 2 * self.temperature * masked_mean(losses, is_query)


class SlotCon(MomentumSiamese):
    """SlotCon, symmetric: the projector is applied at each position, and the target has a copy of the prototypes.

    Args:
        backbone: feature maps.
        dim: D of the projected positions and of the slots.
        hidden: width of the projector's and the predictor's two hidden layers.
        prototypes: N.
        momentum: m of the target at the start.
        momentum_schedule: "cosine" to 1 (official) or "constant".
        student_temperature: tau_s of the student's grouping in L_g.
        teacher_temperature: tau_t of the teacher's grouping in L_g, and of both networks' attention.
        slot_temperature: tau of L_s.
        centre_momentum: share of the centre that stays at each step.
        weight: w, share of L_g.

    An extra view is seen by the student only, and compared with the teacher's groups of both global views.

    Raises:
        UsageError: fewer than 2 prototypes, a temperature not above 0, a share outside [0, 1].
    """

    next_steps_momentum = True  # the official code moves the target at the start of a step

    def __init__(
        self,
        backbone: nn.Module,
        dim: int = 256,
        hidden: int = 4096,
        prototypes: int = 256,
        momentum: float = 0.99,
        momentum_schedule: str = "cosine",
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        slot_temperature: float = 0.2,
        centre_momentum: float = 0.9,
        weight: float = 0.5,
    ):
        if prototypes < 2:
            raise UsageError(f"SlotCon has at least 2 prototypes, not {prototypes}: a single one groups nothing")
        temperatures = {"student": student_temperature, "teacher": teacher_temperature, "slot": slot_temperature}
        for name, temperature in temperatures.items():
            if not temperature > 0:
                raise UsageError(f"SlotCon's {name}_temperature is a number above 0, not {temperature}")
        for name, share in (("centre_momentum", centre_momentum), ("weight", weight)):
            if not 0 <= share <= 1:
                raise UsageError(f"SlotCon's {name} is a share in [0, 1], not {share}")
        predictor = MLP((dim, hidden, hidden, dim), norm="batch", activation="gelu")
        super().__init__(
            backbone=backbone,
            projector=MLP((backbone.dim, hidden, hidden, dim), norm="batch", activation="gelu"),
            matcher=SlotContrast(predictor, slot_temperature),
            momentum=momentum,
            momentum_schedule=momentum_schedule,
            symmetric=True,
        )
        self.prototypes = Prototypes(prototypes, dim, teacher_temperature)
        self.target_prototypes = self.target_of(self.prototypes)
        self.grouping_matcher = GroupDistillation(prototypes, student_temperature, teacher_temperature, centre_momentum)
        self.weight = weight

    def image_loss(self, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss averaged over pairs; logs both terms, active slots per online view and the pairs that overlap."""
        online = {name: self.group(view, self.projector, self.prototypes) for name, view in encoded.online.items()}
        with torch.no_grad():
            target = {
                name: self.group(view, self.target_projector, self.target_prototypes)
                for name, view in encoded.target.items()
            }
        groupings, contrasts, shares = [], [], []
        with no_autocast(next(iter(online.values())).scores):
            for i, j in encoded.pairs:
                student, teacher, overlap = align(
                    online[i].scores, target[j].scores, encoded.views[i], encoded.views[j]
                )
                groupings.append(self.grouping_matcher(student, teacher, overlap))
                contrasts.append(self.matcher(online[i], target[j]))
                shares.append(overlap.float().mean())
            self.grouping_matcher.remember([target[name].scores for name in unique(j for _, j in encoded.pairs)])
            grouping, contrast = torch.stack(groupings).mean(), torch.stack(contrasts).mean()
            loss = self.weight * grouping + (1 - self.weight) * contrast
        active = torch.stack([groups.active.float().sum(dim=1).mean() for groups in online.values()]).mean()
        logs = {"image_loss": loss, "grouping_loss": grouping, "slot_loss": contrast, "active_slots": active}
        return loss, {**{name: value.detach() for name, value in logs.items()}, "overlap": torch.stack(shares).mean()}

    def group(self, features: Features, projector: nn.Module, prototypes: Prototypes) -> Groups:
        """One network's groups of one view: its projector at every position, then its prototypes."""
        tokens = projector(features.maps.flatten(2).transpose(1, 2))  # (B, hw, D), BN over B·hw rows
        with no_autocast(tokens):  # scores over temperatures below 0.1 do not survive bfloat16
            return prototypes(at_least_float32(tokens).transpose(1, 2).unflatten(2, features.maps.shape[2:]))

    def after_step(self, progress: float) -> None:
        """Move the target, its prototypes included, and then the centre."""
        super().after_step(progress)
        self.grouping_matcher.after_step(progress)


def align(scores: Tensor, other_scores: Tensor, view: View, other: View) -> tuple[Tensor, Tensor, Tensor]:
    """Both views' score maps at the same places of the source image: a grid over their rectangles' overlap.

    Bilinear between the centres of a map's positions, with the border's value outside of them, and mirrored back where
    the view is flipped. This equals RoIAlign of the overlap and a flip. Raw scores are aligned, not their softmax.

    Args:
        scores: (B, N, h, w) of ``view``.
        other_scores: (B, N, h', w') of ``other``; the grid is as fine as this map.

    Returns:
        Two (B, N, h', w'), and (B,) bool: the rectangles overlap. Where they do not, each map is its whole view.
    """
    height, width = other_scores.shape[2:]
    rectangles, other_rectangles = view.rectangles.to(scores.device), other.rectangles.to(scores.device)
    low = torch.maximum(rectangles[:, :2], other_rectangles[:, :2])  # (B, 2) x0, y0 of the overlap
    high = torch.minimum(rectangles[:, 2:], other_rectangles[:, 2:])
    overlap = (high > low).all(dim=1)
    aligned = []
    for maps, rectangle, seen in ((scores, rectangles, view), (other_scores, other_rectangles, other)):
        sides = rectangle[:, 2:] - rectangle[:, :2]
        start = torch.where(overlap[:, None], (low - rectangle[:, :2]) / sides, 0.0)  # (B, 2) in [0, 1] of it
        end = torch.where(overlap[:, None], (high - rectangle[:, :2]) / sides, 1.0)
        flips = seen.flips.to(scores.device)
        left = torch.where(flips, 1 - end[:, 0], start[:, 0])  # in the view, which may be mirrored
        right = torch.where(flips, 1 - start[:, 0], end[:, 0])
        horizontal = interpolation_matrix(left, right, maps.shape[3], width, flips)  # (B, width, w)
        vertical = interpolation_matrix(start[:, 1], end[:, 1], maps.shape[2], height)
        rows = maps.transpose(1, 2)  # (B, h, N, w)
        aligned.append(resample(rows, vertical[:, None].to(maps.dtype), horizontal[:, None].to(maps.dtype))[0])
    return *aligned, overlap


def masked_mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the values (n,) that count, by (n,) bool; 0 when none does."""
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp_min(1)


def first(chosen: Tensor, most: int) -> Tensor:
    """Indices (B, min(N, most)) of the chosen slots (B, N) of each image, then of others until the rows are full."""
    return chosen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]


def take(slots: Tensor, index: Tensor) -> Tensor:
    """The slots of these indices (B, R), images in a row: (B, N, ...) -> (B·R, ...)."""
    index = index.view(*index.shape, *[1] * (slots.ndim - 2))
    return slots.take_along_dim(index, dim=1).flatten(0, 1)


def positions(groups: Groups) -> int:
    """h·w of the view that was grouped."""
    return groups.scores[0, 0].numel()
