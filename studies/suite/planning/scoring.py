"""What ``python -m studies.evaluate`` is asked to do: the words of its command line, complete before anything runs."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scd.errors import DataError, UsageError, unknown
from studies.suite.planning.command_line import choices, resolve_settings
from studies.suite.planning.settings import Settings, source_class
from studies.suite.planning.study import RunSpec, merge

BUILD, VIT = "scd.nn.backbone.build_backbone", "scd.nn.vit.vit"
REPEATED = "scd.evaluation.outcomes.Repeated"
FROZEN = (
    "linear", "knn", "linear_shift", "knn_shift", "worst_group", "background", "invariance", "scenes", "comus",
    "emergence", "collapse",
)  # fmt: skip
TRAINED = ("finetune", "finetune_10", "finetune_1", "detection")  # change the network, and take long
EVERY = "all"
NEEDS = {
    "linear": "labels",
    "knn": "labels",
    "linear_shift": "labels, and images of their own for probes (a split `probe`)",
    "knn_shift": "labels, and images of their own for probes (a split `probe`)",
    "worst_group": "labels and background classes (a column `background`)",
    "background": "labels with masks, or background classes",
    "invariance": "masks",
    "scenes": "objects with masks, or masks of class ids",
    "comus": "the class of each object's pixels",
    "emergence": "masks",
    "finetune": "labels",
    "finetune_10": "labels",
    "finetune_1": "labels",
    "detection": "scenes with objects",
}
OWN = ("checkpoint", "supervised", "backbone", "branch", "prefix", "protocols", "seeds", "size", "name", "device")
PASSED = ("tier", "data", "evaluation", "sizes", "presets")  # words of the studies that hold here, too
DEVICES = ("cpu", "cuda")
SEEDS = 3
USUAL_SIZE = 224
NONE, AUTO = "none", "auto"


@dataclass(frozen=True)
class Request:
    """A command line of ``studies.evaluate``.

    Attributes:
        checkpoint: the file; supervised: another one of the same backbone, "auto" (the libraries' weights where their
            cache on this machine has them) or "none".
        backbone: its configuration; backbone_word: as the user named it.
        branch, prefix: of :func:`scd.checkpoints.fitting.load_checkpoint`.
        protocols: their configurations, with ``name``; asked: whether the user chose them.
        seeds: of the probes. device: "cpu" or "cuda".
        settings: of tier and data; name: of the page, without ``evaluate-``.
        command: as typed.
    """

    checkpoint: Path
    supervised: str
    backbone: dict[str, Any]
    backbone_word: str
    branch: str
    prefix: str | None
    protocols: list[dict[str, Any]]
    asked: bool
    seeds: tuple[int, ...]
    device: str
    settings: Settings
    name: str
    command: str = ""
    words: dict[str, str] = field(default_factory=dict)

    @property
    def page(self) -> str:
        """The name of the page and of its records, without an ending."""
        return f"evaluate-{self.name}"

    @property
    def size(self) -> int:
        """Side in pixels of the view that the network sees."""
        return self.settings.base["evaluation"]["size"]

    def spec(self) -> RunSpec:
        """What is opened and scored: data, evaluation and backbone, as the configuration of a run has them."""
        base = self.settings.base
        evaluation = {**base["evaluation"], "protocols": [self.repeated(each) for each in self.protocols]}
        config = {
            "data": base["data"],
            "evaluation": evaluation,
            "backbone": self.backbone,
            "seed": self.seeds[0],
            "seed_of": {},
        }
        return RunSpec(config, {"page": self.page}, dict(self.settings.locations))

    def repeated(self, protocol: Mapping[str, Any]) -> dict[str, Any]:
        """A protocol for all seeds, see :class:`scd.evaluation.outcomes.Repeated`."""
        inner = {key: value for key, value in protocol.items() if key != "name"}
        return {"name": protocol["name"], "_target_": REPEATED, "protocol": inner, "seeds": list(self.seeds)}


def request(
    words: Sequence[str], store: Path | str = "runs", out: Path | str = "reports", command: str = ""
) -> Request:
    """The request of words like ``checkpoint=FILE``, ``backbone=resnet50``, ``data=FOLDER``, ``protocols=knn,linear``.

    Raises:
        UsageError: a word that is unknown, missing or of a wrong kind; in one line.
    """
    given = _split(words)
    for key, example in (("checkpoint", "FILE"), ("backbone", "resnet50")):
        if not given.get(key):
            raise UsageError(f"{key}= is missing: evaluate checkpoint=FILE backbone=NAME data=FOLDER ({key}={example})")
    if given.get("device", "cpu") not in DEVICES:
        raise unknown("device", given["device"], DEVICES)
    options = {key.removeprefix("backbone."): value for key, value in given.items() if key.startswith("backbone.")}
    passed = [f"{key}={value}" for key, value in given.items() if key.partition(".")[0] in PASSED]
    size = _size(given.get("size"), given["backbone"], options)
    sides = [f"{key}={size}" for key in ("sizes.canvas", "sizes.crop") if key not in given] if size else []
    settings = resolve_settings("evaluate", [*passed, *sides], store, out, command)
    backbone = backbone_config(given["backbone"], options, settings.presets["backbone"])
    protocols = _protocols(given.get("protocols"), settings)
    return Request(
        checkpoint=Path(given["checkpoint"]).expanduser(),
        supervised=given.get("supervised", AUTO),
        backbone=backbone,
        backbone_word=given["backbone"],
        branch=given.get("branch", ""),
        prefix=given.get("prefix"),
        protocols=protocols,
        asked="protocols" in given,
        seeds=_seeds(given.get("seeds")),
        device=given.get("device", settings.base["training"]["accelerator"]),
        settings=settings,
        name=_name(given, settings),
        command=command,
        words=given,
    )


def _split(words: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise UsageError(f"'{word}' is not of the form key=value; for example checkpoint=FILE backbone=resnet50")
        if key in given and given[key] != value:
            raise UsageError(f"{key} is given twice, as {given[key]} and as {value}; give it once")
        if key not in OWN and key.partition(".")[0] not in (*PASSED, "backbone"):
            valid = [*OWN, *PASSED, "backbone.OPTION", "data.OPTION", "evaluation.OPTION"]
            raise unknown("word of an evaluation (nothing is trained)", key, valid)
        given[key] = value
    return given


def _seeds(value: str | None) -> tuple[int, ...]:
    """``3`` is the seeds 0, 1 and 2; ``3,4`` are these two."""
    try:
        numbers = [int(item) for item in (str(SEEDS) if value is None else value).strip("[] ").split(",")]
    except ValueError:
        numbers = []
    single = len(numbers) == 1 and "[" not in (value or "")
    seeds = tuple(range(numbers[0])) if single else tuple(numbers)
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UsageError(f"seeds={value}: give how many probe seeds (seeds=3) or which ones, each once (seeds=3,4)")
    return seeds


def _protocols(value: str | None, settings: Settings) -> list[dict[str, Any]]:
    """The protocols that are asked for: those with frozen weights, all, or some by name."""
    names = [item.strip() for item in (value or "").strip("[] ").split(",") if item.strip()]
    if value is not None and not names:
        raise UsageError("protocols= needs names, for example protocols=knn,linear, or protocols=all")
    if not names:
        names = list(FROZEN)
    elif names == [EVERY]:
        names = [*FROZEN, *TRAINED]
    for name in names:
        if name not in NEEDS and name != "collapse":
            raise unknown("protocol", name, [*FROZEN, *TRAINED, EVERY])
    return [settings.protocol(name) for name in dict.fromkeys(names)]


def _name(given: Mapping[str, str], settings: Settings) -> str:
    """The page's name: the file's, and what else makes it another page."""
    stem = re.sub(r"(\.(pth|pt|ckpt|bin|tar|safetensors))+$", "", Path(given["checkpoint"]).name)
    parts = [given.get("name") or stem]
    parts += [settings.data] if settings.data != "shapes" else []
    parts += [settings.tier] if settings.tier != "cpu" else []
    parts += [given["branch"]] if given.get("branch") else []
    others = {
        key: value
        for key, value in sorted(given.items())
        if key.partition(".")[0] in ("size", "backbone", "prefix", "evaluation", "sizes", "presets")
        or (key.startswith("data.") and not key.startswith(("data.locations", "data.title")))
    }
    others.pop("backbone", None)
    if others:
        text = json.dumps(others)
        parts.append("-".join(f"{key}-{value}" for key, value in others.items()) if len(text) < 40 else _digest(text))
    plain = re.sub(r"[^\w.-]+", "-", "-".join(parts), flags=re.ASCII).strip("-.")
    return plain if plain and len(plain) <= 100 else f"{plain[:60]}-{_digest(plain or given['checkpoint'])}".lstrip("-")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# ---------------------------------------------------------------- backbones and sizes


def backbone_config(name: str, options: Mapping[str, str], presets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The configuration of a backbone that the user names.

    Args:
        name: of ``studies/conf/backbone``, a torchvision ResNet, a timm model ("timm/NAME"), or a timm ViT ("vit_...").
        options: ``backbone.OPTION=VALUE``.
        presets: those of ``studies/conf/backbone``.

    Raises:
        UsageError: an unknown name.
    """
    try:
        changes = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}" for key, value in options.items()]))
    except (OmegaConfBaseException, ValueError) as error:
        raise UsageError(f"options of the backbone cannot be read: {str(error).splitlines()[0]}") from error
    if name in presets:
        return merge(presets[name], changes)
    return merge(_library(name), changes)


