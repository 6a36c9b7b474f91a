"""Projectors and predictors: small MLPs on pooled features or on tokens."""

from collections.abc import Sequence

from torch import Tensor, nn

from scd.errors import UsageError, unknown
from scd.nn.norm import batch_norm_of

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}
NORMS = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class MLP(nn.Module):
    """Linear layers with a norm and an activation between them; one Linear when ``dims`` has two entries.

    Takes (B, C) or tokens (B, T, C), each token on its own; BN then counts B·T rows. Dimensions go last.

    Args:
        dims: widths from input to output, for example (512, 512, 128) for one hidden layer.
        norm: after every hidden Linear: "none", "batch" or "layer".
        activation: after every hidden norm: "relu" or "gelu".
        bias: whether hidden Linears have a bias.
        last_bias: whether the last Linear has a bias.
        last_norm: the norm after the last Linear: "none", "batch" or "layer".

    Raises:
        UsageError: an unknown norm or activation, or a width below 1.
        ValueError: fewer than two dims.
    """

    def __init__(
        self,
        dims: Sequence[int],
        norm: str = "none",
        activation: str = "relu",
        bias: bool = True,
        last_bias: bool = True,
        last_norm: str = "none",
    ):
        super().__init__()
        if len(dims) < 2:
            raise ValueError(f"an MLP needs an input and an output width, not dims={tuple(dims)}")
        if min(dims) < 1:
            raise UsageError(f"the widths of an MLP are 1 or more, not {tuple(dims)}")
        for name in (norm, last_norm):
            if name not in NORMS:
                raise unknown("norm", name, NORMS)
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, ACTIVATIONS)
        *hidden, last = zip(dims[:-1], dims[1:], strict=True)
        layers: list[nn.Module] = []
        for width_in, width_out in hidden:
            layers.append(nn.Linear(width_in, width_out, bias=bias))
            layers.extend([] if norm == "none" else [NORMS[norm](width_out)])
            layers.append(ACTIVATIONS[activation]())
        layers.append(nn.Linear(*last, bias=last_bias))
        layers.extend([] if last_norm == "none" else [NORMS[last_norm](dims[-1])])
        self.layers = nn.Sequential(*layers)
        self.dim = dims[-1]

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """Embeddings (B, D) of features (B, C), or (B, T, D) of tokens (B, T, C).

        Args:
            x: features or tokens.
            counted: (B,) or (B, T) bool, the rows that BN takes its statistics from; all of them when None.
        """
        rows = x.flatten(0, -2) if x.ndim > 2 else x  # (B·T, C): BatchNorm1d would read (B, T, C) as T channels
        if counted is None:
            return self.layers(rows).view(*x.shape[:-1], self.dim)
        for layer in self.layers:
            is_norm = isinstance(layer, nn.BatchNorm1d)
            rows = batch_norm_of(layer, rows, counted.flatten()) if is_norm else layer(rows)
        return rows.view(*x.shape[:-1], self.dim)
