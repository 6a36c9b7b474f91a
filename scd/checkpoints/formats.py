"""The layouts of published checkpoints, each recognised by its keys, and the names of the network inside.

A layout says in which mapping of the file the tensors stand, which names only it has, and under which prefix each of
its networks lies. Many methods train two: the *online* one, which the gradient changes (student, query), and the
*momentum* one, its moving average (teacher, target, key). ``default`` is the one that the official evaluation takes.

Names that a wrapper puts in front of all others (``module.`` of DistributedDataParallel, ``_orig_mod.`` of
torch.compile) are removed before anything is compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from scd.checkpoints.reading import Contents
from scd.errors import UsageError, unknown

WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
ONLINE, MOMENTUM = "online", "momentum"
ALIASES = {"student": ONLINE, "query": ONLINE, "teacher": MOMENTUM, "target": MOMENTUM, "key": MOMENTUM}
BRANCHES = (ONLINE, MOMENTUM)


@dataclass(frozen=True)
class Format:
    """A layout.

    Attributes:
        title: for the page.
        source: where the official code writes or reads such files: repository, file.
        marks: mapping of the file ("" for the one that holds the weights, wherever it is) -> beginnings of names, each
            of which some name must have.
        networks: "online" and "momentum" -> (mapping of the file, or "" as above; prefix).
        default: the network that is taken where the user does not choose.
    """

    title: str
    source: str
    marks: Mapping[str, tuple[str, ...]]
    networks: Mapping[str, tuple[str, str]]
    default: str = ONLINE


def _pair(online: str | None = None, momentum: str | None = None) -> dict[str, tuple[str, str]]:
    given = {ONLINE: online, MOMENTUM: momentum}
    return {name: ("", prefix) for name, prefix in given.items() if prefix is not None}


FORMATS = (  # the first whose marks are there
    Format(
        "LEWEL",
        "LayneH/LEWEL, models/lewel.py and utils/extract_backbone.py",
        {"": ("online_net.backbone.", "target_net.backbone.")},
        _pair("online_net.backbone.", "target_net.backbone."),
    ),
    Format(
        "LEWEL, older",
        "LayneH/LEWEL, utils/extract_backbone.py",
        {"": ("encoder_q.backbone.",)},
        _pair("encoder_q.backbone.", "encoder_k.backbone."),
    ),
    Format(
        "SlotCon",
        "CVMI-Lab/SlotCon, models/slotcon.py; transfer/detection/convert_pretrain_to_d2.py takes encoder_k",
        {"": ("encoder_q.", "encoder_k.", "grouping_q.")},
        _pair("encoder_q.", "encoder_k."),
        MOMENTUM,
    ),
    Format(
        "DenseCL",
        "WXinlong/DenseCL, openselfsup/models/densecl.py and tools/extract_backbone_weights.py",
        {"": ("encoder_q.0.", "encoder_k.0.", "queue2")},
        _pair("encoder_q.0.", "encoder_k.0."),
    ),
    Format(
        "MoCo in OpenSelfSup",
        "WXinlong/DenseCL, openselfsup/models/moco.py",
        {"": ("encoder_q.0.conv1.", "encoder_k.0.conv1.")},
        _pair("encoder_q.0.", "encoder_k.0."),
    ),
    Format(
        "MoCo v1 or v2",
        "facebookresearch/moco, main_lincls.py",
        {"": ("encoder_q.", "encoder_k.")},
        _pair("encoder_q.", "encoder_k."),
    ),
    Format("MoCo v1 or v2, the query alone", "facebookresearch/moco", {"": ("encoder_q.",)}, _pair("encoder_q.")),
    Format(
        "MoCo v3",
        "facebookresearch/moco-v3, main_lincls.py",
        {"": ("base_encoder.", "momentum_encoder.")},
        _pair("base_encoder.", "momentum_encoder."),
    ),
    Format(
        "BYOL (sthalles/PyTorch-BYOL)",
        "sthalles/PyTorch-BYOL, trainer.py and models/resnet_base_network.py",
        {"online_network_state_dict": ("encoder.",)},
        {ONLINE: ("online_network_state_dict", "encoder."), MOMENTUM: ("target_network_state_dict", "encoder.")},
    ),
    Format(
        "BYOL (yaox12/BYOL-PyTorch)",
        "yaox12/BYOL-PyTorch, trainer/byol_trainer.py and model/byol_model.py",
        {"": ("online_network.encoder.",)},
        _pair("online_network.encoder.", "target_network.encoder."),
    ),
    Format(
        "BYOL (lucidrains/byol-pytorch)",
        "lucidrains/byol-pytorch, byol_pytorch/byol_pytorch.py",
        {"": ("online_encoder.net.",)},
        _pair("online_encoder.net.", "target_encoder.net."),
    ),
    Format(
        "iBOT",
        "bytedance/ibot, main_ibot.py",
        {"student": ("backbone.masked_embed",), "teacher": ("backbone.",)},
        {ONLINE: ("student", "backbone."), MOMENTUM: ("teacher", "backbone.")},
        MOMENTUM,
    ),
    Format(
        "DINO",
        "facebookresearch/dino, main_dino.py and utils.py",
        {"student": ("backbone.", "head."), "teacher": ("backbone.", "head.")},
        {ONLINE: ("student", "backbone."), MOMENTUM: ("teacher", "backbone.")},
        MOMENTUM,
    ),
    Format(
        "DINOv2, teacher",
        "facebookresearch/dinov2, dinov2/train/train.py",
        {"teacher": ("backbone.", "dino_head.")},
        {MOMENTUM: ("teacher", "backbone.")},
        MOMENTUM,
    ),
    Format(
        "MAE",
        "facebookresearch/mae, models_mae.py and util/misc.py",
        {"": ("patch_embed.", "decoder_embed.", "decoder_blocks.")},
        _pair(""),
    ),
    Format(
        "lightly, student and teacher",
        "lightly-ai/lightly, examples/pytorch_lightning and benchmarks/imagenet",
        {"": ("student_backbone.", "teacher_backbone.")},
        _pair("student_backbone.", "teacher_backbone."),
        MOMENTUM,
    ),
    Format(
        "lightly, DINO",
        "lightly-ai/lightly, benchmarks/imagenet/resnet50/dino.py",
        {"": ("student_backbone.", "backbone.")},
        _pair("student_backbone.", "backbone."),
        MOMENTUM,
    ),
    Format(
        "lightly, BYOL",
        "lightly-ai/lightly, benchmarks/imagenet/resnet50/byol.py",
        {"": ("backbone.", "teacher_backbone.")},
        _pair("backbone.", "teacher_backbone."),
    ),
    Format(
        "lightly, MoCo",
        "lightly-ai/lightly, benchmarks/imagenet/resnet50/mocov2.py",
        {"": ("backbone.", "key_backbone.")},
        _pair("backbone.", "key_backbone."),
    ),
    Format(
        "lightly, with a momentum copy",
        "lightly-ai/lightly, examples/pytorch_lightning/moco.py",
        {"": ("backbone.", "backbone_momentum.")},
        _pair("backbone.", "backbone_momentum."),
    ),
    Format(
        "solo-learn, with a momentum copy",
        "vturrisi/solo-learn, solo/methods/base.py and main_linear.py",
        {"": ("backbone.", "momentum_backbone.")},
        _pair("backbone.", "momentum_backbone."),
    ),
    Format(
        "solo-learn",
        "vturrisi/solo-learn, solo/methods/base.py and main_linear.py",
        {"": ("backbone.", "classifier.")},
        _pair("backbone."),
    ),
    Format(
        "solo-learn, older",
        "vturrisi/solo-learn, main_linear.py",
        {"": ("encoder.", "classifier.")},
        _pair("encoder.", "momentum_encoder."),
    ),
    Format(
        "a module with a backbone",
        "Lightning modules, and methods of this suite",
        {"": ("backbone.",)},
        _pair("backbone."),
    ),
)
PLAIN = "a plain state dict"
GIVEN = "the prefix that was given"


@dataclass(frozen=True)
class Network:
    """The part of a file that holds one network.

    Attributes:
        format: the title of the layout; source: of what code.
        place: the mapping of the file; prefix: what was removed from its names, wrappers included.
        branch: "online" or "momentum"; "" where the file has one network.
        tensors: name without the prefix -> tensor.
        names: the same name -> the name in the file.
        outside: names of the same mapping that do not have the prefix.
    """

    format: str
    source: str
    place: str
    prefix: str
    branch: str
    tensors: dict[str, Tensor]
    names: dict[str, str]
    outside: tuple[str, ...]


def network_of(contents: Contents, anchors: Sequence[str], branch: str = "", prefix: str | None = None) -> Network:
    """The network of a file.

    Args:
        anchors: names that a network has and nothing else has, of the first layer in every naming; a file of an
            unknown layout is searched for them.
        branch: "online" or "momentum" (or student, teacher, query, key, target); "" for the layout's default.
        prefix: what to remove from the names, where the user says it, ``PREFIX`` or ``MAPPING:PREFIX``; the layout is
            then not asked.

    Raises:
        UsageError: an unknown branch, one that the file does not have, or a prefix that no name has.
        DataError: a file with several networks in no known layout.
    """
    branch = ALIASES.get(branch, branch)
    if branch and branch not in BRANCHES:
        raise unknown("branch", branch, (*BRANCHES, *ALIASES))
    if prefix is not None:
        return _given(contents, prefix)
    for layout in FORMATS:
        found = _places(contents, layout)
        if found is not None:
            return _chosen(contents, layout, found, branch)
    network = _plain(contents, anchors)
    if branch:
        raise UsageError(f"branch={branch}: {contents.title} is {network.format} and has one network; leave it out")
    return network


def unwrapped(name: str) -> str:
    """A name without the prefixes of wrappers, wherever they stand."""
    for wrapper in WRAPPERS:
        name = name.replace(f".{wrapper}", ".").removeprefix(wrapper)
    return name


def _places(contents: Contents, layout: Format) -> str | None:
    """The mapping that the layout's "" stands for, where all of its marks are found."""
    wanted = layout.marks.get("")
    for place in contents.tables if wanted else [""]:
        marks = {(key or place): beginnings for key, beginnings in layout.marks.items()}
        if all(_has(contents.tables.get(key, {}), beginnings) for key, beginnings in marks.items()):
            return place
    return None


