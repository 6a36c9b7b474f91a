"""DINO: the student matches the teacher's sharpened, centred distribution (Caron et al., ICCV 2021, arXiv 2104.14294).

    s = W n(g(f(v)))      logits over K prototypes: MLP g, unit length n, W with unit rows
    p_t = softmax((t - c) / tau_t),   p_s = softmax(s / tau_s)
    L = mean over (student view, teacher view) pairs of -sum_k p_t,k log p_s,k        (equations 2 and 3)
    c <- m c + (1 - m) mean over batch and teacher views of t, after the loss          (equation 4)

The teacher sees the two global views, the student all; a view is never compared with itself.

Official settings. ViT-S/16, K 65536, head C-2048-2048-256 with GELU, drop path 0.1 in the student; tau_s 0.1, tau_t
0.04 (0.04 to 0.07 over 30 epochs); m of the EMA 0.996 to 1; AdamW, lr 5e-4 per 256 images, 10 epochs of warm-up, weight
decay 0.04 to 0.4, none on biases and norms; each gradient tensor clipped to the norm 3; W frozen for an epoch; two
global views of 0.4 to 1 of the area, eight local ones of 0.05 to 0.4 at 96 px.

NOTE: L is the mean over pairs, as in every method of this suite, and as in DINO's code.
NOTE: W is frozen for a share of the run (``freeze_last``) instead of one epoch. As in the official code, its gradient
is dropped after the backward pass, so that the optimiser skips W.
NOTE: the MLP's linear layers start with the standard deviation 0.905 / sqrt(hidden). At the official width of 2048 this
is DINO's 0.02; it keeps the size of the activations in a narrower head, where 0.02 would make them vanish.
NOTE: around a backbone with batch norm both global views of a network share a forward pass and its statistics, as in
the official code; local views of one size share another. The head has no batch norm.
NOTE: the online (student) backbone is evaluated, as in every method here; DINO's published numbers are the teacher's.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from scd.errors import UsageError
from scd.nn.heads import MLP
from scd.nn.norm import has_batch_norm
from scd.nn.precision import at_least_float32
from scd.nn.queue import gather
from scd.siamese import Encoded, Matcher, MomentumSiamese

INIT = 0.02 * math.sqrt(2048)  # times 1 / sqrt(hidden): the standard deviation of the MLP's weights


class Temperatures(NamedTuple):
    """The student's temperature, the teacher's at the start and later, and the share of the run in between."""

    student: float = 0.1
    teacher_start: float = 0.04
    teacher: float = 0.04
    warmup: float = 0.0


def distillation(student: Tensor, teacher: Tensor, centre: Tensor, tau_s: float, tau_t: float) -> Tensor:
    """Mean over the batch of the cross-entropy of the student's distribution under the teacher's, in nats.

    ln K when both are uniform; 0 when the teacher has collapsed onto one prototype and the student agrees.

    Args:
        student: logits (B, K).
        teacher: logits (B, K), without gradient.
        centre: c (K,).
        tau_s, tau_t: temperatures.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
    target = ((teacher - centre) / tau_t).softmax(dim=1)
    return -(target * (student / tau_s).log_softmax(dim=1)).sum(dim=1).mean()


