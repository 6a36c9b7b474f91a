"""DiLo: the object of an image, pasted onto another background (Zhao et al., AAAI 2021, arXiv 2004.06638).

"Distilling Localization for Self-Supervised Representation Learning". The host's loss and pairs stay; its views change:

    v <- a v + (1 - a) b    with probability p, each view on its own
    a: the mask, blurred with probability 1/2        b: one grey level, floor(255 u) of 255

The masks come from a saliency method without training (RBD in the paper, which also has GS, MC and the supervised
BASNet). The paper's accuracy is highest at p = 0.3, and at p = 1 far below the host's.

Official code: nanxuanzhao/DiLo, one file with this augmentation.

NOTE: the paste is on the finished view, and so after crop and colours, in the official code on the photograph, before
both: there the grey level takes part in the changes of brightness and contrast, the borders of the object in the blur.
The view's own crop and colours are those of the host alone in return, so that arms differ in the pasting only.
NOTE: masks are 0 or 1; the official code has the grey values of a saliency map.
NOTE: a view whose mask is empty stays as it is, because it would be of one colour. In the official code it is, where
the crop lies beside the object.
"""

from dataclasses import replace

import torch
from torch import Tensor

from scd.data.cut_views import uniform
from scd.data.photometric import gaussian_blur
from scd.errors import UsageError, unknown
from scd.method import Batch, View
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from scd.nn.precision import no_autocast
from scd.siamese import JointEmbedding
from scd.wrapper import Wrapper

BACKGROUNDS = ("grey", "images")
DRAWS = 4  # of each view: paste, blur, grey level, other image


class DiLo(Wrapper):
    """A host whose views show their object on another background with some probability.

    Args:
        siamese: the host; MoCo in the paper.
        probability: p, of pasting, for each view of each image.
        blur_probability: of a pasted view's mask being blurred.
        blur: standard deviation of this blur, in sides of the view. NOTE: the official code has 5 pixels of the
            photograph, 0.0125 of a side of 400 pixels; the average crop's side is about 0.77 of the photograph's.
        background: "grey": one grey level for each view; "images": another image of the batch, in whose view the pixels
            of its own object have the mean colour of the others. NOTE: that filling is our choice.

    Raises:
        UsageError: a probability outside [0, 1], a blur that is not above 0, or an unknown background.
    """

    needs = frozenset({"masks"})
    addition = "pasted objects"

    def __init__(
        self,
        siamese: JointEmbedding,
        probability: float = 0.3,
        blur_probability: float = 0.5,
        blur: float = 0.016,
        background: str = "grey",
    ):
        super().__init__(siamese)
        for name, value in (("probability", probability), ("blur_probability", blur_probability)):
            if not 0 <= value <= 1:
                raise UsageError(f"DiLo's {name} lies in [0, 1], not {value}")
        if not blur > 0:
            raise UsageError(f"DiLo's blur is above 0, not {blur}; blur_probability=0 leaves it out")
        if background not in BACKGROUNDS:
            raise unknown("background", background, BACKGROUNDS)
        self.needs = self.needs | {"masks"}
        self.probability = probability
        self.blur_probability = blur_probability
        self.blur = blur
        self.background = background

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The host's loss of the changed views; logs the shares of views that were pasted, and that show no object."""
        made = {name: self.with_other_background(view) for name, view in batch.views.items()}
        outputs = self.siamese(replace(batch, views={name: view for name, (view, _, _) in made.items()}))
        pasted, empty = (torch.stack([one[part] for one in made.values()]).float().mean() for part in (1, 2))
        return {**outputs, "pasted": pasted, "empty": empty}

    @torch.no_grad()
    def with_other_background(self, view: View) -> tuple[View, Tensor, Tensor]:
        """The view with some of its images pasted; (B,) bool: the pasted ones, and those that show no object."""
        draws = uniform(len(view.images), DRAWS)
        device, shape = view.images.device, (-1, 1, 1, 1)
        masks = view.masks[:, None]  # (B, 1, s, s)
        empty = masks.sum(dim=(1, 2, 3)) == 0
        pasted = (draws[:, 0] < self.probability).to(device) & ~empty
        blurred = (draws[:, 1] < self.blur_probability).to(device)
        alpha = torch.where(blurred.view(shape), self.softened(masks), masks)
        grey = self.background == "grey"
        behind = grey_levels(draws[:, 2]).to(view.images) if grey else other_backgrounds(view, draws[:, 3].to(device))
        mixed = alpha * view.images + (1 - alpha) * behind
        return replace(view, images=torch.where(pasted.view(shape), mixed, view.images)), pasted, empty

    def softened(self, masks: Tensor) -> Tensor:
        """Blurred masks (B, 1, s, s); on the meta device as they are, since augmentations count no FLOPs."""
        if masks.is_meta:
            return masks
        with no_autocast(masks):
            return gaussian_blur(masks, torch.full((len(masks),), self.blur * masks.shape[-1]))


def grey_levels(draws: Tensor) -> Tensor:
    """Normalised colours (B, 3, 1, 1) of grey levels floor(255 u) / 255, for uniform numbers u (B,)."""
    levels = (255 * draws).floor() / 255
    return normalise(levels.view(-1, 1, 1, 1).repeat(1, 3, 1, 1), IMAGENET_MEAN, IMAGENET_STD)


def other_backgrounds(view: View, draws: Tensor) -> Tensor:
    """The view (B, 3, s, s) of another image for each one, whose object has the mean colour of the pixels around it.

    An image that is all object has its own mean colour. A batch of one image has no other.

    Args:
        view: with masks.
        draws: (B,) uniform numbers in [0, 1) that choose the others among this process's images.
    """
    count = len(view.images)
    numbers = torch.arange(count, device=view.images.device)
    others = (numbers + 1 + (draws * (count - 1)).long()) % count
    images, around = view.images[others], 1 - view.masks[others][:, None]
    weights = torch.where(around.sum(dim=(2, 3), keepdim=True) > 0, around, 1.0)
    mean = (weights * images).sum(dim=(2, 3), keepdim=True) / weights.sum(dim=(2, 3), keepdim=True)
    return torch.where(around > 0, images, mean)
