"""Images, batches and boxes for the tests of views."""

import torch

from scd.data.loader import ImageBatch


def coordinate_images(count: int, side: int = 64) -> torch.Tensor:
    """(count, 3, side, side) uint8: red is x and green is y of the pixel's centre, times 255; blue is 0."""
    centres = (torch.arange(side) + 0.5) / side * 255
    red = centres.expand(side, side)
    image = torch.stack([red, red.T, torch.zeros(side, side)]).round().to(torch.uint8)
    return image.expand(count, -1, -1, -1).contiguous()


def random_images(count: int, side: int = 48) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def batch_of(images: torch.Tensor, rows: slice | None = None, total: int | None = None, **annotations) -> ImageBatch:
    rows = slice(0, len(images)) if rows is None else rows
    total = len(images) if total is None else total
    return ImageBatch(images, torch.arange(total)[rows], rows, total, annotations=annotations)


def random_boxes(count: int) -> list[torch.Tensor]:
    """0 to 4 boxes of each image."""
    generator = torch.Generator().manual_seed(5)
    out = []
    for number in range(count):
        ends = torch.rand(number % 5, 2, 2, generator=generator).sort(dim=1).values  # (n, low and high, x and y)
        out.append(ends.flatten(1))
    return out
