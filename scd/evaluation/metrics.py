"""What each number of an evaluation means, for whoever prints it: label, unit, better side, definition."""

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """A number's short label, its unit, the side that is better (None: neither) and its definition in one sentence."""

    label: str
    unit: str
    better: Literal["higher", "lower"] | None
    definition: str


SHARE = "share in [0, 1]"

METRICS: dict[str, Metric] = {
    "knn_top1": Metric(
        "kNN top-1",
        SHARE,
        "higher",
        "weighted kNN on l2-normalised pooled backbone features of un-augmented views, k = 20, T = 0.07, both fixed",
    ),
    "linear_top1": Metric(
        "linear top-1",
        SHARE,
        "higher",
        "multinomial logistic regression on standardised, frozen, un-augmented pooled backbone features, solved to its "
        "optimum; l2 chosen on a held-out 20 % of the training set, then refitted on all of it",
    ),
    "linear_balanced": Metric(
        "linear balanced accuracy", SHARE, "higher", "the linear probe's accuracy in each test class, mean over classes"
    ),
    "linear_l2": Metric(
        "chosen l2",
        "weight of |W|^2 / 2 beside the mean cross-entropy",
        None,
        "the linear probe's penalty, out of 10, 1, 0.1, 0.01, 0.001, 0.0001; either end means that the grid is short",
    ),
    "background_top1": Metric(
        "background-class top-1",
        SHARE,
        None,
        "a second linear probe, fitted like the first, that predicts the background's class: what the features keep of "
        "the background, which is not bad in itself",
    ),
    "mixed_same_top1": Metric(
        "mixed-same top-1",
        SHARE,
        "higher",
        "the linear probe on test objects pasted onto backgrounds of training images of the same class",
    ),
    "mixed_rand_top1": Metric(
        "mixed-rand top-1",
        SHARE,
        "higher",
        "the linear probe on the same test objects pasted onto backgrounds of training images of a random other class",
    ),
    "bg_gap": Metric(
        "background gap",
        "difference of shares",
        "lower",
        "mixed-same minus mixed-rand top-1; 0 for a model that ignores the background; read it beside mixed-same, "
        "since a weak model has a small gap too",
    ),
    "saliency_iou": Metric(
        "saliency IoU",
        SHARE,
        "higher",
        "intersection over union of (map >= 0.5) and the true mask, per image, mean over test images; 1 if both are "
        "empty; maps resized bilinearly to the mask",
    ),
    "saliency_iou_inverted": Metric("saliency IoU, inverted map", SHARE, None, "the same IoU of 1 - map"),
    "saliency_iou_whole": Metric(
        "IoU of the whole image", SHARE, None, "the same IoU of a map that is 1 everywhere: a property of the masks"
    ),
    "saliency_maxf": Metric(
        "saliency maxF",
        SHARE,
        "higher",
        "F_beta, beta^2 = 0.3, per image at thresholds 0, 1/255, ..., 254/255 (map >= t), averaged over test images at "
        "each threshold, then the maximum; precision 1 if nothing is predicted, recall 1 if the mask is empty; t = 0 "
        "makes the whole image's F its floor",
    ),
    "saliency_maxf_inverted": Metric("saliency maxF, inverted map", SHARE, None, "the same maxF of 1 - map"),
    "saliency_maxf_whole": Metric(
        "maxF of the whole image", SHARE, None, "the same maxF of a map that is 1 everywhere: the floor of every maxF"
    ),
    "saliency_inverted_share": Metric(
        "images better inverted",
        SHARE,
        None,
        "share of test images whose IoU is strictly higher for 1 - map than for the map; near 1: the map marks the "
        "background",
    ),
    "map_entropy": Metric(
        "map entropy",
        "bits per pixel",
        None,
        "mean binary entropy of the map's values; 1 for 0.5 everywhere, 0 for 0/1",
    ),
    "map_saturation": Metric("map saturation", SHARE, None, "share of map values below 0.05 or above 0.95"),
    "map_area": Metric(
        "map area", SHARE, None, "mean of the map's values; at 0 or 1 one of the two regions is empty (collapse)"
    ),
    "map_std": Metric(
        "map contrast",
        "map units, in [0, 0.5]",
        None,
        "standard deviation of the map inside an image, mean over images; 0: a constant map, no separation (collapse)",
    ),
    "view_agreement": Metric(
        "agreement between views",
        "correlation in [-1, 1]",
        None,
        "Pearson correlation over positions of the map of a corner rectangle (3/4 of the side) with the part of the "
        "whole image's map that covers it; mean over the images where both vary",
    ),
    "feature_std": Metric(
        "feature spread",
        "1 = even over the sphere",
        None,
        "sqrt(d) x standard deviation over test images of the l2-normalised pooled features, mean over d dimensions; "
        "0: collapse",
    ),
    "effective_rank": Metric(
        "effective rank",
        "dimensions, in [1, d]",
        None,
        "exp of the entropy of the normalised singular values of the test features (not centred; RankMe); 1: collapse",
    ),
    "n_train": Metric("training images", "images", None, "labelled images on which the probes are fitted"),
    "n_test": Metric("test images", "images", None, "images on which every number but the mixed ones is taken"),
    "n_mixed": Metric(
        "mixed images",
        "images",
        None,
        "test objects in the mixed sets, the same in both; those whose mask is empty or covers everything are left out",
    ),
}
