"""Every system that the reviewers name: its arm, its difference from its host and its cost, from committed pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas

from scd.errors import DataError
from studies.suite.analysis import notation
from studies.suite.analysis.conditions import words
from studies.suite.analysis.tables import NONE, Table
from studies.suite.pages.markdown import page_link
from studies.suite.pages.reread import Reading
from studies.systems.system import System
from studies.systems.table import SYSTEMS

NOT_MEASURED = "not measured"
COST_PAGE = "cost-profile"
CAPTION = (
    "An arm that is given by its name alone is one of the study `related`. Differences are paired over seeds, with "
    "95 % t intervals, not corrected, from the first page that has both arms. Cost is relative to what the system is "
    "compared with: FLOPs of a training step are counted at the papers' scale, its time is measured on one machine "
    f"([{COST_PAGE}]({COST_PAGE}.md))."
)


@dataclass(frozen=True)
class Named:
    """A system as the reviewers name it.

    Attributes:
        name: in the reviews; questions: the ids of the questions that name it.
        arms: where its difference is looked for: study, its arm, the arm that it is compared with.
        arm, host: both in words, where the arms are not those of a system of the study ``related``.
        cost: its arm in the cost profile, and the arm there that its cost is relative to.
        role: what it is to the suite, where it is no arm, or what else it is.
    """

    name: str
    questions: tuple[str, ...]
    arms: tuple[tuple[str, str, str], ...] = ()
    arm: str = ""
    host: str = ""
    cost: tuple[str, str] | None = None
    role: str = ""


NAMED = (
    Named(
        "SCD-MoCo, asymmetric", ("R2-b", "R3-a"),
        (("significance", "scd", "moco"), ("multicrop", "scd", "moco"), ("mechanism", "scd", "moco")),
        "MoCo with wrapper `scd`", "MoCo", ("scd_moco", "moco"),
    ),
    Named(
        "SCD-MoCo, symmetric", ("R2-b", "R3-a"), (("significance", "scd_symmetric", "moco_symmetric"),),
        "MoCo, symmetric, with wrapper `scd`", "MoCo, symmetric", ("scd_moco_symmetric", "moco_symmetric"),
    ),
    Named(
        "SCD-BYOL", ("R2-b", "R3-a"), (("significance", "scd_byol", "byol"), ("lewel", "scd_byol", "byol")),
        "BYOL with wrapper `scd`", "BYOL", ("scd_byol", "byol"),
    ),
    Named(
        "SCD-DINO", ("R1-e", "R5-c"), (("dino_vit", "scd", "dino"), ("related", "scd_dino", "dino")),
        "DINO with wrapper `scd`", "DINO", ("scd_dino", "dino"),
    ),
    Named(
        "MoCo v2", ("R2-b", "R3-a"), (("significance", "moco", "random"), ("calibration", "moco", "random")),
        "method `moco`", "random weights", ("moco", "moco"), "host of SCD, LEWEL and most systems",
    ),
    Named(
        "BYOL", ("R3-a",), (("significance", "byol", "random"), ("related", "byol", "random")), "method `byol`",
        "random weights", ("byol", "moco"), "host of SCD and of systems with its loss; its cost is relative to MoCo",
    ),
    Named("LEWEL", ("R2-a", "R2-b", "R2-c"), (("lewel", "lewel", "moco"), ("significance", "lewel", "moco"))),
    Named(
        "multi-crop", ("R5-b", "R5-c"), (("multicrop", "local_crops", "moco"),), "MoCo with local views", "MoCo",
        ("moco_local", "moco"),
    ),
    Named(
        "DINO", ("R1-e", "R5-c"), (("dino_vit", "dino", "random"),), "method `dino`", "random weights",
        ("dino", "moco"), "host of SCD and CrOC on a ViT; its cost is relative to MoCo",
    ),
    Named(
        "DINOv2", ("R1-e",), (("dino_vit", "dinov2", "dino"),), "method `dinov2`", "DINO", ("dinov2", "dino"),
        "its losses are an arm of study `dino_vit`, by `arms=all`; published weights are scored as they are with "
        "`axes.pretrained=[dinov2]`",
    ),
    Named(
        "GroupViT", ("R1-e",), (("dino_vit", "groupvit", "dino"),), "method `groupvit`", "DINO", ("groupvit", "dino"),
        "an arm of study `dino_vit`, by `arms=all`; the images have no captions: they are made of the labels' names",
    ),
    Named("CAST", ("R1-a",)),
    Named("InsLoc", ("R1-a", "R4-b")),
    Named("MaskContrast", ("R1-a", "R3-c")),
    Named("ContraCAM", ("R1-a",)),
    Named("VADeR", ("R1-a", "R3-c")),
    Named("Hierarchical Grouping", ("R1-a",)),
    Named("ORL", ("R1-b", "R1-d"), (("detection", "orl", "byol"),)),
    Named("SoCo", ("R1-b", "R1-d"), (("detection", "soco", "byol"),)),
    Named("SlotCon", ("R1-b", "R1-d"), (("detection", "slotcon", "byol"), ("scene_coco", "slotcon", "moco"))),
    Named("Odin", ("R1-b", "R1-d"), (("detection", "odin", "byol"),)),
    Named("CrOC", ("R1-b",)),
    Named(
        "COMUS", ("R1-b",),
        role="no training but an evaluation of frozen features: protocol `comus`, which the study `protocols` has for "
        "every arm, and any other study by `evaluation.protocols`",
    ),
    Named("PointCL", ("R1-b", "R1-d"), (("detection", "pointcl", "moco"),)),
    Named("DenseSiam", ("R1-d",), (("detection", "densesiam", "simsiam"),)),
    Named("Asym-Siam", ("R3-c",)),
    Named("DiLo", ("R3-c",)),
    Named("Reverse Attention", ("R3-c",)),
    Named("Object-aware cropping", ("R4-b",)),
    Named("DenseCL", ("R4-b",), (("scene_coco", "densecl", "moco"),)),
    Named(
        "MAE", ("R4-a",), (("mim", "mae", "random"),), "method `mae`", "random weights", ("mae", "moco"),
        "reconstructs pixels and has no pairs of views; its cost is relative to MoCo on the same ViT",
    ),
    Named(
        "TokenCut", ("R1-e", "R5-c"), (("dino_vit", "tokencut", "dino"),), "SCD-DINO with TokenCut's map", "DINO",
        role="not trained: a source of maps for SCD, and a way of finding objects in a ViT's keys",
    ),
    Named("SGCL", ("R5-c",)),
    Named(
        "Demystifying", ("R1-c",),
        role="an analysis: its invariances are the protocol `invariance`, its bias to objects the study `uncurated`",
    ),
    Named(
        "Divide and Contrast", ("R1-c",), (("uncurated", "dnc", "moco_long"),),
        "methods `dnc_experts`, then `divide_and_contrast`", "MoCo at the cost of all stages",
        ("divide_and_contrast", "moco"), "three stages, for uncurated images; its cost here is that of the last one",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Costs:
    """What the cost profile has of each arm.

    Attributes:
        counted: scale -> arm -> its numbers counted at the papers' scale; timed: arm -> its times on one machine.
        hosts: arm -> the arm that it was timed beside.
    """

    counted: Mapping[str, Mapping[str, Mapping[str, float]]]
    timed: Mapping[str, Mapping[str, float]]
    hosts: Mapping[str, str]

    def of(self, cost: tuple[str, str] | None) -> tuple[str, str]:
        """FLOPs and time of a training step of an arm as multiples of another arm's."""
        if cost is None:
            return NOT_MEASURED, NOT_MEASURED
        if cost[0] == cost[1]:
            return "1×", "1×"
        return self._flops(*cost), self._time(*cost)

    def _flops(self, arm: str, host: str) -> str:
        """At the first of the papers' scales that has both; it is named where it is not the first of all."""
        for scale, found in self.counted.items():
            own, other = (found.get(name, {}).get("training_flops") for name in (arm, host))
            if own and other:
                return f"{own / other:.3f}×" + (f" ({scale})" if scale != next(iter(self.counted)) else "")
        return NOT_MEASURED

    def _time(self, arm: str, host: str) -> str:
        """Median and quartiles, where steps of both were timed in turn."""
        name = "time_to_moco" if host == "moco" else "time_to_host" if self.hosts.get(arm) == host else ""
        found = self.timed.get(arm, {})
        if name not in found:
            return NOT_MEASURED
        low, middle, high = (found[f"{name}{end}"] for end in ("_low", "", "_high"))
        return f"{middle:.2f}× [{low:.2f}, {high:.2f}]"


