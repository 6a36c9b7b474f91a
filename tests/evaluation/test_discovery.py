"""Discovery numbers of hand-made maps with known answers, and against loops over pixels."""

import pytest
import torch

from scd.errors import DataError
from scd.evaluation.discovery import box_of_map, corloc, discovery_scores, share_of_objects

SIZE = 12


def rectangle(x0, y0, x1, y1):
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def scene(*boxes):
    """Instances (n, S, S) and boxes (n, 4) of filled rectangles."""
    masks = [rectangle(*box) for box in boxes]
    return torch.stack(masks) if masks else torch.zeros(0, SIZE, SIZE, dtype=torch.bool), torch.tensor(
        boxes, dtype=torch.float32
    ).view(-1, 4)


def scores(maps, *scenes):
    return discovery_scores(torch.stack(maps), [s[0] for s in scenes], [s[1] for s in scenes])


TWO = scene((1, 1, 5, 5), (7, 6, 11, 11))
THREE = scene((0, 0, 4, 4), (8, 0, 12, 4), (0, 8, 4, 12))


# ---------------------------------------------------------------- one box


def test_box_is_the_extent_of_the_part_with_the_maximum():
    m = torch.zeros(SIZE, SIZE)
    m[1:3, 2:5] = 0.8
    m[7:11, 6:12] = 0.9  # larger and higher
    assert box_of_map(m).tolist() == [6, 7, 12, 11]
    m[1, 2] = 1.0
    assert box_of_map(m).tolist() == [2, 1, 5, 3]


def test_corners_do_not_connect():
    m = torch.zeros(SIZE, SIZE)
    m[2:4, 2:4] = 1.0
    m[4:6, 4:6] = 0.9
    assert box_of_map(m).tolist() == [2, 2, 4, 4]
    m[4, 3] = 0.9
    assert box_of_map(m).tolist() == [2, 2, 6, 6]


def test_the_threshold_is_the_maps_mean():
    m = torch.full((4, 4), 0.2)
    m[0] = torch.tensor([1.0, 0.5, 0.3, 0.2])  # mean: 0.275
    assert box_of_map(m).tolist() == [0, 0, 3, 1]


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1.0])
def test_the_box_of_a_constant_map_is_the_whole_image(value):
    assert box_of_map(torch.full((7, 9), value)).tolist() == [0, 0, 9, 7]


def test_iou_of_one_half_is_enough():
    m = rectangle(0, 0, 4, 4).float()
    assert corloc(m[None], [torch.tensor([[0.0, 0.0, 4.0, 8.0]])]) == 1.0
    assert corloc(m[None], [torch.tensor([[0.0, 0.0, 4.0, 8.1]])]) == 0.0


def test_any_of_the_objects_counts():
    maps = torch.stack([rectangle(7, 6, 11, 11).float(), rectangle(0, 0, 12, 2).float()])
    assert corloc(maps, [TWO[1], TWO[1]]) == 0.5


# ---------------------------------------------------------------- all objects


def test_the_true_masks_as_map():
    found = scores([TWO[0].any(0).float(), THREE[0].any(0).float()], TWO, THREE)
    assert found["objects_covered"] == found["objects_covered_best"] == found["foreground_precision"] == 1.0
    assert found["objects_covered_inverted"] == 0.0
    assert found["discovery_corloc"] == 1.0
    areas = [(16 + 20) / 144, 48 / 144]
    assert found["map_area_on_scenes"] == found["foreground_precision_whole"] == pytest.approx(sum(areas) / 2)
    assert found["objects_covered_gain"] == pytest.approx(1 - (2 * areas[0] + 3 * areas[1]) / 5)
    assert (found["objects_covered_n2"], found["objects_covered_n3"]) == (1.0, 1.0)
    assert "objects_covered_n1" not in found and "objects_covered_n4" not in found


def test_the_whole_image_covers_all_and_gains_nothing():
    found = scores([torch.ones(SIZE, SIZE)] * 2, TWO, scene((0, 0, 12, 9)))
    assert found["objects_covered"] == found["objects_covered_best"] == found["map_area_on_scenes"] == 1.0
    assert found["objects_covered_gain"] == 0.0
    assert found["foreground_precision"] == found["foreground_precision_whole"]
    assert found["discovery_corloc"] == found["discovery_corloc_whole"] == 0.5