def _has(tensors: Mapping[str, Tensor], beginnings: Sequence[str]) -> bool:
    names = [unwrapped(name) for name in tensors]
    return all(any(name.startswith(beginning) for name in names) for beginning in beginnings)


def _chosen(contents: Contents, layout: Format, found: str, branch: str) -> Network:
    branch = branch or layout.default
    if branch not in layout.networks:
        has = ", ".join(layout.networks)
        raise UsageError(f"branch={branch}: {contents.title} is of the format '{layout.title}', which has only {has}")
    place, prefix = layout.networks[branch]
    place = place or found
    there = [
        name for name, (at, start) in layout.networks.items() if _has(contents.tables.get(at or found, {}), (start,))
    ]
    network = _under(contents, place, prefix, layout.title, layout.source, branch if len(there) > 1 else "")
    if not network.tensors:
        raise UsageError(f"branch={branch}: {contents.title} has no names under '{prefix}'; choose another branch")
    return network


def _given(contents: Contents, prefix: str) -> Network:
    """The network under a prefix that the user names, ``PREFIX`` or ``MAPPING:PREFIX``."""
    at, colon, rest = prefix.rpartition(":")
    places = [at] if colon and at in contents.tables else [] if colon else list(contents.tables)
    for place in places:
        given = unwrapped(rest)
        names = map(unwrapped, contents.tables[place])
        whole = f"{given}." if any(name.startswith(f"{given}.") for name in names) else given
        network = _under(contents, place, whole, GIVEN, "", "")
        if network.tensors:
            return network
    examples = ", ".join(list(next(iter(contents.tables.values())))[:3])
    raise UsageError(f"prefix={prefix}: no name of {contents.title} begins with it; they are like {examples}")


