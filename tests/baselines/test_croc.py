"""CrOC's loss against loops over clusters and its official code; its edge cases. Clusters: ``test_croc_clusters``."""

import numpy as np
import pytest
import torch
from golden_numbers import assert_same, begin, follow, golden
from small_croc import (
    BATCH,
    CHANNELS,
    LEFT,
    PLACES,
    RIGHT,
    SIDE,
    Patches,
    WithKeys,
    croc,
    dino,
    make_views,
    outputs,
    softmax,
    unit,
)

from baselines.byol import BYOL
from baselines.croc import ClusterDistillation, CrOC, JointClustering, cluster_vectors
from baselines.dino import Temperatures
from scd.errors import UsageError
from scd.method import Batch, View
from scd.nn.backbone import build_backbone
from scd.nn.vit import vit

# -------------------------------------------------------------------- the equations, written a second time


def test_the_loss_equals_loops_over_clusters():
    method, views = croc(weight=0.3), make_views()
    method.cluster_matcher.centre.copy_(torch.linspace(-0.1, 0.2, 9))
    logs = outputs(method, views)
    torch.manual_seed(5)
    encoded = method.siamese.encode(views)
    with torch.no_grad():
        weights, chosen = method.clusters(encoded, ("v1", "v2"))

    def logits(features, mlp, prototypes):
        length = np.mean([np.linalg.norm(v) for view in features.values() for v in view.pooled.detach().numpy()])
        found = {}
        for v, view in enumerate(features.values()):
            for b in range(BATCH):
                maps, w = view.maps[b].detach().flatten(1).numpy(), weights[v][b, 0].numpy()
                for k in range(w.shape[1]):
                    if w[:, k].any():
                        vector = length * unit(sum(w[n, k] * maps[:, n] for n in range(len(w))))
                        hidden = mlp(torch.tensor(vector)[None])[0].detach().numpy()
                        found[v, b, k] = [unit(hidden) @ unit(row) for row in prototypes.weight.detach().numpy()]
        return found

    order = {name: encoded.target[name] for name in ("v1", "v2")}
    student = logits(encoded.online, method.siamese.projector.mlp, method.prototypes)
    teacher = logits(order, method.siamese.target_projector.mlp, method.target_prototypes)
    centre, terms = method.cluster_matcher.centre.numpy(), {0: [], 1: []}
    shared = [key[1:] for key in student if key[0] == 0 and (1, *key[1:]) in student]
    for b, k in shared:
        for v in (0, 1):
            wanted = softmax((np.array(teacher[1 - v, b, k]) - centre) / 0.04)
            given = np.array(student[v, b, k]) / 0.1
            terms[v].append(-wanted @ (given - np.log(np.exp(given).sum())))
    expected = (np.mean(terms[0]) + np.mean(terms[1])) / 2
    assert logs["cluster_loss"].item() == pytest.approx(expected, rel=1e-10)
    host = method.siamese(Batch(views))["loss"].item()
    assert logs["loss"].item() == pytest.approx(host + 0.3 * expected, rel=1e-10)
    assert logs["shared_clusters"].item() == pytest.approx(len(shared) / BATCH)
    assert logs["clusters"].item() == pytest.approx(chosen.double().mean().item())
    assert logs["overlap"].item() == 0.75
    before = method.cluster_matcher.centre.clone()
    assert outputs(method, views)["cluster_loss"] == logs["cluster_loss"]  # the centre moves after the step
    method.after_step(0.1)
    mean = np.mean([teacher[v, b, k] for b, k in shared for v in (0, 1)], axis=0)
    assert np.allclose(method.cluster_matcher.centre.numpy(), 0.9 * before.numpy() + 0.1 * mean, atol=1e-12)


