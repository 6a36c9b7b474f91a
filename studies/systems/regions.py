"""Systems that compare regions, boxes or points of an image: SCD's nearest relatives."""

from studies.systems.system import BYOL, DINO, MOCO, SIMSIAM, Quoted, System, Variant, around

REGIONS = (
    System(
        "densecl", "DenseCL", MOCO, around(MOCO, "densecl"),
        compares="every position of a view with the most similar position of the other view",
        shares="a loss on the feature map beside the image-level loss",
        differs="no map and no groups: positions of the object and of the background count alike; negatives come from "
        "other images only",
        questions=("R4-b",),
        published=(
            Quoted("VOC07+12 detection, AP after 200 epochs on ImageNet: 58.7 (MoCo v2: 57.0)", "README of "
                   "WXinlong/DenseCL"),
            Quoted("VOC12 segmentation, mIoU after 200 epochs on ImageNet: 69.4 (MoCo v2: 67.5)", "README of "
                   "WXinlong/DenseCL"),
            Quoted("ImageNet, linear top-1 after 200 epochs: 63.5", "MMSelfSup, another implementation"),
        ),
    ),
    System(
        "vader", "VADeR", MOCO, around(MOCO, "vader"),
        compares="points that show the same place of the image in two views",
        shares="a loss on the feature map beside the image-level loss",
        differs="no map and no groups: pairs follow from the geometry of the crops, and points of the background count "
        "as those of the object; negatives come from other images only",
        questions=("R1-a", "R3-c"),
        published=(Quoted("COCO, box / mask AP: 39.2 / 35.6", "a secondary list; the paper's tables were not read"),),
    ),
    System(
        "pointcl", "PointCL", MOCO, around(MOCO, "pointcl"),
        compares="points of the same cell of a grid, and affinities between points",
        shares="a repulsion within the image: points of its other cells are negatives, as its background is in SCD",
        differs="16 cells without a meaning instead of an object and its background; no learned map; points instead of "
        "pooled vectors",
        questions=("R1-b",),
        published=(
            Quoted("VOC07+12 detection, AP / AP50 / AP75 after 100 epochs on ImageNet: 58.2 / 82.7 / 65.1, mean of 5 "
                   "runs", "README of facebookresearch/PLRC"),
        ),
    ),
    System(
        "lewel", "LEWEL-MoCo", MOCO, around(MOCO, "lewel"),
        compares="vectors that are pooled under learned maps, each with that of the same map in the other view",
        shares="maps that are learned without supervision, and pool the feature map into vectors",
        differs="many maps from the projection head instead of one from an MLP; no complement; nothing within the "
        "image is repelled",
        questions=("R2-a", "R2-c"),
        published=(
            Quoted("ImageNet, linear top-1 on BYOL after 100 / 200 epochs: 71.9 / 72.8", "README of LayneH/LEWEL"),
            Quoted("linear top-1 of SCD-MoCo above LEWEL-MoCo: +0.2 (asymmetric loss), +0.3 (symmetric loss)",
                   "reviews of SCD"),
        ),
        default=False,
    ),
    System(
        "soco", "SoCo", BYOL, {"method": "soco"},
        compares="the same box in two views, read from a feature pyramid",
        shares="vectors of parts of the image, and not of all of it, are pulled together across views",
        differs="several boxes from outside instead of one learned map; nothing is repelled; no image-level loss; a "
        "pyramid and a box head are trained as well",
        questions=("R1-b", "R1-d"),
        published=(
            Quoted("COCO, R50-FPN, box / mask AP after 100 epochs on ImageNet: 42.3 / 37.6 (supervised: 38.9 / 35.4)",
                   "README of hologerry/SoCo"),
        ),
        given="boxes",
    ),
    System(
        "detcon", "DetCon", BYOL, {"method": "detcon"},
        compares="the mean features of the same segment in two views",
        shares="vectors that are pooled over regions, and a repulsion between regions of one image",
        differs="many hard segments from outside instead of one learned map and its complement; other images' segments "
        "are negatives as well; no image-level loss",
        questions=("R1-b",),
        published=(Quoted("COCO, box / mask AP: 42.7 / 38.2", "a secondary list; the paper's tables were not read"),),
        stands_for="Odin, whose loss it is",
        given="segments",
    ),
    System(
        "slotcon", "SlotCon", BYOL, {"method": "slotcon"},
        compares="groups of positions around learned prototypes, each with the same group in the other view",
        shares="soft groups that are learned without supervision, together with the backbone, and pooled into vectors "
        "that repel each other",
        differs="many groups that all images share and that compete for each position, none of them a foreground; "
        "other images' groups are negatives as well; no image-level loss",
        questions=("R1-b", "R1-d"),
        published=(
            Quoted("COCO, box / mask AP after 800 epochs on COCO: 41.0 / 37.0; after 200 epochs on ImageNet: 41.8 / "
                   "37.8", "README of CVMI-Lab/SlotCon"),
        ),
    ),
    System(
        "densesiam", "DenseSiam", SIMSIAM, around(SIMSIAM, "densesiam"),
        compares="every place of one view with the same place of the other, and soft regions with those of their "
        "number",
        shares="a loss on the feature map beside the image-level loss; maps that are learned without supervision and "
        "pool the feature map into vectors, of which those of one image repel each other",
        differs="many soft regions that all images share and that compete for each place, none of them a foreground; "
        "places match by the geometry of the crops; no negatives from other images and no momentum branch",
        questions=("R1-d",),
        published=(
            Quoted("COCO, mask AP of a pre-trained ResNet-50 with the 1x schedule: 36.8", "README of "
                   "ZwwWayne/DenseSiam"),
            Quoted("unsupervised segmentation of COCO with 27 classes, mIoU: 16.4 (PiCIE in the same code: 14.4)",
                   "README of ZwwWayne/DenseSiam"),
        ),
        default=False,
    ),
    System(
        "croc", "CrOC", DINO, around(DINO, "croc"),
        compares="clusters of patches that two views share, each with itself in the other view",
        shares="groups of positions that are found without supervision during the training, a few for each image, and "
        "pooled into vectors that are pulled together across views",
        differs="clusters of both views together, found anew in each step by optimal transport of a teacher's features "
        "and places instead of a learned map of each view; nothing within the image is repelled",
        questions=("R1-b",),
        published=(
            Quoted("ViT-S/16, linear segmentation of VOC12, mIoU after pre-training on COCO / ImageNet: 54.9 / 70.6",
                   "README of stegmuel/CrOC, of runs somewhat longer than the paper's on COCO"),
            Quoted("the same of COCO's things / stuff after pre-training on COCO: 55.7 / 49.9; on ImageNet: 66.1 / "
                   "52.6", "README of stegmuel/CrOC, of runs somewhat longer than the paper's on COCO"),
        ),
        default=False,
    ),
    System(
        "orl", "ORL", BYOL, {"method": {"preset": "orl", "stage1": {"_input_": "byol"}}},
        compares="two crops of an image, a box with its jittered copy, and similar boxes of two images",
        shares="BYOL's loss on whole images is kept, and parts of the image are pulled together beside it",
        differs="boxes from outside are cut out of the image and embedded one by one, instead of a map on the "
        "features; the same kind of object is sought in other images, by a network that was trained before; nothing "
        "is repelled; two trainings",
        questions=("R1-b", "R1-d"),
        published=(
            Quoted("COCO, box / mask AP: 40.3 / 36.3", "an index of results; the paper's tables were not read"),
            Quoted("ImageNet, linear top-1: 60.7 and 60.9, probably trained on COCO and on COCO+",
                   "an index of results; the paper's tables were not read"),
        ),
        given="boxes",
        default=False,
        variants=(
            Variant("orl_one_stage", "ORL in one stage", {"method": {"stage1": None}},
                    "its own momentum network seeks the pairs: no training before it"),
        ),
        changes=("views",),
    ),
    System(
        "reverse_attention", "Reverse Attention, as SCD's map", MOCO,
        {"method": "moco", "wrapper": {"preset": "scd", "saliency": "reverse_attention"}},
        compares="as SCD, the foreground and the background of two views, under a map that is refined where it found "
        "nothing",
        shares="all of SCD but the map; the complement 1 - M of a map",
        differs="the complement serves to find what the map misses, as a weight of the features of a residual, and not "
        "to pool a background; the published network learns from masks and trains no representation",
        questions=("R3-c",),
        default=False,
        variants=(
            Variant("oracle_reverse_attention", "Reverse Attention, as SCD's map that learns from masks",
                    {"wrapper": {"preset": "oracle_reverse_attention"}},
                    "the map also learns from the true masks, by cross-entropy, as the published network does"),
        ),
    ),
    System(
        "odin", "Odin (reconstruction)", BYOL, {"method": "odin"},
        compares="the mean features of the same region in two views, as DetCon",
        shares="regions that are found without supervision during the training and pooled into vectors, and a "
        "repulsion between regions of one image; nothing comes from outside",
        differs="several hard clusters of a momentum network's features of the whole image, found anew in each step, "
        "instead of a learned map of each view: the regions have no gradient, and none is a foreground; other images' "
        "regions are negatives as well; no image-level loss",
        questions=("R1-b", "R1-d"),
        default=False,
        variants=(
            Variant("odin_two", "Odin with two clusters", {"method": {"preset": "odin", "clusters": 2}},
                    "an image has two regions, as many as SCD separates"),
        ),
        changes=("views",),
    ),
    System(
        "mask_contrast", "MaskContrast", MOCO, around(MOCO, "mask_contrast"),
        compares="every position of the object in one view with the mean of the object in the other view",
        shares="foregrounds are separated from the rest of the image, pooled into vectors and pulled together across "
        "views",
        differs="the mask comes from outside, and a head learns it instead of finding it; the object is repelled by "
        "other images' objects and not by its own image's background, which is in no contrast",
        questions=("R1-a", "R3-c"),
        published=(
            Quoted("VOC12, mIoU of a linear classifier with masks of an unsupervised / a supervised network: 58.4 / "
                   "63.9", "README of wvangansbeke/Unsupervised-Semantic-Segmentation"),
            Quoted("VOC12, mIoU of K-means with masks of an unsupervised / a supervised network: 35.0 / 44.2",
                   "README of wvangansbeke/Unsupervised-Semantic-Segmentation"),
        ),
        given="masks",
        default=False,
        variants=(
            Variant("mask_contrast_alone", "MaskContrast without MoCo's loss",
                    {"wrapper": {"preset": "mask_contrast", "image_weight": 0.0}},
                    "only the losses of the paper are trained, from random weights"),
        ),
    ),
    System(
        "hierarchical_grouping", "Hierarchical Grouping (reconstruction)", MOCO, around(MOCO, "hierarchical_grouping"),
        compares="positions of two views by their distance in a tree of regions",
        shares="a repulsion within the image: positions of its far regions are negatives, as its background is in SCD",
        differs="a tree of many regions from outside, which contours give, instead of one learned map and its "
        "complement; no region is a foreground; positions instead of pooled vectors; other images' positions are "
        "negatives as well",
        questions=("R1-a",),
        published=(
            Quoted("VOC12 segmentation, mIoU: 64.7; of a linear classifier on the validation images: 48.8",
                   "an index of results; the paper's tables were not read"),
        ),
        given="segments",
        default=False,
        variants=(
            Variant("hierarchical_grouping_flat", "Hierarchical Grouping with flat regions",
                    {"annotations": {"segments": {"preset": "region_tree", "regions": [12, 12, 12]}}},
                    "the three cuts of the tree are the same: what the order of the pairs adds"),
            Variant("hierarchical_grouping_alone", "Hierarchical Grouping without MoCo's loss",
                    {"wrapper": {"preset": "hierarchical_grouping", "image_weight": 0.0}},
                    "only the loss of pixels is trained, as in the paper"),
        ),
    ),
)  # fmt: skip