def test_an_empty_map_covers_and_gains_nothing():
    found = scores([torch.zeros(SIZE, SIZE)], TWO)
    for key in ("objects_covered", "objects_covered_best", "objects_covered_gain", "map_area_on_scenes"):
        assert found[key] == 0.0
    assert found["foreground_precision"] == 0.0
    assert found["objects_covered_inverted"] == 1.0


def test_one_object_of_several_by_hand():
    m = torch.zeros(SIZE, SIZE)
    m[0:4, 0:4] = 1.0  # THREE's first object
    m[8:10, 0:4] = 0.5  # half of its third, at the threshold
    m[11, 11] = 0.9  # nothing
    found = scores([m], THREE)
    assert found["objects_covered"] == found["objects_covered_n3"] == pytest.approx(2 / 3)
    assert found["objects_covered_best"] == 0.0
    assert found["foreground_precision"] == pytest.approx(24 / 25)
    assert found["objects_covered_gain"] == pytest.approx((1 + 0 + 0.5) / 3 - 25 / 144)
    assert found["objects_covered_inverted"] == pytest.approx(2 / 3)  # 1 - map is 1/2 on half of the third, 1 below it


def test_equals_loops_over_objects_and_pixels():
    generator = torch.Generator().manual_seed(0)
    scenes, maps = [], []
    for i in range(8):
        boxes = []
        for _ in range(i % 3 + 1):
            x, y = torch.randint(0, 8, (2,), generator=generator).tolist()
            boxes.append((x, y, x + 4, y + 3))
        scenes.append(scene(*boxes))
        maps.append(torch.rand(SIZE, SIZE, generator=generator))
    found = scores(maps, *scenes)
    covered, gains, hits, marked = {}, [], 0, 0
    for m, (masks, _) in zip(maps, scenes, strict=True):
        high = [[value >= 0.5 for value in row] for row in m.tolist()]
        area = sum(map(sum, high))
        for mask in masks.tolist():
            pixels = [(y, x) for y in range(SIZE) for x in range(SIZE) if mask[y][x]]
            share = sum(high[y][x] for y, x in pixels) / len(pixels)
            covered.setdefault(len(masks), []).append(share >= 0.5)
            gains.append(share - area / SIZE**2)
        for y in range(SIZE):
            for x in range(SIZE):
                marked += high[y][x]
                hits += high[y][x] and any(mask[y][x] for mask in masks.tolist())
    every = sum(covered.values(), [])
    assert found["objects_covered"] == pytest.approx(sum(every) / len(every))
    assert found["objects_covered_gain"] == pytest.approx(sum(gains) / len(gains))
    assert found["foreground_precision"] == pytest.approx(hits / marked)
    assert found["map_area_on_scenes"] == pytest.approx(marked / (8 * SIZE**2))
    for n in (1, 2, 3):
        assert found[f"objects_covered_n{n}"] == pytest.approx(sum(covered[n]) / len(covered[n]))


def test_a_map_drawn_without_a_look_gains_nothing_on_average():
    generator = torch.Generator().manual_seed(0)
    maps = [(torch.rand(4, 4, generator=generator) < 0.3).float() for _ in range(400)]
    corners = torch.randint(0, 9, (400, 2), generator=generator).tolist()
    found = scores(maps, *[scene((x, y, x + 3, y + 3)) for x, y in corners])
    assert found["objects_covered_gain"] == pytest.approx(0.0, abs=0.04)


def test_images_without_objects_count_for_precision_only():
    nothing, m = scene(), torch.ones(SIZE, SIZE)
    found = scores([TWO[0].any(0).float(), m], TWO, nothing)
    assert found["discovery_corloc"] == found["objects_covered_best"] == 1.0
    assert found["foreground_precision"] == pytest.approx(36 / (36 + 144))
    with pytest.raises(DataError, match="no image has an object"):
        scores([m], nothing)


def test_an_object_without_pixels_is_an_error():
    with pytest.raises(DataError, match="no visible pixel"):
        share_of_objects(torch.ones(SIZE, SIZE, dtype=torch.bool), torch.zeros(1, SIZE, SIZE, dtype=torch.bool))


def test_coarse_maps_are_resized_to_the_masks():
    coarse = torch.zeros(1, 3, 3)
    coarse[0, 0, 0] = 1.0
    found = discovery_scores(coarse, [scene((0, 0, 4, 4))[0]], [scene((0, 0, 4, 4))[1]])
    assert found["objects_covered"] == 1.0 and 0.05 < found["map_area_on_scenes"] < 0.2