def test_steps_equal_the_official_code(monkeypatch):
    """Two epochs with keys of two heads, the last layers frozen in the first; the official seeds are taken over."""
    numbers = golden("croc")
    temperatures = {"student_temperature": 0.3, "teacher_temperature": 0.15}
    host = dino(WithKeys(numbers["mix"]), freeze_last=0.5, **temperatures)
    options = {"prototypes": 9, "seeds": 6, "position_weight": 2.5, "centroid_temperature": 1.5, "weight": 0.7}
    method = CrOC(host, **options).double()
    begin(method, numbers)
    seeds = iter(numbers["seeds"])
    monkeypatch.setattr(JointClustering, "draw", lambda self, cosines: next(seeds))
    logs = []
    combine = method.combine
    monkeypatch.setattr(method, "combine", lambda *a: logs.append(combine(*a)) or logs[-1])
    assigned = []
    clusters = method.clusters
    monkeypatch.setattr(method, "clusters", lambda *a: assigned.append(clusters(*a)) or assigned[-1])

    def views(numbers, step):
        rectangles, flips = numbers["rectangles"][:, step], numbers["flips"][:, step]
        views = [View(n, "global", numbers[n][step], rectangles[v], flips[v]) for v, n in enumerate(("v1", "v2"))]
        return Batch({view.name: view for view in views})

    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.2)
    steps = 0
    for step in follow(method, optimizer, numbers, views):
        found = logs[step][1]
        assert_same(torch.stack(assigned[step][0]).flatten(1, 2), numbers["assignments"][step], f"clusters of {step}")
        assert_same(found["cluster_loss"], numbers["cluster_loss"][step], f"clusters' loss of step {step}")
        assert found["shared_clusters"].item() * 5 == pytest.approx(numbers["valid"][step].item() / 2)
        assert found["clusters"].item() == pytest.approx(numbers["regions"][step].item(), abs=1e-6)
        assert_same(method.cluster_matcher.centre, numbers["cluster_centre"][step], f"clusters' centre after {step}")
        assert_same(method.siamese.matcher.centre, numbers["centre"][step], f"DINO's centre after {step}")
        assert_same(method.prototypes.weight, numbers["last_layer"][step], f"last layer after {step}")
        steps += 1
    assert steps == 6 and numbers["regions"].min() < 4  # not all clusterings are of one size


# -------------------------------------------------------------------- geometry


def test_without_the_position_term_places_do_not_matter():
    method = croc(position_weight=0.0)
    assert outputs(method, make_views())["loss"] == outputs(method, make_views(PLACES[::-1]))["loss"]
    method = croc(position_weight=4.0)
    assert outputs(method, make_views())["loss"] != outputs(method, make_views(PLACES[::-1]))["loss"]


def test_views_that_do_not_overlap_are_clustered_as_others_are():
    logs = outputs(croc(), make_views(([LEFT] * BATCH, [RIGHT] * BATCH)))
    assert logs["overlap"] == 0 and logs["without_clusters"] == 0 and logs["cluster_loss"] > 0


# -------------------------------------------------------------------- clusters that do not count


def test_a_cluster_in_one_view_only_does_not_count_and_leaves_no_gradient(monkeypatch):
    method, views = croc(), make_views()
    clusters = method.clusters

    def apart(*arguments):
        (one, two), chosen = clusters(*arguments)
        one[:, :, :, 2:], two[:, :, :, :2] = 0.0, 0.0
        one[0, :, 0], two[0, :, 0] = torch.eye(4)[0], torch.eye(4)[0]  # the first image: cluster 0 in both
        return [one, two], chosen

    monkeypatch.setattr(method, "clusters", apart)
    logs = outputs(method, views)
    assert logs["shared_clusters"] == 0.25 and logs["without_clusters"] == 0.75 and logs["cluster_loss"] > 0
    with torch.no_grad():
        before = logs["cluster_loss"]
        weights, _ = apart(method.siamese.encode(views), ("v1", "v2"))
        vectors = cluster_vectors(list(method.siamese.encode(views).online.values()), weights)
        assert torch.equal(vectors[0][4 + 2], torch.zeros(CHANNELS))  # an empty cluster
    assert outputs(method, views)["cluster_loss"] == before


def test_without_any_cluster_in_both_views_the_loss_is_dinos_and_the_centre_stays(monkeypatch):
    method, views = croc(), make_views()
    method.cluster_matcher.centre.copy_(torch.linspace(-0.1, 0.2, 9))
    clusters = method.clusters

    def apart(*arguments):
        (one, two), chosen = clusters(*arguments)
        one[:, :, :, 1:], two[:, :, :, :1] = 0.0, 0.0
        return [one, two], chosen

    monkeypatch.setattr(method, "clusters", apart)
    logs = outputs(method, views)
    assert logs["cluster_loss"] == 0 and logs["without_clusters"] == 1
    assert torch.equal(logs["loss"], logs["image_loss"])
    logs["loss"].backward()
    assert torch.equal(method.prototypes.weight.grad, torch.zeros_like(method.prototypes.weight))
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.requires_grad)
    assert method.backbone.conv.weight.grad.abs().sum() > 0
    before = method.cluster_matcher.centre.clone()
    method.after_step(0.1)
    assert torch.equal(method.cluster_matcher.centre, before)


