"""The images of a study on scenes: scenes and object-centric images, generated or real, to train on and to score on.

Embedded images have two compositions of the same families. Real ones are the study's own scenes and, where they are
named, a folder of annotated scenes to score on and a folder of object-centric images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scd.errors import UsageError
from studies.suite.analysis.results import Results
from studies.suite.pages.sections import words
from studies.suite.planning.settings import Settings
from studies.suite.planning.study import RunSpec

PATH_SOURCE = "scd.data.sources.path.PathSource"


@dataclass(frozen=True)
class Folder:
    """A folder of images as it was found when the study was planned.

    Attributes:
        path: as typed. images: how many its training split has. labelled: whether each has a label.
        source: the configuration of these images.
    """

    path: str
    images: int
    labelled: bool
    source: dict[str, Any]

    def in_place(self, spec: RunSpec) -> RunSpec:
        """The run, whose configuration takes images from a path, with this folder as the path."""
        return replace(spec, locations={"path": self.path})


@dataclass(frozen=True)
class Images:
    """The two kinds of images of a study: how a run is made to train on each, and how a protocol names each.

    Attributes:
        on_scenes, on_objects: merged into a run's configuration; None where there are no object-centric images.
        scenes, objects: image sources in a configuration; scenes None: the run's own images.
        limits: of the images that are used of ``objects``.
        folder: where the object-centric images are, if they are not generated.
    """

    on_scenes: dict[str, Any]
    on_objects: dict[str, Any] | None
    scenes: dict[str, Any] | None
    objects: dict[str, Any] | None
    limits: dict[str, Any] = field(default_factory=dict)
    folder: Folder | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Images":
        """Embedded images in two compositions, or folders of real ones, where they are named."""
        data, axes = settings.base["data"], settings.axes
        if settings.embedded:
            for name in ("scored", "object_centric"):
                if axes[name] is not None:
                    raise UsageError(f"axes.{name}={axes[name]} is for real scenes; name them as well: data=FOLDER")
            scenes, form = dict(data["options"]), {"data": {"options": axes["centric"]}}
            return cls({}, form, scenes, {**scenes, **axes["centric"]})
        scored, centric = opened(axes["scored"]), opened(axes["object_centric"])
        scenes = scored.source if scored else None
        if centric is None:
            return cls({}, None, scenes, None)
        limits = {name: data[name] for name in ("train_limit", "test_limit")}
        return cls(*equally_many(settings, centric), scenes, centric.source, limits, centric)

    @property
    def labelled(self) -> bool:
        """Whether each object-centric image has one label."""
        if self.folder is not None:
            return self.folder.labelled
        return self.objects is not None and list(self.objects["objects"]) == [1, 1]

    def protocols(self, multilabel: Mapping[str, Any], detection: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """The protocols of a run: on scenes, on object-centric images, and detection with some options, or None.

        Args:
            multilabel: limits of the images on which classes and objects are found; pixels have the preset's.
        """
        whole = {"preset": "scenes", "data": self.scenes, "parts": ["multilabel", "discovery"], **multilabel}
        pixels = {"preset": "scenes", "data": self.scenes, "parts": ["segmentation", "dense_knn"]}
        protocols = [whole, {**pixels, "name": "scene pixels", "prefix": "dense_"}]
        if self.objects is not None:
            given = {"data": self.objects, "title": "object-centric", "prefix": "centric_", **self.limits}
            protocols.append({"preset": "transfer", **given})
        if detection is not None:
            protocols.append({"preset": "detection", "data": self.scenes, **detection})
        return protocols


def opened(path: str | None) -> Folder | None:
    """A folder that can be trained and scored on; None where none is named.

    Raises:
        DataError: there is no such folder, or it lacks a split; found before anything is trained.
    """
    if path is None:
        return None
    from scd.data.sources.path import PathSource  # imports torch, which importing a study must not
    from scd.evaluation.protocol import EvaluationData
    from studies.suite.planning.resolve import training_images

    source = PathSource(path)
    _ = EvaluationData(source, 1).split  # raises where there is none
    config = {"_target_": PATH_SOURCE, "path": path, "fingerprint": source.fingerprint}
    return Folder(path, training_images(source), source.labelled, config)


def equally_many(settings: Settings, folder: Folder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two forms of the study's runs, trained on as many images: its own, and the folder's (then ``in_place``)."""
    from studies.suite.planning.assembly import open_data
    from studies.suite.planning.resolve import training_images

    data = settings.base["data"]
    own = training_images(open_data(data, settings.locations))
    limit = min(own, folder.images, data["train_limit"] or own)
    # the options of the study's own images do not hold for the folder
    options = {**dict.fromkeys(data["options"]), "_target_": PATH_SOURCE}
    theirs = {"title": Path(folder.path).name, "train_limit": limit, "options": options}
    return {"data": {"train_limit": limit}}, {"data": theirs}


def image_lines(results: Results, axes: Mapping[str, Any]) -> dict[str, str]:
    """Which images were trained and scored on beside the study's own."""
    if len(results.levels("images")) > 1 and axes["object_centric"] is None:
        return {
            "Object-centric images": f"the same generator with {words(axes['centric'])}; as many images",
            "Images of the sweep": f"objects of {words(axes['swept'])} of the side",
        }
    entries = {}
    if axes["scored"]:
        entries["Scored scenes"] = (
            f"those of `{axes['scored']}`: probes learn from its training images; its test images are scored"
        )
    if axes["object_centric"]:
        entries["Object-centric images"] = (
            f"those of `{axes['object_centric']}`, as many as of scenes; the two sets differ in more than composition"
        )
    return entries
