"""ORL: BYOL on images, on a box and its jittered copy, and on similar boxes of two images (Xie et al., NeurIPS 2021).

    v, v'   = BYOL's two crops of an image
    a, a'   = a box of the image, and the same box, jittered
    b, b'   = a pair of boxes of the image and of one of its nearest neighbours, drawn among the most similar pairs
    loss    = L_1(v, v') + L_2(a, a') + L_3(b, b')      each BYOL's regression, with a predictor of its own

"Unsupervised Object-Level Representation Learning from Scene Images", arXiv 2106.11952; its code is Jiahao000/ORL. One
encoder and projector, and their moving average, see all six views. Boxes are cut out first and then resized. There are
three stages: BYOL; the search for pairs with the network of stage 1, which is frozen; and this training, which starts
from random weights again. The method is as supervised as the boxes are.

Official settings. ResNet-50, hidden 4096, dim 256, views of 224 px, boxes of 96 px; selective search's boxes, filtered;
of 10 neighbours one is drawn, of the 10 % most similar pairs one; SGD with lr 0.4 at batch 512, m from 0.99 on a cosine
to 1, 800 epochs of COCO in stage 1, and again in stage 3.

NOTE: the neighbours are those within this process's part of the batch, found anew in each step. Officially they are
those in the whole data set, found once. A neighbour in a batch is less similar, so the default is 1 instead of 10.
NOTE: pairs are sought among some boxes of each image, drawn anew in each step and cut at the size of the boxes' views;
officially among up to 100, at 224 px. Of 16 boxes in each image the best of 256 pairs is taken; of 30, which is what
selective search leaves of an image, officially one of the best 3 of 900.
NOTE: without an earlier network the momentum network seeks the pairs: one stage, a variant that is not in the paper.
NOTE: each loss is the mean over its two directions, as BYOL here; officially their sum.
NOTE: lengths in pixels are shares of the image's side, and corners of jittered boxes no whole pixels.
NOTE: BN is per process; the official one is synchronised. Linears start as in :class:`baselines.byol.BYOL`.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import batched_nms

from baselines.byol import BYOL
from baselines.soco import draw, has_area
from scd.data.cut_views import WHOLE, WholeImages, cut, rectangles_inside, uniform, whole_images
from scd.data.recipes import LOCAL_SIZE
from scd.errors import UsageError
from scd.method import Batch, Parts, View, strongest_supervision
from scd.nn.ema import copy_without_grad
from scd.nn.features import maps_and_vector
from scd.nn.precision import at_least_float32, no_autocast
from scd.siamese import JointEmbedding, Matcher, match
from scd.wrapper import Wrapper

PHOTOMETRICS = ("byol1", "byol2")  # of the first and the second view of each pair
LARGEST_RATIO, LARGEST_OVERLAP, MOST_BOXES = 3.0, 0.5, 100  # of the boxes that are kept
TRIES, LARGEST_AREA, JITTER_RATIO, SMALLEST_OVERLAP = 200, 2.0, 2.0, 0.5  # of a jittered box; see :func:`jittered`


class Stage1(nn.Module):
    """The network of an earlier run, as it is at the end of that: never trained, always in evaluation mode."""

    def __init__(self, network: JointEmbedding):
        super().__init__()
        self.backbone = copy_without_grad(network.backbone)
        self.projector = copy_without_grad(network.projector)
        self.eval()

    def train(self, mode: bool = True) -> "Stage1":
        """Stay in evaluation mode."""
        return super().train(False)


class ORL(Wrapper):
    """BYOL with two further losses, on boxes of the same image and of two images.

    The recipe gives one view of whole images. An image without boxes has the whole image as its box.

    Args:
        backbone: feature maps.
        stage1: a trained joint-embedding method, or a wrapper around one, by which images and boxes are compared. It is
            copied, and no part of what is trained, evaluated or exported. None: the momentum network of this training.
        size: side of the views of the image in pixels.
        patch_size: side of the views of boxes in pixels; None: 96/224 of ``size``, rounded to a multiple of 4.
        scale: range of the area of the image's crops.
        neighbours: K, nearest images among which the image of the second box is drawn.
        proposals: boxes of each image among which pairs are sought.
        top: share of the image's own boxes; that many pairs are kept, 1 at least, and one of them is drawn.
        smallest_box: shortest side of a box, as a share of the image's. NOTE: the official 96 px are a fifth of the
            shorter side of most photographs of COCO.
        dim, hidden, momentum, momentum_schedule: see :class:`baselines.byol.BYOL`; of all three predictors.
        blur_reference: see :class:`scd.data.views.CropSpec`. Views of boxes are blurred by as many pixels.

    Raises:
        UsageError: an earlier network of another kind, a size or number below 1, an impossible scale or share.

    Attributes:
        stage1_matcher: the frozen network, or None.
    """

    needs = frozenset({"boxes"})
    addition = "boxes and their losses"

    def __init__(
        self,
        backbone: nn.Module,
        stage1: nn.Module | None = None,
        size: int = 224,
        patch_size: int | None = None,
        scale: Sequence[float] = (0.08, 1.0),
        neighbours: int = 1,
        proposals: int = 16,
        top: float = 0.1,
        smallest_box: float = 0.2,
        dim: int = 256,
        hidden: int = 4096,
        momentum: float = 0.99,
        momentum_schedule: str = "cosine",
        blur_reference: float = 224.0,
    ):
        patch_size = max(4, round(size * LOCAL_SIZE / 4) * 4) if patch_size is None else patch_size
        for name, value in {"size": size, "patch_size": patch_size, "neighbours": neighbours}.items():
            if value < 1:
                raise UsageError(f"ORL's {name} is 1 or more, not {value}")
        if not 1 <= proposals <= MOST_BOXES:
            raise UsageError(f"ORL's proposals are 1 to {MOST_BOXES}, not {proposals}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise UsageError(f"ORL's scale is two ascending shares in (0, 1], not {list(scale)}")
        for name, value in {"top": top, "smallest_box": smallest_box}.items():
            if not 0 <= value <= 1:
                raise UsageError(f"ORL's {name} is a share in [0, 1], not {value}")
        super().__init__(BYOL(backbone, dim, hidden, momentum, momentum_schedule))
        self.intra_matcher, self.inter_matcher = self.siamese.new_matcher(), self.siamese.new_matcher()
        self.stage1_matcher: Stage1 | None = None
        if stage1 is not None:
            host = stage1.siamese if isinstance(stage1, Wrapper) else stage1
            if not isinstance(host, JointEmbedding):
                raise UsageError(
                    "ORL's stage1 is the trained network of an earlier run that compares pairs of views (BYOL): a "
                    f"study gives it as an input of the run; got {type(stage1).__name__}"
                )
            self.stage1_matcher = Stage1(host)
            self.supervision = strongest_supervision(self.supervision, stage1.supervision)
        self.needs = type(self).needs
        self.size = size
        self.patch_size = patch_size
        self.scale = tuple(scale)
        self.neighbours = neighbours
        self.proposals = proposals
        self.top = top
        self.smallest_box = smallest_box
        self.blur_reference = blur_reference

    # ---------------------------------------------------------------- loss

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The sum of the three losses.

        Logs each of them, the shares of images with a box and with a jittered one that overlaps enough, and the mean
        similarity of the mined boxes.

        Raises:
            UsageError: other views than one of whole images, images without a list of boxes, or fewer images in this
                process than neighbours are sought.
        """
        views, logs = self.views(batch)
        matchers = {"image": self.siamese.matcher, "intra": self.intra_matcher, "inter": self.inter_matcher}
        losses = {f"{name}_loss": self.loss_of(pair, matchers[name]) for name, pair in views.items()}
        return {
            "loss": torch.stack(list(losses.values())).sum(),
            **{name: loss.detach() for name, loss in losses.items()},
            **logs,
        }

    def loss_of(self, views: dict[str, View], matcher: Matcher) -> Tensor:
        """BYOL's loss between two views, by this matcher; each view has forward passes of its own."""
        encoded = self.siamese.encode(views)
        online = {name: self.siamese.projector(features.pooled) for name, features in encoded.online.items()}
        return match(matcher, encoded.pairs, online, self.siamese.target_embeddings(encoded, online))

    def parts(self) -> Parts:
        own = super().parts()
        predictors = dict.fromkeys((self.intra_matcher.predictor, self.inter_matcher.predictor), "heads")
        frozen = {} if self.stage1_matcher is None else {self.stage1_matcher.backbone: "backbone, stage 1"}
        return Parts(root=own.root, modules={**own.modules, **predictors, **frozen})

    # ---------------------------------------------------------------- views

    @torch.no_grad()
    def views(self, batch: Batch) -> tuple[dict[str, dict[str, View]], dict[str, Tensor]]:
        """The two views of each loss, of the images, of boxes and of pairs of boxes; and scalars worth logging."""
        whole = whole_images(batch)
        if whole.boxes is None:
            raise UsageError("ORL needs images with boxes: name what makes them, annotations.boxes=ANNOTATOR")
        if len(whole.images) <= self.neighbours:
            raise UsageError(
                f"ORL seeks {self.neighbours} neighbours of each image in a process's part of the batch, which has "
                f"{len(whole.images)} images: give fewer method.neighbours or a larger training.batch_size"
            )
        boxes, counts, found = kept_boxes(whole.boxes, self.smallest_box)
        whole = replace(whole, masks=None, segments=None, boxes=None)
        count, device = len(boxes), boxes.device
        everything = boxes.new_tensor(WHOLE).expand(count, 4)

        row = (uniform(count, 1).to(device) * counts[:, None]).long()  # (B, 1)
        drawn = boxes.take_along_dim(row[:, :, None], dim=1)[:, 0]
        moved, fits = jittered(drawn, uniform(count, 4 * TRIES).to(boxes).unflatten(1, (TRIES, 4)))
        own, partners, theirs, similarity = self.mined(whole, boxes, counts)

        crops = [rectangles_inside(everything, self.scale) for _ in PHOTOMETRICS]
        others = replace(whole, images=whole.images[partners])
        places = {
            "image": [(whole, rectangles, self.size) for rectangles in crops],
            "intra": [(whole, rectangles, self.patch_size) for rectangles in (drawn, moved)],
            "inter": [(whole, own, self.patch_size), (others, theirs, self.patch_size)],
        }
        views = {
            name: {f"{name}{i}": self.cut(*pair[i - 1], f"{name}{i}", i) for i in (1, 2)}
            for name, pair in places.items()
        }
        return views, {
            "with_box": found.float().mean(), "jittered": fits.float().mean(), "similarity": similarity.mean(),
        }  # fmt: skip

    def cut(self, whole: WholeImages, rectangles: Tensor, size: int, name: str, number: int) -> View:
        """The first or second view of a pair, blurred by the same number of pixels at any size."""
        reference = self.blur_reference * size / self.size
        return cut(whole, rectangles, size, PHOTOMETRICS[number - 1], name, blur_reference=reference)

    # ---------------------------------------------------------------- pairs of boxes

    def mined(self, whole: WholeImages, boxes: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A pair of similar boxes of each image and another one.

        Args:
            whole: the images.
            boxes: (B, n, 4), of which the first ``counts`` (B,) count.

        Returns:
            (B, 4) a box of each image; (B,) rows of the other images; (B, 4) a box of these; (B,) cosine similarities.
        """
        count, device = len(boxes), boxes.device
        draws = uniform(count, 2).to(device)
        usable = torch.arange(boxes.shape[1], device=device) < counts[:, None]
        rows, counted = draw(usable, uniform(count, boxes.shape[1]).to(device), self.proposals)
        drawn = boxes.take_along_dim(rows[:, :, None], dim=1)  # (B, R, 4)
        images, regions = self.embedded(whole, drawn)
        partners = neighbours(images, self.neighbours, draws[:, 0])
        first, second, similarity = similar(regions, counted, partners, self.top, draws[:, 1])
        own = drawn.take_along_dim(first[:, None, None], dim=1)[:, 0]
        theirs = drawn[partners].take_along_dim(second[:, None, None], dim=1)[:, 0]
        return own, partners, theirs, similarity

    def embedded(self, whole: WholeImages, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors (B, D) of the images and (B, R, C) of their boxes (B, R, 4), unchanged in colour.

        As officially, images are compared by their projections and boxes by the means of their feature maps.
        """
        everything = boxes.new_tensor(WHOLE).expand(len(boxes), 4)
        images = cut(whole, everything, self.size, "none", "whole", flip=0.0).images
        patches = torch.stack(
            [cut(whole, own, self.patch_size, "none", "box", flip=0.0).images for own in boxes.unbind(dim=1)], dim=1
        )  # (B, R, 3, s, s)
        network = self.stage1_matcher
        if network is None:
            backbone, projector = self.siamese.target_backbone, self.siamese.target_projector
        else:
            backbone, projector = network.backbone, network.projector
        with evaluating(backbone, projector):
            vectors = projector(maps_and_vector(backbone(images))[1])
            regions = maps_and_vector(backbone(patches.flatten(0, 1)))[1].unflatten(0, patches.shape[:2])
        with no_autocast(vectors):
            return F.normalize(at_least_float32(vectors), dim=1), F.normalize(at_least_float32(regions), dim=2)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Modules in evaluation mode for a while: batch norm takes its running statistics, and does not change them."""
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)


def neighbours(vectors: Tensor, most: int, draws: Tensor) -> Tensor:
    """For each image one of the ``most`` nearest others, (B,) rows of the batch.

    Args:
        vectors: (B, D) of unit length.
        draws: (B,) in [0, 1).
    """
    similarity = (vectors @ vectors.T).fill_diagonal_(-math.inf)
    nearest = similarity.topk(most, dim=1).indices  # (B, K)
    return nearest.take_along_dim((draws * most).long()[:, None], dim=1)[:, 0]


def similar(
    vectors: Tensor, counted: Tensor, partners: Tensor, top: float, draws: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One of the most similar pairs of a box of each image and a box of its partner.

    Of an image with N boxes that count, the int(top N) most similar of all pairs are kept, 1 at least.

    Args:
        vectors: (B, R, C) of unit length, of the boxes.
        counted: (B, R) bool; at least one box of each image counts.
        partners: (B,) rows of the batch.
        top: share of N.
        draws: (B,) in [0, 1).

    Returns:
        (B,) the box of the image, (B,) the box of its partner, and (B,) their cosine similarity.
    """
    with no_autocast(vectors):
        similarity = vectors @ vectors[partners].transpose(1, 2)  # (B, R, R): own boxes, the partner's
    both = counted[:, :, None] & counted[partners][:, None, :]
    many = vectors.shape[1]
    best = similarity.masked_fill(~both, -math.inf).flatten(1).topk(max(1, int(top * many)), dim=1)
    kept = (top * counted.sum(dim=1)).long().clamp_min(1)  # of these
    place = (draws * kept).long()[:, None]
    pair = best.indices.take_along_dim(place, dim=1)[:, 0]
    return pair // many, pair % many, best.values.take_along_dim(place, dim=1)[:, 0]


# -------------------------------------------------------------------- boxes


def kept_boxes(boxes: Sequence[Tensor], smallest: float) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes of each image that are neither small, nor narrow, nor almost the same as an earlier one.

    In their order: a side below ``smallest``, an aspect ratio above 3, and an IoU above 0.5 with a box that is kept
    already are reasons to leave a box out; the first 100 that are left are kept. Where none is left, the first box is.

    Args:
        boxes: one (n_i, 4) tensor per image; boxes without area do not count.
        smallest: share of the image's side.

    Returns:
        (B, 100, 4), those that are kept first, the whole image where an image has no box; (B,) their number, 1 or more;
        and (B,) bool, the images that have a box.
    """
    padded = pad_sequence(
        [F.pad(own, (0, 0, 0, 1)) for own in boxes], batch_first=True
    )  # one row without area at least
    padded = F.pad(padded, (0, 0, 0, max(0, MOST_BOXES - padded.shape[1])))
    sides = padded[:, :, 2:] - padded[:, :, :2]
    area = has_area(padded)
    fits = area & (sides >= smallest).all(dim=2) & (sides.amax(dim=2) <= LARGEST_RATIO * sides.amin(dim=2))
    if not padded.is_meta:  # where boxes have no values
        image, number = fits.nonzero(as_tuple=True)
        kept = batched_nms(padded[image, number].double(), -number.double(), image, LARGEST_OVERLAP)
        fits = torch.zeros_like(fits).index_put((image[kept], number[kept]), fits.new_ones(()))
    first = area & (area.cumsum(dim=1) == 1)
    fits = torch.where(fits.any(dim=1, keepdim=True), fits, first)
    order = fits.int().argsort(dim=1, descending=True, stable=True)[:, :MOST_BOXES]
    found = area.any(dim=1)
    chosen = torch.where(
        found[:, None, None], padded.take_along_dim(order[:, :, None], dim=1), padded.new_tensor(WHOLE)
    )
    return chosen, fits.sum(dim=1).clamp(1, MOST_BOXES), found


def jittered(boxes: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes of another area, aspect ratio and place, which overlap with the given ones; inside the image.

    Each try has an area ~ U(0.5, 2) of the box's, a ratio of width over height with log ~ U(log 0.5, log 2), and a
    centre that is moved by U(-0.5, 0.5) of the box's width and height. The first one counts that lies inside the image
    and has an IoU above 0.5 with the box.

    Args:
        boxes: (B, 4) in [0, 1] of square images.
        draws: (B, tries, 4) in [0, 1): area, ratio, and the shifts in x and y.

    Returns:
        (B, 4); and (B,) bool, False where no try counts: there it is the box itself.
    """
    sides = boxes[:, None, 2:] - boxes[:, None, :2]  # (B, 1, 2)
    areas = sides.prod(dim=2) * (1 / LARGEST_AREA + draws[:, :, 0] * (LARGEST_AREA - 1 / LARGEST_AREA))  # (B, tries)
    ratios = JITTER_RATIO ** (2 * draws[:, :, 1] - 1)
    shape = torch.stack([(areas * ratios).sqrt(), (areas / ratios).sqrt()], dim=2)  # width, height
    centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2 + (draws[:, :, 2:] - 0.5) * sides
    low, high = centres - shape / 2, centres + shape / 2
    common = torch.minimum(high, boxes[:, None, 2:]) - torch.maximum(low, boxes[:, None, :2])
    common = common.clamp_min(0).prod(dim=2)
    overlaps = common / (areas + sides.prod(dim=2) - common)
    fits = ((low >= 0) & (high <= 1)).all(dim=2) & (overlaps > SMALLEST_OVERLAP)
    first = fits.int().argmax(dim=1)[:, None, None]
    tried = torch.cat([low, high], dim=2).take_along_dim(first, dim=1)[:, 0]
    found = fits.any(dim=1)
    return torch.where(found[:, None], tried, boxes), found
