"""Classification by the nearest class centroid of frozen features."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from scd.evaluation.labels import accuracy
from scd.evaluation.metric import SHARE, Metric
from scd.evaluation.protocol import Context, EvaluationData, Protocol


@dataclass(kw_only=True)
class Centroid(Protocol):
    """Top-1 accuracy of the nearest centroid by cosine."""

    def definitions(self) -> dict[str, Metric]:
        text = "the class whose mean l2-normalised training feature has the largest cosine with the test feature"
        return {"centroid_top1": Metric("centroid top-1", SHARE, "higher", text)}

    def applies(self, data: EvaluationData) -> bool:
        return data.has("label")

    def measure(self, context: Context) -> dict[str, float]:
        train, test = (F.normalize(context.features(part), dim=1) for part in ("train", "test"))
        labels = context.data.train.labels
        centroids = torch.stack([train[labels == c].mean(dim=0) for c in labels.unique()])
        predicted = labels.unique()[(test @ F.normalize(centroids, dim=1).T).argmax(dim=1)]
        return {"centroid_top1": accuracy(predicted, context.data.test.labels)}
