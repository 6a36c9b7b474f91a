"""A published system as the study ``related`` runs it: what it is put on, its arms, and its words on the page."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from studies.suite.planning.study import Arm, merge


class Quoted(NamedTuple):
    """A published number: what it is, and where it stands."""

    text: str
    source: str


@dataclass(frozen=True)
class Host:
    """What systems are put on or, as methods of their own, share views with: three arms of the study, by name."""

    host: str
    label: str
    scd: str
    oracle: str


MOCO, BYOL = Host("moco", "MoCo", "scd", "oracle"), Host("byol", "BYOL", "scd_byol", "oracle_byol")
SIMSIAM = Host("simsiam", "SimSiam", "scd_simsiam", "oracle_simsiam")
DINO = Host("dino", "DINO", "scd_dino", "oracle_dino")
HOSTS = (MOCO, BYOL, SIMSIAM, DINO)


class Variant(NamedTuple):
    """Another arm of a system: its name and label, what it changes in the system's arm, and this in words."""

    name: str
    label: str
    changes: dict[str, Any]
    differs: str


class Effect(NamedTuple):
    """A known effect: the first arm is better than the second, as published, and where this stands."""

    better: str
    worse: str
    text: str
    source: str


@dataclass(frozen=True)
class System:
    """A published system that separates regions, boxes or points, or chooses what is cropped or pasted.

    Attributes:
        name, label: of its arm.
        host: what it is compared with; overrides: how it is put into a run, see :class:`Arm`.
        compares: what its loss compares; shares: with SCD; differs: from SCD; each one phrase.
        questions: ids of the reviewers' questions that name it; stands_for: a system that they name in its place.
        published: quoted numbers.
        given: "boxes", "segments" or "masks" of the images that it learns from; empty where it takes the images alone.
        default: False: run where the command line names it. No claim is made of it then.
        variants: further arms, never run by default.
        effects: what is published of its own variants and host, for the page's check of directions.
        changes: parts of a run's configuration that its recipe changes beside its own ("views", ...).

    A configuration that names an earlier run (``{_input_: NAME}``) gets the host's run of the same seed.
    """

    name: str
    label: str
    host: Host
    overrides: dict[str, Any]
    compares: str
    shares: str
    differs: str
    questions: tuple[str, ...]
    published: tuple[Quoted, ...] = ()
    stands_for: str = ""
    given: str = ""
    default: bool = True
    variants: tuple[Variant, ...] = ()
    effects: tuple[Effect, ...] = ()
    changes: tuple[str, ...] = ()

    @property
    def asked(self) -> str:
        """The questions, and what the system stands for there."""
        return ", ".join(self.questions) + (f" (for {self.stands_for})" if self.stands_for else "")

    @property
    def oracle(self) -> str:
        """Name of the arm with the data's own boxes, segments or masks; empty where it takes the images alone."""
        return f"oracle_{self.name}" if self.given else ""

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Its arm, the one that is told the objects, and its variants; the last two by ``arms=all``."""
        what = "schedule" if "views" in self.changes else "views and schedule"
        same = f"{self.host.label}'s {what}"
        if "wrapper" in self.overrides:
            same = f"all of {self.host.label}" + (" but the place of the views" if "views" in self.changes else "")
        found = [Arm(self.name, self.label, dict(self.overrides), same, f"compares {self.compares}",
                     default=self.default)]  # fmt: skip
        if self.given:
            told = {"annotations": {self.given: {"preset": "oracle", "provides": self.given}}}
            found.append(
                Arm(
                    self.oracle,
                    f"{self.label} with the true {self.given}",
                    merge(self.overrides, told),
                    f"all of {self.label}",
                    f"the {self.given} are those of the true masks",
                    default=False,
                )
            )
        found += [
            Arm(name, label, merge(self.overrides, changes), f"all of {self.label}", differs, default=False)
            for name, label, changes, differs in self.variants
        ]
        return tuple(found)


def around(host: Host, wrapper: str) -> dict[str, Any]:
    """A wrapper around a host."""
    return {"method": host.host, "wrapper": wrapper}
