"""A backbone with the weights of a file: every tensor of the backbone comes from the file, or nothing is loaded.

A backbone has several namings: its own (``suite``), that of torchvision and timm, Detectron2's, and that of an
``nn.Sequential`` of a ResNet's children, which BYOL's ports and lightly's examples save. The one that fits most of the
file's names is taken, and then all of it has to fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from scd.checkpoints.architecture import described
from scd.checkpoints.formats import Network, network_of
from scd.checkpoints.reading import Contents, read_checkpoint
from scd.checkpoints.vit_names import in_timms_names
from scd.errors import DataError, UsageError
from scd.export.backbone import STEM, is_small, timm_prefix
from scd.export.detectron2 import detectron2_name
from scd.nn.backbone import RESNETS

COUNT = "num_batches_tracked"  # of batch norm; it changes no feature, and older files lack it
VIT_PARTS = ("cls_token", "dist_token", "reg_token", "register_tokens", "pos_embed", "norm_pre")
HEADS = ("fc", "head", "heads", "classifier", "fc_norm", "pre_logits", "last_linear")  # beside a backbone, not of it
MOCO_V3 = "MoCo v3"
NESTED = "vit."  # lightly keeps timm's model inside its own
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Fitted:
    """What was read, for the page.

    Attributes:
        file: its name; sha256: of its bytes.
        format, source, place, prefix, branch: of :class:`scd.checkpoints.formats.Network`.
        naming: whose names the file uses.
        used: the file's names whose tensors are in the backbone; unused: the other names, of all of its mappings.
        notes: what was converted, in sentences.
    """

    file: str
    sha256: str
    format: str
    source: str
    place: str
    prefix: str
    branch: str
    naming: str
    used: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())


def load_checkpoint(
    path: Path | str | Contents, backbone: nn.Module, branch: str = "", prefix: str | None = None
) -> Fitted:
    """Put the weights of a file into a backbone, all of them or none; what was read.

    Args:
        path: see :func:`scd.checkpoints.reading.read_checkpoint`, or what that function has read.
        backbone: of :func:`scd.nn.backbone.build_backbone` or :func:`scd.nn.vit.vit`.
        branch, prefix: see :func:`scd.checkpoints.formats.network_of`.

    Raises:
        UsageError: a file that cannot be read, a wrong branch or prefix, and weights that are not those of this
            backbone: a tensor that is missing, has another shape, or that the backbone has no layer for.
    """
    contents = path if isinstance(path, Contents) else read_checkpoint(path)
    namings = namings_of(backbone)
    network = network_of(contents, anchors_of(namings), branch, prefix)
    naming = _best(namings, network)
    names = dict(namings[naming])
    tensors = {name.removeprefix(NESTED): tensor for name, tensor in network.tensors.items()}
    origin = {name.removeprefix(NESTED): full for name, full in network.names.items()}
    title = f"{contents.title} ({network.format}{f', {network.prefix}*' if network.prefix else ''})"
    made, notes, model = {name: (name,) for name in tensors}, [], vit_of(backbone)
    if model is not None:
        names, tensors, origin = (
            {_bare(key): value for key, value in each.items()} for each in (names, tensors, origin)
        )
        tensors, made, notes = in_timms_names(tensors, model, title)
    _check(tensors, names, backbone, network, title)
    _check_heads(network, model, title)
    state = {place: tensors[name] for name, place in names.items() if name in tensors}
    state |= {place: value for place, value in backbone.state_dict().items() if place not in state}  # counts of batches
    backbone.load_state_dict(state)
    used = {origin[part] for name in names for part in made.get(name, ())}
    left = [full for full in origin.values() if full not in used] + list(network.outside)
    left += [f"{place}: {key}" for place, table in contents.tables.items() if place != network.place for key in table]
    return Fitted(
        contents.path.name, contents.sha256, network.format, network.source, network.place, network.prefix,
        network.branch, naming, tuple(sorted(used)), tuple(left), (*notes, *_further_notes(tensors, network, backbone)),
    )  # fmt: skip


# ---------------------------------------------------------------- names


def namings_of(backbone: nn.Module) -> dict[str, dict[str, str]]:
    """Whose names -> (a name -> the backbone's own)."""
    own = list(backbone.state_dict())
    found = {"this suite": {name: name for name in own}}
    if inner := timm_prefix(backbone):
        found["timm"] = {name.removeprefix(inner): name for name in own if name.startswith(inner)}
    elif getattr(backbone, "name", "") in RESNETS:
        plain = dict(zip(_library_names(backbone), own, strict=True))
        places = {part: str(place) for place, part in enumerate(STEM)}
        found["torchvision and timm"] = plain
        found["an nn.Sequential of torchvision's ResNet"] = {
            ".".join([places[name.partition(".")[0]], name.partition(".")[2]]): at for name, at in plain.items()
        }
        if not is_small(backbone):
            found["Detectron2"] = {detectron2_name(name): at for name, at in plain.items() if not name.endswith(COUNT)}
    return found


def _library_names(backbone: nn.Module) -> list[str]:
    """Torchvision's names of a ResNet's tensors, in the order of its own; whatever its padding."""
    parts = [part for part in STEM if part != "maxpool" or not is_small(backbone)]
    split = (name.split(".", 2) for name in backbone.state_dict())
    return [f"{parts[int(place)]}.{rest}" for _, place, rest in split]


def anchors_of(namings: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The names of one tensor in every naming, each of which no other name ends with: where they stand, one network
    begins."""
    of = [{place: name for name, place in names.items()} for names in namings.values()]
    for place in of[0]:
        found = [places[place] for places in of if place in places]
        others = [name for places in of for at, name in places.items() if at != place]
        if len(found) == len(of) and not any(other.endswith(f".{name}") for name in found for other in others):
            return found
    return [next(iter(names)) for names in namings.values()]


def _best(namings: Mapping[str, Mapping[str, str]], network: Network) -> str:
    """Whose names are those of the network: the naming that has the most of them."""
    present = {name.removeprefix(NESTED) for name in network.tensors}
    return max(namings, key=lambda title: sum(name in present for name in namings[title]))


def _bare(name: str) -> str:
    """A ViT's name as timm has it, from timm's or the suite's."""
    return name.removeprefix("trunk.").removeprefix("model.")


def vit_of(backbone: nn.Module) -> VisionTransformer | None:
    """timm's plain ViT inside a backbone, if there is one."""
    inner = timm_prefix(backbone)
    model = backbone.trunk.model if inner.startswith("trunk") else backbone.model if inner else None
    return model if isinstance(model, VisionTransformer) else None


# ---------------------------------------------------------------- whether they fit


def _check(
    tensors: Mapping[str, Tensor], names: Mapping[str, str], backbone: nn.Module, network: Network, title: str
) -> None:
    """Every tensor of the backbone is there in its shape, and no layer of the file is left over.

    Raises:
        DataError: the first name that does not fit, with how many there are, and what the file looks like.
    """
    own, kind = backbone.state_dict(), getattr(backbone, "name", type(backbone).__name__)
    looks = described(network.tensors)
    hint = f"; the file looks like {looks}" if looks else ""
    missing = [name for name, place in names.items() if name not in tensors and not place.endswith(COUNT)]
    if len(missing) == len([name for name, place in names.items() if not place.endswith(COUNT)]):
        found = ", ".join(list(network.tensors)[:SHOWN])
        raise DataError(
            f"{title} has no tensor of '{kind}': its names are like {found}{hint}; choose backbone= or prefix="
        )
    shapes = [name for name, place in names.items() if name in tensors and tensors[name].shape != own[place].shape]
    if shapes:
        name = shapes[0]
        sides = tuple(tensors[name].shape), tuple(own[names[name]].shape)
        raise DataError(
            f"{title} is not a '{kind}': '{name}' is {_size(sides[0])} in the file, {_size(sides[1])} in the backbone"
            f"{_more(shapes)}{hint}; choose another backbone="
        )
    if missing:
        what = "the file is incomplete, save the whole network" if looks == f"a {kind}" else "choose another backbone="
        raise DataError(f"{title} lacks '{missing[0]}' of '{kind}'{_more(missing)}{hint}; {what} or prefix=")
    stems = {name.partition(".")[0] for name in (*names, *(VIT_PARTS if vit_of(backbone) else ()))} - set(HEADS)
    further = [name for name in tensors if name not in names and not name.endswith(COUNT)]
    left = [name for name in further if name.partition(".")[0] in stems]
    if left:
        raise DataError(
            f"{title} has '{left[0]}', which '{kind}' has no layer for{_more(left)}{hint}; choose another backbone="
        )
    broken = [name for name in names if name in tensors and not torch.isfinite(tensors[name].float()).all()]
    if broken:
        raise DataError(
            f"{title} holds values that are not finite in '{broken[0]}'{_more(broken)}; its training diverged"
        )


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _check_heads(network: Network, model: VisionTransformer | None, title: str) -> None:
    """The number of heads, which no shape shows: MoCo v3's ViT-S has 12, timm's has 6.

    Raises:
        UsageError: another number than the official code's.
    """
    if model is None or network.format != MOCO_V3 or model.embed_dim != 384:
        return
    heads = model.blocks[0].attn.num_heads
    if heads != 12:
        raise UsageError(f"{title}: MoCo v3's ViT-S has 12 heads, the backbone has {heads}; give backbone.num_heads=12")


def _further_notes(tensors: Mapping[str, Tensor], network: Network, backbone: nn.Module) -> list[str]:
    """What was changed beside names, and what no name and no shape shows."""
    notes = []
    kinds = {str(value.dtype).removeprefix("torch.") for value in tensors.values() if value.is_floating_point()}
    if kinds - {"float32"}:
        notes.append(f"Weights are stored as {', '.join(sorted(kinds))} and used as float32.")
    small = getattr(backbone, "name", "") in RESNETS and is_small(backbone)
    if small and network.format.startswith("solo-learn"):
        notes.append(
            "solo-learn's 3x3 stem for CIFAR pads by 2 pixels, this backbone's by 1: features near the border differ "
            "from those of its training."
        )
    return notes
