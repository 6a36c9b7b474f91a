"""Multi-crop without saliency: the controls for "is it the separation, or only additional crops?".

A control is the host method as it is (MoCo, BYOL) plus extra views. Nothing in the Siamese changes: an extra view has
the role "extra", so it runs through the online branch only and is compared with every target view; the loss stays the
mean over all pairs. Unless a study says otherwise a control adds as many views as SCD adds pooled vectors to a view,
the foreground's and the background's: 2.

Sources: SwAV (arXiv 2006.09882, section 3.2), DINO (arXiv 2104.14294), multi-crop on the source side of MoCo in
Asym-Siam (arXiv 2204.00613).

NOTE: Asym-Siam's loss is L(large) + mean over the small queries of L(small), so a single large pair weighs as much as
all small ones. Here all pairs weigh the same, as in SwAV and DINO: with 2 extra views the two global views' pair has
weight 1/3 in the asymmetric form. The scale of the loss, and so of the gradient, is that of the host method.
NOTE: SwAV and Asym-Siam also shrink the global views' area range (0.08 or 0.2 to 0.14 at its lower end). The global
views stay as in every other arm, so that a control differs in its extra views and in nothing else.
NOTE: an extra view of the first global view's rectangle is, in a symmetric method, compared with that rectangle's own
target view too: a pair that differs in photometrics and flip alone, which no other arm has.
"""

from dataclasses import dataclass

from scd.data.recipes import extra_crops
from scd.data.views import CropSpec
from scd.errors import unknown

EXTRA_VECTORS_OF_SCD = 2  # foreground and background


@dataclass(frozen=True)
class Control:
    """One way to give a host method more crops and no map.

    Args:
        name: the control's name, which is the recipe's ``extra.kind``.
        label: for tables and figures.
        shares: what the arm has in common with the host method and with SCD.
        differs: the one thing that it adds.
        count: extra views per image where a study names no other number.
    """

    name: str
    label: str
    shares: str
    differs: str
    count: int = EXTRA_VECTORS_OF_SCD

    def crop(self, size: int, scale: tuple[float, float] = (0.2, 1.0)) -> CropSpec:
        """One of the extra views, where the global views have ``size`` pixels a side and the area range ``scale``."""
        return extra_crops(CropSpec("v1", size, scale=scale), kind=self.name, count=self.count)[0]


@dataclass(frozen=True)
class ImageForwards:
    """Backbone forward passes per source image.

    Args:
        online: with gradient, any size.
        target: without gradient; the extra views add none.
        full_size: online plus target passes, each weighted by its pixels relative to a global view's.
    """

    online: int
    target: int
    full_size: float


CONTROLS = {
    each.name: each
    for each in (
        Control(
            name="same_rectangle",
            label="same rectangle, re-augmented",
            shares="host method, global views, loss; the extra views' rectangle is the first global view's",
            differs="further augmentations (fresh flip and photometrics) of the same place, as queries",
        ),
        Control(
            name="random",
            label="extra random crops",
            shares="host method, global views, loss; the extra views' size and area range are the global views'",
            differs="further crops at places of their own, as queries",
        ),
        Control(
            name="local",
            label="local multi-crop",
            shares="host method, global views, loss",
            differs="further crops of about half the side and of 5 to 20 % of the image's area, as queries",
        ),
    )
}


def control(name: str) -> Control:
    """The control of that name; raises a UsageError that lists the valid ones."""
    if name not in CONTROLS:
        raise unknown("multi-crop control", name, CONTROLS)
    return CONTROLS[name]


def extra_views(name: str, size: int, scale: tuple[float, float] = (0.2, 1.0), count: int | None = None) -> dict:
    """The recipe option ``extra`` of a control: ``{"kind", "count", "size", "scale"}``.

    NOTE: local views have 96/224 of the global side, rounded to a multiple of 4 (SwAV, DINO: 96 px), and areas of 0.05
    to 0.2, up to where MoCo v2's global crops begin (SwAV: 0.05 to 0.14, its global crops beginning at 0.14).

    Args:
        name: a control's name.
        size: side of the global views in pixels.
        scale: area range of the global views.
        count: extra views per image; the control's own number when None.

    Raises:
        UsageError: no such control.
    """
    chosen = control(name)
    crop = chosen.crop(size, scale)
    count = chosen.count if count is None else count
    return {"kind": chosen.name, "count": count, "size": crop.size, "scale": list(crop.scale)}


def image_forwards(name: str | None, size: int, symmetric: bool, count: int | None = None) -> ImageForwards:
    """What a control costs per image; ``None`` is the host method alone, or SCD, which adds no backbone pass.

    Asymmetric: 1 online and 1 target pass for the two global views. Symmetric: 2 and 2. Each extra view: 1 online pass.
    """
    globals_ = 2 if symmetric else 1
    if name is None:
        return ImageForwards(online=globals_, target=globals_, full_size=2.0 * globals_)
    chosen = control(name)
    count = chosen.count if count is None else count
    pixels = (chosen.crop(size).size / size) ** 2
    return ImageForwards(globals_ + count, globals_, 2.0 * globals_ + count * pixels)
