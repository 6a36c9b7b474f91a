"""Where a training step's operations, saved activations and time belong: to which part of a method.

A part is what a reader of the paper calls it, not a layer: the two backbones, the heads, the comparison of embeddings,
and what a wrapper (SCD, LEWEL) adds. Every module of a method lies in one part; what a module computes outside its
children belongs to the part of that module. FLOPs are counted as in :mod:`scd.profiling.flops`.
"""

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, saved_tensors_hooks

from scd.data.views import Recipe
from scd.profiling.flops import counter, meta_views
from scd.siamese import Siamese

ONLINE, TARGET = "backbone, online", "backbone, target"
HEADS, LOSS, ADDED = "heads", "image loss", "saliency, pooling, triplet"
PARTS = (ONLINE, TARGET, HEADS, LOSS, ADDED)


@dataclass
class StepCount:
    """One training step on ``batch_size`` source images.

    Args:
        forward, backward: operations by part, 2 per multiply-add.
        activations: bytes that autograd keeps for the backward pass, by part; each storage once, without parameters,
            buffers and the views' own pixels.
        online, target: images that go through either backbone, per source image.
        full_size: both together, each weighted by its pixels over those of a global view.
    """

    batch_size: int
    forward: Counter = field(default_factory=Counter)
    backward: Counter = field(default_factory=Counter)
    activations: Counter = field(default_factory=Counter)
    online: float = 0.0
    target: float = 0.0
    full_size: float = 0.0

    @property
    def total(self) -> int:
        """Forward plus backward operations of all parts."""
        return sum(self.forward.values()) + sum(self.backward.values())

    def part(self, name: str) -> int:
        """Forward plus backward operations of one part."""
        return self.forward[name] + self.backward[name]


def parts_of(method: nn.Module) -> tuple[str, dict[nn.Module, str]]:
    """The part of the method itself, and of each module at which another part begins.

    A Siamese alone has four parts; a module around a Siamese (``method.siamese``) adds the fifth, which holds all that
    is not the Siamese's (whose ``encode`` counts as the image loss's own work). LEWEL's dense use of the Siamese's
    projector counts as heads: the module decides.

    Raises:
        TypeError: neither a Siamese nor a module around one.
    """
    siamese = method if isinstance(method, Siamese) else getattr(method, "siamese", None)
    if not isinstance(siamese, Siamese):
        raise TypeError(f"{type(method).__name__} is neither a Siamese nor a module around one")
    places = {
        siamese.backbone: ONLINE,
        siamese.target_backbone: TARGET,
        siamese.projector: HEADS,
        siamese.target_projector: HEADS,
        siamese.matcher: LOSS,
        **{child: HEADS for child in siamese.matcher.children() if any(True for _ in child.parameters())},
    }
    return (LOSS if method is siamese else ADDED), places


