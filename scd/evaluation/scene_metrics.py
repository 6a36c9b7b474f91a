"""What each number of :class:`scd.evaluation.scenes.SceneEvaluation` means, under its default prefix."""

from scd.evaluation.metrics import SHARE, Metric

MARKED = "where the map is >= 0.5 (maps resized bilinearly to the mask)"

SCENE_METRICS: dict[str, Metric] = {
    "scene_map": Metric(
        "scene mAP",
        SHARE,
        "higher",
        "mean over classes of average precision of one-vs-rest logistic regression on standardised, frozen, "
        "un-augmented pooled backbone features, solved to its optimum; one l2 for all classes, chosen by mAP on a "
        "held-out 20 % of the training scenes, then refitted on all; classes that no test scene shows are left out",
    ),
    "scene_miou_linear": Metric(
        "scene mIoU, linear",
        SHARE,
        "higher",
        "multinomial logistic regression from standardised, frozen features of at most 10,000 positions of the feature "
        "map to the shares of classes in their pixels; l2 chosen by mIoU on a held-out 20 % of the training scenes, "
        "then refitted; scores resized bilinearly to the mask; IoU over all test pixels, mean over classes; ignored "
        "pixels and classes that are neither shown nor predicted are left out",
    ),
    "scene_miou_knn": Metric(
        "scene mIoU, retrieval",
        SHARE,
        "higher",
        "labels of the 30 nearest by cosine of at most 20,000 training positions, weighted by softmax(cos / 0.02); "
        "resized and scored as the linear one; compare at one size of the memory only",
    ),
    "scene_discovery_corloc": Metric(
        "CorLoc",
        SHARE,
        "higher",
        "share of scenes with objects where the box around the 4-connected part, at or above the map's mean, of the "
        "map's maximum has IoU >= 0.5 with the box of any object; maps resized bilinearly to the image",
    ),
    "scene_discovery_corloc_inverted": Metric("CorLoc, inverted map", SHARE, None, "the same CorLoc of 1 - map"),
    "scene_discovery_corloc_whole": Metric(
        "CorLoc of the whole image",
        SHARE,
        None,
        "the same CorLoc of a map that is 1 everywhere: a property of the boxes",
    ),
    "scene_objects_covered": Metric(
        "objects covered",
        SHARE,
        "higher",
        f"share of all objects with at least half of their pixels {MARKED}; 1 for a map that is 1 everywhere: read it "
        "beside the map's area and the coverage gain",
    ),
    "scene_objects_covered_inverted": Metric(
        "objects covered, inverted map", SHARE, None, "the same share of objects for 1 - map"
    ),
    "scene_objects_covered_best": Metric(
        "scenes with all objects covered",
        SHARE,
        "higher",
        "share of scenes with objects in which every object is covered; 1 for a map that is 1 everywhere",
    ),
    "scene_objects_covered_gain": Metric(
        "coverage gain",
        "difference of shares",
        "higher",
        f"share of an object's pixels {MARKED} minus the same share of its image, mean over objects; 0 for a map that "
        "is the same everywhere; below 0 the map marks the background",
    ),
    "scene_foreground_precision": Metric(
        "foreground precision",
        SHARE,
        "higher",
        f"of all pixels of all test scenes {MARKED} the share that lies on any object; 0 where the maps mark nothing",
    ),
    "scene_foreground_precision_whole": Metric(
        "object area",
        SHARE,
        None,
        "share of all pixels of the test scenes that lies on any object: the precision of a map that is 1 everywhere",
    ),
    "scene_map_area_on_scenes": Metric(
        "map area on scenes", SHARE, None, f"share of all pixels of the test scenes {MARKED}; 0 or 1: collapse"
    ),
    "scene_n_train": Metric("training scenes", "images", None, "labelled scenes on which the probes are fitted"),
    "scene_n_test": Metric("test scenes", "images", None, "scenes on which every number is taken"),
} | {
    f"scene_objects_covered_n{count}": Metric(
        f"objects covered, {count} in the image",
        SHARE,
        "higher",
        f"objects covered, over the test scenes with exactly {count} object{'s' if count > 1 else ''}",
    )
    for count in range(1, 7)
}
