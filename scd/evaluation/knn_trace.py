"""The accuracy of kNN over the training: the same images, with the weights of several points in training."""

from dataclasses import dataclass, replace

from scd.evaluation.knn import KNN
from scd.evaluation.map_trace import methods_over_training
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.protocol import Context


@dataclass(kw_only=True)
class KNNOverTraining(KNN):
    """kNN at each snapshot of the training, and at its end; arguments and errors as of :class:`scd.evaluation.knn.KNN`.

    The accuracy after a share of the training is called ``knn_over_training@SHARE``, for example
    ``knn_over_training@0.25``. A run without snapshots has no numbers.
    """

    def definitions(self) -> dict[str, Metric]:
        return {"knn_over_training": Metric("kNN top-1 over training", SHARE, "higher", self.words)}

    def measure(self, context: Context) -> dict[str, float]:
        numbers = {}
        for share, method in methods_over_training(context):
            then = replace(context, method=method, known={})  # a copy that changes its weights shares no features
            numbers[f"knn_over_training@{share}"] = self.accuracy(then)
        return numbers