class PartStack:
    """Follows which part is at work, by hooks on the modules where parts begin.

    Args:
        method: a Siamese, or a module around one.
        on_change: told (part that ends, part that begins) at every change.
    """

    def __init__(self, method: nn.Module, on_change: Callable[[str, str], None]):
        self.root, self.places = parts_of(method)
        self.siamese = getattr(method, "siamese", method)
        self.on_change = on_change
        self.stack = [self.root]

    @property
    def current(self) -> str:
        """The part at work."""
        return self.stack[-1]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The hooks are there meanwhile."""
        handles = []
        for module, part in self.places.items():
            handles.append(module.register_forward_pre_hook(lambda *_, part=part: self.enter(part)))
            handles.append(module.register_forward_hook(lambda *_: self.leave()))
        if self.root is not LOSS:  # what the host does around its backbones is the host's, not the wrapper's
            self.siamese.encode = self.within(LOSS, self.siamese.encode)
        try:
            yield
        finally:
            vars(self.siamese).pop("encode", None)
            for handle in handles:
                handle.remove()

    def within(self, part: str, function: Callable) -> Callable:
        """The function, during which a part is at work."""

        def watched(*arguments):
            self.enter(part)
            try:
                return function(*arguments)
            finally:
                self.leave()

        return watched

    def enter(self, part: str) -> None:
        """A part begins within the current one."""
        before = self.current
        self.stack.append(part)
        self.on_change(before, part)

    def leave(self) -> None:
        """The current part ends, the one around it goes on."""
        before = self.stack.pop()
        self.on_change(before, self.current)


def count_step(method: nn.Module, recipe: Recipe, batch_size: int) -> StepCount:
    """Count a step of a copy of ``method`` on the device "meta": nothing is computed, nothing is allocated.

    The backward pass of an operation belongs to the part that did its forward pass: every node of the autograd graph
    is marked with its part when the part's forward pass ends.

    Raises:
        TypeError: see :func:`parts_of`.
    """
    fake = copy.deepcopy(method).to("meta").train()
    views = meta_views(recipe, batch_size, masks=fake.needs == "masks")
    count, own = (
        StepCount(batch_size),
        _storages([*fake.parameters(), *fake.buffers(), *(v.images for v in views.values())]),
    )
    stack = PartStack(fake, lambda before, after: None)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and storage._cdata not in kept:
            kept[storage._cdata] = tensor  # alive until the end, so that no later storage takes its place
            count.activations[stack.current] += storage.nbytes()
        return tensor

    with torch.random.fork_rng(devices=[]), saved_tensors_hooks(keep, lambda tensor: tensor):
        with counter() as operations:
            marks = _Marks(stack, operations.get_total_flops, count.forward)
            stack.on_change = marks.change
            with stack.watching(), _passes(fake, recipe, count), _outputs_marked(stack, marks):
                loss = fake(views)["loss"]
            marks.settle(stack.root)
            marks.mark(loss, stack.root)
        with counter() as operations:
            _count_backward(loss, marks.nodes, operations.get_total_flops, count.backward, stack.root)
    return count


class _Marks:
    """Counts by part while the forward pass runs, and the part of each node of its graph."""

    def __init__(self, stack: PartStack, total: Callable[[], int], counts: Counter):
        self.stack, self.total, self.counts = stack, total, counts
        self.seen = 0
        self.nodes: dict[Node, str] = {}

    def change(self, before: str, after: str) -> None:
        self.settle(before)

    def settle(self, part: str) -> None:
        """What was counted since the last time belongs to this part."""
        total = self.total()
        self.counts[part] += total - self.seen
        self.seen = total

    def mark(self, value: object, part: str) -> None:
        """All unmarked nodes that lead to the tensors in ``value``."""
        waiting = [tensor.grad_fn for tensor in _tensors(value) if tensor.grad_fn is not None]
        while waiting:
            node = waiting.pop()
            if node not in self.nodes:
                self.nodes[node] = part
                waiting.extend(following for following, _ in node.next_functions if following is not None)


@contextmanager
def _outputs_marked(stack: PartStack, marks: _Marks) -> Iterator[None]:
    """What enters a part is marked as the work of the part around it, what leaves it as its own."""
    handles = []
    for module, part in stack.places.items():
        handles.append(module.register_forward_pre_hook(
            lambda _, inputs: marks.mark(inputs, stack.current), prepend=True))  # fmt: skip
        handles.append(module.register_forward_hook(
            lambda _, __, output, part=part: marks.mark(output, part), prepend=True))  # fmt: skip
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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


@contextmanager
def _passes(method: nn.Module, recipe: Recipe, count: StepCount) -> Iterator[None]:
    """Counts the images that go through the backbones."""
    siamese = method if isinstance(method, Siamese) else method.siamese
    whole = next(crop.size for crop in recipe.crops if crop.role == "global") ** 2

    def seen(branch: str, images: Tensor) -> None:
        share = len(images) / count.batch_size
        setattr(count, branch, getattr(count, branch) + share)
        count.full_size += share * images.shape[2] * images.shape[3] / whole

    backbones = {"online": siamese.backbone, "target": siamese.target_backbone}
    handles = [
        backbone.register_forward_pre_hook(lambda _, inputs, branch=branch: seen(branch, inputs[0]))
        for branch, backbone in backbones.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _storages(tensors: list[Tensor]) -> set[int]:
    return {tensor.untyped_storage()._cdata for tensor in tensors}


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def by_part(counts: StepCount) -> dict[str, int]:
    """Forward plus backward operations of every part that has any, in the order of ``PARTS``."""
    totals = defaultdict(int)
    for name in PARTS:
        totals[name] = counts.part(name)
    return {name: total for name, total in totals.items() if total}
