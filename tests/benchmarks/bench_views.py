"""Views per second: the batched pipeline against pipelines that treat image by image, with MoCo v2's augmentations."""

import random

import pytest
import torch
from PIL import Image, ImageFilter
from torchvision import transforms

from scd.data.loader import ImageBatch
from scd.data.recipes import build_recipe
from scd.data.views import ViewMaker
from scd.nn.normalisation import IMAGENET_MEAN, IMAGENET_STD

BATCH = 128  # images, and two views of each
SIZE = 32  # pixels of a view, cut from the 48 pixels of the tier's images
ROUNDS = 7


class PillowBlur:
    """Gaussian blur of one PIL image with a random radius, as in MoCo v2's code for PIL images."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def per_image_pipeline(size: int) -> transforms.Compose:
    """torchvision's transforms on PIL images, in MoCo v2's order and strength."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.2, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([PillowBlur()], p=0.5),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


@pytest.fixture
def batched(images):
    """Ten batches through the suite's pipeline, all cores; returns the number of views."""
    make = ViewMaker(build_recipe("mocov2", SIZE), seed=0)
    batch = ImageBatch(images[:BATCH], torch.arange(BATCH), slice(0, BATCH), BATCH)

    def run() -> int:
        return sum(view.images.shape[0] for step in range(10) for view in make(batch, step).views.values())

    return run


def test_batched_views_against_a_pillow_pipeline(benchmark, rates, images, batched, cores):
    transform = per_image_pipeline(SIZE)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images[:BATCH]]

    def per_image() -> int:
        return len(torch.stack([transform(picture) for picture in pictures for _ in range(2)]))

    measured = rates({"batched": batched, "per image": per_image}, ROUNDS)
    ratio = measured["batched"] / measured["per image"]
    benchmark.extra_info.update({f"{name}, views/s": round(rate) for name, rate in measured.items()}, ratio=ratio)
    benchmark.pedantic(batched, rounds=3)
    listing = ", ".join(f"{name} {rate:,.0f}" for name, rate in measured.items())
    print(f"\nviews/s on {cores} core(s), the per-image pipeline always in one process: {listing}; ratio {ratio:.1f}")
    assert ratio >= 7 * min(cores, 2)  # 20,000 views/s on two cores against 1,400 of one process


def test_batched_views_against_kornia(benchmark, rates, images, batched, cores):
    augmentation = pytest.importorskip("kornia.augmentation", reason="kornia is not installed: pip install kornia")
    pipeline = augmentation.AugmentationSequential(
        augmentation.RandomResizedCrop((SIZE, SIZE), scale=(0.2, 1.0)),
        augmentation.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        augmentation.RandomGrayscale(p=0.2),
        augmentation.RandomGaussianBlur((3, 3), (0.1, 2.0), p=0.5),
        augmentation.RandomHorizontalFlip(),
        augmentation.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)),
        same_on_batch=False,
    )

    def kornia() -> int:
        return sum(len(pipeline(images[:BATCH].float().div(255))) for _ in range(2))

    measured = rates({"batched": batched, "kornia": kornia}, ROUNDS)
    ratio = measured["batched"] / measured["kornia"]
    benchmark.extra_info.update({f"{name}, views/s": round(rate) for name, rate in measured.items()}, ratio=ratio)
    benchmark.pedantic(batched, rounds=3)
    listing = ", ".join(f"{name} {rate:,.0f}" for name, rate in measured.items())
    print(f"\nviews/s on {cores} core(s): {listing}; ratio {ratio:.1f}")
    assert ratio >= 2  # 20,000 against 8,000 views/s on two cores
