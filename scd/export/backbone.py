"""A pretrained backbone under the names that other libraries give to its weights, and the check that they fit.

suite        the names of the backbone's own ``state_dict``, of any backbone
torchvision  ``conv1.weight``, ``layer1.0.bn1.running_mean``, …; torchvision's ResNets, without ``fc``
timm         the same names for ResNets (timm kept them); for "timm/<name>" backbones and ViTs the model's own
detectron2   ``stem.conv1.weight``, ``res2.0.conv1.norm.weight``, ``res2.0.shortcut.weight``, …; as a .pth file with the
             keys that make Detectron2 match names by their ends, so that one file serves its C4 and its FPN detectors.
             Their configuration then needs RGB images with MODEL.PIXEL_MEAN [123.675, 116.28, 103.53], PIXEL_STD
             [58.395, 57.12, 57.375] and MODEL.RESNETS.STRIDE_IN_1X1 false, as MoCo's has.

NOTE: ``small_stem`` has a 3x3 convolution of stride 1 where the libraries have a 7x7 one and a max-pool. Its file has
the same names; to load it, replace ``conv1`` by that convolution and ``maxpool`` by the identity.
"""

import copy
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import resnet

from scd.atomic import write_atomically
from scd.errors import DataError, UsageError, unknown
from scd.evaluation.features import frozen
from scd.export.detectron2 import detectron2_name, detectron2_shapes
from scd.nn.backbone import RESNETS, TimmMaps
from scd.nn.features import maps_and_vector

NAMINGS = ("suite", "torchvision", "timm", "detectron2")
FORMATS = (".safetensors", ".pth")
STEM = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
CLOSE = 1e-4  # of the largest feature: the same arithmetic in another memory format rounds otherwise
SMALL_STEM = tuple(part for part in STEM if part != "maxpool")


def export(backbone: nn.Module, path: Path | str, naming: str = "torchvision") -> Path:
    """Write the backbone's weights and running statistics under a library's names, completely or not at all.

    Args:
        backbone: from :func:`scd.nn.backbone.build_backbone`, or another one under the suite's own names.
        path: ends in .safetensors or .pth; a .pth holds the plain dict, for Detectron2 what its checkpointer reads.
        naming: see the module.

    Raises:
        UsageError: an unknown naming or ending, a backbone that the library has no names for, or a folder that does not
            exist or cannot be written.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise UsageError(f"'{path.name}': the file's name must end in {' or '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise UsageError(f"'{path}' cannot be written: there is no folder '{path.parent}'")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in renamed(backbone, naming).items()}
    # Detectron2's checkpointer takes "model"; with "matching_heuristics" it finds a model's names by their ends.
    content = {"model": state, "__author__": "scd-suite", "matching_heuristics": True}
    about = {"format": "pt", "naming": naming, "backbone": str(getattr(backbone, "name", ""))}

    def write(unfinished: Path) -> None:
        if path.suffix == ".safetensors":
            save_file(state, unfinished, about)
        else:
            torch.save(content if naming == "detectron2" else state, unfinished)

    try:
        write_atomically(path, write)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UsageError(f"'{path}' cannot be written: {error}") from error
    return path


def renamed(backbone: nn.Module, naming: str) -> dict[str, Tensor]:
    """The backbone's state under a library's names.

    Raises:
        UsageError: an unknown naming, or a backbone that the library has no names or no such layers for.
    """
    if naming not in NAMINGS:
        raise unknown("naming", naming, NAMINGS)
    state = backbone.state_dict()
    if naming == "suite":
        return state
    name = getattr(backbone, "name", type(backbone).__name__)
    if naming == "timm" and (inner := timm_prefix(backbone)):
        return {key.removeprefix(inner): tensor for key, tensor in state.items()}
    if name not in RESNETS:
        own = "timm or suite" if timm_prefix(backbone) else "suite"
        raise UsageError(f"{naming} has no names for the weights of '{name}'; use naming {own}")
    padding = backbone.trunk[0].padding_mode  # of the stem, as of all convolutions
    if padding != "zeros":
        raise UsageError(f"{naming}'s ResNets pad with zeros; a backbone with padding={padding} does not fit")
    parts = SMALL_STEM if is_small(backbone) else STEM
    plain = {}
    for key, tensor in state.items():
        _, place, rest = key.split(".", 2)  # trunk.4.0.conv1.weight
        plain[f"{parts[int(place)]}.{rest}"] = tensor
    if naming != "detectron2":
        return plain
    if is_small(backbone):
        raise UsageError("Detectron2's ResNets start with a 7x7 convolution; a backbone with small_stem does not fit")
    kept = {key: tensor for key, tensor in plain.items() if not key.endswith("num_batches_tracked")}
    return {detectron2_name(key): tensor for key, tensor in kept.items()}


def timm_prefix(backbone: nn.Module) -> str:
    """The prefix of a timm model's own names in the backbone around it; "" for a backbone that is none."""
    if isinstance(getattr(backbone, "trunk", None), TimmMaps):
        return "trunk.model."
    return "model." if type(getattr(backbone, "model", None)).__module__.startswith("timm.") else ""


