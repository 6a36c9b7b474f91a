"""CAST: MoCo whose gradient has to look at the object (Selvaraju et al., CVPR 2021, arXiv 2012.04630).

    v1, v2 = crops that cover a part of the image's mask        saliency-constrained crops
    l_i = n(q_i) . n(k_i) / tau                                 k_i: the key of v2 with its background blanked out
    a_c = mean over places of d(sum_i l_i) / dF_c               F: last feature map of v1
    G   = min-max over places of sum_c a_c F_c                  Grad-CAM, in [0, 1]
    loss = beta / (beta + alpha) InfoNCE(q, k, queue) + alpha / (beta + alpha) (1 - cos(G, M))    M: mask in v1

"CASTing Your Model: Learning to Localize Improves Self-Supervised Representations"; its code is salesforce/CAST. The
gradient of l keeps its graph, so that the loss is differentiated through it. The method is as supervised as the masks.

Official settings. ResNet-50 on COCO, masks of DeepUSPS (unsupervised), alpha 3, beta 1; MoCo with a single linear layer
as its head, queue 65536, m 0.999, tau 0.07; 200 epochs, batch 256, SGD with lr 0.5, cosine, gradients clipped to a
joint norm of 2; crops of 20 to 100 % of the image; flip, grey 0.2, jitter 0.4 with probability 0.5, no blur.

NOTE: the cosine is taken image by image and averaged. The released code takes it over all values of a process's batch
together: ``cosine="batch"``.
NOTE: no ReLU before the min-max, as in the released code, where the ReLU acts on values that are in [0, 1] already. The
paper's formula has the ReLU first.
NOTE: M is the mask in v1 at the points of ``interpolate(align_corners=True)``, as in the released code. The outermost
points are the corners of the view, and not the centres of the map's cells.
NOTE: an image without a mask has crops of its whole area and no term of attention. So has one whose mask is not seen in
one of its views after resizing. The released code draws another image instead.
NOTE: v1 is encoded once. In the released code it goes through the network twice with the same result, which moves BN's
running statistics twice, and the EMA twice in a step.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.contracam import tight_boxes
from baselines.moco import MoCo
from scd.data.crops import TRIES
from scd.data.cut_views import WHOLE, cut, rectangles_inside, uniform, whole_images
from scd.data.photometric import photometric as photometrics_of
from scd.errors import UsageError, unknown
from scd.method import Batch, View
from scd.nn.precision import at_least_float32, no_autocast
from scd.nn.processes import gather
from scd.siamese import JointEmbedding
from scd.wrapper import Wrapper

NAMES = ("v1", "v2")  # the query's view and the key's
COSINES = ("image", "batch")
RATIO = (3 / 4, 4 / 3)  # of width over height
CONSTRAINED_DRAWS = 4 * TRIES + 4  # area, ratio and centre (x, y) of every try, then the sides of the last resort
FLAT = 1e-6  # of the largest value: maps whose values differ by less are constant


class CAST(Wrapper):
    """MoCo on saliency-constrained crops, with a loss between Grad-CAM and the mask of the query's view.

    The recipe gives one view of whole images with masks.

    Args:
        siamese: the host, an asymmetric MoCo: its temperature and heads make the logit l.
        size: side of the views in pixels.
        scale: range of a view's area as a share of the image's.
        cover: share of the mask that a view covers at least; less where the mask is too large for the smallest view.
        attention_weight: alpha.
        image_weight: beta.
        cosine: "image": per image, then averaged; "batch": over the values of all images together (official).
        photometric: name of the photometric augmentation of both views.
        blur_reference: see :class:`scd.data.views.CropSpec`.

    Raises:
        UsageError: a host that is not an asymmetric MoCo, a size below 1, an impossible scale, a cover that is no
            share, weights that are negative or both 0, or unknown names.
    """

    needs = frozenset({"masks"})
    addition = "masked key and Grad-CAM"

    def __init__(
        self,
        siamese: JointEmbedding,
        size: int = 224,
        scale: Sequence[float] = (0.2, 1.0),
        cover: float = 0.2,
        attention_weight: float = 3.0,
        image_weight: float = 1.0,
        cosine: str = "image",
        photometric: str = "mocov2",
        blur_reference: float = 224.0,
    ):
        super().__init__(siamese)
        if not isinstance(siamese, MoCo):
            raise UsageError(f"CAST differentiates MoCo's positive logit and needs MoCo, not {type(siamese).__name__}")
        if siamese.symmetric:
            raise UsageError("CAST has one query and one masked key an image; use MoCo with symmetric=false")
        if size < 1:
            raise UsageError(f"the size of CAST's views is 1 pixel or more, not {size}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise UsageError(f"the scale of CAST's views is two ascending shares in (0, 1], not {list(scale)}")
        if not 0 <= cover <= 1:
            raise UsageError(f"CAST's cover is a share of the mask in [0, 1], not {cover}")
        if min(attention_weight, image_weight) < 0 or not attention_weight + image_weight > 0:
            raise UsageError(f"CAST's weights are 0 or more and not both 0, not {attention_weight} and {image_weight}")
        if cosine not in COSINES:
            raise unknown("cosine", cosine, COSINES)
        photometrics_of(photometric)
        self.needs = siamese.needs | type(self).needs
        self.size = size
        self.scale = tuple(scale)
        self.cover = cover
        self.attention_weight = attention_weight
        self.image_weight = image_weight
        self.cosine = cosine
        self.photometric = photometric
        self.blur_reference = blur_reference

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss; logs its two terms and the share of images whose attention counts.

        Raises:
            UsageError: other views than one of whole images, images without masks, or a backbone whose vector does not
                follow from its last map.
        """
        return self.compare(self.views(batch))

    # ---------------------------------------------------------------- views

    def views(self, batch: Batch) -> dict[str, View]:
        """The query's and the key's view of each image, each with its mask."""
        whole = whole_images(batch)
        if whole.masks is None:
            raise UsageError("CAST needs images with masks: name what makes them, annotations.masks=NAME")
        found = {}
        for name in NAMES:
            rectangles = self.rectangles(whole.masks)
            found[name] = cut(whole, rectangles, self.size, self.photometric, name, blur_reference=self.blur_reference)
        return found

    def rectangles(self, masks: Tensor) -> Tensor:
        """A rectangle (B, 4) in each image with a mask (B, S, S); anywhere where the mask is empty."""
        draws = uniform(len(masks), CONSTRAINED_DRAWS).to(masks.device)
        anywhere = rectangles_inside(masks.new_tensor(WHOLE).expand(len(masks), 4), self.scale, RATIO)
        constrained = constrained_rectangles(masks, draws, self.scale, self.cover)
        return torch.where((masks > 0).any(dim=2).any(dim=1)[:, None], constrained, anywhere)

    # ---------------------------------------------------------------- loss

    def compare(self, views: dict[str, View]) -> dict[str, Tensor]:
        """The loss of two views with masks, and scalars worth logging."""
        host = self.siamese
        with torch.enable_grad():  # G is a gradient, also where the loss is only read
            encoded = host.encode(views)
            image_loss, logs = host.image_loss(encoded)
            ((query, key),) = encoded.pairs
            features = encoded.online[query]
            q, k = host.projector(features.pooled), self.masked_key(views[key])
            with no_autocast(q):
                q, k = (F.normalize(at_least_float32(x), dim=1) for x in (q, k))
                logits = (q * k).sum(dim=1) / host.matcher.temperature  # (B,)
                attention = min_max(grad_cam(logits, features.maps))
                masks = reduced(views[query].masks.to(attention), attention.shape[1:])
                counted = (masks > 0).flatten(1).any(dim=1) & (views[key].masks > 0).flatten(1).any(dim=1)
                attention_loss = self.disagreement(attention, masks, counted)
            total = self.image_weight + self.attention_weight
            loss = (self.image_weight * image_loss + self.attention_weight * attention_loss) / total
        return {
            "loss": loss,
            **logs,
            "attention_loss": attention_loss.detach(),
            "with_mask": counted.float().mean(),
        }

    @torch.no_grad()
    def masked_key(self, view: View) -> Tensor:
        """Key embeddings (B, D) of a view whose background has the mean colour; they never enter the queue.

        A view in which no mask is seen stays whole, for the sake of the other keys' BN; it does not count.
        """
        seen = (view.masks > 0).flatten(1).any(dim=1)[:, None, None]
        masks = torch.where(seen, view.masks, 1.0)[:, None].to(view.images.dtype)
        return self.siamese.target_projector(self.siamese.encode_target(view.images * masks).pooled)

    def disagreement(self, attention: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        """1 - cos(G, M): its mean over the images of all processes that count, or one for all; 0 when none counts.

        Args:
            attention, masks: (B, h, w).
            counted: (B,) bool.
        """
        g, m = attention.flatten(1), masks.flatten(1)
        if self.cosine == "image":
            terms = torch.where(counted, 1.0 - F.cosine_similarity(g, m, dim=1), 0.0)  # (B,)
            number = gather(counted.sum().to(terms)[None]).mean()  # of a process, on average
            return terms.sum() / torch.where(number > 0, number, 1.0)
        g, m = (torch.where(counted[:, None], x, 0.0).flatten() for x in (g, m))
        return torch.where(counted.any(), 1.0 - F.cosine_similarity(g, m, dim=0), 0.0)


def grad_cam(logits: Tensor, maps: Tensor) -> Tensor:
    """Grad-CAM of one logit an image, with the graph that its own gradient needs.

    Args:
        logits: (B,), each of its own image alone.
        maps: (B, C, h, w), from which the logits were computed.

    Returns:
        (B, h, w), at least float32.

    Raises:
        UsageError: the logits do not depend on the maps.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), maps, create_graph=True, allow_unused=True)
    if gradient is None:
        raise UsageError(
            "CAST needs a backbone whose vector is the mean of its last map, a ResNet for example; "
            "that of this one comes from a class token"
        )
    weights = at_least_float32(gradient).mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
    return (weights * at_least_float32(maps)).sum(dim=1)


def min_max(maps: Tensor) -> Tensor:
    """Maps (B, h, w) brought to [0, 1] each; a constant one becomes 0 and passes no gradient on."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    spread = high - low
    flat = spread <= FLAT * torch.maximum(high.abs(), low.abs())
    return torch.where(flat, 0.0, (maps - low) / torch.where(flat, 1.0, spread))


def reduced(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Masks (B, s, s) at the points of a smaller grid (B, h, w), the corners included."""
    return F.interpolate(masks[:, None], size=tuple(size), mode="bilinear", align_corners=True)[:, 0]


# -------------------------------------------------------------------- saliency-constrained crops


def constrained_rectangles(
    masks: Tensor, draws: Tensor, scale: Sequence[float], cover: float, ratio: Sequence[float] = RATIO
) -> Tensor:
    """Rectangles near the masks' centroids that cover a part of the mask.

    Ten tries of (area ~ U(scale), log ratio ~ U(log ratio), centre ~ a Gaussian at the centroid whose standard
    deviation is the image's side, truncated to the places where the rectangle lies in the image). The first one that
    fits and covers min(cover, scale[0] / the mask's area) of the mask counts. If none does: :func:`containing`.

    NOTE: continuous coordinates; the released code has whole pixels.

    Args:
        masks: (B, S, S) in {0, 1}; the rectangle of an empty one has no meaning.
        draws: (B, CONSTRAINED_DRAWS) uniform numbers in [0, 1), on the masks' device.
        scale: range of the area as a share of the image's.
        cover: share of the mask.
        ratio: range of width over height.

    Returns:
        (B, 4) x0, y0, x1, y1 in [0, 1] of the image.
    """
    side = masks.shape[2]
    areas, ratios, *centres = draws[:, : 4 * TRIES].unflatten(1, (4, TRIES)).unbind(dim=1)  # (B, TRIES) each
    areas = scale[0] + areas * (scale[1] - scale[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = torch.exp(low + ratios * (high - low))
    halves = torch.stack([(areas * ratios).sqrt(), (areas / ratios).sqrt()], dim=2) / 2  # (B, TRIES, 2)
    fits = (halves <= 0.5).all(dim=2)
    halves = halves.clamp(max=0.5)
    mass = masks.mean(dim=(1, 2)).clamp_min(1 / side**2)  # (B,) of a share of the image
    places = (torch.arange(side, device=masks.device, dtype=masks.dtype) + 0.5) / side
    centroid = torch.stack([(masks.mean(dim=axis) * places).mean(dim=1) for axis in (1, 2)], dim=1) / mass[:, None]
    middle = truncated_gaussian(torch.stack(centres, dim=2), centroid[:, None], halves, 1 - halves)
    tried = torch.cat([middle - halves, middle + halves], dim=2)  # (B, TRIES, 4)
    wanted = (scale[0] / mass).clamp(max=cover)
    accepted = fits & (mass_inside(masks, tried) >= (wanted * mass)[:, None])
    first = accepted.int().argmax(dim=1)[:, None, None].expand(-1, 1, 4)
    boxes = tight_boxes(masks)[0].to(draws.dtype) / side
    resort = containing(boxes, draws[:, 4 * TRIES :], ratio)
    return torch.where(accepted.any(dim=1, keepdim=True), tried.gather(1, first)[:, 0], resort).clamp(0, 1)


def truncated_gaussian(draws: Tensor, mean: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Samples of a Gaussian of standard deviation 1 between two ends, by its inverse from uniform numbers."""
    start, end = (torch.special.ndtr(x - mean) for x in (low, high))
    return (mean + torch.special.ndtri(start + draws * (end - start))).clamp(low, high)


def mass_inside(masks: Tensor, rectangles: Tensor) -> Tensor:
    """Area of the masks (B, S, S) inside rectangles (B, T, 4), as a share of the image: (B, T).

    Each pixel counts by the part of it that the rectangle covers. The sums over the upper left corners of the image are
    those of zeros and ones, so they are exact.
    """
    table = F.pad(masks, (1, 0, 1, 0)).cumsum(dim=1).cumsum(dim=2)[:, None]  # (B, 1, S + 1, S + 1)
    corners = rectangles[:, :, [0, 1, 2, 1, 0, 3, 2, 3]].unflatten(2, (4, 2))  # (B, T, 4, 2)
    values = F.grid_sample(table, 2 * corners - 1, padding_mode="border", align_corners=True)[:, 0]
    upper_left, upper_right, lower_left, lower_right = values.unbind(dim=2)
    return (lower_right - lower_left - upper_right + upper_left) / masks.shape[2] ** 2


def containing(boxes: Tensor, draws: Tensor, ratio: Sequence[float] = RATIO) -> Tensor:
    """Rectangles around boxes: each side moved outwards by a random part of the way to the image's border.

    One that is too wide or too tall then loses at its right or lower end, but not below the box's end there; where the
    box itself is too wide or too tall, it loses at its left or upper end.

    Args:
        boxes: (B, 4) x0, y0, x1, y1 in [0, 1].
        draws: (B, 4) in [0, 1), of x0, y0, x1 and y1.
        ratio: range of width over height.
    """
    corner = boxes[:, :2] * (1 - draws[:, :2])
    end = boxes[:, 2:] + draws[:, 2:] * (1 - boxes[:, 2:])
    width, height = (end - corner).unbind(dim=1)
    sides = torch.stack([torch.minimum(width, height * ratio[1]), torch.minimum(height, width / ratio[0])], dim=1)
    moved = (boxes[:, 2:] - corner - sides).clamp_min(0)
    moved = torch.where(sides < end - corner, moved, 0.0)
    return torch.cat([corner + moved, corner + moved + sides], dim=1)
