"""Which part of a method the operations, saved activations and time of a training step belong to.

A method names its parts in :meth:`scd.method.Method.parts`: a backbone, the heads, the loss, what a wrapper adds. A
module belongs to one part; what it computes outside its children belongs to the part of the module itself. FLOPs are
counted as in :mod:`scd.profiling.flops`.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node, saved_tensors_hooks

from scd.data.views import Recipe
from scd.method import Batch, Method
from scd.profiling.flops import counter, meta_batch

Border = Callable[[str, object], None]


@dataclass
class StepCount:
    """One training step on ``batch_size`` source images.

    Args:
        parts: names of the method's parts, backbones first.
        forward, backward: operations by part, 2 per multiply-add.
        activations: bytes that autograd keeps for the backward pass, by part; each storage once, without parameters,
            buffers and the batch itself.
    """

    batch_size: int
    parts: tuple[str, ...]
    forward: Counter = field(default_factory=Counter)
    backward: Counter = field(default_factory=Counter)
    activations: Counter = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Forward plus backward operations of all parts."""
        return sum(self.forward.values()) + sum(self.backward.values())

    def part(self, name: str) -> int:
        """Forward plus backward operations of one part."""
        return self.forward[name] + self.backward[name]


def part_names(method: Method) -> tuple[str, ...]:
    """Names of a method's parts: backbones first, the part of all that is in no module last."""
    parts = method.parts()
    names = dict.fromkeys([*parts.modules.values(), *parts.functions.values(), parts.root])
    return tuple(sorted(names, key=lambda name: not name.startswith("backbone")))


class PartTracker:
    """Follows the part at work during a forward pass, by hooks on the modules and functions where parts begin.

    Args:
        method: names the parts.
        border: called with (part, tensors) wherever a part begins or ends: the work since the last call belongs to this
            part, and so does the work that led to these tensors as far as no other part claimed it.
    """

    def __init__(self, method: Method, border: Border):
        self.parts = method.parts()
        self.border = border
        self.stack = [self.parts.root]

    @property
    def current(self) -> str:
        """The part at work."""
        return self.stack[-1]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The hooks are active inside."""
        handles = []
        for module, part in self.parts.modules.items():
            handles.append(module.register_forward_pre_hook(lambda _, inputs, part=part: self.enter(part, inputs)))
            handles.append(module.register_forward_hook(lambda _, __, output: self.leave(output)))
        for (owner, name), part in self.parts.functions.items():
            setattr(owner, name, self.within(part, getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name in self.parts.functions:
                vars(owner).pop(name)
            for handle in handles:
                handle.remove()

    def within(self, part: str, function: Callable) -> Callable:
        """The function, whose work belongs to a part."""

        def watched(*arguments, **options):
            self.enter(part, (arguments, options))
            output = function(*arguments, **options)
            self.leave(output)
            return output

        return watched

    def enter(self, part: str, inputs: object) -> None:
        """A part begins within the current one."""
        self.border(self.current, inputs)
        self.stack.append(part)

    def leave(self, outputs: object) -> None:
        """The current part ends, the one around it continues."""
        self.border(self.stack.pop(), outputs)


def count_step(method: Method, recipe: Recipe, batch_size: int) -> StepCount:
    """Count a step of a copy of ``method`` on the device "meta": nothing is computed, nothing is allocated.

    The backward pass of an operation belongs to the part of its forward pass: every node of the autograd graph is
    marked with its part when the part's forward pass ends.
    """
    fake = copy.deepcopy(method).to("meta").train()
    batch = meta_batch(recipe, batch_size, fake.needs)
    count = StepCount(batch_size, part_names(fake))
    marks = _Marks(count.forward)
    tracker = PartTracker(fake, marks.border)
    saved = SavedStorages(fake, batch)

    def keep(tensor: Tensor) -> Tensor:
        before = saved.total
        saved.keep(tensor)
        count.activations[tracker.current] += saved.total - before
        return tensor

    with torch.random.fork_rng(devices=[]), saved_tensors_hooks(keep, lambda tensor: tensor):
        with counter() as operations:
            marks.total = operations.get_total_flops
            with tracker.watching():
                loss = fake(batch)["loss"]
            marks.border(tracker.current, loss)
        with counter() as operations:
            _count_backward(loss, marks.nodes, operations.get_total_flops, count.backward, tracker.current)
    return count


class SavedStorages:
    """What autograd keeps for the backward pass, each storage once, without parameters, buffers and the batch itself.

    Attributes:
        total: bytes so far.
    """

    def __init__(self, method: Method, batch: Batch):
        own = (*method.parameters(), *method.buffers(), *tensors_in(batch))
        self.own = {tensor.untyped_storage()._cdata for tensor in own}
        self.kept: dict[int, Tensor] = {}
        self.total = 0

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a tensor that autograd saves, and give it back; for ``saved_tensors_hooks``."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.own and storage._cdata not in self.kept:
            self.kept[storage._cdata] = tensor  # alive until the end, so that no later storage takes its place
            self.total += storage.nbytes()
        return tensor


class _Marks:
    """Operations by part while the forward pass runs, and the part of each node of its graph."""

    def __init__(self, counts: Counter):
        self.counts = counts
        self.total: Callable[[], int] = lambda: 0
        self.seen = 0
        self.nodes: dict[Node, str] = {}

    def border(self, part: str, value: object) -> None:
        """The operations since the last border, and all unmarked nodes that lead to ``value``, belong to a part."""
        total = self.total()
        self.counts[part] += total - self.seen
        self.seen = total
        waiting = [tensor.grad_fn for tensor in tensors_in(value) if tensor.grad_fn is not None]
        while waiting:
            node = waiting.pop()
            if node not in self.nodes:
                self.nodes[node] = part
                waiting.extend(following for following, _ in node.next_functions if following is not None)


def _count_backward(loss: Tensor, nodes: dict[Node, str], total: Callable[[], int], counts: Counter, root: str) -> None:
    """Run the backward pass; what is counted from one node's start to the next one's belongs to the first."""
    state = {"part": root, "seen": 0}

    def settle(part: str) -> None:
        now = total()
        counts[state["part"]] += now - state["seen"]
        state.update(part=part, seen=now)

    handles = [node.register_prehook(lambda _, part=part: settle(part)) for node, part in nodes.items()]
    loss.backward()
    settle(root)
    for handle in handles:
        handle.remove()


def tensors_in(value: object) -> Iterator[Tensor]:
    """All tensors in nested dictionaries, lists, tuples and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif is_dataclass(value):
        for each in fields(value):
            yield from tensors_in(getattr(value, each.name))