def is_small(backbone: nn.Module) -> bool:
    """Whether a ResNet was built with ``small_stem``."""
    return len(backbone.trunk) == len(SMALL_STEM)


# ---------------------------------------------------------------- the check


def load_check(path: Path | str, backbone: nn.Module, naming: str, size: int = 64) -> float:
    """Load the file strictly into a fresh model of the library; the largest difference of its features.

    The features of one fixed random image (1, 3, size, size), both networks in evaluation mode. A library's model takes
    it with the colours that the trunk sees, see :mod:`scd.nn.normalisation`. Detectron2's ResNets
    are not built: names, shapes and finiteness of the weights are checked, and the difference is that of the weights
    (0).

    Args:
        path: from :func:`export` of this backbone.
        backbone: the exported one, on the CPU; left as it was found.
        naming: the naming of the export.

    Raises:
        DataError: names or shapes that do not fit, features that differ by more than 1e-4 of their largest value, or
            that are 0 everywhere.
    """
    path, state = Path(path), read(path)
    if naming == "detectron2":
        return _check_detectron2(path, state, backbone)
    fresh, features = fresh_model(backbone, naming)
    try:
        fresh.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"'{path.name}' does not fit into a fresh {naming} model: {reason}") from error
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    fresh.eval()
    with frozen(backbone), torch.no_grad():
        expected = maps_and_vector(backbone(image))[0]
        colours = None if naming == "suite" else getattr(backbone, "colours", None)
        difference = float((features(image if colours is None else colours(image)) - expected).abs().max())
        largest = float(expected.abs().max())
    if largest == 0:
        raise DataError(f"'{path.name}' cannot be checked: the backbone's features are 0 everywhere")
    if not difference <= CLOSE * largest:
        raise DataError(f"'{path.name}': the features of the {naming} model differ by {difference:g} of {largest:g}")
    return difference


def read(path: Path) -> dict[str, Tensor]:
    """The weights of an exported file. Raises DataError for one that cannot be read."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError) as error:
        raise DataError(f"'{path}' cannot be read as weights: {error}") from error
    return content["model"] if "matching_heuristics" in content else content


def fresh_model(backbone: nn.Module, naming: str) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """A model of the library with other weights than the backbone's, and the function for its last feature map.

    NOTE: of ResNets the library's own constructor; of other timm models, whose options the backbone does not keep, and
    for the suite's names, a copy of the network with random numbers in place of all its weights.
    """
    if naming == "suite":
        fresh = randomised(backbone)
        return fresh, lambda images: maps_and_vector(fresh(images))[0]
    if prefix := timm_prefix(backbone):
        model = randomised(backbone.trunk.model if prefix.startswith("trunk") else backbone.model)
        return model, TimmMaps(model)
    if naming == "timm":
        model = timm.create_model(backbone.name, pretrained=False, num_classes=0)
    else:
        model = getattr(resnet, backbone.name)()
        model.fc = nn.Identity()
    if is_small(backbone):
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    act = model.act1 if naming == "timm" else model.relu
    parts = (model.conv1, model.bn1, act, model.maxpool, model.layer1, model.layer2, model.layer3, model.layer4)
    return model, nn.Sequential(*parts)


def randomised(network: nn.Module) -> nn.Module:
    """A copy with random numbers in place of its parameters and running statistics."""
    fresh = copy.deepcopy(network)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in fresh.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=draws))
    return fresh


def _check_detectron2(path: Path, state: Mapping[str, Tensor], backbone: nn.Module) -> float:
    expected = detectron2_shapes(backbone.name)
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise DataError(
            f"'{path.name}': {len(wrong)} names or shapes are not those of Detectron2's {backbone.name}; first "
            f"'{name}': {found.get(name, 'missing')} where {expected.get(name, 'nothing')} belongs"
        )
    own = renamed(backbone, "detectron2")
    difference = max(float((state[name] - own[name].detach().cpu()).abs().max()) for name in expected)
    if difference != 0:  # NaN, too
        raise DataError(f"'{path.name}': its weights differ from the backbone's by {difference:g}")
    return difference
