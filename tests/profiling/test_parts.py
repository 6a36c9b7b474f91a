"""Operations, activations and time by part: closed forms by hand, sums against the whole, hooks that go again."""

from platform import libc_ver

import pytest
import torch
from torch import nn

from baselines.byol import BYOL
from baselines.lewel import LEWEL
from baselines.moco import MoCo
from scd.data.recipes import build_recipe
from scd.data.views import CropSpec, Recipe, ViewMaker
from scd.nn.backbone import build_backbone
from scd.profiling.flops import training_flops
from scd.profiling.memory import in_fresh_process, peak, reset_peak, resident, return_freed_memory
from scd.profiling.parts import ADDED, HEADS, LOSS, ONLINE, PARTS, TARGET, by_part, count_step, parts_of
from scd.profiling.steptime import BACKWARD, PHASES, VIEWS, PhaseTimes, Stepper
from scd.scd import SCD

CPU = torch.device("cpu")


class Pixels(nn.Module):
    """A backbone whose cost is known by heart: one 1 x 1 convolution to 8 channels."""

    dim = 8

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1, bias=False)

    def forward(self, images):
        return self.conv(images)


def moco(symmetric=False):
    return MoCo(Pixels(), dim=4, hidden=16, queue_size=32, symmetric=symmetric, bn_groups=1)


def byol():
    return BYOL(build_backbone("resnet_tiny"), dim=16, hidden=32)


TWO = Recipe("two", (CropSpec("v1", 6), CropSpec("v2", 6)))
HOSTS = {
    "moco": moco,
    "moco symmetric": lambda: moco(True),
    "byol": byol,
    "scd": lambda: SCD(moco(), projection_dim=4),
    "scd byol": lambda: SCD(byol(), projection_dim=4),
    "lewel": lambda: LEWEL(byol(), heads=4),
}


def test_mocos_parts_by_hand():
    """B = 8 images of 6 x 6 pixels, C = 8, hidden 16, embedding 4, 32 keys in the queue; 2 per multiply-add."""
    count = count_step(moco(), TWO, 8)
    convolution, head = 2 * 8 * 36 * 3 * 8, 2 * 8 * (8 * 16 + 16 * 4)
    positives, negatives = 2 * 8 * 4, 2 * 8 * 4 * 32
    assert count.forward[ONLINE] == count.forward[TARGET] == convolution
    assert count.backward[ONLINE] == convolution  # the weight's gradient; pixels need none
    assert count.backward[TARGET] == 0
    assert count.forward[HEADS] == 2 * head and count.backward[HEADS] == 2 * head
    assert count.forward[LOSS] in (negatives, negatives + positives)  # an einsum may be a product and a sum
    assert count.backward[LOSS] in (negatives, negatives + positives)  # the queue and the key need none
    assert (count.online, count.target, count.full_size) == (1, 1, 2)
    assert count.part(ADDED) == 0 and ADDED not in by_part(count)


def test_what_scd_adds_by_hand():
    """Saliency MLP 8-8-1 on 36 positions in both branches, pooling of two regions, projection 8-8-4 of two vectors."""
    host, count = count_step(moco(), TWO, 8), count_step(SCD(moco(), projection_dim=4), TWO, 8)
    mlp, pooling, projection = 2 * 8 * 36 * (8 * 8 + 8 * 1), 2 * 8 * 2 * 36 * 8, 2 * 8 * 2 * (8 * 8 + 8 * 4)
    assert count.forward[ADDED] == 2 * (mlp + pooling + projection)
    assert count.backward[ADDED] == 2 * (mlp + pooling + projection)
    for part in (ONLINE, TARGET, HEADS, LOSS):
        assert (count.forward[part], count.backward[part]) == (host.forward[part], host.backward[part])
    assert count.full_size == host.full_size


@pytest.mark.parametrize("name", HOSTS)
def test_parts_add_up_to_the_whole_step(name):
    method = HOSTS[name]()
    recipe = build_recipe("mocov2", 24, extra={"kind": "local", "count": 2})
    count, whole = count_step(method, recipe, 8), training_flops(method, recipe, 8)
    assert sum(count.forward.values()) == whole.forward
    assert sum(count.backward.values()) == whole.backward
    assert set(count.forward) <= set(PARTS) and set(count.activations) <= set(PARTS)


