import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tiny_evaluation import With, context_of, object_source

from scd.data.scene_loader import HeldScenes
from scd.data.scene_set import SceneSet, load_scenes
from scd.data.sources.scenes import Scenes
from scd.errors import DataError, UsageError
from scd.evaluation.detection import Detection, average_precision, detect, mirrored, targets_of
from scd.nn.backbone import build_backbone
from scd.nn.detector import build_detector
from studies.suite.planning.command_line import resolve_settings

SIZE = 32
SMALL = {"channels": 8, "hidden": 16, "regions": 16, "proposals": 16, "detections": 10}


@pytest.fixture(scope="module")
def source():
    return Scenes(classes=3, size=SIZE, train=24, test=12, objects=(1, 3))


def backbone(name="resnet_tiny", **options):
    torch.manual_seed(0)
    if name == "resnet_tiny":
        options = {"widths": (8, 8, 16), "channels_last": True, **options}
    return build_backbone(name, **options)


def squares(rows: list[list[tuple[int, int, int, int, int]]]) -> SceneSet:
    """Scenes of filled rectangles (class, x0, y0, x1, y1); the image's first channel is x, its second y."""
    n = len(rows)
    ramp = torch.arange(SIZE, dtype=torch.uint8)
    images = torch.zeros(n, 3, SIZE, SIZE, dtype=torch.uint8)
    images[:, 0], images[:, 1] = ramp[None, None, :], ramp[None, :, None]
    masks = []
    for objects in rows:
        drawn = torch.zeros(len(objects), SIZE, SIZE, dtype=torch.bool)
        for i, (_, x0, y0, x1, y1) in enumerate(objects):
            drawn[i, y0:y1, x0:x1] = True
        masks.append(drawn)
    boxes = [torch.tensor([o[1:] for o in objects], dtype=torch.float32).view(-1, 4) for objects in rows]
    classes = [torch.tensor([o[0] for o in objects], dtype=torch.int64) for objects in rows]
    semantic = torch.zeros(n, SIZE, SIZE, dtype=torch.uint8)
    return SceneSet(images, semantic, masks, boxes, classes, ("a", "b", "c"), ("g",), {})


# ---------------------------------------------------------------- average precision


def detections_and_truth(seed=0, images=12, classes=3):
    """Random truth, and detections that are moved, renamed, left out and invented copies of it."""
    rng = np.random.default_rng(seed)
    found, truth = [], []

    def drawn(boxes):
        masks = torch.zeros(len(boxes), SIZE, SIZE, dtype=torch.bool)
        for i, (x0, y0, x1, y1) in enumerate(boxes):
            masks[i, int(y0) : int(y1), int(x0) : int(x1)] = True
            masks[i, int(y0), int(x0)] = False  # not the box itself
        return masks

    for _ in range(images):
        n = rng.integers(1, 5)
        low = rng.integers(0, SIZE - 12, (n, 2))
        boxes = np.concatenate([low, low + rng.integers(5, 12, (n, 2))], axis=1)
        labels = rng.integers(1, classes + 1, n)
        copies = rng.integers(0, 3, n)
        moved = (boxes.repeat(copies, axis=0) + rng.integers(-1, 2, (copies.sum(), 4))).clip(0, SIZE)
        invented = np.array([[1, 1, 9, 9]])
        named = labels.repeat(copies)
        named = np.where(rng.random(len(named)) < 0.2, rng.integers(1, classes + 1, len(named)), named)
        moved, named = np.concatenate([moved, invented]), np.append(named, 1)
        scores = rng.permutation(len(moved)) / len(moved) + 0.01 + 0.001 * rng.random(len(moved))
        as_float = torch.tensor(moved, dtype=torch.float32)
        found.append({"boxes": as_float, "scores": torch.tensor(scores, dtype=torch.float32),
                      "labels": torch.tensor(named), "masks": drawn(moved)})  # fmt: skip
        truth.append({"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels),
                      "masks": drawn(boxes).to(torch.uint8)})  # fmt: skip
    return found, truth


