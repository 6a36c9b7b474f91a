"""Effects that are known from publications, and the arms by which a tier may reproduce them; studies/calibration.py.

Each effect is a claim about two arms with one metric. Its published size is quoted with its source; a size on ImageNet
is no prediction for a small tier, whose runs are shorter and whose images are smaller. Only the direction is tested.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from studies.multicrop import ARMS as MULTICROP_ARMS
from studies.references import ORACLE, RANDOM, SUPERVISED
from studies.suite.planning.study import Arm, Claim, Contrast, merge

RHO = 0.8  # correlation of background and object in training, of the arms whose background is predictive
ANY, DRAWN, PHOTOGRAPHS = "any images", "images whose background is drawn with a known correlation", "photographs"
LINEAR, KNN = "linear_top1", "knn_top1"
LOSS = "loss_last"
SESOI = {LINEAR: 0.01, KNN: 0.01, "bg_gap": 0.01, LOSS: 0.05}


# -------------------------------------------------------------------- arms


def on_correlated(arm: Arm, **changes: Any) -> Arm:
    """The arm where the background predicts the object's class in training."""
    overrides = merge(arm.overrides, {"data": {"options": {"rho_train": RHO}}})
    pool = arm.pool and "correlated"
    differs = f"{arm.differs}; training images with ρ = {RHO:g}"
    return replace(arm, overrides=overrides, differs=differs, pool=pool, **changes)


def on_moco(arm: Arm, **changes: Any) -> Arm:
    """The arm on MoCo, whatever the command line's host is: what is known is known of MoCo."""
    return replace(arm, overrides=merge({"method": "moco"}, arm.overrides), **changes)


_OF_MULTICROP = {arm.name: on_moco(arm) for arm in MULTICROP_ARMS}
NO_TRAINING = on_moco(RANDOM)
MOCO = _OF_MULTICROP["moco"]
SYMMETRIC = Arm(
    "moco_symmetric", "symmetric MoCo", {"method": "moco_symmetric"}, "all of MoCo",
    "both views are query and key; twice the forward passes",
)  # fmt: skip
LOCAL = _OF_MULTICROP["local_crops"]
BYOL = Arm("byol", "BYOL", {"method": "byol"}, "backbone, images, epochs", "another method, with its own views")
COLLAPSING = Arm(
    "byol_no_predictor", "BYOL without predictor", {"method": {"preset": "byol", "has_predictor": False}},
    "all of BYOL", "the online embedding itself is compared with the target's", pool="",
)  # fmt: skip
CORRELATED_RANDOM = on_correlated(NO_TRAINING, name="random_correlated", label=f"{NO_TRAINING.label}, ρ = {RHO:g}")
CORRELATED_MOCO = on_correlated(MOCO, name="moco_correlated", label=f"{MOCO.label}, ρ = {RHO:g}")
CONSTANT = on_correlated(_OF_MULTICROP["constant_map"])
TRUE_MASK = on_correlated(on_moco(ORACLE))
CORRELATED = (CORRELATED_RANDOM, CORRELATED_MOCO, CONSTANT, TRUE_MASK)
UNTRAINED = (NO_TRAINING, CORRELATED_RANDOM)
ARMS = (NO_TRAINING, MOCO, SYMMETRIC, LOCAL, SUPERVISED, BYOL, COLLAPSING, *CORRELATED)


# -------------------------------------------------------------------- effects


@dataclass(frozen=True)
class Effect:
    """An effect that publications agree on.

    Attributes:
        claim: one contrast; published: direction and size in the publication's numbers; source: where they stand.
        images: of which images it is known: ``ANY``, ``DRAWN`` or ``PHOTOGRAPHS``.
    """

    claim: Claim
    published: str
    source: str
    images: str = ANY

    @property
    def contrast(self) -> Contrast:
        """The one contrast of the claim."""
        return self.claim.contrasts[0]


def contrast(treatment: Arm, control: Arm, metric: str, text: str) -> Contrast:
    """A contrast of two arms, named by its metric too."""
    name = f"{treatment.name}-{control.name}, {metric}"
    return Contrast(name, treatment.name, control.name, metric, SESOI[metric], text)


