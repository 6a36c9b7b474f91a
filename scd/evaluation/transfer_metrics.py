"""What each number of the protocols that fine-tune means: detection (``Detection``) and few labels (``FineTune``)."""

from scd.evaluation.metrics import SHARE, Metric

KINDS = {
    "det": ("box", "boxes found by Faster R-CNN (Mask R-CNN where there are seg_ numbers)"),
    "seg": ("mask", "masks found by Mask R-CNN"),
}
TRAINED = (
    "backbone and detector fine-tuned as a whole, then the best detections of each test image (30 unless the protocol "
    "says otherwise), COCO's metric with 101 recalls"
)
OVERLAPS = {
    "ap": ("AP", "mean over overlaps (IoU) of 0.5, 0.55, ..., 0.95"),
    "ap50": ("AP50", "at an overlap (IoU) of 0.5"),
    "ap75": ("AP75", "at an overlap (IoU) of 0.75"),
}
DETECTION = {
    f"{kind}_{key}": Metric(
        f"{adjective} {label}", SHARE, "higher", f"average precision of {what}, {at}, mean over classes; {TRAINED}"
    )
    for kind, (adjective, what) in KINDS.items()
    for key, (label, at) in OVERLAPS.items()
}

NETWORKS = {
    "finetune": ("fine-tuned", "all training labels"),
    "labels10": ("10 % of labels", "10 % of the training labels, at least 5 a class"),
    "labels1": ("1 % of labels", "1 % of the training labels, at least 5 a class"),
}
FINE_TUNING: dict[str, Metric] = {}
for _name, (_label, _which) in NETWORKS.items():
    FINE_TUNING |= {
        f"{_name}_top1": Metric(
            f"{_label}, top-1",
            SHARE,
            "higher",
            "test images whose class the network gives, backbone and linear classifier fine-tuned as a whole on "
            f"{_which}, the same images for every run, classes in equal parts unless all are used; random resized "
            "crops and flips; learning rate chosen on a fifth of the labelled images, then trained on all of them",
        ),
        f"{_name}_lr": Metric(
            f"{_label}, chosen learning rate",
            "peak learning rate of the backbone",
            None,
            "the one with the highest accuracy on a fifth of the labelled images; either end of the choice means that "
            "it is short",
        ),
        f"{_name}_images": Metric(f"{_label}, images", "images", None, "labelled images that the network learns from"),
    }

TRANSFER_METRICS: dict[str, Metric] = {
    **DETECTION,
    "det_steps": Metric("detector steps", "steps", None, "steps of the detector's fine-tuning"),
    "n_det_train": Metric("detector's training images", "images", None, "scenes that the detector learns from"),
    "n_det_test": Metric("detector's test images", "images", None, "scenes that the detector is tested on"),
    **FINE_TUNING,
}