def test_the_distillation_counts_rows_and_not_their_number():
    draw = torch.Generator().manual_seed(0)
    matcher = ClusterDistillation(9, Temperatures(), 0.9).double()
    online, target = torch.randn(2, 6, 9, generator=draw, dtype=torch.float64)
    counted = torch.tensor([True, False, True, False, False, True])
    loss = matcher(online, target, counted)
    assert loss.item() == pytest.approx(matcher(online[counted], target[counted], torch.ones(3) > 0).item(), rel=1e-12)


# -------------------------------------------------------------------- parts


def backbone_of(kind):
    torch.manual_seed(0)
    if kind == "cnn":
        return build_backbone("resnet_tiny", widths=(8, CHANNELS), strides=(1, 2))
    return vit("vit_tiny_patch16_224", img_size=SIDE, patch_size=4, embed_dim=8, depth=2, num_heads=2)


@pytest.mark.parametrize(("kind", "device"), [("cnn", "cpu"), ("vit", "cpu"), ("vit", "meta")])
def test_a_cnn_and_a_vit_take_steps_and_local_views_do_not_change_the_clusters(kind, device):
    method = CrOC(dino(backbone_of(kind)), prototypes=9).to(device)
    views = {name: view.part(slice(0, 4)) for name, view in make_views(extras=("local",)).items()}
    for view in views.values():
        view.images, view.rectangles = view.images.float().to(device), view.rectangles.float().to(device)
        view.flips = view.flips.to(device)
    logs = outputs(method, views)
    logs["loss"].backward()
    assert all(value.shape == () for value in logs.values())
    method.after_backward()
    with torch.no_grad():
        method.after_step(0.5)
    if device == "cpu":
        assert all(torch.isfinite(value) for value in logs.values())
        assert 2 <= logs["clusters"] <= 4 and logs["shared_clusters"] > 0
        method = CrOC(dino(backbone_of(kind)), prototypes=9)
        alone = outputs(method, {name: views[name] for name in ("v1", "v2")})
        assert alone["cluster_loss"].item() == pytest.approx(logs["cluster_loss"].item(), rel=1e-5)


def test_the_clusters_last_layer_is_frozen_as_dinos_is():
    for progress, frozen in ((0.0, True), (0.02, False)):
        method = croc()
        method.siamese.matcher.progress = progress
        outputs(method, make_views())["loss"].backward()
        method.after_backward()
        assert (method.prototypes.weight.grad is None) == frozen == (method.siamese.projector.weight.grad is None)


def test_weight_0_is_dino():
    views = make_views()
    wrapped = CrOC(dino(), weight=0.0).double()
    assert outputs(wrapped, views)["loss"].item() == pytest.approx(outputs(dino().double(), views)["loss"].item())


def test_the_teacher_alone_assigns_and_gets_no_gradient():
    method, views = croc(), make_views()
    outputs(method, views)["cluster_loss"]
    assert not any(value.requires_grad for value in method.cluster_matcher.waiting[None])
    encoded = method.siamese.encode(views)
    torch.manual_seed(0)
    weights, _ = method.clusters(encoded, ("v1", "v2"))
    with torch.no_grad():
        method.backbone.conv.weight.mul_(-2.0)
    torch.manual_seed(0)
    again, _ = method.clusters(method.siamese.encode(views), ("v1", "v2"))
    assert torch.equal(weights[0], again[0]) and torch.equal(weights[1], again[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"most_clusters": 1}, "keeps 2 clusters or more, and at most its 5 seeds, not 1"),
        ({"most_clusters": 6}, "at most its 5 seeds, not 6"),
        ({"iterations": 0}, "1 iteration and 2 prototypes at least, not 0"),
        ({"sharpness": 0.0}, "sharpness is a number above 0, not 0.0"),
        ({"patch_temperature": 0.0}, "patch_temperature is a number above 0"),
        ({"centroid_temperature": -1.0}, "centroid_temperature is a number above 0"),
        ({"weight": -1.0}, "weight is 0 or more, not -1.0"),
        ({"position_weight": -1.0}, "position_weight is 0 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        croc(**options)


def test_another_host_and_maps_that_are_too_small_are_refused():
    with pytest.raises(UsageError, match="needs DINO, not BYOL"):
        CrOC(BYOL(Patches(), dim=8, hidden=10))
    with pytest.raises(
        UsageError, match="20 seeds among the 18 positions of two views; use larger maps or fewer seeds"
    ):
        outputs(croc(seeds=20), make_views())
