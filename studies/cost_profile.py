"""R4-d: what do SCD and every other method cost in computation, time and memory, and where does it go?

Nothing is trained here: every run is a measurement. At the papers' scale, operations, activations and parameters are
counted from shapes. At the scale of the tier, steps of the real training are timed on this machine, each beside a step
of its host, and their memory is measured.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from scd.errors import UsageError, unknown
from studies import cost_tables
from studies.suite.pages.publish import Report
from studies.suite.planning.command_line import choices, resolve_settings
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import MEASUREMENT, Arm, RunSpec, Study, merge

NAME = "cost_profile"
CLASSES = 1000  # of methods that learn from labels, as in ImageNet
FROM_LABELS = ("supervised", "groupvit")
LABELS = {
    "moco": "MoCo", "moco_symmetric": "MoCo, symmetric", "byol": "BYOL", "simsiam": "SimSiam",
    "barlow_twins": "Barlow Twins", "dino": "DINO", "slotcon": "SlotCon", "soco": "SoCo",
    "detcon": "DetCon", "odin": "Odin (reconstruction)", "insloc": "InsLoc", "orl": "ORL in one stage",
    "asym_siam": "Asym-Siam's baseline", "dnc_experts": "Divide and Contrast, experts",
    "divide_and_contrast": "Divide and Contrast, distillation",
    "dinov2": "DINOv2's losses", "groupvit": "GroupViT", "mae": "MAE", "supervised": "supervised",
}  # fmt: skip
PAIRED = ("moco", "moco_symmetric", "byol", "simsiam", "barlow_twins", "dino", "slotcon")  # compare pairs of views
WRAPPERS = {  # label, what it adds, its hosts
    "scd": ("SCD", "SCD's map, pooled vectors and triplets", PAIRED),
    "lewel": ("LEWEL", "LEWEL's maps and aligned loss", ("moco", "moco_symmetric", "byol")),
    "densecl": ("DenseCL", "DenseCL's dense head and loss", ("moco",)),
    "vader": ("VADeR", "VADeR's dense head, points and loss", ("moco",)),
    "pointcl": ("PointCL", "PointCL's points, region contrast and affinities", ("moco",)),
    "mask_contrast": ("MaskContrast", "MaskContrast's positions, prototypes and mask head", ("moco",)),
    "hierarchical_grouping": (
        "Hierarchical Grouping (reconstruction)",
        "Hierarchical Grouping's pixel head, tree distances and contrast",
        ("moco",),
    ),
    "cast": ("CAST", "CAST's constrained crops, masked key and Grad-CAM loss", ("moco",)),
    "sgcl": ("SGCL", "SGCL's saliency of whole images, and crops that follow it", ("moco",)),
    "densesiam": ("DenseSiam", "DenseSiam's pixel and region consistency", ("simsiam",)),
    "croc": ("CrOC", "CrOC's joint clustering of two views and its loss", ("dino",)),
}
NEEDS_VIT = ("mae", "dinov2", "groupvit")  # methods that bring a ViT of their own
SMOKE_ARMS = ("moco", "scd_moco", "moco_local")  # of a tier that only tests the wiring
SMOKE_ROUNDS = SMOKE_OTHERS = 2


def resnet(layers: int) -> dict[str, Any]:
    """One of the papers' backbones, whole: another name replaces all options of a backbone."""
    return {"_target_": "scd.nn.backbone.build_backbone", "name": f"resnet{layers}", "channels_last": True}