class Head(nn.Module):
    """Logits (B, K) over prototypes: MLP with GELU, unit length, linear layer whose rows have unit length.

    Args:
        dim: C of the backbone's vector.
        prototypes: K.
        hidden: width of the two hidden layers.
        bottleneck: width before the last layer.
    """

    def __init__(self, dim: int, prototypes: int, hidden: int, bottleneck: int):
        super().__init__()
        self.mlp = MLP((dim, hidden, hidden, bottleneck), activation="gelu")
        self.weight = nn.Parameter(torch.empty(prototypes, bottleneck))
        self.dim = prototypes
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT / math.sqrt(hidden))
                nn.init.zeros_(module.bias)
        nn.init.uniform_(self.weight, -1 / math.sqrt(bottleneck), 1 / math.sqrt(bottleneck))  # rows of length 0.58

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of vectors (B, C), or (B, T, K) of tokens."""
        return F.normalize(self.mlp(x), dim=-1) @ F.normalize(self.weight, dim=1).T


class Distillation(Matcher):
    """The teacher's centred and sharpened distribution as the student's target.

    Args:
        prototypes: K.
        temperatures: tau_s and tau_t.
        centre_momentum: m of the centre.

    Attributes:
        progress: share of the training that is done.
    """

    centre: Tensor

    def __init__(self, prototypes: int, temperatures: Temperatures, centre_momentum: float):
        super().__init__()
        self.register_buffer("centre", torch.zeros(prototypes))
        self.progress = 0.0
        self.temperatures = temperatures
        self.centre_momentum = centre_momentum
        self.waiting: Tensor | None = None
        self.entropy: Tensor | None = None

    @property
    def teacher_temperature(self) -> float:
        """tau_t now: linear over the warm-up, then constant."""
        _, start, end, warmup = self.temperatures
        return start + (end - start) * (min(self.progress / warmup, 1.0) if warmup else 1.0)

    def forward(self, online: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of the student's logits ``online`` (B, K) under the teacher's ``target`` (B, K)."""
        return distillation(online, target, self.centre, self.temperatures.student, self.teacher_temperature)

    def remember(self, targets: list[Tensor]) -> None:
        """Keep the mean of this step's teacher logits, over batch and views, and their distributions' mean entropy."""
        logits = at_least_float32(torch.cat(targets).detach())  # views of equal size: one mean over all rows
        self.waiting = logits.mean(dim=0)
        sharpened = ((logits - self.centre) / self.teacher_temperature).softmax(dim=1)
        self.entropy = torch.special.entr(sharpened).sum(dim=1).mean()

    def after_step(self, progress: float) -> None:
        """Move the centre towards the mean over all processes; tau_t then follows the progress."""
        self.progress = progress
        if self.waiting is not None:
            mean = gather(self.waiting[None]).mean(dim=0)
            self.centre.lerp_(mean.to(self.centre.dtype), 1.0 - self.centre_momentum)
            self.waiting = None

    def get_extra_state(self) -> Tensor:
        """The progress, for the state dict: a resumed run goes on with its temperature and its frozen layer."""
        return torch.tensor(self.progress, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the progress over from a state dict."""
        self.progress = float(state)


class DINO(MomentumSiamese):
    """DINO over any backbone: with a ViT its class token is projected, with a CNN the pooled map.

    Args:
        backbone: feature maps, and a vector where it has a class token (:class:`scd.nn.vit.ViT`).
        prototypes: K.
        hidden, bottleneck: of the head.
        momentum, momentum_schedule: of the teacher's EMA; "cosine" to 1 (official) or "constant".
        student_temperature, teacher_temperature: tau_s and tau_t.
        teacher_temperature_start, teacher_temperature_warmup: tau_t at the start, and the share of the run over which
            it moves linearly; None and 0 keep it constant.
        centre_momentum: of the centre c.
        freeze_last: share of the run for which the last layer is frozen.

    Raises:
        UsageError: a temperature that is not above 0, a share outside [0, 1].

    NOTE: the target's stochastic depth is off.
    """

    def __init__(
        self,
        backbone: nn.Module,
        prototypes: int = 65536,
        hidden: int = 2048,
        bottleneck: int = 256,
        momentum: float = 0.996,
        momentum_schedule: str = "cosine",
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        teacher_temperature_start: float | None = None,
        teacher_temperature_warmup: float = 0.0,
        centre_momentum: float = 0.9,
        freeze_last: float = 0.01,
    ):
        start = teacher_temperature if teacher_temperature_start is None else teacher_temperature_start
        temperatures = Temperatures(student_temperature, start, teacher_temperature, teacher_temperature_warmup)
        if min(temperatures[:3]) <= 0:
            raise UsageError(f"DINO's temperatures are above 0, not {temperatures[:3]}")
        shares = {"teacher_temperature_warmup": teacher_temperature_warmup, "centre_momentum": centre_momentum}
        for name, share in {**shares, "freeze_last": freeze_last}.items():
            if not 0 <= share <= 1:
                raise UsageError(f"DINO's {name} lies in [0, 1], not at {share}")
        super().__init__(
            backbone=backbone,
            projector=Head(backbone.dim, prototypes, hidden, bottleneck),
            matcher=Distillation(prototypes, temperatures, centre_momentum),
            momentum=momentum,
            momentum_schedule=momentum_schedule,
            symmetric=True,
        )
        self.freeze_last = freeze_last
        self.global_views_together = has_batch_norm(backbone)  # a ViT has none: its maps keep their attention
        for module in self.target_backbone.modules():
            if isinstance(module, DropPath):
                module.drop_prob = 0.0

    def image_loss(self, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss over all pairs, and the teacher's entropy in nats: near 0 or near ln K it has collapsed."""
        loss, logs = super().image_loss(encoded)
        return loss, {**logs, "teacher_entropy": self.matcher.entropy}

    def after_backward(self) -> None:
        """Drop the gradient of the last layer while it is frozen."""
        super().after_backward()
        if self.matcher.progress < self.freeze_last:
            self.projector.weight.grad = None
