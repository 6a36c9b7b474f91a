"""Images that are in two sets are counted by all of their pixels."""

import torch

from scd.evaluation.overlap import shared_images


def test_only_equal_images_count():
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(256, (6, 3, 40, 40), dtype=torch.uint8, generator=generator)
    test = torch.randint(256, (4, 3, 40, 40), dtype=torch.uint8, generator=generator)
    assert shared_images(train, test) == 0
    test[0], test[2] = train[5], train[1]
    test[3] = train[4]
    test[3, 0, 1, 1] ^= 1  # a pixel that is not among those looked at first
    assert shared_images(train, test) == 2
    assert shared_images(train[:5].repeat(3, 1, 1, 1), test) == 1