def _plain(contents: Contents, anchors: Sequence[str]) -> Network:
    """The only network of a file of no known layout: where the names of the first layer are found."""
    found = {}
    for place, tensors in contents.tables.items():
        for name in map(unwrapped, tensors):
            ends = [anchor for anchor in anchors if name == anchor or name.endswith(f".{anchor}")]
            if ends:
                found[place, name[: -len(max(ends, key=len))]] = None
    if len(found) > 1:
        listed = ", ".join(f"prefix={place}:{prefix}" if place else f"prefix={prefix}" for place, prefix in found)
        raise UsageError(f"{contents.title} holds several networks in no known format; choose one: {listed}")
    largest = max(contents.tables, key=lambda place: len(contents.tables[place]))
    place, prefix = next(iter(found), (largest, ""))
    return _under(contents, place, prefix, f"{PLAIN} under '{prefix}'" if prefix else PLAIN, "", "")


def _under(contents: Contents, place: str, prefix: str, title: str, source: str, branch: str) -> Network:
    """The names of a mapping that have a prefix, without it."""
    tensors, names, outside = {}, {}, []
    removed = ""
    for name, tensor in contents.tables.get(place, {}).items():
        plain = unwrapped(name)
        if not plain.startswith(prefix):
            outside.append(name)
            continue
        short = plain.removeprefix(prefix)
        tensors[short], names[short] = tensor, name
        removed = removed or (name[: -len(short)] if name.endswith(short) else prefix)
    return Network(title, source, place, removed, branch, tensors, names, tuple(outside))