def effect(
    text: str,
    arms: tuple[Arm, Arm],
    metric: str,
    published: str,
    source: str,
    images: str = ANY,
    controls: Sequence[Contrast] | None = None,
) -> Effect:
    """An effect of the first arm over the second; controls are the study's where None."""
    given = None if controls is None else tuple(controls)
    return Effect(Claim(text, (contrast(*arms, metric, text),), controls=given), published, source, images)


LEARNS = contrast(MOCO, NO_TRAINING, LINEAR, "MoCo is better than random weights in linear top-1")
LEARNS_CORRELATED = contrast(
    CORRELATED_MOCO, CORRELATED_RANDOM, LINEAR, "MoCo is better than random weights where the background is predictive"
)
DINO = "DINO (arXiv 2104.14294), Table 2; ResNet-50"
BYOL_PAPER = "BYOL (arXiv 2006.07733)"
COLLAPSE = f"{BYOL_PAPER}, Table 5b, 300 epochs; SimSiam (arXiv 2011.10566), Table 1: 67.7 → 0.1; ResNet-50"
EFFECTS = (
    effect(
        LEARNS.claim, (MOCO, NO_TRAINING), LINEAR, "ImageNet linear top-1: random weights 1.4, MoCo v2 67.5",
        f"{BYOL_PAPER}, section 3; MoCo's README, 200 epochs; ResNet-50", controls=(),
    ),
    effect(
        "MoCo is better than random weights in kNN top-1", (MOCO, NO_TRAINING), KNN,
        "direction only; ImageNet kNN top-1 of MoCo v2: 61.9", DINO,
    ),
    effect(
        "supervised training is better than MoCo in linear top-1", (SUPERVISED, MOCO), LINEAR,
        "ImageNet linear top-1: MoCo v2 71.1, supervised 79.3", DINO,
    ),
    effect(
        "supervised training is better than MoCo in kNN top-1", (SUPERVISED, MOCO), KNN,
        "ImageNet kNN top-1: MoCo v2 61.9, supervised 79.3", DINO,
    ),
    effect(
        "symmetric MoCo is better than MoCo at equal epochs", (SYMMETRIC, MOCO), KNN,
        "CIFAR-10 kNN top-1: asymmetric 82.6, symmetric 85.3",
        "MoCo's CIFAR-10 demo, 200 epochs; ResNet-18",
    ),
    effect(
        "local crops improve MoCo at equal epochs", (LOCAL, MOCO), LINEAR,
        "ImageNet linear top-1: two views 65.8, with six small crops 69.9",
        "Asym-Siam (arXiv 2204.00613), README, 100 epochs; ResNet-50", PHOTOGRAPHS,
    ),
    effect(
        "SCD with the true mask is better than SCD with a constant map where the background is predictive",
        (TRUE_MASK, CONSTANT), KNN,
        "direction only, of saliency masks in MoCo's views: ImageNet linear top-1 67.5 → 69.2",
        "DiLo (arXiv 2004.06638), MoCo v2, as quoted in the literature; a mask in SCD's loss is not published",
        DRAWN, controls=(LEARNS_CORRELATED,),
    ),
    effect(
        "MoCo relies less on the background where that is not predictive in training", (MOCO, CORRELATED_MOCO),
        "bg_gap", "background gap of a classifier: 14.2 points, 0.2 when trained on backgrounds of random classes",
        "Backgrounds Challenge (arXiv 2006.09994), README, ImageNet-9; ResNet-50", DRAWN,
    ),
    effect(
        "BYOL is better in linear top-1 than without its predictor", (BYOL, COLLAPSING), LINEAR,
        "ImageNet linear top-1: 72.5, without the predictor 0.2", COLLAPSE,
    ),
    effect(
        "BYOL is better in kNN top-1 than without its predictor", (BYOL, COLLAPSING), KNN,
        "direction only, as in linear top-1", COLLAPSE,
    ),
    effect(
        "the training loss of BYOL stays above that without its predictor", (BYOL, COLLAPSING), LOSS,
        "direction only: a network that collapses reaches the smallest possible loss",
        "SimSiam (arXiv 2011.10566), section 4.1, Figure 2, there without its stop-gradient",
    ),
)  # fmt: skip
