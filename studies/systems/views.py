"""Systems that choose what is cropped or pasted, before the network sees it."""

from studies.systems.system import MOCO, Quoted, System, around

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
)  # fmt: skip
