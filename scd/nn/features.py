"""The output of a backbone as feature maps and one vector per image."""

from torch import Tensor


def maps_and_vector(output: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Feature maps (B, C, h, w) and a vector (B, C) per image, from a backbone's output.

    Maps alone have their spatial mean as the vector; a backbone with a token for the whole image (a ViT's CLS) returns
    both.
    """
    if isinstance(output, tuple):
        return output
    return output, output.mean(dim=(2, 3))
