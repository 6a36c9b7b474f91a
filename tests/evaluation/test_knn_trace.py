"""kNN over training: which weights are scored."""

import copy

from tiny_evaluation import context_of, moco, object_source, source_with_random_labels

from scd.evaluation.knn import KNN
from scd.evaluation.knn_trace import KNNOverTraining


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
