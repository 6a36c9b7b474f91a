"""Example data: shapes, and annotations that agree with each other."""

import pytest
import torch

from scd.profiling.workload import example_annotations, example_images


def test_example_images_are_always_the_same():
    images = example_images(12, 3)
    assert images.shape == (3, 3, 12, 12) and images.dtype == torch.uint8
    assert images.equal(example_images(12, 3)) and not images[0].equal(images[1])


@pytest.mark.parametrize("size", [8, 9])
def test_example_annotations_describe_one_scene(size):
    masks = example_annotations("masks", size, 5).rows([0, 4])
    segments = example_annotations("segments", size, 5).rows([0, 4])
    boxes = example_annotations("boxes", size, 5).rows([0, 4])
    assert masks.shape == segments.shape == (2, size, size)
    assert masks[0].sum() == (size // 2) ** 2 and masks[0].equal(masks[1])
    corners = segments[0][[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.tolist() == [0, 1, 2, 3]
    assert len(boxes) == 2 and boxes[1].tolist() == [
        [0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 0.5], [0.0, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0],
    ]  # fmt: skip
