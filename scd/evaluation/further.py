"""What the numbers of further protocols mean, for whoever prints them; see :mod:`scd.evaluation.metrics`."""

from scd.evaluation.metrics import METRICS, SHARE, Metric
from scd.evaluation.scene_metrics import SCENE_METRICS
from scd.evaluation.transfer_metrics import TRANSFER_METRICS

EXTRACTORS = {
    "learned": "the method's own map, found where map >= 0.5",
    "inverted": "1 - the method's own map, found where it is >= 0.5",
    "attention": "the class token's attention in the last block, mean over heads, found: the smallest set of positions "
    "with 60 % of the mass",
    "best_head": "the attention of the head with the highest IoU with the mask, chosen in each image by that mask (an "
    "oracle choice, no result), found: the smallest set of positions with 60 % of the mass",
    "tokencut": "the normalised cut of the last block's keys, or of a CNN's feature maps, found: the component that "
    "holds the seed",
    "whole": "the whole image, found: everything, a floor",
    "centre": "a Gaussian bump at the image's centre, sigma 0.3 of the side, found: 60 % of its mass, a floor",
}
FOUND = {
    "jaccard": "intersection over union of the found positions (nearest neighbour) and the true mask, mean over images",
    "maxf": "F_beta, beta^2 = 0.3, of the map stretched from 0 to 1 in each image (for tokencut the found set itself), "
    "at 255 thresholds, averaged over images, then the maximum",
    "corloc": "share of images where the box of the found component that holds the map's maximum overlaps the box of "
    "any 4-connected component of the mask with an IoU of at least 0.5; images with an empty mask left out",
}
LABELS = {"jaccard": "Jaccard", "maxf": "maxF", "corloc": "CorLoc"}
NO_BETTER_SIDE = ("inverted", "whole", "centre")

EMERGENCE = {
    f"{extractor}_{number}": Metric(
        f"{LABELS[number]}, {extractor.replace('_', ' ')}",
        SHARE,
        None if extractor in NO_BETTER_SIDE else "higher",
        f"{meaning}; of {source}",
    )
    for extractor, source in EXTRACTORS.items()
    for number, meaning in FOUND.items()
}

ANY = {
    f"found_{number}": Metric(LABELS[number], SHARE, "higher", f"{meaning}; of the extractor that the row names")
    for number, meaning in FOUND.items()
}

CENTRIC = {
    f"centric_{name}": METRICS[name]._replace(label=f"object-centric: {METRICS[name].label}")
    for name in ("knn_top1", "linear_top1")
}

FURTHER: dict[str, Metric] = {**EMERGENCE, **ANY, **SCENE_METRICS, **CENTRIC, **TRANSFER_METRICS}
