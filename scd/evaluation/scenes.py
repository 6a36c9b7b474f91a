"""Evaluation on scenes, images with several objects, with the backbone frozen.

Four parts: which classes an image shows (multilabel), which class each pixel has, by a linear classifier (segmentation)
and by retrieval (dense_knn), and how far the method's own map finds the objects (discovery).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scd.data.scene_set import SceneSet
from scd.errors import DataError, UsageError, unknown
from scd.evaluation import discovery, segmentation
from scd.evaluation.features import extract, extract_maps, extract_saliency
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.multilabel import multilabel_map
from scd.evaluation.protocol import Context, EvaluationData, Protocol
from scd.evaluation.segmentation import knn_miou, labelled, linear_miou

PARTS = ("multilabel", "segmentation", "dense_knn", "discovery")
LEARNING = frozenset(PARTS) - {"discovery"}  # parts that need training images
KEPT = ("clipped box", "image without objects")  # entries of ``SceneSet.dropped`` that are used all the same


@dataclass(kw_only=True)
class Scenes(Protocol):
    """Numbers of the parts that the scenes allow.

    The images of a run that have neither objects nor masks of class ids are left out; images that this protocol names
    itself must have them.

    Args:
        parts: any of "multilabel", "segmentation", "dense_knn", "discovery".
        positions: training positions that the linear segmentation is fitted on, at most.
        memory: training positions that the retrieval remembers, at most.
        neighbours: k of the retrieval; temperature: T of its weights.

    Raises:
        UsageError: no part, an unknown one, or a number that is not above 0.
    """

    prefix: str = "scene_"
    train_limit: int | None = 1500
    test_limit: int | None = 750
    parts: Sequence[str] = PARTS
    positions: int = segmentation.POSITIONS
    memory: int = segmentation.MEMORY
    neighbours: int = segmentation.NEIGHBOURS
    temperature: float = segmentation.TEMPERATURE

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise unknown("part of the scene evaluation", part, PARTS)
        if not len(self.parts):
            raise UsageError(f"the scene evaluation needs one part or more of {', '.join(PARTS)}")
        for name in ("positions", "memory", "neighbours", "temperature"):
            if not getattr(self, name) > 0:
                raise UsageError(f"scene evaluation: {name} is {getattr(self, name)}, it must be above 0")

    def definitions(self) -> dict[str, Metric]:
        metrics = {}
        if "multilabel" in self.parts:
            metrics["map"] = Metric(
                "scene mAP",
                SHARE,
                "higher",
                "mean over classes of average precision of one-vs-rest logistic regression on standardised, frozen, "
                "un-augmented pooled backbone features, solved to its optimum; one l2 for all classes, chosen by mAP "
                "on a held-out 20 % of the training scenes, then refitted on all; classes that no test scene shows are "
                "left out",
            )
        if "segmentation" in self.parts:
            metrics["miou_linear"] = Metric(
                "scene mIoU, linear",
                SHARE,
                "higher",
                f"multinomial logistic regression from standardised, frozen features of at most {self.positions:,} "
                "positions of the feature map to the shares of classes in their pixels; l2 chosen by mIoU on a "
                "held-out 20 % of the training scenes, then refitted; scores resized bilinearly to the mask; IoU over "
                "all test pixels, mean over classes; ignored pixels and classes that are neither shown nor predicted "
                "are left out",
            )
        if "dense_knn" in self.parts:
            metrics["miou_knn"] = Metric(
                "scene mIoU, retrieval",
                SHARE,
                "higher",
                f"labels of the {self.neighbours} nearest by cosine of at most {self.memory:,} training positions, "
                f"weighted by softmax(cos / {self.temperature:g}); resized and scored as the linear one; compare at "
                "one size of the memory only",
            )
        if "discovery" in self.parts:
            metrics |= discovery.METRICS
        if LEARNING & set(self.parts):
            metrics["n_train"] = Metric(
                "training scenes", "images", None, "labelled scenes on which the probes are fitted"
            )
        return metrics | {
            "n_test": Metric("test scenes", "images", None, "scenes on which the numbers are measured"),
            "dropped": Metric(
                "dropped objects",
                "objects",
                None,
                "annotated objects of the scenes that are not used: crowd regions, boxes without area, and objects "
                "without a visible pixel on the square canvas",
            ),
        }

    def applies(self, data: EvaluationData) -> bool:
        return self.data is not None or holds_scenes(data, data.split)

    def check(self, data: EvaluationData) -> None:
        for split in {data.split, *({"train"} if LEARNING & set(self.parts) else set())}:
            if not holds_scenes(data, split):
                raise DataError(
                    f"'{data.source.name}' {split} has neither objects with an instance map nor a mask of class ids, "
                    "which the scene evaluation needs"
                )
            if not data.source.embedded:  # objects and masks that cannot be read are found before any training
                _ = data.train_scenes if split == "train" else data.test_scenes

    def measure(self, context: Context) -> dict[str, float]:
        test, parts = context.data.test_scenes, frozenset(self.parts)
        numbers: dict[str, float] = {"n_test": len(test), "dropped": dropped(test)}
        if parts & LEARNING:
            train = context.data.train_scenes
            numbers |= {"n_train": len(train), "dropped": dropped(test) + dropped(train)}
            numbers |= self.probe_numbers(context, train, test)
        if "discovery" in parts and any(len(masks) for masks in test.instances):
            maps = extract_saliency(context.method, test.images, context.size, device=context.device)
            if maps is not None:
                numbers |= discovery.discovery_scores(maps, test.instances, test.boxes)
        return numbers

    def probe_numbers(self, context: Context, train: SceneSet, test: SceneSet) -> dict[str, float]:
        """``map``, ``miou_linear`` and ``miou_knn``: the parts that are asked for and that the labels allow."""
        backbone, size, device = context.method.backbone, context.size, context.device
        numbers: dict[str, float] = {}
        present = train.present
        varies = present.any(dim=0) & ~present.all(dim=0)
        if "multilabel" in self.parts and varies.any() and test.present.any():
            pooled = [extract(backbone, part.images, size, device=device) for part in (train, test)]
            numbers["map"] = multilabel_map(pooled[0], present, pooled[1], test.present, context.seed)
        if {"segmentation", "dense_knn"} & set(self.parts) and labelled(train.semantic) and labelled(test.semantic):
            classes = max(len(train.segment_names), len(test.segment_names))
            train_maps, test_maps = (extract_maps(backbone, part.images, size, device=device) for part in (train, test))
            given = (train_maps, train.semantic, test_maps, test.semantic, classes, context.seed)
            if "segmentation" in self.parts:
                numbers["miou_linear"] = linear_miou(*given, positions=self.positions)
            if "dense_knn" in self.parts:
                numbers["miou_knn"] = knn_miou(
                    *given, memory=self.memory, k=self.neighbours, temperature=self.temperature
                )
        return numbers


def holds_scenes(data: EvaluationData, split: str) -> bool:
    """Whether a split has objects with an instance map, or masks of class ids."""
    return holds_instances(data, split) or data.source.mask_kind == "classes"


def holds_instances(data: EvaluationData, split: str) -> bool:
    """Whether a split has objects with an instance map."""
    columns = data.columns(split)
    return "objects" in columns and ("instances" in columns or data.source.mask_kind == "instances")


def dropped(scenes: SceneSet) -> int:
    """Objects that were annotated and are not used."""
    return sum(count for reason, count in scenes.dropped.items() if reason not in KEPT)