def by_pycocotools(found, truth, kind, tmp_path):
    """AP, AP50, AP75 of the reference implementation, from files in COCO's format."""

    def entries(rows, with_scores):
        for image, one in enumerate(rows):
            for i, (x0, y0, x1, y1) in enumerate(one["boxes"].tolist()):
                packed = coco_masks.encode(np.asfortranarray(one["masks"][i].numpy().astype(np.uint8)))
                packed["counts"] = packed["counts"].decode()
                entry = {"image_id": image + 1, "category_id": int(one["labels"][i]), "segmentation": packed}
                if with_scores:
                    entry["score"] = float(one["scores"][i])
                    if kind == "bbox":
                        del entry["segmentation"]
                        entry["bbox"] = [x0, y0, x1 - x0, y1 - y0]
                else:
                    entry |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
                yield entry

    annotations = [{"id": i + 1, **entry} for i, entry in enumerate(entries(truth, False))]
    categories = sorted({entry["category_id"] for entry in annotations})
    images = [{"id": i + 1, "width": SIZE, "height": SIZE} for i in range(len(truth))]
    file = tmp_path / "truth.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations,
                                "categories": [{"id": c, "name": str(c)} for c in categories]}))  # fmt: skip
    reference = COCO(str(file))
    evaluation = COCOeval(reference, reference.loadRes(list(entries(found, True))), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:3]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_average_precision_is_that_of_pycocotools(kind, tmp_path):
    found, truth = detections_and_truth()
    expected = by_pycocotools(found, truth, kind, tmp_path)
    assert 0.05 < expected[0] < 0.95  # neither trivial end
    batches = [(found[:5], truth[:5]), (found[5:], truth[5:])]
    numbers = average_precision(batches, masks=True)
    name = {"bbox": "det", "segm": "seg"}[kind]
    assert [numbers[f"{name}_{key}"] for key in ("ap", "ap50", "ap75")] == pytest.approx(list(expected), abs=1e-6)


def test_average_precision_of_boxes_alone_has_no_keys_of_masks():
    found, truth = detections_and_truth(1)
    both = average_precision([(found, truth)], masks=True)
    for one in (*found, *truth):
        del one["masks"]
    assert average_precision([(found, truth)]) == {name: both[name] for name in ("det_ap", "det_ap50", "det_ap75")}


def test_average_precision_without_true_objects_has_no_keys():
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    assert average_precision([([{**nothing, "scores": torch.zeros(0)}], [nothing])]) == {}


# ---------------------------------------------------------------- scenes


def test_a_mirrored_image_has_its_boxes_and_masks_mirrored():
    given = squares([[(0, 2, 3, 10, 9), (2, 20, 0, 32, 30)], [(1, 0, 0, 5, 6)]])
    before = copy.deepcopy(given)
    images, targets = mirrored(given, torch.tensor([True, False]), masks=True)
    assert targets[0]["boxes"].tolist() == [[22, 3, 30, 9], [0, 0, 12, 30]]
    assert targets[1]["boxes"].tolist() == [[0, 0, 5, 6]]
    for target in targets:
        for box, mask in zip(target["boxes"].int().tolist(), target["masks"], strict=True):
            y, x = mask.nonzero(as_tuple=True)
            assert [x.min(), y.min(), x.max() + 1, y.max() + 1] == box
    assert (images[0, 0, 0] * 255).round().tolist() == list(reversed(range(SIZE)))  # the first channel is x
    assert (images[1, 0, 0] * 255).round().tolist() == list(range(SIZE))
    assert torch.equal(given.images, before.images) and torch.equal(given.boxes[0], before.boxes[0])
    assert [target["labels"].tolist() for target in targets] == [[1, 3], [2]]


# ---------------------------------------------------------------- protocol


def test_training_lowers_the_loss_and_finds_the_objects():
    rows = [[(i % 3, 4 * (i % 4), 2 * (i % 5), 4 * (i % 4) + 12, 2 * (i % 5) + 12)] for i in range(8)]
    given = squares(rows)
    for i, ((kind, x0, y0, x1, y1),) in enumerate(rows):  # colour tells the class
        given.images[i, :, y0:y1, x0:x1] = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]][kind])[:, None, None]
    torch.manual_seed(0)
    detector = build_detector(backbone(), 3, SIZE, **{**SMALL, "channels": 16, "hidden": 32})

    def precision():
        return average_precision([(detect(detector, given.images), targets_of(given, False))])["det_ap50"]

    untrained = precision()
    losses = Detection(steps=100, batch=4, warmup=5, lr=0.02).fine_tune(detector, HeldScenes(given), seed=0)
    assert len(losses) == 100 and sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert precision() > 0.7 > 0.2 > untrained