def costs_of(readings: Mapping[str, Reading]) -> Costs:
    """The numbers of the page of the cost profile; empty without it, or where its records cannot be read."""
    try:
        results = readings[COST_PAGE].results
    except (KeyError, DataError):
        return Costs({}, {}, {})
    from studies import cost_profile, cost_tables  # their imports take a while, and few folders have this page

    scales = (cost_tables.RESNET50, cost_tables.VIT)
    counted = {scale: cost_tables.by_arm(results, "counted", setting=scale) for scale in scales}
    return Costs(counted, cost_tables.by_arm(results, "timed"), cost_profile.HOSTS)


def systems_of(name: str) -> list[System]:
    """The systems of the study ``related`` that have a name of the reviews, or stand for it."""
    wanted = name.casefold()
    return [each for each in SYSTEMS if wanted in (each.label.casefold()[: len(wanted)], _stands_for(each))]


def _stands_for(system: System) -> str:
    return system.stands_for.partition(",")[0].casefold()


def systems_table(readings: Mapping[str, Reading]) -> Table:
    """One row per system that the reviewers name, or per arm of it; then the other systems of the suite."""
    rows, shown, costs = [], set(), costs_of(readings)
    for each in NAMED:
        built = [] if each.arm else systems_of(each.name)
        shown |= {system.name for system in built}
        rows += [system_row(system, each, readings, costs) for system in built] or [named_row(each, readings, costs)]
    rows += [system_row(each, None, readings, costs) for each in SYSTEMS if each.name not in shown]
    return Table(pandas.DataFrame(rows))


