"""A method around a joint-embedding method: its own loss stays, and a loss on the same feature maps is added."""

import torch
from torch import Tensor, nn

from scd.errors import UsageError
from scd.maps.source import MapSource
from scd.method import Batch, Method, ParameterGroup, Parts, strongest_supervision
from scd.siamese import Encoded, JointEmbedding


class Wrapper(Method):
    """The host's loss and an addition that costs no further pass through the backbone.

    Subclasses implement :meth:`combine`, or :meth:`forward` where the host's own loss changes. Modules that target
    features go through come from ``siamese.target_of(x)`` and are kept as ``target_x``; the host then moves them
    together with its own momentum copies.

    Args:
        siamese: the host: MoCo, BYOL, DINO, SimSiam or another joint-embedding method.

    Attributes:
        addition: what the wrapper adds, in words, for cost profiles.

    Raises:
        UsageError: a host that is no joint-embedding method.
    """

    addition = "addition of the wrapper"

    def __init__(self, siamese: JointEmbedding):
        super().__init__()
        if not isinstance(siamese, JointEmbedding):
            raise UsageError(
                f"{type(self).__name__} needs a method that compares pairs of views as its host, "
                f"not {type(siamese).__name__}"
            )
        self.siamese = siamese
        self.needs = siamese.needs
        self.supervision = siamese.supervision
        self.sources: list[tuple[MapSource, MapSource]] = []  # (online source, its copy for target features)

    def add_source(self, source: MapSource) -> MapSource:
        """Declare what a map source needs and learns from, and follow it in :meth:`after_step`.

        Returns:
            The source for target features, to be kept as ``target_x``.
        """
        self.needs = self.needs | source.needs
        self.supervision = strongest_supervision(self.supervision, source.supervision)
        copy = self.siamese.target_of(source)
        self.sources.append((source, copy))
        return copy

    @property
    def backbone(self) -> nn.Module:
        """The host's online backbone, which is evaluated and exported."""
        return self.siamese.backbone

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        encoded = self.siamese.encode(batch.views)
        image_loss, logs = self.siamese.image_loss(encoded)
        loss, more = self.combine(image_loss, encoded)
        return {"loss": loss, **logs, **more}

    def combine(self, image_loss: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
        """The whole loss from the host's loss and the features of this step, and scalars worth logging.

        A wrapper that needs more than these overrides :meth:`forward`. Without either, nothing is added to the host.
        """
        return image_loss, {}

    def after_backward(self) -> None:
        self.siamese.after_backward()

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """The host's step, then that of the map sources; their copies take over what both branches share."""
        self.siamese.after_step(progress)
        for source, copy in self.sources:
            source.after_step()
            source.share_buffers(copy)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Everything by the host's rules: what is added, a second predictor for example, is trained as the host is."""
        return self.siamese.groups_of(self)

    def scheduled_values(self, progress: float) -> dict[str, float]:
        return self.siamese.scheduled_values(progress)

    def parts(self) -> Parts:
        """The host's parts; everything outside the host's modules is the addition."""
        host = self.siamese.parts()
        functions = {**host.functions, **{(self.siamese, name): host.root for name in ("encode", "image_loss")}}
        return Parts(root=self.addition, modules=host.modules, functions=functions)
