"""Maps of a whole picture of any shape: a method's own, TokenCut's, and the class token's attention.

The other protocols look at central squares, many at a time; this module serves people who look at their own pictures
(``python -m studies.maps``). What a picture is resized to is said in :mod:`scd.data.pictures`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd.data.pictures import Seen, seen_size
from scd.errors import UsageError
from scd.evaluation.features import frozen
from scd.maps.attention import rescaled
from scd.maps.tokencut import bipartition
from scd.method import Method, View
from scd.nn.features import maps_and_vector
from scd.nn.vit import tokens_of

TAU = 0.2  # of TokenCut: the paper's, for DINO's ViTs
MOST_POSITIONS = 3136  # that are cut: 224 px in patches of 4; a cut takes the third power of them
REFUSALS = (UsageError, RuntimeError, AssertionError, ValueError)  # of a network, for a size that it was not built for


@dataclass(frozen=True)
class Network:
    """What a network takes.

    Args:
        side: of the square images that it was evaluated on, in pixels.
        step: pixels of one position of its map.
        square: whether it takes squares alone.
    """

    side: int
    step: int
    square: bool

    def seen(self, size: tuple[int, int]) -> Seen:
        """The size at which it sees a picture of ``size`` (width, height)."""
        return seen_size(size, self.side, self.step, self.square)


@torch.no_grad()
def network_of(backbone: nn.Module, side: int) -> Network:
    """What a backbone takes, found by showing it a black square of ``side`` pixels and a wider picture.

    Raises:
        UsageError: it does not take squares of this side.
    """
    with frozen(backbone):
        try:
            maps, _ = maps_and_vector(backbone(torch.zeros(1, 3, side, side)))
        except REFUSALS as error:
            raise UsageError(f"its backbone does not take images of {side} px: {first_line(error)}") from error
        step = max(1, round(side / maps.shape[3]))
        try:
            wide, _ = maps_and_vector(backbone(torch.zeros(1, 3, side, side + step)))
        except REFUSALS:
            return Network(side, step, square=True)
    return Network(side, step, square=tuple(wide.shape[2:]) != (maps.shape[2], maps.shape[3] + 1))


def own_map(method: Method, view: View) -> Tensor | None:
    """The method's own map (h, w) in [0, 1] of a view of one picture; None where it has none for it.

    Raises:
        UsageError: values outside [0, 1].
    """
    with frozen(method):
        found = method.saliency(view)
    if found is None:
        return None
    if not ((found >= 0) & (found <= 1)).all():
        raise UsageError(f"{type(method).__name__}.saliency gave values outside [0, 1]")
    return found[0].float()


@dataclass(frozen=True)
class BackboneMaps:
    """What a backbone shows without a learned map.

    Args:
        foreground: TokenCut's side of the seed, (h, w) of 0 and 1; None where there are too many positions to cut.
        attention: of the class token to each patch, mean over heads, rescaled to [0, 1]; None without class token.
        source: what was cut.
        positions: h·w.
    """

    foreground: Tensor | None
    attention: Tensor | None
    source: str
    positions: int


def backbone_maps(backbone: nn.Module, view: View, tau: float = TAU) -> BackboneMaps:
    """TokenCut's foreground and the attention for a view of one picture.

    The last block's keys of a ViT are cut, and the feature maps of any other backbone, as in
    :mod:`scd.evaluation.emergence`. NOTE: the whole foreground is shown, not the component that TokenCut calls the
    object.

    Raises:
        UsageError: features that are not finite.
    """
    with frozen(backbone):
        maps, _ = maps_and_vector(backbone(view.images))
    try:
        tokens = tokens_of(maps)
    except UsageError:  # a CNN's maps, or a ViT's without class token
        features, attention, source = maps, None, "feature maps"
    else:
        features, source = tokens.keys, "keys of the last block"
        attention = rescaled(tokens.attention.float().mean(dim=1))[0]
    positions = features.shape[2] * features.shape[3]
    cut = bipartition(features, tau).foreground[0].float() if positions <= MOST_POSITIONS else None
    return BackboneMaps(cut, attention, source, positions)


def at_size(values: Tensor, width: int, height: int) -> Tensor:
    """A map (h, w) of a whole picture at the picture's size (height, width): bilinear, corner on corner."""
    return F.interpolate(values[None, None].float(), (height, width), mode="bilinear", align_corners=False)[0, 0]


def first_line(error: BaseException) -> str:
    """The first line of an error's text that is not empty; its class where there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
