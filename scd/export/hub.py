"""A folder with an exported backbone, as Hugging Face's libraries read it: weights, a configuration and a card.

``ExportedBackbone.from_pretrained(folder)`` loads it into the suite's own network, whatever names its weights have;
``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads it where the names are timm's. After an upload both
take the name of the repository. README.md is the model card, see :mod:`scd.export.card`.
"""

import inspect
import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from torch import Tensor, nn

from scd.errors import DataError, UsageError, unknown
from scd.evaluation.features import frozen
from scd.export.backbone import CLOSE, is_small, renamed, timm_prefix
from scd.nn.backbone import FeatureMaps, build_backbone
from scd.nn.features import maps_and_vector
from scd.nn.normalisation import NORMALISATIONS
from scd.nn.vit import vit

BUILDERS = {"build_backbone": build_backbone, "vit": vit}
READ_BY_THE_MIXIN = ("suite", "torchvision", "timm")  # Detectron2's names leave out a part of the state
WEIGHTS, CONFIGURATION, CARD = SAFETENSORS_SINGLE_FILE, CONFIG_NAME, "README.md"


class ExportedBackbone(nn.Module, PyTorchModelHubMixin, library_name="scd-suite"):
    """A backbone of the suite whose saved weights have the names of a library.

    ``state_dict`` and ``load_state_dict`` use these names, so that ``save_pretrained`` writes the same file again.

    Args:
        builder: one of BUILDERS; options: its arguments. Its ``weights`` are left out: those of the file take their
            place.
        naming: see :mod:`scd.export.backbone`; not "detectron2".

    Raises:
        UsageError: an unknown builder or naming, or options that the builder does not take.
    """

    def __init__(self, builder: str, options: dict, naming: str = "suite"):
        super().__init__()
        if builder not in BUILDERS:
            raise unknown("builder of a backbone", builder, BUILDERS)
        if naming not in READ_BY_THE_MIXIN:
            raise unknown("naming of a loadable backbone", naming, READ_BY_THE_MIXIN)
        with torch.random.fork_rng(devices=[]):
            self.backbone = BUILDERS[builder](**{key: value for key, value in options.items() if key != "weights"})
        pairs = zip(renamed(self.backbone, naming), self.backbone.state_dict(), strict=True)
        self.own_names = {library: f"backbone.{own}" for library, own in pairs}
        self.register_load_state_dict_pre_hook(_to_own_names)
        self.register_state_dict_post_hook(_to_library_names)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Feature maps (B, C, h, w) of images (B, 3, s, s), normalised by ImageNet's mean and standard deviation.

        A ViT returns its maps and one vector (B, C) per image.
        """
        return self.backbone(images)

    @classmethod
    def _from_pretrained(cls, *, strict: bool = True, **given: Any) -> "ExportedBackbone":
        """NOTE: strict, unlike the mixin's own default, which leaves random numbers where a name is missing."""
        return super()._from_pretrained(strict=strict, **given)


def _to_own_names(module: ExportedBackbone, state: dict[str, Tensor], prefix: str, *others: Any) -> None:
    for library, own in module.own_names.items():
        if prefix + library in state:
            state[prefix + own] = state.pop(prefix + library)


def _to_library_names(module: ExportedBackbone, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for library, own in module.own_names.items():
        state[prefix + library] = state.pop(prefix + own)


def difference(folder: Path, backbone: nn.Module, size: int) -> float:
    """The largest difference of the features of one random image, of the network that the mixin loads from a folder.

    Args:
        folder: with the configuration and the weights of this backbone; size: side of the image in pixels.

    Raises:
        DataError: the folder does not load, or features that differ by more than 1e-4 of their largest value.
    """
    try:
        with redirect_stdout(StringIO()):  # the mixin prints that it reads a folder
            loaded = ExportedBackbone.from_pretrained(folder)
    except (UsageError, RuntimeError, TypeError) as error:
        raise DataError(f"'{folder.name}' does not load: {' '.join(str(error).split())}") from error
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with frozen(backbone), torch.no_grad():
        pairs = list(zip(maps_and_vector(loaded(image)), maps_and_vector(backbone(image)), strict=True))
    found = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
    if not found <= CLOSE * float(pairs[0][1].abs().max()):
        raise DataError(f"'{folder.name}': the features of the loaded network differ by {found:g}")
    return found


# ---------------------------------------------------------------- the configuration


def configuration(backbone: nn.Module, builder: str, options: Mapping[str, Any], naming: str, size: int) -> str:
    """The text of the folder's configuration: what the mixin needs, and what timm needs where the names are timm's.

    Args:
        backbone: the exported one; builder, options: as of :class:`ExportedBackbone`, which made it.
        size: side in pixels of the images that it was evaluated on.

    Raises:
        UsageError: an option that JSON cannot hold.
    """
    kept = {key: value for key, value in options.items() if key != "weights"}
    content = {"builder": builder, "options": kept, "naming": naming, "size": size}
    if naming == "timm" and (model := timm_model(backbone, options)):
        mean, std = colours_of(options, naming)
        pretrained = {"input_size": [3, size, size], "mean": list(mean), "std": list(std), "crop_pct": 1.0,
                      "interpolation": "bicubic", "fixed_input_size": False, "num_classes": 0,
                      "custom_load": False}  # fmt: skip
        content |= {"architecture": model[0], "num_classes": 0, "num_features": backbone.dim, "model_args": model[1],
                    "pretrained_cfg": pretrained}  # fmt: skip
    try:
        return json.dumps(content, indent=1) + "\n"
    except TypeError as error:
        raise UsageError(f"the backbone's options cannot be written as JSON: {error}") from error


def timm_model(backbone: nn.Module, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of the timm model with these weights; None where its stem has to be replaced by hand."""
    if not timm_prefix(backbone):
        return None if is_small(backbone) else (backbone.name, {})
    name = options["name"].removeprefix("timm/")
    own = {*inspect.signature(vit).parameters, *inspect.signature(build_backbone).parameters} - {"options"}
    model = backbone.trunk.model if isinstance(backbone, FeatureMaps) else backbone.model
    dynamic = {"dynamic_img_size": True} if getattr(model, "dynamic_img_size", False) else {}
    return name, {**dynamic, **{key: value for key, value in options.items() if key not in own and value is not None}}


def colours_of(options: Mapping[str, Any], naming: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by which images are normalised for the exported model.

    The suite's own network takes images that are normalised as ImageNet's and converts them itself where it was trained
    with other numbers; a library's model does not.
    """
    return NORMALISATIONS["imagenet" if naming == "suite" else options.get("normalisation") or "imagenet"]
