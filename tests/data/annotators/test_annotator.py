"""Annotations are computed once for the same images and options, and only valid ones are kept."""

import multiprocessing

import numpy as np
import pytest
import torch

from scd.data.annotators import annotator as module
from scd.data.annotators.annotator import Annotations, Annotator, annotate, identity
from scd.data.annotators.oracle import OracleAnnotator
from scd.data.images import load_images
from scd.data.sources.image_folder import ImageFolder
from scd.data.sources.shapes import Shapes
from scd.errors import DataError, UsageError


class Dark(Annotator):
    """Masks of the dark pixels."""

    provides = "masks"

    def __init__(self, threshold: float = 100, network: torch.nn.Module | None = None):
        self.threshold = threshold
        self.network = network

    def __call__(self, images, part):
        return (images.float().mean(dim=1) < self.threshold).to(torch.uint8)


class Given(Annotator):
    """What a test gives it."""

    def __init__(self, provides, values):
        self.provides = provides
        self._values = values

    def __call__(self, images, part):
        return self._values


@pytest.fixture
def source(monkeypatch, tmp_path) -> Shapes:
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "cache"))
    return Shapes(classes=3, size=16, train=10, test=6)


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """How many images each call of Dark had."""
    made, call = [], Dark.__call__
    monkeypatch.setattr(
        Dark, "__call__", lambda self, images, part: made.append(len(images)) or call(self, images, part)
    )
    return made


def test_they_are_computed_once(source, calls):
    first, again = annotate(Dark(), source, "train", 16), annotate(Dark(), source, "train", 16)
    assert calls == [10] and torch.equal(first.rows(range(10)), again.rows(range(10)))
    images = load_images(source, "train", 16).images
    assert torch.equal(first.rows([3, 1]), (images[[3, 1]].float().mean(dim=1) < 100).to(torch.uint8))


def test_they_belong_to_the_images_and_options(source, calls):
    annotate(Dark(), source, "train", 16)
    annotate(Dark(), source, "test", 16)
    annotate(Dark(), source, "train", 12)
    annotate(Dark(), source, "train", 16, limit=4)
    annotate(Dark(threshold=90), source, "train", 16)
    annotate(Dark(), Shapes(classes=3, size=16, train=10, test=6, seed=9), "train", 16)
    assert calls == [10, 6, 10, 4, 10, 10]
    annotate(Dark(), Shapes(classes=3, size=16, train=10, test=3), "train", 16)  # other test images only
    annotate(Dark(), source, "train", 16, limit=1000)  # all images
    assert len(calls) == 6


def test_large_sets_are_annotated_in_parts(source, calls, monkeypatch):
    parts = module.image_parts
    monkeypatch.setattr(module, "image_parts", lambda *given: parts(*given, part=4))
    annotations = annotate(Dark(), source, "train", 16)
    assert calls == [4, 4, 2] and len(annotations) == 10


def annotated(queue, barrier, path):
    barrier.wait()
    source = Shapes(classes=3, size=16, train=10, test=6)
    queue.put(int(annotate(OracleAnnotator(), source, "train", 16).rows(range(10)).sum()))


def test_two_processes_may_ask_at_once(source, tmp_path):
    context = multiprocessing.get_context("fork")
    queue, barrier = context.Queue(), context.Barrier(2)
    runs = [context.Process(target=annotated, args=(queue, barrier, tmp_path)) for _ in range(2)]
    for run in runs:
        run.start()
    results = [queue.get(timeout=120) for _ in runs]
    for run in runs:
        run.join()
    assert results[0] == results[1] == int(load_images(source, "train", 16).masks.sum())
    assert len([entry for entry in (tmp_path / "cache" / "annotations").iterdir() if entry.is_dir()]) == 1


def test_labels_and_masks_are_hidden_unless_they_are_needed(source, monkeypatch):
    seen = []
    monkeypatch.setattr(Dark, "__call__", lambda self, images, part: seen.append(part) or part.images[:, 0] * 0)
    annotate(Dark(), source, "train", 16)
    assert seen[0].masks is seen[0].labels is seen[0].backgrounds is None
    monkeypatch.setattr(Dark, "needs", frozenset({"labels"}))
    annotate(Dark(threshold=1), source, "train", 16)
    assert seen[1].labels is not None and seen[1].masks is None


def test_networks_are_known_by_their_weights():
    first, second, other = (torch.nn.Linear(3, 1) for _ in range(3))
    second.load_state_dict(first.state_dict())
    assert identity(Dark(network=first)) == identity(Dark(network=second)) != identity(Dark(network=other))
    with pytest.raises(TypeError, match="an annotator's options are numbers, text, lists, mappings and networks"):
        identity(Dark(threshold=object()))


def test_missing_columns_say_so(source, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    with pytest.raises(DataError, match="OracleAnnotator needs masks, but 'images' train has no column 'mask'"):
        annotate(OracleAnnotator(), ImageFolder.example(folder), "train", 16)
    with pytest.raises(UsageError, match="unknown split of 'shapes' 'val'"):
        annotate(Dark(), source, "val", 16)
    with pytest.raises(UsageError, match="limit of 'train' is 0"):
        annotate(Dark(), source, "train", 16, limit=0)


@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [
        (
            "masks",
            torch.zeros(6, 8, 8, dtype=torch.uint8),
            r"masks torch.uint8 \(6, 8, 8\), they must be integers \(6, 16, 16\)",
        ),
        ("masks", torch.zeros(6, 16, 16), "masks torch.float32"),
        ("masks", torch.full((6, 16, 16), 2), "masks of 2 to 2, not 0 to 1"),
        ("segments", torch.full((6, 16, 16), -2), "segments of -2 to -2, not -1 to 32767"),
        ("segments", torch.full((6, 16, 16), 40_000), "segments of 40000 to 40000"),
        ("boxes", [torch.zeros(0, 4)] * 5, "boxes of 5 images, not of 6"),
        ("boxes", [torch.zeros(2, 3)] * 6, r"boxes torch.float32 \(2, 3\), they must be float \(n, 4\)"),
        ("boxes", [torch.tensor([[0.5, 0.0, 0.4, 1.0]])] * 6, "a box that is not x0 <= x1"),
        ("boxes", [torch.tensor([[0.5, 0.0, 1.4, 1.0]])] * 6, r"a box that is not .* in \[0, 1\]"),
    ],
)
def test_wrong_annotations_are_refused_and_not_kept(source, tmp_path, monkeypatch, kind, values, text):
    monkeypatch.setattr(module, "identity", lambda annotator: text)
    with pytest.raises(ValueError, match=f"Given gave {text}"):
        annotate(Given(kind, values), source, "test", 16)
    folder = tmp_path / "cache" / "annotations"
    assert not [entry for entry in folder.iterdir() if entry.is_dir()]


def test_rows_of_boxes():
    boxes = Annotations(np.arange(12, dtype=np.float32).reshape(3, 4), np.array([0, 2, 2, 3]))
    assert len(boxes) == 4
    found = boxes.rows(torch.tensor([3, 0, 1]))
    assert [one.tolist() for one in found] == [[[8, 9, 10, 11]], [], [[0, 1, 2, 3], [4, 5, 6, 7]]]
    assert found[1].shape == (0, 4)


def test_images_without_boxes(source, monkeypatch):
    monkeypatch.setattr(module, "identity", lambda annotator: "no boxes")
    annotations = annotate(Given("boxes", [torch.zeros(0, 4)] * 6), source, "test", 16)
    assert len(annotations) == 6 and [len(boxes) for boxes in annotations.rows(range(6))] == [0] * 6
