"""DINOv2's losses: DINO, iBOT's loss on masked patches and the KoLeo regulariser (Oquab et al., arXiv 2304.07193).

The student sees the global views with some patches replaced by one learned vector, the teacher sees all patches. With x
the vector of an image (the class token), s_p and t_p the logits of patch p, U the set of masked patches,

    L = L_DINO + L_patch + 0.1 sum over the global views of L_KoLeo
    L_patch = mean over global views and images of  1 / |U|  sum over p in U of  -sum_k q_p,k log softmax(s_p / tau_s)_k
    L_KoLeo = mean over images of  -log( | x_i - x_nn(i) | + eps )       x of unit length, nn(i) the nearest other one

(iBOT: Zhou et al., arXiv 2111.07832, equation 3; KoLeo: Sablayrolles et al., arXiv 1806.03198). L_DINO takes the class
tokens of the masked global views, and the local views as they are. The teacher's distribution q is either centred,

    q = softmax((t - c) / tau_t),     c an EMA over the steps, of the class tokens and of the masked patches apart,

or balanced by Sinkhorn-Knopp: exp(t / tau_t) is scaled so that all prototypes have the same mass over the batch, and
then each row to 1, three times. Written in logarithms, this too is a centre, of this very batch; see
:func:`sinkhorn_centre`.

Official settings (``ssl_default_config.yaml``: ViT-L/16 on ImageNet-1k; the larger runs in brackets). One head for both
kinds of tokens (two), K 65536 (131072), centring (Sinkhorn-Knopp), tau_t 0.04 to 0.07 over 30 of 100 epochs; half of
the global views are masked, 10 to 50 % of their patches, in blocks of 4 patches at least; EMA 0.992 (0.994) to 1;
AdamW, lr 0.004 (0.0002) times the square root of batch / 1024, times 0.9 for each layer below the last one (no decay)
and 0.2 in the patch embedding; weight decay 0.04 to 0.4 (0.2); stochastic depth 0.3 (0.4) and LayerScale from 1e-5.

NOTE: as in DINO, the rows of the last layer have unit length; DINOv2's code starts their length at 1 and trains it.
NOTE: iBOT's code centres the patches by the mean over all of them, DINOv2's and this one by that over the masked ones.
NOTE: a wrapper's online features are those of the masked views: what is added to DINOv2 sees what its student sees.
NOTE: KoLeo and Sinkhorn-Knopp compare the images of a batch. The official batch is 2048; with fewer images than
prototypes Sinkhorn-Knopp spreads each image over many prototypes.
"""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.dino import DINO, Distillation, Head, Temperatures
from scd.errors import UsageError, unknown
from scd.method import ParameterGroup, Parts, View
from scd.nn.precision import at_least_float32, no_autocast
from scd.nn.queue import gather
from scd.nn.vit import ViT
from scd.siamese import Encoded, Features, unique

CENTRINGS = ("centre", "sinkhorn")
SHAPES = ("block", "random")
ITERATIONS = 3  # of Sinkhorn-Knopp
SMALLEST_BLOCK = 4  # patches
LOG_ASPECT = math.log(1 / 0.3)  # of a block: width over height lies between 0.3 and 1 / 0.3
ATTEMPTS = 10  # at placing a block
EPS = 1e-8  # of KoLeo


@dataclass
class MaskedEncoded(Encoded):
    """The features of one batch, and the patches that the student did not see.

    Args:
        masks: of each global view, (B, h·w) bool on the CPU, True where the patch was masked.
        most: how many patches the masks of a batch of this size have at most, in all views together.
    """

    masks: dict[str, Tensor]
    most: int


