"""SCD: a saliency map splits the feature map of a Siamese method into foreground and background for a triplet loss.

    M  = sigmoid(MLP(F))                       per position of the feature map F that the image-level loss uses
    fg = sum(M F) / sum(M)                     bg = sum((1 - M) F) / sum(1 - M)
    L  = L_image + weight · mean over (i, j) of max(0, margin + d(fg_i, fg'_j) - d(fg_i, bg))
                 + foreground_weight · mean over (i, j) of L_host(g(fg_i), g'(fg'_j))

with (i, j) the (online view, target view) pairs of the host, ' the target branch, bg in {bg_i, bg'_j}, and g and L_host
the host's projector and loss. The last term is left out by default (``foreground_weight=0``).

1. What the abstract and the public reviews establish
   - the global feature map is aggregated with learned feature-level saliency maps as weights;
   - this gives one foreground and one background vector per view; the background comes from the inverted map;
   - the saliency network is "a simple MLP" on the feature map;
   - triplets are formed from the foreground and background vectors of the two views, and a triplet loss separates them;
   - it plugs into MoCo v2 and BYOL, whose own loss stays.

2. What is this suite's reconstruction, since neither says it; each is an argument of :class:`SCD` or of its map source
   - triplet: anchor = online foreground, positive = the other view's foreground, negatives = the backgrounds of both
     views (``anchors``);
   - the positive and the other view's background come from the momentum branch, without gradient (``positive_branch``);
   - the maps and vectors of the momentum branch come from EMA copies of the saliency head and of the projection, with
     the host's own momentum;
   - distance = Euclidean between unit vectors (``distance``, ``normalise``), ``margin``, ``weight``;
   - weighted mean rather than weighted sum (``pooling``);
   - a projection MLP shared by foreground and background before the distance (``projection_dim``,
     ``projection_hidden``, ``projection_norm``);
   - the saliency MLP has two layers, ReLU between them, no norm; its map is a sigmoid, a softmax over positions, or a
     sigmoid of logits that are centred per position (arguments of ``SaliencyMLP``);
   - the host's own loss is on the image's vectors only, or also on the foreground vectors (``foreground_weight``);
   - the triplet's gradient reaches the backbone through the map as well as through the features (``map_gradient``);
   - which of these choices are taken: on draw 0 of the embedded images the rule of ``studies/reconstruction.py``, which
     reads no accuracy of SCD with its own map, chooses a softmax over positions, no projection, the host's loss on the
     foregrounds, both anchors, weight 1 and margin 1. NOTE: these are not the defaults yet: DINO has no second matcher
     for the host's loss, and LEWEL's map source has several maps;
   - triplets between global views only (``triplet_views``); no regulariser against M = 0 or M = 1: area, standard
     deviation, saturation and entropy of the map are logged instead.

NOTE: nothing in this loss says which side is the foreground; a map that is high on the background satisfies it too.
NOTE: a fresh map is nearly constant, so fg and bg start nearly equal. The Euclidean distance pulls with unit force
there; the squared one has almost no gradient, and its loss can stay at ``margin`` for hundreds of steps of SGD. BN in
the projection leaves that plateau too, but it amplifies the small differences that a still constant map gives: the
loss then says little about the map.
NOTE: with :class:`scd.maps.controls.ConstantMap` fg = bg = the pooled vector, in both branches. The half of the
triplets with the other view's background then is the constant ``margin`` (two equal distances, whose gradients
cancel); the other half is ``margin + d(fg_i, fg'_j)``. What stays is a pull between the two views of an image through
the projection, without negatives: the control keeps the heads, their cost and this pull, and loses the separation only.
NOTE: the triplet pulls the foregrounds of an image together and does not keep those of different images apart; with a
projection, nothing else does either. The host's loss on the foreground vectors is what can, where the host has
negatives or another device against collapse.
NOTE: around a host without a momentum branch (SimSiam) the target branch is the online network without gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.errors import UsageError, unknown
from scd.maps.learned import SaliencyMLP
from scd.maps.source import MapSource
from scd.maps.statistics import map_statistics
from scd.method import View
from scd.nn.heads import MLP
from scd.nn.losses import DISTANCES, TERMS, triplet
from scd.siamese import Encoded, Features, JointEmbedding, Pair, match, unique
from scd.wrapper import Wrapper

CHOICES = {
    "anchors": ("foreground", "both"),
    "positive_branch": ("target", "online"),
    "distance": DISTANCES,
    "pooling": ("mean", "sum"),
    "triplet_views": ("global", "all"),
    "terms": TERMS,
}


@dataclass
class Regions:
    """A view's saliency and its vectors.

    Args:
        maps: (B, h, w), or (B, J, h, w) where the map source gives J maps.
        foreground, background: (B, D), or (B·J, D).
        pooled: (B, C), or (B·J, C): the pooled foreground before the projection.
    """

    maps: Tensor
    foreground: Tensor
    background: Tensor
    pooled: Tensor


@dataclass
class Separated:
    """The regions of one batch by view name, and the pairs of views that make triplets; as :class:`Encoded`."""

    pairs: list[Pair]
    online: dict[str, Regions]
    target: dict[str, Regions]


class SCD(Wrapper):
    """A joint-embedding method plus the separation of foreground and background.

    A source of J maps makes J triplets per pair of views, each between vectors of the same index.

    Args:
        siamese: the host: MoCo, BYOL, DINO, SimSiam or another joint-embedding method.
        saliency: a map source, or what builds one from ``dim=C`` (``functools.partial(SaliencyMLP, depth=3)``, in a
            configuration ``_partial_: true``); None is ``SaliencyMLP`` with its defaults.
        weight: of the triplet loss against the image-level loss.
        foreground_weight: of the host's loss on the pooled foreground vectors, through its projector and with a matcher
            (queue, predictor) of their own; 0 leaves it out.
        margin: in units of the distance; unit vectors are at most 2 apart, 4 in squared distance.
        projection_dim: width D of the projected vectors; 0 leaves the pooled features as they are.
        projection_hidden: width of the projection's hidden layer; C when None.
        projection_norm: norm of the hidden layer, see :class:`scd.nn.heads.MLP`; BN counts both regions of a view.
        anchors: "foreground", or "both": backgrounds are anchors too, with foregrounds as their negatives.
        positive_branch: "target", or "online": the other view's vectors come from the online branch, with gradient;
            this takes a symmetric host.
        distance: see :func:`scd.nn.losses.triplet`.
        normalise: whether vectors have unit length before the distance. NOTE: without it scaling satisfies the loss.
        pooling: "mean" divides by the map's mass, "sum" does not.
        map_gradient: False stops the map's gradient at the feature map, so that only the head learns from it.
        triplet_views: "global", or "all": extra views are anchors too.
        terms: "both" is the triplet loss; "consistency" is its pull, d(fg_i, fg'_j), alone; "discrimination" is its
            push, max(0, margin - d(fg_i, bg)), alone: the two halves of the triplet as ablations.

    Raises:
        UsageError: an unknown choice for one of the arguments (the text names the valid ones),
            ``positive_branch="online"`` with an asymmetric host, or a ``foreground_weight`` that is negative or has a
            host without a second matcher.
    """

    addition = "saliency, pooling, triplet"

    def __init__(
        self,
        siamese: JointEmbedding,
        saliency: MapSource | Callable[..., MapSource] | None = None,
        weight: float = 1.0,
        margin: float = 0.5,
        projection_dim: int = 128,
        projection_hidden: int | None = None,
        projection_norm: str = "none",
        anchors: str = "foreground",
        positive_branch: str = "target",
        distance: str = "euclidean",
        normalise: bool = True,
        pooling: str = "mean",
        map_gradient: bool = True,
        triplet_views: str = "global",
        terms: str = "both",
        foreground_weight: float = 0.0,
    ):
        super().__init__(siamese)
        given = {
            "anchors": anchors,
            "positive_branch": positive_branch,
            "distance": distance,
            "pooling": pooling,
            "triplet_views": triplet_views,
            "terms": terms,
        }
        for option, choice in given.items():
            if choice not in CHOICES[option]:
                raise unknown(option, choice, CHOICES[option])
        if positive_branch == "online" and not siamese.symmetric:
            raise UsageError("positive_branch=online needs the online features of both views; set symmetric=true")
        for option, value in (("foreground_weight", foreground_weight), ("weight", weight)):
            if value < 0:
                raise UsageError(f"{option} is the weight of a loss, 0 or more, not {value}")
        if margin < 0:
            raise UsageError(f"margin is a distance, 0 or more, not {margin}")
        dim = siamese.backbone.dim
        source = SaliencyMLP if saliency is None else saliency
        self.saliency_head = source if isinstance(source, nn.Module) else source(dim=dim)
        self.target_saliency_head = self.add_source(self.saliency_head)
        self.projection: nn.Module = nn.Identity()
        if projection_dim:
            self.projection = MLP((dim, projection_hidden or dim, projection_dim), norm=projection_norm)
        self.target_projection = siamese.target_of(self.projection)
        self.foreground_matcher = siamese.new_matcher() if foreground_weight else None
        self.weight = weight
        self.foreground_weight = foreground_weight
        self.anchors = anchors
        self.positive_branch = positive_branch
        self.normalise = normalise
        self.pooling = pooling
        self.map_gradient = map_gradient
        self.triplet_views = triplet_views
        self.triplet = partial(triplet, margin=margin, distance=distance, terms=terms)

    # ---------------------------------------------------------------- loss

    def combine(self, image_loss: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """The host's loss plus the weighted losses between regions; logs these and statistics of the online maps."""
        separated = self.separate(encoded)
        triplet_loss = self.triplet_loss(separated)
        loss, logs = image_loss + self.weight * triplet_loss, {"triplet_loss": triplet_loss.detach()}
        if self.foreground_matcher is not None:
            foreground_loss = self.foreground_loss(encoded, separated)
            loss = loss + self.foreground_weight * foreground_loss
            logs["foreground_loss"] = foreground_loss.detach()
        maps = [regions.maps.detach() for regions in separated.online.values()]
        return loss, {**logs, **map_statistics(*maps)}

    def separate(self, encoded: Encoded) -> Separated:
        """The regions of every view that a loss between regions needs."""
        pairs = self.triplet_pairs(encoded)
        names = unique(i for i, _ in pairs)
        if self.foreground_matcher is not None:
            names = unique(self.siamese.online_views(pairs))
        online = {i: self.online_regions(encoded.online[i], encoded.views[i]) for i in names}
        target: dict[str, Regions] = {}
        if self.positive_branch == "target" or self.foreground_matcher is not None:
            with torch.no_grad():
                for j in unique(j for _, j in pairs):
                    target[j] = self.target_regions(encoded.target[j], encoded.views[j])
        return Separated(pairs, online, target)

    def triplet_loss(self, separated: Separated) -> Tensor:
        """The mean over pairs of the triplet loss."""
        online = separated.online
        other = online if self.positive_branch == "online" else separated.target
        return torch.stack([self.compare(online[i], other[j]) for i, j in separated.pairs]).mean()

    def foreground_loss(self, encoded: Encoded, separated: Separated) -> Tensor:
        """The mean over pairs of the host's loss between the pooled foregrounds of two views, see ``Regions.pooled``.

        Raises:
            UsageError: a map source of several maps.
        """
        online = {}
        for name, regions in separated.online.items():
            if regions.maps.ndim == 4:
                raise UsageError("foreground_weight takes a map source of one map; set foreground_weight=0")
            online[name] = self.siamese.projector(regions.pooled)

        def embedding(features: Features, view: View) -> Tensor:
            return self.siamese.target_projector(separated.target[view.name].pooled)

        target = self.siamese.target_results(encoded, online, embedding)
        return match(self.foreground_matcher, separated.pairs, online, target)

    def triplet_pairs(self, encoded: Encoded) -> list[Pair]:
        """The host's pairs that make triplets: those between global views, or all of them."""
        if self.triplet_views == "all":
            return encoded.pairs
        return [(i, j) for i, j in encoded.pairs if encoded.views[i].role == "global"]

    def compare(self, view: Regions, other: Regions) -> Tensor:
        """Foreground to foreground, away from both backgrounds; with ``anchors="both"`` the reverse as well."""
        backgrounds = [view.background, other.background]
        loss = self.triplet(view.foreground, other.foreground, backgrounds)
        if self.anchors == "foreground":
            return loss
        foregrounds = [view.foreground, other.foreground]
        return (loss + self.triplet(view.background, other.background, foregrounds)) / 2

    # ---------------------------------------------------------------- regions

    def online_regions(self, features: Features, view: View) -> Regions:
        """Map, foreground and background of a view in the online branch, with gradient."""
        maps = features.maps if self.map_gradient else features.maps.detach()
        return self.regions(features.maps, self.saliency_head(maps, view), self.projection)

    def target_regions(self, features: Features, view: View) -> Regions:
        """The same in the target branch."""
        return self.regions(features.maps, self.target_saliency_head(features.maps, view), self.target_projection)

    def regions(self, maps: Tensor, saliency: Tensor, projection: nn.Module) -> Regions:
        """Feature maps (B, C, h, w) pooled under M and under 1 - M, (B, [J,] h, w), both through the projection."""
        weights = torch.stack([saliency, 1.0 - saliency], dim=-3).flatten(-2).float()  # (B, [J,] 2, h·w)
        if self.pooling == "mean":
            weights = weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-6)
        pixels = maps.flatten(2).transpose(1, 2)  # (B, h·w, C)
        if saliency.ndim == 4:
            pixels = pixels[:, None]  # (B, 1, h·w, C)
        pooled = (weights.to(maps.dtype) @ pixels).flatten(0, -3)  # (B[·J], 2, C)
        vectors = projection(pooled).float()  # (B[·J], 2, D)
        if self.normalise:
            vectors = F.normalize(vectors, dim=2)
        foreground, background = vectors.unbind(dim=1)
        return Regions(saliency, foreground, background, pooled[:, 0])

    # ---------------------------------------------------------------- step

    def after_backward(self) -> None:
        super().after_backward()
        if self.foreground_matcher is not None:
            self.foreground_matcher.after_backward()

    def after_step(self, progress: float) -> None:
        """Move the host, the heads' copies and the map source; the foregrounds' matcher then changes its state."""
        super().after_step(progress)
        if self.foreground_matcher is not None:
            self.foreground_matcher.after_step(progress)

    # ---------------------------------------------------------------- evaluation

    @torch.no_grad()
    def saliency(self, view: View) -> Tensor | None:
        """The online map (B, h, w) in [0, 1]; 1 is what the loss treats as foreground.

        None where the map source needs more than the view has, as an oracle does.
        """
        maps = self.saliency_head.scored(self.siamese.encode_online(view.images).maps, view)
        return None if maps is None else maps.float()
