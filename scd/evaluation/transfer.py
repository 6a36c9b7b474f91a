"""Transfer: other protocols on other images than those of pretraining, with the same frozen backbone."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from scd.errors import UsageError
from scd.evaluation.knn import KNN
from scd.evaluation.linear import Linear
from scd.evaluation.metric import Metric
from scd.evaluation.protocol import Context, EvaluationData, Protocol


@dataclass(kw_only=True)
class Transfer(Protocol):
    """Runs protocols on the images of ``data``, which must be given, and puts ``prefix`` before their numbers' names.

    Args:
        data: the images, with a split "train" and a split "test" or "validation".
        prefix: for example "centric_" for ``centric_linear_top1``.
        protocols: what is run; those that do not apply to the images are left out.
        title: of the images, in the labels of the numbers; None for the name of the data.

    Raises:
        UsageError: no images, no prefix or no protocol.
    """

    protocols: Sequence[Protocol] = field(default_factory=lambda: (KNN(), Linear()))
    title: str | None = None

    def __post_init__(self) -> None:
        if self.data is None or not self.prefix or not len(self.protocols):
            raise UsageError("transfer needs images (data), a prefix for the names of its numbers, and protocols")

    def definitions(self) -> dict[str, Metric]:
        title = self.data.name if self.title is None else self.title
        return {
            name: metric._replace(label=f"{title}: {metric.label}")
            for protocol in self.protocols
            for name, metric in protocol.metrics.items()
        }

    def applies(self, data: EvaluationData) -> bool:
        return any(protocol.applies(protocol.own_data(data)) for protocol in self.protocols)

    def check(self, data: EvaluationData) -> None:
        for protocol in self.protocols:
            if protocol.applies(protocol.own_data(data)):
                protocol.check(protocol.own_data(data))

    def measure(self, context: Context) -> dict[str, float]:
        return {name: value for protocol in self.protocols for name, value in protocol(context).items()}