def test_the_method_is_left_as_found_and_the_numbers_repeat(source):
    method = With(backbone().requires_grad_(False).eval())
    before, state = copy.deepcopy(method.backbone.state_dict()), torch.get_rng_state()
    protocol = Detection(masks=True, steps=2, batch=3, train_limit=6, test_limit=5, detector=SMALL)
    numbers = protocol(context_of(method, source, SIZE, seed=3))
    names = {f"{kind}_{key}" for kind in ("det", "seg") for key in ("ap", "ap50", "ap75")}
    assert set(numbers) == names | {"det_steps", "n_det_train", "n_det_test"} == set(protocol.metrics)
    assert (numbers["det_steps"], numbers["n_det_train"], numbers["n_det_test"]) == (2, 6, 5)
    assert all(torch.equal(before[name], value) for name, value in method.backbone.state_dict().items())
    assert not method.backbone.training and not any(p.requires_grad for p in method.backbone.parameters())
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)  # the global generator has no part in it
    assert protocol(context_of(method, source, SIZE, seed=3)) == numbers
    streamed = replace(protocol, stream=True)
    assert streamed(context_of(method, source, SIZE, seed=3)) == numbers


def test_the_canvas_is_an_option(source):
    protocol = Detection(canvas=24, steps=1, batch=2, train_limit=4, test_limit=4, detector=SMALL)
    context = context_of(With(backbone()), source, SIZE)
    assert protocol.own_data(context.data).test_scenes.images.shape[-1] == 24
    assert protocol(context)["n_det_test"] == 4


def test_definitions_have_the_settings():
    metrics = Detection(detector={"detections": 7}).metrics
    assert "the 7 best detections" in metrics["det_ap"].definition and "seg_ap" not in metrics
    assert "Faster R-CNN" in metrics["det_ap50"].definition
    assert "the 30 best detections" in Detection(masks=True).metrics["seg_ap75"].definition


def losses_of(source, seed):
    held = HeldScenes(load_scenes(source, "train", SIZE, 6))
    torch.manual_seed(0)
    return Detection(steps=3, batch=3, detector=SMALL).fine_tune(
        build_detector(backbone(), 3, SIZE, **SMALL), held, seed
    )


def test_the_seed_draws_order_and_flips(source):
    assert losses_of(source, 0) == losses_of(source, 0) != losses_of(source, 1)


def test_learning_rate_warms_up_and_falls_after_each_milestone():
    protocol = Detection(steps=90, warmup=10, milestones=(60 / 90, 80 / 90))
    assert [protocol.factor(step) for step in (0, 5, 10, 59, 60, 79, 80)] == pytest.approx(
        [0, 0.5, 1, 1, 0.1, 0.1, 0.01]
    )


def test_images_without_objects_give_no_numbers_as_the_runs_own_and_an_error_when_asked_for():
    plain = object_source(train=20, test=10)
    context = context_of(With(backbone()), plain, 16)
    assert Detection()(context) == {}
    asked = Detection(data=plain)
    with pytest.raises(DataError, match="detection needs scenes with objects, 'tiny' train has none"):
        asked.check(asked.own_data(context.data))


def test_a_loss_that_is_not_finite_is_named(source):
    held = HeldScenes(load_scenes(source, "train", SIZE, 6))
    detector = build_detector(backbone(), 3, SIZE, **SMALL)
    with torch.no_grad():
        detector.roi_heads.box_predictor.cls_score.bias.fill_(float("nan"))
    with pytest.raises(UsageError, match="the loss of step 0 is nan; lower lr, which is 0.03"):
        Detection(steps=2, detector=SMALL).fine_tune(detector, held, 0)


@pytest.mark.parametrize(
    ("name", "steps", "masks"), [("coco_1x", (60_000, 80_000), True), ("voc07_12", (18_000, 22_000), False)]
)
def test_the_papers_settings(name, steps, masks):
    presets = resolve_settings("multicrop", []).presets["protocol"]
    options = {key: value for key, value in presets[f"detection_{name}"].items() if key != "_target_"}
    protocol = Detection(**options)
    for step, factor in zip(steps, (0.1, 0.01), strict=True):
        assert protocol.factor(step - 1) == pytest.approx(10 * factor)
        assert protocol.factor(step) == pytest.approx(factor)
    detector = build_detector(backbone(), 3, protocol.canvas, masks=protocol.masks, **protocol.detector)
    assert detector.transform.min_size[-1] == protocol.canvas == 800 == max(detector.transform.min_size)
    assert detector.roi_heads.has_mask() == masks == protocol.masks


def test_impossible_settings_are_refused():
    with pytest.raises(UsageError, match="steps is 0, it must be above 0"):
        Detection(steps=0)
    with pytest.raises(UsageError, match="unknown option of the detector 'anchors'; did you mean 'anchor'"):
        Detection(detector={"anchors": 8})
