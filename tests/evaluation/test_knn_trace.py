"""kNN over training: which weights are scored."""

import copy

import torch
from tiny_evaluation import context_of, object_source, objects, source_of

from baselines.moco import MoCo
from scd.evaluation.knn import KNN
from scd.evaluation.knn_trace import KNNOverTraining
from scd.nn.backbone import build_backbone


def moco(seed):
    torch.manual_seed(seed)
    return MoCo(build_backbone("resnet_tiny", widths=(8, 8, 8)), dim=3, hidden=4, queue_size=16)


def source_with_random_labels():
    """Accuracies near chance, so that other features give another accuracy."""
    splits = {"train": objects(200, 0, False), "test": objects(80, 1, False)}
    for name, images in splits.items():
        images.labels = torch.randint(0, 4, images.labels.shape, generator=torch.Generator().manual_seed(len(name)))
    return source_of(**splits)


def test_each_snapshot_and_the_end_are_scored_with_their_own_weights():
    method, source, options = moco(0), source_with_random_labels(), {"k": 5, "features": "projection"}
    snapshots = {1.0: method.evaluated_state(), 0.3333: moco(1).evaluated_state(), 0.6667: moco(2).evaluated_state()}
    numbers = KNNOverTraining(**options)(context_of(method, source, 16, snapshots=copy.deepcopy(snapshots)))
    expected = [KNN(**options)(context_of(moco(seed), source, 16))["knn_top1"] for seed in (1, 2, 0)]
    assert list(numbers.items()) == list(
        zip([f"knn_over_training@{share}" for share in ("0.3333", "0.6667", "1.00")], expected, strict=True)
    )
    assert len(set(expected)) == 3


def test_a_run_without_snapshots_has_no_numbers():
    assert KNNOverTraining()(context_of(moco(0), object_source(), 16)) == {}