COUNT, MEMORY = "scd.profiling.counted.CountedCost", "scd.profiling.memory.PeakMemory"
TIMING, CHANGED = "scd.profiling.timed.StepTiming", "scd.profiling.variants.ChangedStep"
SCALES = {
    cost_tables.RESNET50: ("tier=paper", "backbone=resnet50"),
    cost_tables.VIT: ("tier=paper", "backbone=vit"),
}
COUNTED_CURVES = {
    "image side (px), ResNet-50": {side: {"views": {"size": side}} for side in (64, 96, 128, 224, 448)},
    "images per step, ResNet-50 at 224 px": {size: {"training": {"batch_size": size}} for size in (64, 256, 1024)},
    "layers of the backbone, ResNet at 224 px": {n: {"backbone": resnet(n)} for n in (50, 101, 152)},
}
TIMED_CURVES = {
    "image side (px)": {side: {"views": {"size": side}, "data": {"size": 2 * side}} for side in (16, 24, 32, 48)},
    "images per step": {size: {"training": {"batch_size": size}} for size in (16, 32, 64, 128)},
}
BACKBONE_CURVES = {  # where the tier's backbone has stages of chosen widths
    "width of the last stage": {4 * w: {"backbone": {"widths": [w, 2 * w, 4 * w]}} for w in (8, 16, 32)},
    "layers in the backbone": {
        1 + 2 * n: {"backbone": {"widths": [16, 32, *[64] * (n - 2)], "strides": [1, 2, *[1] * (n - 2)]}}
        for n in (3, 5, 8)
    },
}
CHANGES = {  # what the training does for speed, each undone alone
    "views of one step at a time": {"_target_": CHANGED, "change": "views_one_by_one"},
    "optimiser: one tensor at a time": {"_target_": CHANGED, "change": "optimizer_one_by_one"},
    "momentum update: one tensor at a time": {"_target_": CHANGED, "change": "momentum_one_by_one"},
    "forward and backward pass alone": {"_target_": CHANGED, "change": "bare"},
    "backbones through torch.compile": {"_target_": "scd.profiling.variants.CompiledBackbone"},
    "memory allocator: the system's default": {"_target_": "scd.profiling.variants.DefaultAllocator"},
}


# -------------------------------------------------------------------- arms


def crops(kind: str, count: int) -> dict[str, Any]:
    """Extra views without saliency."""
    return {"views": {"extra": {"kind": kind, "count": count}}}


def methods() -> list[str]:
    """The methods of ``conf/method``; a new one is an arm without a line here."""
    found = choices("method")
    return [name for name in LABELS if name in found] + [name for name in found if name not in LABELS]


def host_arm(name: str) -> Arm:
    """A method alone."""
    method = {"preset": name, "classes": CLASSES} if name in FROM_LABELS else name
    differs = "nothing: what all others are compared with" if name == "moco" else "the method with its own views"
    return Arm(name, LABELS.get(name, name), {"method": method}, "backbone, images, batch size", differs)


def arm_on(host: str, name: str, label: str, overrides: Mapping[str, Any], differs: str) -> Arm:
    """A method with something added."""
    return Arm(name, label, merge({"method": host}, overrides), f"all of {LABELS[host]}", differs)


def build_arms() -> dict[str, list[Arm]]:
    """Host -> the arms on it, itself first."""
    found = {name: [host_arm(name)] for name in methods()}
    for wrapper, (label, adds, hosts) in WRAPPERS.items():
        for host in hosts:
            arm = arm_on(host, f"{wrapper}_{host}", f"{label} on {LABELS[host]}", {"wrapper": wrapper}, adds)
            found[host].append(arm)
    constant = {"wrapper": {"preset": "scd", "saliency": "constant"}}
    found["moco"] += [
        arm_on("moco", "scd_constant_moco", "SCD on MoCo, constant map", constant, "SCD with a constant map"),
        arm_on("moco", "moco_same_rectangle", "MoCo + same rectangle", crops("same_rectangle", 2), "2 repeated crops"),
        arm_on("moco", "moco_random", "MoCo + random crops", crops("random", 2), "2 further views of full size"),
        arm_on("moco", "moco_local", "MoCo + local crops", crops("local", 4), "4 small views"),
        arm_on("moco", "scd_moco_local", "SCD on MoCo + local crops", {"wrapper": "scd", **crops("local", 4)},
               "SCD and 4 small views"),
    ]  # fmt: skip
    found["dino"].append(arm_on("dino", "dino_global", "DINO, global views only", crops("none", 0), "no small views"))
    return found


