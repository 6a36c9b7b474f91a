"""The cost of a training step counted from shapes: operations, activations and parameters, exact and without a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from scd.profiling.flops import forward_flops
from scd.profiling.parameters import count_parameters
from scd.profiling.parts import count_step
from scd.profiling.workload import Build

ONLINE, TARGET = "backbone, online", "backbone, target"


@dataclass(frozen=True)
class CountedCost:
    """Counts a step of the arm "arm"; its method is built on the device "meta", without values."""

    def __call__(self, arms: Mapping[str, Build]) -> dict[str, float]:
        """Numbers per source image, unless said otherwise.

        ``forward_flops``, ``training_flops`` (forward and backward), ``step_flops`` (of the whole batch),
        ``flops: PART``, ``activation_bytes``, ``parameters_trained``, ``parameters_momentum`` and
        ``parameters_backbone``. ``passes_online`` and ``passes_target`` are the forward operations in either backbone,
        in passes of one full-size image.
        """
        with torch.device("meta"):
            workload = arms["arm"]()
        method, batch = workload.method, workload.batch_size
        count, parameters = count_step(method, workload.recipe, batch), count_parameters(method)
        size = next(crop.size for crop in workload.recipe.crops if crop.role == "global")
        one_pass = forward_flops(method.backbone, (1, 3, size, size))
        return {
            "batch_size": batch,
            "forward_flops": sum(count.forward.values()) / batch,
            "training_flops": count.total / batch,
            "step_flops": count.total,
            **{f"flops: {part}": count.part(part) / batch for part in count.parts},
            "activation_bytes": sum(count.activations.values()) / batch,
            "passes_online": count.forward[ONLINE] / batch / one_pass,
            "passes_target": count.forward[TARGET] / batch / one_pass,
            "parameters_trained": parameters.trained,
            "parameters_momentum": parameters.momentum,
            "parameters_backbone": parameters.inference,
        }
