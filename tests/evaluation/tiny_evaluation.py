"""Images and methods whose numbers are known, as real sources and real methods."""

import hashlib

import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from torch import nn

from baselines.moco import MoCo
from scd.data.images import ImageSet
from scd.data.sources.source import Source
from scd.evaluation.protocol import Context, EvaluationData
from scd.method import Method
from scd.nn.backbone import build_backbone


def objects(n, seed, correlated, size=16, classes=4):
    """Grey-level objects (level = class) on a background whose blue is its own class; a square object in the middle."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    backgrounds = labels.clone() if correlated else torch.randint(0, classes, (n,), generator=generator)
    masks = torch.zeros(n, size, size, dtype=torch.uint8)
    masks[:, 4:12, 4:12] = 1
    images = torch.zeros(n, 3, size, size)
    images[:, 2] = (40 + 60 * backgrounds)[:, None, None]
    inside = masks.bool()[:, None] & torch.tensor([True, False, False]).view(3, 1, 1)
    images = torch.where(inside, (40 + 60 * labels).view(-1, 1, 1, 1).float(), images * (1 - masks[:, None]))
    images += 4 * torch.rand(images.shape, generator=generator)
    names = tuple(f"class{c}" for c in range(classes))
    return ImageSet(
        images.round().to(torch.uint8), labels=labels, masks=masks, backgrounds=backgrounds, class_names=names
    )


def dataset_of(images, leave_out=()):
    """A data set with the columns of an image set, but those of ``leave_out``."""
    columns = {"image": list(images.images.permute(0, 2, 3, 1).numpy())}
    features = {"image": Image()}
    if images.masks is not None:
        columns["mask"], features["mask"] = list(255 * images.masks.numpy()), Image()
    if images.labels is not None:
        names = images.class_names
        columns["label"] = images.labels.tolist()
        features["label"] = ClassLabel(names=list(names)) if names else Value("int64")
    if images.backgrounds is not None:
        columns["background"], features["background"] = images.backgrounds.tolist(), Value("int64")
    kept = [name for name in columns if name not in leave_out]
    return Dataset.from_dict({name: columns[name] for name in kept}, Features({name: features[name] for name in kept}))


def source_of(leave_out=(), **splits):
    """A source whose splits hold these image sets."""
    datasets = {name: dataset_of(images, leave_out) for name, images in splits.items()}
    prints = {}
    for name, images in splits.items():
        content = [images.images, images.masks, images.labels, images.backgrounds]
        text = str((leave_out, name, [None if part is None else part.tolist() for part in content]))
        prints[name] = hashlib.sha256(text.encode()).hexdigest()[:24]
    names = next(iter(splits.values())).class_names
    masked = any("mask" in dataset.column_names for dataset in datasets.values())
    return Source("tiny", datasets, prints, class_names=names, mask_kind="binary" if masked else None)


def object_source(correlated=True, leave_out=(), train=200, test=80):
    """Training and test images of :func:`objects`."""
    return source_of(leave_out, train=objects(train, 0, correlated), test=objects(test, 1, correlated))


class Channels(nn.Module):
    """A 'backbone' that passes chosen colour channels through: 0 sees the object only, 2 the background only."""

    def __init__(self, *channels):
        super().__init__()
        self.channels = list(channels)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.scale * images[:, self.channels]


class Evaluated(Method):
    """A method that is only evaluated."""

    def forward(self, batch):
        raise NotImplementedError


class ChannelMethod(Evaluated):
    """A method whose map is 1 where the red channel is bright, or that has no map."""

    def __init__(self, *channels, maps=True):
        super().__init__()
        self.backbone = Channels(*channels)
        self.maps = maps

    def saliency(self, view):
        red = view.images[:, 0]
        return (red > red.amin(dim=(1, 2), keepdim=True) + 0.3).float() if self.maps else None


class With(Evaluated):
    """A method of a given backbone and, where it is given, a function from a view to its maps."""

    def __init__(self, backbone, saliency=lambda view: None):
        super().__init__()
        self.backbone = backbone
        self.function = saliency

    def saliency(self, view):
        return self.function(view)


def context_of(method, source, size, canvas=None, seed=0, **options):
    """A context on images of a source, at their own size unless ``canvas`` says otherwise."""
    return Context(method, EvaluationData(source, canvas or size), size, seed, **options)


def moco(seed=0):
    """A small MoCo with a projector."""
    torch.manual_seed(seed)
    return MoCo(build_backbone("resnet_tiny", widths=(8, 8, 8)), dim=3, hidden=4, queue_size=16)


def source_with_random_labels():
    """Accuracies near chance, so that other features give another accuracy."""
    splits = {"train": objects(200, 0, False), "test": objects(80, 1, False)}
    for name, images in splits.items():
        images.labels = torch.randint(0, 4, images.labels.shape, generator=torch.Generator().manual_seed(len(name)))
    return source_of(**splits)