def test_extra_views_are_passes_of_their_own_size():
    recipe = build_recipe("mocov2", 24, extra={"kind": "local", "count": 4})
    count = count_step(moco(), recipe, 8)
    assert (count.online, count.target) == (5, 1)
    assert count.full_size == pytest.approx(2 + 4 * (12 / 24) ** 2)


def test_activations_are_what_autograd_keeps():
    """One convolution keeps its input: a view, which is not the method's own, or the copy that joins extra views."""
    narrow, wide = (
        count_step(MoCo(Pixels(), dim=4, hidden=hidden, queue_size=32, bn_groups=1), TWO, 8) for hidden in (16, 64)
    )
    assert narrow.activations[ONLINE] == 0
    extra = (CropSpec("e0", 6, role="extra"), CropSpec("e1", 6, role="extra"))
    joined = count_step(moco(), Recipe("four", (*TWO.crops, *extra)), 8)
    assert joined.activations[ONLINE] == 4 * 2 * 8 * 3 * 36
    assert narrow.activations[TARGET] == 0  # it runs without gradient
    assert wide.activations[HEADS] - narrow.activations[HEADS] == 4 * 8 * (64 - 16)  # the hidden layer after its ReLU


def test_the_method_and_the_random_state_stay_as_they_are():
    method = SCD(moco())
    before, state = {k: v.clone() for k, v in method.state_dict().items()}, torch.get_rng_state()
    count_step(method, TWO, 8)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in method.modules())
    assert "encode" not in vars(method.siamese)


def test_what_is_no_siamese_is_refused():
    with pytest.raises(TypeError, match="Linear is neither a Siamese nor a module around one"):
        parts_of(nn.Linear(2, 2))


# ---------------------------------------------------------------- time and memory


def trained(method=None):
    method = byol() if method is None else method
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    maker = ViewMaker(build_recipe("mocov2", 16), 0, steps_at_once=2)
    return Stepper(method, maker, images, 16, {"name": "sgd", "lr": 0.01, "weight_decay": 1e-4}, steps=4)


def test_phases_cover_the_block_and_hooks_go_again():
    stepper, times = trained(SCD(byol())), PhaseTimes(CPU)
    stepper.block()
    seconds = stepper.block(times)
    assert sum(times.seconds.values()) <= seconds
    assert sum(times.seconds.values()) > 0.9 * seconds
    assert all(times.seconds[phase] > 0 for phase in PHASES if phase != LOSS)
    assert max(times.seconds, key=times.seconds.get) in (BACKWARD, ONLINE, VIEWS)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in stepper.method.modules())


def test_blocks_train():
    stepper = trained()
    before = [parameter.clone() for parameter in stepper.method.backbone.parameters()]
    target = [parameter.clone() for parameter in stepper.method.target_backbone.parameters()]
    stepper.block()
    assert stepper.done == 4 and stepper.images_per_block == 64
    assert any((a != b).any() for a, b in zip(before, stepper.method.backbone.parameters(), strict=True))
    assert any((a != b).any() for a, b in zip(target, stepper.method.target_backbone.parameters(), strict=True))


def occupy(megabytes: int) -> tuple[int, int]:
    """Peak over the start, in bytes, while and after so much memory was held; runs in a fresh process."""
    before = resident()
    assert reset_peak(CPU)
    block = torch.ones(megabytes * 2**18)
    held = peak(CPU) - before
    del block
    return held, peak(CPU) - before


def freed(megabytes: int) -> tuple[int, int]:
    """Resident bytes over the start, while small tensors are held and after; runs in a fresh process."""
    assert return_freed_memory()
    before = resident()
    blocks = [torch.ones(2**14) for _ in range(16 * megabytes)]  # 64 kB each
    held = resident() - before
    del blocks
    return held, resident() - before


@pytest.mark.skipif(resident() is None or libc_ver()[0] != "glibc", reason="memory is told and steered on Linux alone")
def test_the_resident_set_follows_the_tensors_that_are_alive():
    held, after = in_fresh_process(freed, 64)
    assert 64 * 2**20 <= held <= 80 * 2**20 and after < 12 * 2**20


@pytest.mark.skipif(resident() is None, reason="this system does not tell a process's memory")
def test_peak_memory_of_a_fresh_process():
    held, after = in_fresh_process(occupy, 64)
    assert 64 * 2**20 <= held <= 80 * 2**20
    assert abs(after - held) < 2**20  # the peak stays; the kernel counts pages in batches
