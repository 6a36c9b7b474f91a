"""How to load an exported backbone: the lines of Python on its model card, which the tests run."""

from collections.abc import Mapping, Sequence
from typing import Any

from scd.export.hub import BUILDERS, READ_BY_THE_MIXIN, WEIGHTS, colours_of

FOLDER = "path/to/this/folder"  # in the code of a card
SMALL_STEM = """\
model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)  # the stem for small images
model.maxpool = nn.Identity()"""
TORCHVISION = """\
from safetensors.torch import load_file
from torch import nn
from torchvision.models import {name}

model = {name}()
model.fc = nn.Identity()
{stem}model.load_state_dict(load_file("{folder}/{weights}"))
model.eval()"""
TIMM = """\
import timm

model = timm.create_model("local-dir:{folder}", pretrained=True)  # or "hf-hub:OWNER/NAME"
model.eval()"""
TIMM_SMALL = """\
import timm
from safetensors.torch import load_file
from torch import nn

model = timm.create_model("{name}", num_classes=0)
{stem}model.load_state_dict(load_file("{folder}/{weights}"))
model.eval()"""
MIXIN = """\
import scd_suite

scd_suite.make_importable()  # lets Python find scd in an installed suite
from scd.export.hub import ExportedBackbone

model = ExportedBackbone.from_pretrained("{folder}")  # or "OWNER/NAME"
"""
DETECTRON2 = """\
cfg.MODEL.WEIGHTS = "{folder}/model.pth"
cfg.INPUT.FORMAT = "RGB"
cfg.MODEL.PIXEL_MEAN = {mean}
cfg.MODEL.PIXEL_STD = {std}
cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False"""


def how_to_load(naming: str, builder: str, options: Mapping[str, Any], is_small: bool, files: Sequence[str]) -> str:
    """The section of a card on loading: files, code, and what the images must be.

    Args:
        naming: whose names the weights have.
        builder, options: of the backbone; the mixin loads those of the builders of :mod:`scd.export.hub`.
        is_small: whether a ResNet has the stem for small images.
        files: names in the folder beside the card.
    """
    mean, std = colours_of(options, naming)
    name = str(options.get("name", "")).removeprefix("timm/")
    values = {"folder": FOLDER, "weights": WEIGHTS, "name": name, "stem": f"{SMALL_STEM}\n" if is_small else ""}
    lines = [f"Files: {', '.join(f'`{file}`' for file in files)}. The weights have the names of {naming}."]
    if naming == "detectron2":
        text = DETECTRON2.format(
            folder=FOLDER, mean=[round(255 * value, 3) for value in mean], std=[round(255 * value, 3) for value in std]
        )
        lines += [
            f"```python\n{text}\n```",
            "Names and shapes were checked against Detectron2's; it was not run itself.",
        ]
    elif naming == "torchvision":
        lines.append(f"```python\n{TORCHVISION.format(**values)}\n```")
    elif naming == "timm":
        lines.append(f"```python\n{(TIMM_SMALL if is_small else TIMM).format(**values)}\n```")
    if naming in READ_BY_THE_MIXIN and builder in BUILDERS:
        lines += ["By `huggingface_hub`, into the suite's own network:"] if naming != "suite" else []
        lines.append(f"```python\n{MIXIN.format(**values).strip()}\n```")
        lines.append(
            "This network returns feature maps (B, C, h, w)"
            + (" and one vector (B, C) per image" if builder == "vit" else "")
            + ". It takes images that are normalised by ImageNet's mean and standard deviation."
        )
    elif naming == "suite":
        lines.append(f"No builder of the suite is named `{builder}`: load `{WEIGHTS}` into the network that made it.")
    if naming in ("torchvision", "timm"):
        lines.append(f"Images of the {naming} model: RGB in [0, 1], normalised by mean {mean} and deviation {std}.")
    return "\n\n".join(lines)
