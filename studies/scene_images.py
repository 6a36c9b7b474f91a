"""The images of a study on scenes: scenes and object-centric ones, generated or real, to train on and to score on.

Embedded images have two compositions of the same families. Real ones are the study's own scenes and, where they are
named, a folder of annotated scenes to score on and a folder of object-centric images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scd.data.sources.folder import folder_source
from scd.errors import UsageError
from scd.evaluation.scenes import scored_split
from studies.suite.analysis.results import Evidence
from studies.suite.execution.run import open_data
from studies.suite.pages import report
from studies.suite.planning.resolve import is_embedded, training_images
from studies.suite.planning.study import RunSpec, Settings


@dataclass(frozen=True)
class Folder:
    """A folder of images as it was found when the study was planned.

    Attributes:
        path: as typed. images: how many its training split has.
        source: what a configuration says to name these images.
    """

    path: str
    images: int
    source: dict[str, Any]

    def in_place(self, spec: RunSpec) -> RunSpec:
        """The run, whose configuration takes images from a path, with this folder as the place."""
        return replace(spec, locations={"path": self.path})


@dataclass(frozen=True)
class Images:
    """The two kinds of images of a study: how a run is made to train on each, and how a protocol names each.

    Attributes:
        on_scenes, on_objects: merged into a run's configuration; None where there are no object-centric images.
        scenes, objects: image sources in a configuration; scenes None: the run's own images.
        limits: of the images that are used of ``objects``.
        folder: where the object-centric images lie, if they are not generated.
    """

    on_scenes: dict[str, Any]
    on_objects: dict[str, Any] | None
    scenes: dict[str, Any] | None
    objects: dict[str, Any] | None
    limits: dict[str, Any] = field(default_factory=dict)
    folder: Folder | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Images":
        """Embedded images in two compositions, or folders of real ones, as far as they are named."""
        data, axes = settings.base["data"], settings.axes
        if is_embedded(data):
            for name in ("scored", "object_centric"):
                if axes[name] is not None:
                    raise UsageError(
                        f"axes.{name}={axes[name]} goes with real scenes: name them, too, with data=FOLDER"
                    )
            scenes, form = dict(data["options"]), {"data": {"options": axes["centric"]}}
            return cls({}, form, scenes, {**scenes, **axes["centric"]})
        scored, centric = opened(axes["scored"]), opened(axes["object_centric"])
        scenes = scored.source if scored else None
        if centric is None:
            return cls({}, None, scenes, None)
        limits = {name: data[name] for name in ("train_limit", "test_limit")}
        return cls(*equally_many(settings, centric), scenes, centric.source, limits, centric)

    def protocols(self, detection: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """The protocols of a run: on scenes, on object-centric images, and detection where it is asked for."""
        protocols = [{"_target_": "scd.evaluation.scenes.SceneEvaluation", "data": self.scenes}]
        if self.objects is not None:
            given = {"data": self.objects, "prefix": "centric_", **self.limits}
            protocols.append({"_target_": "scd.evaluation.transfer.Elsewhere", **given})
        if detection is not None:
            protocols.append({"_target_": "scd.evaluation.detection.Detection", "data": self.scenes, **detection})
        return protocols


def opened(path: str | None) -> Folder | None:
    """A folder that can be trained and scored on; None where none is named.

    Raises:
        DataError: there is no such folder, or it lacks a split; said before anything is trained.
    """
    if path is None:
        return None
    found = folder_source(path)
    scored_split(found)
    target = {"_target_": "scd.data.sources.folder.folder_source", "path": path, "fingerprint": found.fingerprint}
    return Folder(path, training_images(found), target)


def equally_many(settings: Settings, folder: Folder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two forms of the study's runs, trained on as many images: its own, and the folder's (then ``in_place``)."""
    data = settings.base["data"]
    own = training_images(open_data(data, settings.locations))
    limit = min(own, folder.images, data["train_limit"] or own)
    theirs = {**data, "train_limit": limit, "name": "path", "options": {}}
    return {"data": {"train_limit": limit}}, {"data": theirs}


def image_lines(evidence: Evidence, axes: Mapping[str, Any]) -> dict[str, str]:
    """Which images were trained and scored on beside the study's own."""
    if is_embedded(evidence.about["base"]["data"]):
        return {
            "Object-centric images": f"the same generator with {report.words(axes['centric'])}; as many images",
            "Images of the sweep": f"objects of {report.words(axes['swept'])} of the side",
        }
    entries = {}
    if axes["scored"]:
        entries["Scored scenes"] = (
            f"those of `{axes['scored']}`: probes learn from its training images, its test images count"
        )
    if axes["object_centric"]:
        entries["Object-centric images"] = (
            f"those of `{axes['object_centric']}`, as many as of scenes; the two sets differ in more than composition"
        )
    return entries