ARMS_OF = build_arms()
HOSTS = {arm.name: host for host, arms in ARMS_OF.items() for arm in arms}
ARMS = (*(arms[0] for arms in ARMS_OF.values()), *(arm for arms in ARMS_OF.values() for arm in arms[1:]))
BY_NAME = {arm.name: arm for arm in ARMS}


# -------------------------------------------------------------------- plan


def plan(settings: Settings) -> list[RunSpec]:
    """All measurements of the chosen kinds; on a tier that only tests the wiring, a few of each kind."""
    arms, kinds, specs = list(settings.select(ARMS)), settings.axes["kinds"], []
    if not settings.meaningful:
        arms = [arm for arm in arms if arm.name in SMOKE_ARMS]
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("kind of measurement (axes.kinds)", kind, KINDS)
    for kind, measurements in KINDS.items():
        found = list(measurements(settings, arms)) if kind in kinds else []
        specs += found if settings.meaningful or kind in ("counted", "memory", "timed") else found[:SMOKE_OTHERS]
    return specs


def config_of(settings: Settings, name: str, seed: int, **overrides: Any) -> dict[str, Any]:
    """What a step of an arm's training depends on; all arms take the batch size of the tier."""
    batch = {"training": {"batch_size": settings.base["training"]["batch_size"]}}
    config = settings.configure(BY_NAME[name], seed, merge(batch, overrides))
    training = {key: config["training"][key] for key in ("batch_size", "accelerator")}
    kept = {key: config[key] for key in ("views", "backbone", "method", "wrapper", "optimizer")}
    return {**kept, "training": training, "data": {"size": config["data"]["size"]}, "seed": seed, "seed_of": {}}


def measurement(
    settings: Settings, kind: str, arm: str, arms: Mapping[str, Any], options: Mapping[str, Any], seed: int,
    setting: str = "", x: float | None = None,
) -> RunSpec:  # fmt: skip
    """One run; measurements of time run alone on the machine."""
    labels = {"arm": arm, "kind": kind, "setting": setting, "x": x, "seed": seed, "data": settings.data}
    alone = kind in ("timed", "speed", "timed_scaling")
    return RunSpec({"measurement": dict(options), "arms": dict(arms)}, labels, kind=MEASUREMENT, alone=alone)


def rounds_of(settings: Settings, name: str = "rounds") -> int:
    """How many rounds a measurement of time has."""
    if settings.axes[name] < 1:
        raise UsageError(f"axes.{name}={settings.axes[name]}: it must be 1 or more")
    return settings.axes[name] if settings.meaningful else SMOKE_ROUNDS


def words(config: Mapping[str, Any]) -> str:
    """A configuration of :func:`config_of` in words: backbone, size of the views, batch."""
    return f"{config['backbone']['name']}, {config['views']['size']} px, batch {config['training']['batch_size']}"


def counted(settings: Settings, arms: list[Arm]) -> Iterator[RunSpec]:
    """Every arm at the papers' scale; nothing in it is random."""
    for scale, choice in SCALES.items():
        paper = resolve_settings(NAME, choice)
        for arm in arms:
            if scale == cost_tables.VIT or HOSTS[arm.name] not in NEEDS_VIT:
                config = config_of(paper, arm.name, 0)
                yield measurement(settings, "counted", arm.name, {"arm": config}, {"_target_": COUNT}, 0, scale)


def counted_scaling(settings: Settings, arms: list[Arm]) -> Iterator[RunSpec]:
    """MoCo with and without SCD along sizes."""
    paper = resolve_settings(NAME, SCALES[cost_tables.RESNET50])
    for curve, points in COUNTED_CURVES.items():
        for x, changes in points.items():
            for name in ("moco", "scd_moco"):
                config = config_of(paper, name, 0, **changes)
                yield measurement(settings, "counted_scaling", name, {"arm": config}, {"_target_": COUNT}, 0, curve, x)


