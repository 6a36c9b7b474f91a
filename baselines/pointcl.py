"""PointCL: points of regions are contrasted, and affinities between points distilled (Bai et al., CVPR 2022).

    r, t   = g(F), g'(F')                                       the host's projector on every position, unit length
    L_p    = mean over q of -1/|P_q| sum over k in P_q of log( e^{q·k/tau} / sum over all k' of e^{q·k'/tau} )
    A(u)   = softmax over positions k of r(u)·t_k / tau_s       affinity of a place with the other view's positions
    A'(u)  = softmax over k of (t(u)·t_k - c_k) / tau_t         the target network's, centred
    L_a    = mean over places u in the overlap of CE(A'(u), A(u))
    loss   = w_i * host(z, z') + w_p * L_p + w_a * L_a

The regions are the G x G cells of a grid on the source image. A query q is a random point of one region in the online
view; the keys are random points of all regions that the target view shows. P_q holds the keys of the query's region of
the same image; the keys of its other regions and all those of other images are negatives. "Point-Level Region Contrast
for Object Detection Pre-Training", arXiv 2202.04639, code facebookresearch/PLRC. Regions here are cells without any
meaning; L_a lets the affinities between points correct them. There is no saliency and no foreground.

Official settings. G 4, 16 points of each region, tau 0.2, tau_s 0.1, tau_t 0.04 rising to 0.07 in 30 of 100 epochs,
centre 0.9; w_i 0.7, w_p 0.3, w_a 0.3; MoCo v2's head, queue of 65536, m 0.999 and augmentation; lr 0.03 at batch 256.

NOTE: this follows the paper where the released code departs from it. (1) The code unpacks (image loss, point loss) in
the reverse order, so that w_i multiplies the wrong one; here each weight has its own loss. (2) It stores points as
(row, column) and reads them as (x, y); here they are x, y throughout. (3) It draws points of other regions and does not
use them; here they are negatives. (4) It normalises some keys by the 1-norm; here all have unit length.
NOTE: the code replaces each key by the query-view point that is most similar to it; the paper's positives are points of
the region, as here. It multiplies L_p by 0.2 / 0.07, which belongs to a base temperature; here w_p alone scales it.
NOTE: its loss also takes keys as anchors and pairs within a view; here queries are online points and keys the momentum
network's. Negatives are those of the own process.
NOTE: affinities are cosines between the unit vectors that L_p compares, with a g x g grid of the target view's map; the
code has inner products divided by 128 on a 56 x 56 grid, to which a 7 x 7 map is enlarged, joined with the 4096 outputs
of a DINO head. Here there is no such head. Its teacher sees a third crop; here it is the target view itself, so that no
further pass through the backbone is needed, and the places are a g x g grid over the overlap of the two views. A place
is therefore most similar to its own position in A', whose width comes from tau_t, here constant.
NOTE: the image-level loss is the host's, whose head comes after the pooling; the code pools the head's outputs.
NOTE: the code draws a crop again until it overlaps its companion by half. Here crops are drawn as in every other arm;
images whose views do not overlap count in neither L_p nor L_a, not as negatives either. L_p and L_a are means over the
host's pairs of views.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.moco import MoCo
from baselines.slotcon import GroupDistillation, masked_mean
from baselines.vader import dense_map
from scd.errors import UsageError
from scd.method import View
from scd.nn.points import coordinates_in, grid_points, intersection, overlap, points_within, random_shares, sample
from scd.nn.precision import at_least_float32, no_autocast
from scd.siamese import Encoded, JointEmbedding
from scd.wrapper import Wrapper


@dataclass
class Draws:
    """The random numbers of one step, in [0, 1) and the same for all pairs of views.

    Args:
        choice: (B, R); the region of the queries is the one of the highest number among those that both views show.
        anchors: (B, P, 2), where the queries lie in their region.
        keys: (B, R, P, 2), where the keys lie in theirs.
    """

    choice: Tensor
    anchors: Tensor
    keys: Tensor


class AffinityDistillation(GroupDistillation):
    """Cross-entropy of two networks' affinities of places with positions; its centre is that of the images that count.

    The positions are what prototypes are to SlotCon: ``forward`` takes (B, positions, places, 1).
    """

    def remember(self, targets: list[Tensor], counted: list[Tensor]) -> None:
        """Keep the teacher's mean for each position over the places of the images that count; without any, the centre.

        Args:
            targets: affinities (B, positions, places, 1) of each pair of views.
            counted: (B,) bool of each pair.
        """
        means = torch.cat([at_least_float32(target.detach()).mean(dim=(2, 3)) for target in targets])  # (n, positions)
        rows = torch.cat(counted)
        mean = torch.where(rows[:, None], means, 0.0).sum(dim=0) / rows.sum().clamp_min(1)
        self.waiting = [torch.where(rows.any(), mean, self.centre)]


class PointCL(Wrapper):
    """MoCo plus the contrast between points of regions, and the distillation of affinities between points.

    Args:
        siamese: the host, a MoCo; its projector and its temperature are those of the points as well.
        grid: G, regions along each side of the source image.
        points: points that are drawn in each region of a view.
        affinity_side: g, positions along each side of the grid of places and of that of the target view.
        student_temperature, teacher_temperature: tau_s and tau_t of the affinities.
        centre_momentum: share of the centre c that stays at each step.
        image_weight, point_weight, affinity_weight: w_i, w_p and w_a.

    Raises:
        UsageError: a host that is not MoCo, a grid of fewer than 2 regions or positions a side, no points, a
            temperature not above 0, a momentum outside [0, 1], or a negative weight.
    """

    addition = "points, region contrast, affinities"

    def __init__(
        self,
        siamese: JointEmbedding,
        grid: int = 4,
        points: int = 16,
        affinity_side: int = 7,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        centre_momentum: float = 0.9,
        image_weight: float = 0.7,
        point_weight: float = 0.3,
        affinity_weight: float = 0.3,
    ):
        super().__init__(siamese)
        if not isinstance(siamese, MoCo):
            raise UsageError(f"PointCL applies MoCo's head to points and needs MoCo, not {type(siamese).__name__}")
        for name, value, least in (("grid", grid, 2), ("points", points, 1), ("affinity_side", affinity_side, 2)):
            if value < least:
                raise UsageError(f"PointCL's {name} is {least} or more, not {value}")
        for name, value in (("student", student_temperature), ("teacher", teacher_temperature)):
            if not value > 0:
                raise UsageError(f"PointCL's {name}_temperature is a number above 0, not {value}")
        if not 0 <= centre_momentum <= 1:
            raise UsageError(f"PointCL's centre_momentum is a share in [0, 1], not {centre_momentum}")
        for name, value in (("image", image_weight), ("point", point_weight), ("affinity", affinity_weight)):
            if value < 0:
                raise UsageError(f"PointCL's {name}_weight is 0 or more, not {value}")
        self.affinity_matcher = AffinityDistillation(
            affinity_side**2, student_temperature, teacher_temperature, centre_momentum
        )
        self.grid = grid
        self.points = points
        self.affinity_side = affinity_side
        self.image_weight = image_weight
        self.point_weight = point_weight
        self.affinity_weight = affinity_weight

    def combine(self, image_loss: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """The three losses by their weights; logs both additions and the share of images with an overlap."""
        online = {name: dense_map(self.siamese.projector, view.maps) for name, view in encoded.online.items()}
        with torch.no_grad():
            target = {
                name: dense_map(self.siamese.target_projector, view.maps) for name, view in encoded.target.items()
            }
        draws = self.draw(encoded.views[encoded.pairs[0][0]].rectangles)
        point_losses, affinity_losses, teachers, overlapping = [], [], [], []
        for i, j in encoded.pairs:
            view, other = encoded.views[i], encoded.views[j]
            rectangles, found = overlap(view, other)
            point_losses.append(self.point_loss(online[i], target[j], view, other, found, draws))
            student, teacher = self.affinities(online[i], target[j], view, other, rectangles)
            affinity_losses.append(self.affinity_matcher(student, teacher, found))
            teachers.append(teacher)
            overlapping.append(found)
        self.affinity_matcher.remember(teachers, overlapping)
        point, affinity = torch.stack(point_losses).mean(), torch.stack(affinity_losses).mean()
        loss = self.image_weight * image_loss + self.point_weight * point + self.affinity_weight * affinity
        logs = {"point_loss": point.detach(), "affinity_loss": affinity.detach()}
        return loss, {**logs, "overlap": torch.stack(overlapping).float().mean()}

    def draw(self, rectangles: Tensor) -> Draws:
        """The random numbers of one step for as many images as there are rectangles (B, 4)."""
        batch, regions = len(rectangles), self.grid**2
        return Draws(
            choice=random_shares(batch, regions, like=rectangles),
            anchors=random_shares(batch, self.points, 2, like=rectangles),
            keys=random_shares(batch, regions, self.points, 2, like=rectangles),
        )

    def point_loss(
        self, maps: Tensor, target_maps: Tensor, view: View, other: View, found: Tensor, draws: Draws
    ) -> Tensor:
        """L_p of one pair of views: a mean over the points of a region, then over images that overlap.

        Args:
            maps: (B, D, h, w) of the online network in ``view``.
            target_maps: (B, D, h', w') of the momentum network in ``other``.
            found: (B,) bool, the images whose views overlap.
            draws: of this step.
        """
        cells = grid_cells(self.grid, view.rectangles)
        parts, seen = intersection(cells, view.rectangles[:, None])  # (B, R, 4), (B, R): cells as the view shows them
        other_parts, other_seen = intersection(cells, other.rectangles[:, None])
        chosen = torch.where(seen & other_seen, draws.choice, -1.0).argmax(dim=1)  # (B,), uniform among common regions
        anchors = points_within(parts.take_along_dim(chosen[:, None, None], dim=1)[:, 0], draws.anchors)  # (B, P, 2)
        places = points_within(other_parts, draws.keys)  # (B, R, P, 2)
        queries = unit(sample(maps, coordinates_in(view, anchors)))  # (B, P, D)
        keys = unit(sample(target_maps, coordinates_in(other, places).flatten(1, 2)))  # (B, R·P, D)
        regions = torch.arange(cells.shape[0], device=chosen.device).repeat_interleave(self.points)  # (R·P,)
        shown = (other_seen & found[:, None]).repeat_interleave(self.points, dim=1)  # (B, R·P)
        own = torch.eye(len(maps), dtype=torch.bool, device=chosen.device)[:, :, None]  # (B, B, 1)
        positive = (own & (regions == chosen[:, None])[:, None]).flatten(1)  # (B, B·R·P)
        losses = multi_positive_contrast(
            queries, keys.flatten(0, 1), positive[:, None], shown.flatten(), self.siamese.matcher.temperature
        )
        return masked_mean(losses.mean(dim=1), found)

    def affinities(
        self, maps: Tensor, target_maps: Tensor, view: View, other: View, rectangles: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cosines (B, g·g, g·g, 1) of the target view's positions (dim 1) with places in the overlap (dim 2).

        Args:
            maps, target_maps, view, other: see :meth:`point_loss`.
            rectangles: (B, 4) of the overlaps.

        Returns:
            Those of the online network, and those of the momentum network, which pass no gradient.
        """
        side = self.affinity_side
        places = grid_points(rectangles, side)
        keys = unit(sample(target_maps, coordinates_in(other, other.grid(side, side).flatten(1, 2))))  # (B, g·g, D)
        found = []
        for dense, seen in ((maps, view), (target_maps, other)):
            points = unit(sample(dense, coordinates_in(seen, places)))  # (B, g·g, D)
            with no_autocast(points):
                found.append((keys @ points.transpose(1, 2))[:, :, :, None])
        return found[0], found[1]

    def after_step(self, progress: float) -> None:
        """Move the host, and then the centre of the affinities."""
        super().after_step(progress)
        self.affinity_matcher.after_step(progress)