def named_row(named: Named, readings: Mapping[str, Reading], costs: Costs) -> dict[str, str]:
    """A system that is no arm of the study ``related``."""
    role = named.role or ("" if named.arm else "not in the suite")
    trained = bool(named.arm) or bool(find_difference(named.arms, readings))
    found = difference(named.arms, readings) if trained else NONE
    return _row(named.name, named.questions, named.arm, named.host, found, costs.of(named.cost), role)


def system_row(system: System, named: Named | None, readings: Mapping[str, Reading], costs: Costs) -> dict[str, str]:
    """A system of the study ``related``, and other pages that have it."""
    host = system.host.host
    places = (("related", system.name, host), *(named.arms if named else ()))
    questions = tuple(dict.fromkeys([*(named.questions if named else ()), *system.questions]))
    wrapper, method = (_preset(system.overrides.get(part)) for part in ("wrapper", "method"))
    whole = all(isinstance(part, str) for part in system.overrides.values())
    cost = (f"{wrapper}_{method}" if wrapper else method, host) if whole else None
    name = system.label
    if named and not system.label.casefold().startswith(named.name.casefold()):
        name = f"{named.name}, as {system.label}"
    role = f"with {system.given} from outside" if system.given else ""
    arm = f"`{system.name}`" + ("" if system.default else ", by `arms=all`")
    return _row(name, questions, arm, system.host.label, difference(places, readings), costs.of(cost), role)


def _preset(part: object) -> str:
    return part.get("preset", "") if isinstance(part, Mapping) else str(part or "")


def _row(
    name: str, questions: Sequence[str], arm: str, host: str, found: str, cost: tuple[str, str], role: str
) -> dict[str, str]:
    flops, time = cost if arm else (NONE, NONE)
    return {
        "system": name,
        "asked in": ", ".join(questions),
        "arm": arm or NONE,
        "compared with": host or NONE,
        "difference": found,
        "FLOPs": flops,
        "time": time,
        "role": role or NONE,
    }


# -------------------------------------------------------------------- numbers


def find_difference(places: Sequence[tuple[str, str, str]], readings: Mapping[str, Reading]):
    """The first page, current ones and defaults first, that has a paired difference: page, finding and results."""
    for is_stale in (False, True):
        for study, arm, host in places:
            pages = [each for each in readings.values() if each.study == study and each.stale == is_stale]
            for page in sorted(pages, key=lambda page: not page.is_default):
                if found := page.difference(arm, host):
                    return page, *found
    return None


def difference(places: Sequence[tuple[str, str, str]], readings: Mapping[str, Reading]) -> str:
    """A difference from the host with its interval, what follows from it, where it was measured, and the page."""
    found = find_difference(places, readings)
    if found is None:
        return NOT_MEASURED
    page, finding, results = found
    metric, setting = results.metric(finding.contrast.metric), words(finding.contrast.conditions)
    mark = ", **stale**" if page.stale else ""
    where = f"{metric.label}{f', {setting}' if setting else ''}: {page_link(page.name)}{mark}"
    return f"{notation.amount(metric, finding.gain)}: {finding.outcome} ({where})"