def timed(settings: Settings, arms: list[Arm]) -> Iterator[RunSpec]:
    """Steps of every arm, beside those of its host and of MoCo."""
    moco = config_of(settings, "moco", 0)["backbone"]
    for seed in settings.seeds:
        for arm in arms:
            host, measured = HOSTS[arm.name], {"arm": config_of(settings, arm.name, seed)}
            if measured["arm"]["backbone"] == moco and arm.name != "moco":
                measured["moco"] = config_of(settings, "moco", seed)
            if host not in (arm.name, "moco"):
                measured["host"] = config_of(settings, host, seed)
            rounds = rounds_of(settings, "many_rounds" if arm.name == "scd_moco" else "rounds")
            options = {"_target_": TIMING, "rounds": rounds}
            yield measurement(settings, "timed", arm.name, measured, options, seed, words(measured["arm"]))


def memory(settings: Settings, arms: list[Arm]) -> Iterator[RunSpec]:
    """Peak memory of every arm."""
    for seed in settings.seeds:
        for arm in arms:
            measured = {"arm": config_of(settings, arm.name, seed)}
            options = {"_target_": MEMORY}
            yield measurement(settings, "memory", arm.name, measured, options, seed, words(measured["arm"]))


def speed(settings: Settings, arms: list[Arm]) -> Iterator[RunSpec]:
    """MoCo's step with one thing changed."""
    rounds = rounds_of(settings)
    for seed in settings.seeds:
        moco = config_of(settings, "moco", seed)
        for change, options in CHANGES.items():
            repeated = {**options, "rounds": rounds}
            yield measurement(settings, "speed", "moco", {"arm": moco}, repeated, seed, change)
        if "channels_last" in moco["backbone"]:
            last = moco["backbone"]["channels_last"]
            turned = merge(moco, {"backbone": {"channels_last": not last}})
            options = {"_target_": TIMING, "rounds": rounds, "phase_rounds": 0}
            setting = f"memory layout: {'channels first' if last else 'channels last'}"
            yield measurement(settings, "speed", "moco", {"arm": turned, "usual": moco}, options, seed, setting)


def timed_scaling(settings: Settings, arms: list[Arm]) -> Iterator[RunSpec]:
    """SCD on MoCo beside MoCo along sizes."""
    has_stages = "widths" in config_of(settings, "moco", 0)["backbone"]
    curves = {**TIMED_CURVES, **(BACKBONE_CURVES if has_stages else {})}
    options = {"_target_": TIMING, "rounds": rounds_of(settings), "phase_rounds": 0}
    for seed in settings.seeds:
        for curve, points in curves.items():
            for x, changes in points.items():
                pair = {"arm": "scd_moco", "moco": "moco"}
                measured = {role: config_of(settings, name, seed, **changes) for role, name in pair.items()}
                yield measurement(settings, "timed_scaling", "scd_moco", measured, options, seed, curve, x)


KINDS = {
    "counted": counted, "counted_scaling": counted_scaling, "memory": memory,
    "timed": timed, "speed": speed, "timed_scaling": timed_scaling,
}  # fmt: skip


# -------------------------------------------------------------------- page


def sections(report: Report) -> None:
    """The study's part of the page."""
    cost_tables.write(report, HOSTS)


STUDY = Study(
    name=NAME,
    question_ids=("R4-d",),
    question="What does SCD cost in computation, time and memory, and where does it go?",
    title="What does SCD cost, and why?",
    arms=ARMS,
    contrasts=(),
    control=(),
    primary="",
    plan=plan,
    sections=sections,
    notes=cost_tables.notes,
    metrics=cost_tables.METRICS,
)
