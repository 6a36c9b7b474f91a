"""Asym-Siam's five switches, each an arm of its own beside the paper's baseline; and their published gains."""

from typing import Any

from studies.systems.system import MOCO, Effect, Quoted, System

README = "README of facebookresearch/asym-siam"
SHARES = "MoCo's loss, and different treatment of the two branches"
LINEAR = "ImageNet, linear top-1 after 100 epochs"

ALIKE = {"extra": {"kind": "random", "count": 1}}  # one further view like the global ones: for ScaleMix and MeanEnc
# the target's view of AsymAug, cropped and mirrored alone; the second global view is then not used
WEAK = {"extra": {"kind": "random", "count": 1, "photometric": "none", "scale": [0.08, 1.0]}}
SMALL = {"scale": [0.14, 1.0], "extra": {"kind": "local", "count": 6, "scale": [0.05, 0.14], "weight": 1 / 6}}


def switched(views: dict[str, Any] | None = None, **switches: Any) -> dict[str, Any]:
    """Asym-Siam with some of its switches, and the views that they take."""
    method = {"method": {"preset": "asym_siam", **switches}}
    return {**method, "views": views} if views else method


def gain(name: str, published: float) -> tuple[Effect, ...]:
    """What the paper reports of a switch over its baseline of 65.8."""
    return (Effect(name, "asym_siam", f"{LINEAR}: {published} against 65.8", README),)


ASYMMETRIC = (
    System(
        "asym_siam", "Asym-Siam's baseline", MOCO, switched(),
        compares="the whole of two views, as MoCo does, through a head of three layers",
        shares="MoCo's loss",
        differs="nothing but a third layer and a batch norm in the head: what Asym-Siam's switches are compared with",
        questions=("R3-c",),
        published=(Quoted(f"{LINEAR}: 65.8", README),),
        default=False,
    ),
    System(
        "asym_scale_mix", "Asym-Siam, ScaleMix", MOCO, switched(ALIKE, scale_mix=True),
        compares="a mixture of two views of an image with a third view of it",
        shares=SHARES,
        differs="no map and no groups: the box that is pasted is drawn at random, and its content is the same image's",
        questions=("R3-c",),
        published=(Quoted(f"{LINEAR}: 67.6 (its baseline: 65.8)", README),),
        effects=gain("asym_scale_mix", 67.6),
        changes=("views",),
    ),
    System(
        "asym_mean_enc", "Asym-Siam, MeanEnc", MOCO, switched(ALIKE, mean_enc=True),
        compares="a view with the mean embedding of two other views",
        shares=SHARES,
        differs="no map and no groups: the mean is over views and not over positions",
        questions=("R3-c",),
        published=(Quoted(f"{LINEAR}: 67.7 (its baseline: 65.8)", README),),
        default=False,
        effects=gain("asym_mean_enc", 67.7),
        changes=("views",),
    ),
    System(
        "asym_aug", "Asym-Siam, AsymAug", MOCO, switched(WEAK, asym_aug=True),
        compares="a strongly augmented view with one that is only cut and mirrored",
        shares=SHARES,
        differs="no map and no groups: the branches differ in the augmentation of their views",
        questions=("R3-c",),
        published=(Quoted(f"{LINEAR}: 67.2 (its baseline: 65.8)", README),),
        default=False,
        effects=gain("asym_aug", 67.2),
        changes=("views",),
    ),
    System(
        "asym_bn", "Asym-Siam, AsymBN", MOCO, switched(asym_bn=True),
        compares="the whole of two views, with batch norm over more images in the target's head than in the source's",
        shares=SHARES,
        differs="no map and no groups: the branches differ in the statistics of their batch norm",
        questions=("R3-c",),
        published=(Quoted(f"{LINEAR}: 66.3 (its baseline: 65.8)", README),),
        default=False,
        effects=gain("asym_bn", 66.3),
    ),
    System(
        "asym_multicrop", "Asym-Siam, MultiCrop", MOCO, switched(SMALL),
        compares="one large and six small views with a large one",
        shares=SHARES,
        differs="no map and no groups: small crops at random in the place of regions; see also the study multicrop",
        questions=("R3-c",),
        published=(Quoted(f"{LINEAR}: 69.9 (its baseline: 65.8)", README),),
        default=False,
        effects=gain("asym_multicrop", 69.9),
        changes=("views",),
    ),
)  # fmt: skip
