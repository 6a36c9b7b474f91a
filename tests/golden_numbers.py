"""Numbers of the methods' official code, and what brings our methods to the point where these begin.

Each file of ``golden/`` holds inputs, first weights, losses, gradients of the first step and the state after the last
one, computed in float64 by the repository and commit that its metadata name. Names are those of our parameters.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from scd.method import Batch, Method, whole_view
from scd.siamese import MomentumSiamese
from scd.training.step import take_step

FOLDER = Path(__file__).parent / "golden"


class Convolution(nn.Conv2d):
    """The backbone of most golden numbers: one 1 x 1 convolution."""

    dim = 6

    def __init__(self):
        super().__init__(3, self.dim, 1, bias=False)


def golden(name: str) -> dict[str, Tensor]:
    """All tensors of a file, floating-point ones in float64."""
    numbers = load_file(FOLDER / f"{name}.safetensors")
    return {key: value.double() if value.is_floating_point() else value for key, value in numbers.items()}


@torch.no_grad()
def begin(method: Method, numbers: dict[str, Tensor], without: tuple[str, ...] = ()) -> None:
    """Give a method the golden first weights, and its momentum copies the same.

    Args:
        method: in float64.
        numbers: with an entry ``weight.x`` for each trainable parameter x.
        without: trainable parameters that the official code does not have; they become 0.
    """
    parameters = {name: p for name, p in method.named_parameters() if p.requires_grad}
    given = part(numbers, "weight.")
    assert set(given) == set(parameters) - set(without)
    for name, parameter in parameters.items():
        parameter.copy_(given[name] if name in given else torch.zeros_like(parameter))
    for host in method.modules():
        for copy, module in host.momentum_pairs if isinstance(host, MomentumSiamese) else ():
            copy.load_state_dict(module.state_dict())


def batch(numbers: dict[str, Tensor], step: int, extras: tuple[str, ...] = ()) -> Batch:
    """The views of a step, of whole images: v1, v2 and the extra views of these names."""
    views = {name: whole_view(numbers[name][step], name) for name in ("v1", "v2", *extras)}
    return Batch({name: replace(view, role="extra") if name in extras else view for name, view in views.items()})


def follow(
    method: Method,
    optimizer: Optimizer,
    numbers: dict[str, Tensor],
    views: Callable[[dict[str, Tensor], int], Batch] = batch,
    directions: int = 1,
    clip: float | None = None,
) -> Iterator[int]:
    """Take the golden steps; compare each loss, the gradients of the first step, and the state at the end.

    Args:
        method: where the golden numbers begin.
        optimizer: of the method.
        numbers: of the official code.
        views: the batch of a step.
        directions: the official loss is the sum over so many directions, ours their mean.
        clip: see :func:`scd.training.step.take_step`.

    Yields:
        The number of each step that has been taken.
    """

    def backward_first(loss: Tensor) -> None:
        loss.backward()
        assert_gradients(method, numbers, directions)

    steps = len(numbers["loss"])
    for step in range(steps):
        backward = Tensor.backward if step else backward_first
        progress = (step + 1) / steps
        outputs = take_step(method, method, views(numbers, step), optimizer, progress, backward=backward, clip=clip)
        assert_same(directions * outputs["loss"], numbers["loss"][step], f"loss of step {step}")
        yield step
    assert_state(method, numbers)


def assert_same(found: Tensor, expected: Tensor, name: str, precision: float = 1e-10) -> None:
    """Equal up to an error of ``precision``, absolute and relative; both in float64."""
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.detach(), expected, rtol=precision, atol=precision, msg=lambda m: f"{name}: {m}")


def assert_gradients(method: Method, numbers: dict[str, Tensor], factor: float = 1.0, precision: float = 1e-10) -> None:
    """Every golden gradient ``gradient.x`` is ``factor`` times that of the parameter x."""
    parameters = dict(method.named_parameters())
    for name, expected in part(numbers, "gradient.").items():
        assert_same(factor * parameters[name].grad, expected, f"gradient of {name}", precision)


def assert_state(method: Method, numbers: dict[str, Tensor]) -> None:
    """Every golden entry ``final.x`` is the parameter or buffer x."""
    state = method.state_dict()
    for name, expected in part(numbers, "final.").items():
        assert_same(state[name], expected, f"final {name}")


def part(numbers: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of a prefix, without it; there is at least one."""
    found = {name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)}
    assert found
    return found
