"""The contract of a method: views and their geometry, parameter groups, the state that evaluations need."""

import pytest
import torch
from torch import Tensor, nn

from scd.method import SUPERVISION, Batch, Method, View, strongest_supervision, whole_view


class Tiny(Method):
    """A backbone, a momentum copy of it, a head, and matchers with buffers of their own."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(3, 2)
        self.target_backbone = nn.Linear(3, 2).requires_grad_(False)
        self.head = nn.Linear(2, 1)
        self.matcher = nn.BatchNorm1d(2)
        self.dense_matcher = nn.BatchNorm1d(2)
        self.rematcher_of_views = nn.Linear(1, 1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.head(self.backbone(batch.views["v1"].images)).mean()}


def view(rectangle: list[float], flip: bool = False, count: int = 1) -> View:
    images = torch.zeros(count, 3, 8, 8)
    return View("v", "global", images, torch.tensor(rectangle).expand(count, 4), torch.full((count,), flip))


# -------------------------------------------------------------------- views


def test_the_grid_of_a_whole_view_has_the_centres_of_its_positions():
    grid = whole_view(torch.zeros(2, 3, 8, 8)).grid(2, 4)
    assert grid.shape == (2, 2, 4, 2)
    assert grid[1, 0, :, 0].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert grid[1, :, 0, 1].tolist() == [0.25, 0.75]


def test_the_grid_of_a_crop_lies_in_its_rectangle_and_is_mirrored_with_it():
    grid = view([0.2, 0.4, 0.6, 1.0]).grid(3, 2)[0]
    torch.testing.assert_close(grid[0, :, 0], torch.tensor([0.3, 0.5]))
    torch.testing.assert_close(grid[:, 0, 1], torch.tensor([0.5, 0.7, 0.9]))
    mirrored = view([0.2, 0.4, 0.6, 1.0], flip=True).grid(3, 2)[0]
    torch.testing.assert_close(mirrored, grid.flip(1))


def test_a_part_of_a_view_takes_everything_along():
    whole = view([0.0, 0.0, 1.0, 1.0], count=4)
    whole.masks = torch.arange(4.0).view(4, 1, 1).expand(4, 8, 8)
    whole.segments = torch.arange(4).view(4, 1, 1).expand(4, 8, 8)
    whole.boxes = [torch.full((i, 4), float(i)) for i in range(4)]
    part = whole.part(slice(1, 3))
    assert (part.name, part.role, len(part.images), len(part.rectangles), len(part.flips)) == ("v", "global", 2, 2, 2)
    assert part.masks[:, 0, 0].tolist() == [1, 2] and part.segments[:, 0, 0].tolist() == [1, 2]
    assert [len(boxes) for boxes in part.boxes] == [1, 2]
    assert view([0.0, 0.0, 1.0, 1.0], count=4).part(slice(0, 1)).masks is None


def test_a_whole_view_carries_no_annotation():
    whole = whole_view(torch.zeros(2, 3, 8, 8))
    assert whole.rectangles.tolist() == [[0, 0, 1, 1]] * 2 and not whole.flips.any()
    assert (whole.masks, whole.segments, whole.boxes) == (None, None, None)


# -------------------------------------------------------------------- defaults and state


def test_a_method_must_say_its_loss():
    with pytest.raises(TypeError, match="abstract"):
        Method()


def test_defaults():
    method = Tiny()
    assert (method.needs, method.supervision) == (frozenset(), "none")
    assert method.saliency(whole_view(torch.zeros(1, 3, 8, 8))) is None
    assert method.scheduled_values(0.5) == {}
    method.after_backward()
    method.after_step(0.5)
    assert method.parts().modules == {method.backbone: "backbone, online"}


def test_one_parameter_group_holds_what_is_trained():
    method = Tiny()
    method.head.requires_grad_(False)
    (group,) = method.parameter_groups()
    assert {id(p) for p in group.parameters} == {id(p) for p in method.parameters() if p.requires_grad}
    assert (group.lr_multiplier, group.weight_decay_multiplier, group.constant_lr) == (1.0, 1.0, False)


def test_the_evaluated_state_leaves_out_momentum_copies_and_what_losses_keep():
    assert {name.split(".")[0] for name in Tiny().evaluated_state()} == {"backbone", "head", "rematcher_of_views"}


def test_an_evaluated_state_can_be_loaded_and_leaves_the_rest():
    one, other = Tiny(), Tiny()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    other.load_evaluated_state(one.evaluated_state())
    for name, value in other.state_dict().items():
        expected = one.state_dict() if name in one.evaluated_state() else before
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_a_state_of_another_method_is_refused(change):
    method = Tiny()
    state = dict(method.evaluated_state())
    if change == "missing":
        del state["head.bias"]
    else:
        state["other" if change == "unknown" else "head.bias"] = torch.zeros(3)
    with pytest.raises(RuntimeError):
        method.load_evaluated_state(state)


def test_the_strongest_supervision_is_the_last_in_the_order():
    assert strongest_supervision("none", "labels", "unsupervised teacher") == "labels"
    assert strongest_supervision("oracle", *SUPERVISION) == "oracle"
    with pytest.raises(ValueError):
        strongest_supervision("none", "unsupervised")
