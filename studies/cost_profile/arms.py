"""The arms of the cost profile: every method that the suite has, alone, under every wrapper, and with more crops."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from scd.errors import UsageError
from studies.suite.planning.settings import choices, resolve_settings
from studies.suite.planning.study import Settings

HOST_LABELS = {
    "moco": "MoCo",
    "moco_symmetric": "MoCo, symmetric",
    "byol": "BYOL",
    "dino": "DINO",
    "slotcon": "SlotCon",
}
RECIPES = dict.fromkeys(("byol", "dino", "slotcon"), "byol")  # view recipe of a host, where it is not MoCo v2's
ALL, WITH_A_SECOND_LOSS = None, ("moco", "moco_symmetric", "byol")
WRAPPERS = {"scd": ("SCD", ALL), "lewel": ("LEWEL", WITH_A_SECOND_LOSS), "densecl": ("DenseCL", ("moco",))}  # its hosts
CONTROLS = {
    "same_rectangle": ("MoCo + same rectangle", 2),
    "random": ("MoCo + random crops", 2),
    "local": ("MoCo + local crops", 4),
}


@dataclass(frozen=True)
class CostArm:
    """A method whose cost is asked for.

    Args:
        name: unique, in the order host, addition.
        label: for tables.
        method: name of the host's configuration.
        host: name of the arm that it is compared with besides MoCo: its own host, or itself.
        wrapper: name of the wrapper's preset, or None.
        extra: kind and number of the extra views, or None.
    """

    name: str
    label: str
    method: str
    host: str
    wrapper: str | None = None
    extra: tuple[str, int] | None = None

    def config(self, settings: Settings) -> dict[str, Any]:
        """The run configuration of this arm, seed 0, in settings that :func:`settings_of` made for its method.

        Raises:
            UsageError: settings without the wrapper's preset.
        """
        config = {**settings.base, "seed": 0}
        if self.wrapper is not None:
            presets = settings.presets["wrapper"]
            if self.wrapper not in presets:
                raise UsageError(f"there is no wrapper '{self.wrapper}'; there are {', '.join(presets)}")
            config["wrapper"] = presets[self.wrapper]
        if self.extra is not None:
            from baselines.multicrop import extra_views  # imports torch

            views = config["views"]
            extra = extra_views(self.extra[0], views["size"], tuple(views["scale"]), self.extra[1])
            config["views"] = {**views, "extra": extra}
        return config


def arms() -> list[CostArm]:
    """Hosts, then what is put around them, then the controls without saliency; a new host configuration is an arm."""
    hosts = [name for name in HOST_LABELS if name in choices("method")]
    hosts += [name for name in choices("method") if name not in hosts]
    labels = {name: HOST_LABELS.get(name, name) for name in hosts}
    found = [CostArm(name, labels[name], name, name) for name in hosts]
    for wrapper, (label, possible) in WRAPPERS.items():
        found += [
            CostArm(f"{wrapper}_{name}", f"{label} on {labels[name]}", name, name, wrapper)
            for name in hosts
            if possible is ALL or name in possible
        ]
    found.append(CostArm("scd_constant_moco", "SCD on MoCo, constant map", "moco", "moco", "scd_constant"))
    found += [
        CostArm(f"moco_{kind}", label, "moco", "moco", extra=(kind, count)) for kind, (label, count) in CONTROLS.items()
    ]
    found.append(CostArm("dino_local", "DINO + local crops", "dino", "dino", extra=("local", 4)))
    found.append(CostArm("scd_moco_local", "SCD on MoCo + local crops", "moco", "moco", "scd", ("local", 4)))
    return found


def settings_of(arm: CostArm, words: tuple[str, ...]) -> Settings:
    """The settings of a command line's words with the arm's host method and its view recipe; not to be changed."""
    return _settings(arm.method, words)


@lru_cache(maxsize=32)  # composing takes up to a second, and the arms of a host share theirs
def _settings(method: str, words: tuple[str, ...]) -> Settings:
    recipe = [f"views.recipe={RECIPES[method]}"] if method in RECIPES else []
    return resolve_settings("multicrop", [*words, f"method={method}", *recipe])
