"""Instance maps: which mask is on top, and numbers above 255."""

import io

import numpy as np
from PIL import Image

from scd.data.sources.instance_maps import draw_instances, object_features


def drawn(masks, crowd) -> np.ndarray:
    cell = draw_instances(masks, crowd, *masks[0].shape)
    return np.asarray(Image.open(io.BytesIO(cell["bytes"])))


def test_small_objects_are_drawn_over_large_ones_and_crowds_lie_below():
    small, large, crowd = (np.zeros((1, 6), bool) for _ in range(3))
    small[0, 2], large[0, 1:4], crowd[0, :3] = True, True, True
    assert drawn([small, large, crowd], [False, False, True]).tolist() == [[3, 2, 1, 2, 0, 0]]
    assert drawn([large, small, crowd], [False, False, False]).tolist() == [[3, 3, 2, 1, 0, 0]]


def test_many_objects_get_sixteen_bits():
    masks = [np.zeros((1, 300), bool) for _ in range(300)]
    for k, mask in enumerate(masks):
        mask[0, k] = True
    assert drawn(masks, [False] * 300)[0].tolist() == list(range(1, 301))


def test_features_name_the_categories():
    features = object_features(["a", "b"])
    assert features["objects"]["category"].feature.names == ["a", "b"]