def _library(name: str) -> dict[str, Any]:
    import timm
    from timm.models import is_model_in_modules

    from scd.nn.backbone import RESNETS

    if name in RESNETS or (name.startswith("timm/") and timm.is_model(name.removeprefix("timm/"))):
        return {"_target_": BUILD, "name": name} | ({"channels_last": True} if name in RESNETS else {})
    if timm.is_model(name):
        is_vit = is_model_in_modules(name, ["vision_transformer"])
        return {"_target_": VIT, "name": name} if is_vit else {"_target_": BUILD, "name": f"timm/{name}"}
    raise unknown("backbone", name, {*choices("backbone"), *RESNETS, "vit_small_patch16_224", "timm/MODEL"})


def _size(value: str | None, name: str, options: Mapping[str, str]) -> int | None:
    """Side of the images: as given, 224 or the model's own for a library's backbone, None for the tier's."""
    if value is not None:
        if not value.isdigit() or int(value) < 1:
            raise UsageError(f"size={value}: it must be a whole number of pixels, for example size=224")
        return int(value)
    if name in choices("backbone") and name != "resnet50":
        return None
    if options.get("small_stem", "").lower() == "true":
        return None
    if options.get("img_size", "").isdigit():
        return int(options["img_size"])
    import timm

    model = name.removeprefix("timm/")
    if name.startswith(("timm/", "vit_")) and timm.is_model(model):
        found = timm.get_pretrained_cfg(model)
        return int(found.input_size[-1]) if found is not None else USUAL_SIZE
    return USUAL_SIZE


def small_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same data with few generated images, to find out which protocols apply without drawing all of them."""
    if not source_class(data).embedded:
        return dict(data)
    options = dict(data["options"])
    few = 10 * int(options.get("classes") or 10)
    for split in ("train", "test", "probe"):
        if options.get(split):
            options[split] = min(options[split], few)
    return {**data, "options": options}


def require_something(possible: Sequence[Mapping[str, Any]], request: Request) -> None:
    """Raise DataError where no protocol that judges the features applies, and the user did not ask for this one."""
    names = {protocol["name"] for protocol in possible}
    if names - {"collapse"} or (names and request.asked):
        return
    asked = f" of protocols={request.words['protocols']}" if request.asked else ""
    raise DataError(
        f"'{request.settings.data}' has fewer than two classes and lacks what else protocols need, so none{asked} can "
        "judge the features; put the images into one folder per class, two or more (FOLDER/train/CLASS and "
        "FOLDER/test/CLASS), or give a label column: data.options.columns.label=NAME"
    )
