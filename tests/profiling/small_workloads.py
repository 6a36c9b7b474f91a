"""Workloads that are built in a moment; functions of a module, so that fresh processes can import them."""

from baselines.byol import BYOL
from scd.data.recipes import build_recipe
from scd.nn.backbone import build_backbone
from scd.profiling.workload import Workload
from scd.scd import SCD


def byol(extra=0):
    method = BYOL(build_backbone("resnet_tiny", widths=[8, 16], strides=[1, 2]), dim=8, hidden=16)
    recipe = build_recipe("mocov2", 16, extra={"kind": "local", "count": extra} if extra else None)
    return Workload(method, recipe, 8, 24, {"name": "sgd", "lr": 0.01, "weight_decay": 1e-4})


def scd():
    workload = byol()
    workload.method = SCD(workload.method)
    return workload
