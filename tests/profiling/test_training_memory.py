"""The estimate of a device's memory: exact for what it counts, and the same as what a real step keeps."""

import pytest
import small_workloads
import torch
from torch.autograd.graph import saved_tensors_hooks

from scd.data.views import ViewMaker
from scd.profiling.parts import SavedStorages, count_step
from scd.profiling.training_memory import training_memory


@pytest.fixture(scope="module")
def workload():
    return small_workloads.byol()


def test_parameters_gradients_and_optimiser_state_by_hand(workload):
    method = workload.method
    trained = 4 * sum(p.numel() for p in method.parameters() if p.requires_grad)
    every = sum(t.numel() * t.element_size() for t in (*method.parameters(), *method.buffers()))
    sgd, adamw = (training_memory(method, workload.recipe, 8, name) for name in ("sgd", "adamw"))
    assert (sgd.parameters, sgd.gradients, sgd.optimizer) == (every, trained, trained)
    assert adamw.optimizer == 2 * trained and adamw.activations == sgd.activations
    assert sgd.total == every + 2 * trained + sgd.activations


def test_a_device_keeps_its_part_of_the_batch_and_half_of_it_in_mixed_precision(workload):
    whole = training_memory(workload.method, workload.recipe, 16, "lars")
    part = training_memory(workload.method, workload.recipe, 16, "lars", processes=2, mixed=True, images=1000)
    assert part.activations == pytest.approx(whole.activations / 4, rel=0.01)  # statistics of BN do not depend on it
    assert part.gradients == 2 * whole.gradients and part.images == 1000


def test_the_same_as_the_parts_of_the_cost_profile(workload):
    counted = sum(count_step(workload.method, workload.recipe, 8).activations.values())
    assert training_memory(workload.method, workload.recipe, 8, "sgd").activations == counted


def test_the_same_as_what_a_real_step_keeps(workload):
    method = workload.method.train()
    images = next(iter(workload.batches().iterate(0, 1)))
    batch = ViewMaker(workload.recipe, seed=0)(images, 0)
    saved = SavedStorages(method, batch)
    with torch.random.fork_rng(), saved_tensors_hooks(saved.keep, lambda tensor: tensor):
        method(batch)
    estimated = training_memory(workload.method, workload.recipe, len(images.images), "sgd").activations
    assert saved.total == pytest.approx(estimated, rel=0.02)
