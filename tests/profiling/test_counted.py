"""Counted cost: numbers that agree with each other and with the FLOP counter."""

from functools import partial

import pytest
import small_workloads

from scd.profiling.counted import CountedCost
from scd.profiling.flops import training_flops
from scd.scd import SCD


def test_parts_add_up_and_agree_with_the_counter():
    counted, workload = CountedCost()({"arm": small_workloads.scd}), small_workloads.scd()
    whole = training_flops(workload.method, workload.recipe, 8)
    assert counted["step_flops"] == whole.total and counted["training_flops"] == whole.per_image
    assert counted["forward_flops"] == whole.forward / 8
    parts = {name: value for name, value in counted.items() if name.startswith("flops: ")}
    assert sum(parts.values()) == pytest.approx(counted["training_flops"])
    assert list(parts)[0] == "flops: backbone, online" and list(parts)[-1] == f"flops: {SCD.addition}"


def test_passes_are_in_images_of_full_size():
    """Both global views go through both backbones; four views of half the side make one more image of full size."""
    plain = CountedCost()({"arm": small_workloads.byol})
    local = CountedCost()({"arm": partial(small_workloads.byol, extra=4)})
    assert (plain["passes_online"], plain["passes_target"]) == (2, 2)
    assert local["passes_target"] == 2 and local["passes_online"] == pytest.approx(2 + 4 * (8 / 16) ** 2, rel=0.05)


def test_parameters_are_those_of_the_method():
    counted, method = CountedCost()({"arm": small_workloads.byol}), small_workloads.byol().method
    assert counted["parameters_backbone"] == sum(p.numel() for p in method.backbone.parameters())
    assert counted["parameters_trained"] > counted["parameters_momentum"] > counted["parameters_backbone"]
