"""Systems that choose what is cropped or pasted, before the network sees it."""

from studies.systems.system import MOCO, Effect, Quoted, System, Variant, around

CAST = "Table 1 of arXiv 2012.04630"
DILO = "a secondary list that quotes the paper's tables"

VIEWS = (
    System(
        "object_crops", "Object-aware cropping", MOCO, around(MOCO, "object_crops"),
        compares="a crop inside a box of the image with a crop inside the same box and its surroundings",
        shares="MoCo's loss and network; the aim that views show the object and not the background alone",
        differs="a box from outside decides where the crops lie, before the network, instead of a learned map within "
        "ordinary crops; nothing within the image is repelled; the feature map is not used",
        questions=("R4-b",),
        published=(
            Quoted("subset of Open Images with several objects in an image, linear mAP: 58.6 (MoCo v2: 49.8)",
                   "README of shlokk/object-cropping-ssl"),
            Quoted("ImageNet, linear top-1: 68.0 (MoCo v2: 67.5)", "README of shlokk/object-cropping-ssl"),
        ),
        given="boxes",
        changes=("views",),
    ),
    System(
        "insloc", "InsLoc", MOCO, {"method": "insloc"},
        compares="two crops of one image inside their boxes, each pasted onto another image",
        shares="vectors of a foreground, and not of all of the image, are pulled together across views before "
        "different backgrounds",
        differs="the foreground is a random crop, known because it was pasted, instead of an object under a learned "
        "map; the background is another image and is not repelled; no image-level loss; a box head is trained as well",
        questions=("R1-a", "R4-b"),
        published=(
            Quoted("COCO, R50-C4 / R50-FPN, box / mask AP with the 1x schedule after 200 epochs on ImageNet: 39.5 / "
                   "34.5 and 41.4 / 37.1", "docs/MODELZOO.md of limbo0000/InstanceLoc"),
            Quoted("ImageNet, linear top-1: 61.7", "derived from a difference in the DetCo paper; another secondary "
                   "list has 45.0 for another checkpoint"),
            Quoted("VOC12 segmentation, mIoU frozen / fine-tuned: 24.1 / 64.4", "VICRegL, a secondary source"),
        ),
        changes=("views",),
    ),
    System(
        "contracam_crop", "ContraCAM's object-aware crop", MOCO, around(MOCO, "contracam_crop"),
        compares="two views that lie inside one box of the image",
        shares="an object that is found without labels, by a contrastively trained network",
        differs="the map is that of a finished network and not learned together with the backbone; it places the views "
        "and pools nothing; the background is cut away and not contrasted; two trainings",
        questions=("R1-a",),
        given="boxes",
        changes=("views",),
    ),
    System(
        "contracam_mixup", "ContraCAM's background mixup", MOCO, around(MOCO, "contracam_mixup"),
        compares="a view before another image's background with a view before its own",
        shares="a mask of the object that is found without labels, by a contrastively trained network, and separates "
        "object and background",
        differs="the mask is that of a finished network and not learned together with the backbone; it changes pixels "
        "and pools nothing; the background is exchanged and not contrasted; two trainings",
        questions=("R1-a",),
        given="masks",
    ),
    System(
        "cast", "CAST", MOCO, around(MOCO, "cast"),
        compares="two crops that cover a part of the mask, and where the gradient of their similarity looks with the "
        "mask",
        shares="MoCo's loss; a map of the object that tells the network where to look",
        differs="the mask comes from outside, and supervises where the gradient looks (Grad-CAM of the logit with the "
        "masked key) instead of pooling features; nothing within the image is repelled; views follow the mask",
        questions=("R1-a",),
        published=(
            Quoted("pre-training on COCO, VOC07 linear mAP: 73.1 (MoCo: 66.9)", CAST),
            Quoted("pre-training on COCO, VOC detection AP: 54.2 (MoCo: 47.5)", CAST),
            Quoted("Backgrounds Challenge, Original: 77.33 (MoCo: 72.62); Mixed-Same 54.42 (45.75); Mixed-Rand 39.93 "
                   "(30.44); Mixed-Next 37.46 (26.86); Only-FG 43.26 (30.42)",
                   "Table 3 of arXiv 2012.04630, from public literature notes that quote it"),
        ),
        given="masks",
        variants=(
            Variant("cast_batch", "CAST with one cosine for all of a batch",
                    {"wrapper": {"preset": "cast", "cosine": "batch"}},
                    "the cosine of Grad-CAM and masks is taken over all values of a batch, as in the released code"),
        ),
        changes=("views",),
    ),
    System(
        "sgcl", "SGCL (reconstruction)", MOCO, around(MOCO, "sgcl"),
        compares="two crops that follow the network's own saliency, each pair weighted by the saliency inside it",
        shares="MoCo's loss and network; a saliency map that comes from the network itself while it learns",
        differs="the map selects and weights crops before the network, instead of features after it; it is the channel "
        "mean of a feature map and not learned; nothing within the image is repelled",
        questions=("R5-c",),
        published=(
            Quoted("scene images, ImageNet top-1 over the best earlier method for scene images: linear +1.1, 1 % of "
                   "labels +4.3, 10 % of labels +2.2", "abstract of arXiv 2302.11461; absolute values were not found"),
        ),
        default=False,
        changes=("views",),
    ),
    System(
        "dilo", "DiLo", MOCO, around(MOCO, "dilo"),
        compares="the whole of two views, some of which show their object on another background",
        shares="the aim: features that depend on the object and not on its background",
        differs="the object comes from a mask from outside and acts on pixels; no map is learned, no features are "
        "pooled, nothing is repelled within the image",
        questions=("R3-c",),
        published=(
            Quoted("ImageNet, linear top-1 after 200 epochs with RBD, MoCo v1: 62.8 (MoCo v1: 60.6)", DILO),
            Quoted("the same with 30 / 50 / 70 / 100 % of the views pasted: 62.8 / 62.2 / 61.6 / 47.6", DILO),
            Quoted("the same with BASNet, which learns from masks: 65.0; MoCo v2: 69.2 (MoCo v2 alone: 67.5)", DILO),
        ),
        given="masks",
        variants=(
            Variant("dilo_always", "DiLo, every view pasted", {"wrapper": {"preset": "dilo", "probability": 1.0}},
                    "no view shows the image as it is"),
            Variant("dilo_images", "DiLo, other images' backgrounds",
                    {"wrapper": {"preset": "dilo", "background": "images"}},
                    "backgrounds of other images of the batch instead of one grey level"),
        ),
        effects=(
            Effect("dilo", "moco", "ImageNet, linear top-1 on MoCo v1: 62.8 against 60.6", DILO),
            Effect("dilo", "dilo_always", "the same, 30 against 100 % of the views pasted: 62.8 against 47.6", DILO),
            Effect("dilo", "dilo_images", "the same, grey against other images' backgrounds: 62.8 against 62.1", DILO),
        ),
    ),
)  # fmt: skip
