"""A backbone that ``python -m studies.export`` has written, as a network again.

The file holds weights alone. The network is built from the config.json beside it (the folder of its run); elsewhere
from the name that the file keeps, which is enough for torchvision's ResNets and for models of timm.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from scd.errors import DataError, UsageError
from scd.export.backbone import FORMATS, NAMINGS, read, renamed
from scd.nn.backbone import RESNETS, build_backbone
from studies.suite.planning.assembly import instantiate

USUAL, SMALL = 224, 32  # side in pixels of the images of a network, where nothing says it


@dataclass(frozen=True)
class Exported:
    """A backbone from a file.

    Args:
        side: of the images that it was evaluated on, or usually is.
        naming: whose names the file has.
    """

    backbone: nn.Module
    name: str
    side: int
    naming: str


def load_exported(path: Path) -> Exported:
    """The backbone in an exported file, in evaluation mode.

    Raises:
        DataError: a file that cannot be read, or whose weights fit no network that it or its folder names.
    """
    if path.suffix not in FORMATS:
        raise DataError(f"'{path}' is no exported backbone: its name must end in {' or '.join(FORMATS)}")
    state, tried = read(path), []
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"'{path}' is no exported backbone: it holds more than weights")
    for backbone, side in candidates(path):
        tried.append(getattr(backbone, "name", type(backbone).__name__))
        for naming in NAMINGS:
            if own := own_names(backbone, naming, state):
                backbone.load_state_dict({**backbone.state_dict(), **{own[key]: state[key] for key in state}})
                return Exported(backbone.eval(), tried[-1], side, naming)
    what = f"do not fit {' or '.join(dict.fromkeys(tried))}" if tried else "have no name of a network beside them"
    raise DataError(
        f"'{path}': its weights {what}; put it beside the config.json of its run (runs/pretraining/ID), or give that "
        "folder"
    )


def candidates(path: Path) -> list[tuple[nn.Module, int]]:
    """Networks that the weights in a file may belong to, and the side of their images.

    Raises:
        DataError: the config.json beside it is not that of a run.
    """
    config, name = path.parent / "config.json", kept_name(path)
    with torch.random.fork_rng(devices=[]):
        if config.is_file():
            try:
                about = json.loads(config.read_text(encoding="utf-8"))
                return [(instantiate(about["backbone"]), about["evaluation"]["size"])]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"'{config}' is not the config.json of a run: {error!r}") from error
        if name in RESNETS:
            return [(build_backbone(name), USUAL), (build_backbone(name, small_stem=True), SMALL)]
        try:
            return [(build_backbone(name), USUAL)] if name.startswith("timm/") else []
        except UsageError:
            return []


def kept_name(path: Path) -> str:
    """The name of the backbone that the file keeps; empty where it keeps none, as .pth files do."""
    if path.suffix != ".safetensors":
        return ""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("backbone", "")
    except (OSError, SafetensorError):
        return ""


def own_names(backbone: nn.Module, naming: str, state: dict[str, Tensor]) -> dict[str, str]:
    """Name in the file -> the backbone's own name; empty where names or shapes are not those of ``naming``."""
    try:
        there = renamed(backbone, naming)
    except UsageError:
        return {}
    if {name: value.shape for name, value in there.items()} != {name: value.shape for name, value in state.items()}:
        return {}
    own = {value.data_ptr(): name for name, value in backbone.state_dict().items()}
    return {name: own[value.data_ptr()] for name, value in there.items()}