class Assignment(Distillation):
    """DINO's matcher with the choice of how the teacher's distribution is balanced, for any number of rows.

    Args:
        prototypes, temperatures, centre_momentum: see :class:`baselines.dino.Distillation`.
        centring: "centre" or "sinkhorn".

    NOTE: the centre is the mean over the rows of all processes. The official code averages the processes' means, which
    is the same where each has as many rows; its masked patches may differ in number.
    """

    def __init__(self, prototypes: int, temperatures: Temperatures, centre_momentum: float, centring: str):
        super().__init__(prototypes, temperatures, centre_momentum)
        self.centring = centring
        self.totals: Tensor | None = None

    @torch.no_grad()
    def prepare(self, targets: list[Tensor]) -> None:
        """Sinkhorn-Knopp only: take the centre of this step's teacher logits, before any loss."""
        if self.centring == "sinkhorn":
            self.centre.copy_(sinkhorn_centre(at_least_float32(torch.cat(targets)), self.teacher_temperature))

    def rows(self, online: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy (n,) of each row of the student's logits (n, K) under the teacher's."""
        online, target = at_least_float32(online), at_least_float32(target.detach())
        q = ((target - self.centre) / self.teacher_temperature).softmax(dim=1)
        return -(q * (online / self.temperatures.student).log_softmax(dim=1)).sum(dim=1)

    def remember(self, targets: list[Tensor]) -> None:
        """Keep the sum of this step's teacher logits and their number, and their distributions' mean entropy."""
        logits = at_least_float32(torch.cat(targets).detach())
        self.totals = torch.cat([logits.sum(dim=0), logits.new_full((1,), len(logits))])
        sharpened = ((logits - self.centre) / self.teacher_temperature).softmax(dim=1)
        self.entropy = torch.special.entr(sharpened).sum() / max(len(logits), 1)

    def after_step(self, progress: float) -> None:
        """Move the centre towards the mean over all processes; without a row it stays."""
        super().after_step(progress)
        if self.totals is not None and self.centring == "centre":
            total, count = gather(self.totals[None]).sum(dim=0).split([len(self.totals) - 1, 1])
            share = (1.0 - self.centre_momentum) * (count > 0).to(self.centre.dtype)
            self.centre.lerp_((total / count.clamp_min(1)).to(self.centre.dtype), share)
        self.totals = None


class DINOv2(DINO):
    """DINO with a loss on masked patches and a regulariser, around a ViT.

    Args:
        backbone: a :class:`scd.nn.vit.ViT`.
        shared_head: whether patches go through the head of the class token; False: a head of their own.
        patch_weight: of L_patch.
        koleo_weight: of L_KoLeo in each global view.
        mask_shape: "block": rectangles at random until the number is reached or none fits (official); "random": as many
            patches as asked for, each at random.
        mask_probability: share of the global views, of all images, that are masked.
        mask_ratio: lowest and highest share of a masked view's patches. The masked views of a batch divide this range
            between them: one ratio is drawn in each of as many equal parts.
        centring: "centre" or "sinkhorn", of class tokens and patches.
        layer_decay: factor on the learning rate for each layer between a parameter and the last block.
        patch_embed_lr: a further factor in the patch embedding.
        prototypes and the others: see :class:`baselines.dino.DINO`; a head of the patches' own has the same widths, and
            temperatures and the centre's momentum are those of patches as well.

    Raises:
        UsageError: a backbone that is no ViT, an unknown choice, a number out of range, or, in a step, a single image
            for KoLeo.

    NOTE: masks come from a generator that torch's global one seeds, on the CPU; its draws have the official order.
    NOTE: as in the official code the head takes the most patches that masks of this batch size can have, and the rows
    beyond the masked ones are dropped. So a step's cost does not depend on the draw.
    """

    def __init__(
        self,
        backbone: nn.Module,
        prototypes: int = 65536,
        hidden: int = 2048,
        bottleneck: int = 256,
        shared_head: bool = True,
        patch_weight: float = 1.0,
        koleo_weight: float = 0.1,
        mask_shape: str = "block",
        mask_probability: float = 0.5,
        mask_ratio: tuple[float, float] = (0.1, 0.5),
        centring: str = "centre",
        layer_decay: float = 1.0,
        patch_embed_lr: float = 1.0,
        momentum: float = 0.996,
        momentum_schedule: str = "cosine",
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        teacher_temperature_start: float | None = None,
        teacher_temperature_warmup: float = 0.0,
        centre_momentum: float = 0.9,
        freeze_last: float = 0.01,
    ):
        if not isinstance(backbone, ViT):
            raise UsageError(f"DINOv2 masks patches and needs a ViT (backbone=vit), not a {type(backbone).__name__}")
        for name, choice, valid in (("mask_shape", mask_shape, SHAPES), ("centring", centring, CENTRINGS)):
            if choice not in valid:
                raise unknown(name, choice, valid)
        if not 0 <= mask_probability <= 1:
            raise UsageError(f"DINOv2's mask_probability lies in [0, 1], not at {mask_probability}")
        if len(mask_ratio) != 2 or not 0 <= mask_ratio[0] <= mask_ratio[1] <= 1:
            raise UsageError(f"DINOv2's mask_ratio is a lowest and a highest share in [0, 1], not {list(mask_ratio)}")
        for name, value in (("patch_weight", patch_weight), ("koleo_weight", koleo_weight)):
            if value < 0:
                raise UsageError(f"DINOv2's {name} is the weight of a loss, 0 or more, not {value}")
        for name, value in (("layer_decay", layer_decay), ("patch_embed_lr", patch_embed_lr)):
            if not 0 < value <= 1:
                raise UsageError(f"DINOv2's {name} is a factor on a learning rate in (0, 1], not {value}")
        super().__init__(
            backbone, prototypes, hidden, bottleneck, momentum, momentum_schedule, student_temperature,
            teacher_temperature, teacher_temperature_start, teacher_temperature_warmup, centre_momentum, freeze_last,
        )  # fmt: skip
        settings = (prototypes, self.matcher.temperatures, centre_momentum, centring)
        self.matcher, self.patch_matcher = Assignment(*settings), Assignment(*settings)
        self.mask_token = nn.Parameter(torch.zeros(1, backbone.dim))
        self.patch_head: nn.Module | None = None
        self.target_patch_head: nn.Module | None = None
        if not shared_head:
            self.patch_head = Head(backbone.dim, prototypes, hidden, bottleneck)
            self.target_patch_head = self.target_of(self.patch_head)
        self.patch_weight = patch_weight
        self.koleo_weight = koleo_weight
        self.mask_shape = mask_shape
        self.mask_probability = mask_probability
        self.mask_ratio = tuple(mask_ratio)
        self.layer_decay = layer_decay
        self.patch_embed_lr = patch_embed_lr

    # ---------------------------------------------------------------- masks and features

    def encode(self, views: dict[str, View]) -> MaskedEncoded:
        """Features of every view that a pair needs; the student's global views are masked, each in its own pass."""
        pairs = self.pairs(views)
        names = unique(self.online_views(pairs))
        masked = [name for name in names if views[name].role == "global"]
        grids = {tuple(side // self.backbone.patch for side in views[name].images.shape[2:]) for name in masked}
        if len(grids) != 1:
            raise UsageError(f"DINOv2's global views have one size; these have grids of {sorted(grids)} patches")
        batch = len(views[masked[0]].images)
        drawn, most = self.draw_masks(len(masked) * batch, *grids.pop())
        masks = dict(zip(masked, drawn.flatten(1).split(batch), strict=True))

        online: dict[str, Features] = {}
        for name in masked:
            with masked_patches(self.backbone, masks[name].to(views[name].images.device), self.mask_token):
                online |= self.encode_each(views, [name], self.encode_online)
        online |= self.encode_each(views, [name for name in names if name not in masks], self.encode_online)
        return MaskedEncoded(views, online, self.target_features(views, pairs, online), pairs, masks, most)

    def draw_masks(self, rows: int, height: int, width: int) -> tuple[Tensor, int]:
        """Masks (R, h, w) bool on the CPU, and the largest number of patches that masks of this size can have."""
        draw = random.Random(int(torch.randint(2**62, (), device="cpu")))
        chosen, patches, (low, high) = int(rows * self.mask_probability), height * width, self.mask_ratio
        bounds = [low + (high - low) * i / max(chosen, 1) for i in range(chosen + 1)]
        masks = []
        for least, greatest in zip(bounds[:-1], bounds[1:], strict=True):
            count = int(patches * draw.uniform(least, greatest))
            masks.append(MASKS[self.mask_shape](draw, height, width, count))
        masks += [[[False] * width for _ in range(height)] for _ in range(rows - chosen)]
        draw.shuffle(masks)
        return torch.tensor(masks), sum(int(patches * bound) for bound in bounds[1:])

    # ---------------------------------------------------------------- losses

    def image_loss(self, encoded: MaskedEncoded) -> tuple[Tensor, dict[str, Tensor]]:
        """All three losses; logs each of them, both entropies of the teacher, and the share of masked patches."""
        cls_loss, logs = super().image_loss(encoded)
        patch_loss = self.patch_loss(encoded)
        loss = cls_loss + self.patch_weight * patch_loss
        more = {"cls_loss": cls_loss, "patch_loss": patch_loss, "patch_entropy": self.patch_matcher.entropy}
        if self.koleo_weight:
            more["koleo_loss"] = torch.stack([koleo(encoded.online[name].pooled) for name in encoded.masks]).sum()
            loss = loss + self.koleo_weight * more["koleo_loss"]
        share = torch.stack(list(encoded.masks.values())).float().mean().to(loss.device)
        more |= {"image_loss": loss, "masked_share": share}
        return loss, {**logs, **{name: value.detach() for name, value in more.items()}}

    def target_embeddings(self, encoded: Encoded, online: dict[str, Tensor]) -> dict[str, Tensor]:
        """The teacher's logits of both global views, which Sinkhorn-Knopp balances together."""
        target = super().target_embeddings(encoded, online)
        self.matcher.prepare(list(target.values()))
        return target

    def patch_loss(self, encoded: MaskedEncoded) -> Tensor:
        """L_patch of all global views; 0 without a masked patch."""
        masks = torch.cat(list(encoded.masks.values()))  # (V·B, N)
        places = masks.flatten().nonzero()[:, 0]
        weights = weights_of(masks)
        device = encoded.online[next(iter(encoded.masks))].maps.device
        index = F.pad(places, (0, encoded.most - len(places))).to(device)

        shared = self.patch_head is None
        head = self.projector if shared else self.patch_head
        target_head = self.target_projector if shared else self.target_patch_head
        student = head(tokens(encoded.online, encoded.masks)[index])[: len(places)]
        with torch.no_grad():
            teacher = target_head(tokens(encoded.target, encoded.masks)[index])[: len(places)]
            self.patch_matcher.prepare([teacher])
        losses = self.patch_matcher.rows(student, teacher)
        self.patch_matcher.remember([teacher])
        return (losses * weights.to(losses)).sum()

    # ---------------------------------------------------------------- step

    def after_backward(self) -> None:
        """Drop the gradients of the last layers while they are frozen."""
        super().after_backward()
        if self.patch_head is not None and self.matcher.progress < self.freeze_last:
            self.patch_head.weight.grad = None

    def after_step(self, progress: float) -> None:
        """Move the teacher and both centres."""
        super().after_step(progress)
        self.patch_matcher.after_step(progress)

    def groups_of(self, module: nn.Module) -> list[ParameterGroup]:
        """The trainable parameters by their factor on the learning rate; 1 outside the backbone."""
        model, layers = self.backbone.model, len(self.backbone.model.blocks)
        factors = {id(self.mask_token): self.layer_decay ** (layers + 1)}
        for name, parameter in model.named_parameters():
            if name.startswith("blocks."):
                factors[id(parameter)] = self.layer_decay ** (layers - int(name.split(".")[1]))
            elif name.startswith(("patch_embed.", "pos_embed", "cls_token", "reg_token")):
                own = self.patch_embed_lr if name.startswith("patch_embed.") else 1.0
                factors[id(parameter)] = own * self.layer_decay ** (layers + 1)
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in module.parameters():
            if parameter.requires_grad:
                groups.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
        return [ParameterGroup(parameters, lr_multiplier=factor) for factor, parameters in groups.items()]

    def parts(self) -> Parts:
        own, heads = super().parts(), (self.patch_head, self.target_patch_head)
        more = {self.patch_matcher: "loss", **{head: "heads" for head in heads if head is not None}}
        return Parts(root=own.root, modules={**own.modules, **more}, functions=own.functions)


@contextmanager
def masked_patches(backbone: ViT, masks: Tensor, token: Tensor) -> Iterator[None]:
    """Within the context a ViT's patch embedding returns the token in the place of masked patches.

    The positions are added afterwards, so the ViT knows where a masked patch lies.

    Args:
        masks: (B, N) bool, in the patches' order by row and column.
        token: (1, C).
    """

    def replaced(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return torch.where(masks.view(*output.shape[:-1], 1), token.to(output.dtype), output)  # (B, [h, w | N], C)

    handle = backbone.model.patch_embed.register_forward_hook(replaced)
    try:
        yield
    finally:
        handle.remove()


def weights_of(masks: Tensor) -> Tensor:
    """Weight of each masked patch of masks (V·B, N) in L_patch, in their order: images count alike, masked or not."""
    shares = 1.0 / masks.sum(dim=1, keepdim=True, dtype=torch.float64).clamp_min(1) / len(masks)
    return shares.expand_as(masks)[masks]


def tokens(features: dict[str, Features], names: dict[str, Tensor]) -> Tensor:
    """The patches (V·B·h·w, C) of some views, view by view and image by image."""
    return torch.cat([features[name].maps.flatten(2).transpose(1, 2).flatten(0, 1) for name in names])


def koleo(vectors: Tensor) -> Tensor:
    """-log of the distance to the nearest other vector, all of unit length, averaged over vectors (B, C).

    NOTE: the nearest one is sought among the images of this process, as in the official code, and has a gradient too.

    Raises:
        UsageError: a single vector.
    """
    if len(vectors) < 2:
        raise UsageError("KoLeo compares the images of a batch; it needs 2 or more in each process, or koleo_weight=0")
    with no_autocast(vectors):
        x = F.normalize(at_least_float32(vectors), dim=1, eps=EPS)
        with torch.no_grad():
            cosines = x @ x.T
            nearest = cosines.masked_fill(torch.eye(len(x), dtype=torch.bool, device=x.device), -1.0).argmax(dim=1)
        return -(F.pairwise_distance(x, x[nearest], eps=EPS) + EPS).log().mean()


def sinkhorn_centre(logits: Tensor, temperature: float, iterations: int = ITERATIONS) -> Tensor:
    """c (K,) with which softmax((t - c) / tau) is the Sinkhorn-Knopp assignment of teacher logits t (n, K).

    The algorithm multiplies exp(t / tau) by a number for each prototype, so that its mass over the n rows of all
    processes is 1 / K, then by one for each row, so that its mass is 1 / n. After the last step a row, times n, is a
    softmax: the logarithms of the prototypes' numbers are -c / tau. Logarithms do not overflow at small temperatures.

    NOTE: c has the mean 0, which changes no softmax; the official code keeps the products and no centre.
    """
    scaled = logits / temperature
    by_row = scaled.new_zeros(len(scaled), 1)
    for _ in range(iterations):
        own = (scaled + by_row).logsumexp(dim=0)  # (K,), of the rows of this process
        by_prototype = -gather(own[None]).logsumexp(dim=0)
        by_row = -(scaled + by_prototype).logsumexp(dim=1, keepdim=True)
    centre = -temperature * by_prototype
    return torch.nan_to_num(centre - centre.mean(), 0.0, 0.0, 0.0)  # 0 where no process has a row


def block_mask(draw: random.Random, height: int, width: int, count: int) -> list[list[bool]]:
    """A mask of rectangles with up to ``count`` patches (BEiT's rule, as in DINOv2's code).

    Area, aspect and place are drawn; a rectangle that would mask no new patch, or too many, is drawn again. After ten
    failures in a row the mask stays as it is, so it can have fewer patches than asked for, or none.
    """
    mask, masked = [[False] * width for _ in range(height)], 0
    while masked < count:
        for _ in range(ATTEMPTS):
            area, aspect = draw.uniform(SMALLEST_BLOCK, count - masked), math.exp(draw.uniform(-LOG_ASPECT, LOG_ASPECT))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h >= height or w >= width:
                continue
            top, left = draw.randint(0, height - h), draw.randint(0, width - w)
            new = [(y, x) for y in range(top, top + h) for x in range(left, left + w) if not mask[y][x]]
            if 0 < len(new) <= count - masked:
                for y, x in new:
                    mask[y][x] = True
                masked += len(new)
                break
        else:
            break
    return mask


def random_mask(draw: random.Random, height: int, width: int, count: int) -> list[list[bool]]:
    """A mask of exactly ``count`` patches, each at random (iBOT's "rand")."""
    chosen = set(draw.sample(range(height * width), count))
    return [[row * width + column in chosen for column in range(width)] for row in range(height)]


MASKS = {"block": block_mask, "random": random_mask}