def multi_positive_contrast(
    queries: Tensor, keys: Tensor, positive: Tensor, candidate: Tensor, temperature: float
) -> Tensor:
    """For each query the mean over its positives of -log( e^{q·k/tau} / sum over candidates of e^{q·k'/tau} ).

    The form of supervised contrastive learning (Khosla et al., NeurIPS 2020, eq. 2), without its base temperature.

    Args:
        queries: (..., D), unit length.
        keys: (M, D), unit length.
        positive: (..., M) bool, which keys are a query's positives; those that are no candidates do not count. A
            dimension of 1 is shared by all queries along it.
        candidate: (..., M) bool, the keys of the denominator.
        temperature: tau.

    Returns:
        (...); 0 for a query without positives.
    """
    with no_autocast(queries):
        logits = queries @ keys.T / temperature
    nothing = torch.finfo(logits.dtype).min  # finite: a query without any candidate has a gradient of 0
    total = logits.masked_fill(~candidate, nothing).logsumexp(dim=-1)
    counted = positive & candidate
    count = counted.sum(dim=-1)
    with no_autocast(queries):
        centres = counted.to(keys.dtype) @ keys / count.clamp_min(1)[..., None]  # (..., D), of each query's positives
    mean = (queries * centres).sum(dim=-1) / temperature  # of their logits
    return torch.where(count > 0, total - mean, 0.0)


def grid_cells(side: int, like: Tensor) -> Tensor:
    """The cells (side·side, 4) x0, y0, x1, y1 of a regular grid on [0, 1] x [0, 1], row by row."""
    edges = torch.linspace(0, 1, side + 1, device=like.device, dtype=like.dtype)
    y0, x0 = torch.meshgrid(edges[:-1], edges[:-1], indexing="ij")
    y1, x1 = torch.meshgrid(edges[1:], edges[1:], indexing="ij")
    return torch.stack([x0, y0, x1, y1], dim=2).flatten(0, 1)


def unit(x: Tensor) -> Tensor:
    """Vectors (..., D) at unit length."""
    return F.normalize(x, dim=-1)
