"""A method's saliency maps while it learns: the same test images at fixed points of the training, scored and kept.

Looking changes nothing: the weights stay, no random number is drawn, and BN's running statistics are read only.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from scd.atomic import write_atomically
from scd.data.crops import interpolation_matrix, resample, row_layout
from scd.data.images import ImageSet
from scd.data.views import IMAGENET_MEAN, IMAGENET_STD, normalise
from scd.errors import UsageError
from scd.evaluation.collapse import map_indicators
from scd.evaluation.features import extract_saliency, frozen
from scd.evaluation.saliency import saliency_scores
from scd.training.loop import Observer

SIDE = 0.75  # of the rectangle whose own map is compared with the whole image's
KEPT_NUMBERS = (
    "saliency_iou", "saliency_iou_inverted", "saliency_inverted_share", "saliency_maxf", "saliency_maxf_inverted",
    "map_entropy", "map_saturation", "map_area", "map_std", "view_agreement",
)  # fmt: skip
CORNERS = torch.tensor([[0.0, 0.0], [1 - SIDE, 0.0], [0.0, 1 - SIDE], [1 - SIDE, 1 - SIDE]])  # x0, y0


class MapTrace:
    """Looks at the maps ``points`` times, evenly over the training, and once before it.

    Each look writes ``STEP.json`` (scores) and ``STEP.safetensors`` (the first maps) into ``folder``, so that a run
    which resumes keeps what was seen before.

    Args:
        test: test images; those with masks are scored against them.
        size: side in pixels of the view that the network sees.
        device: where the method lives.
        folder: of the run.
        points: looks after step 0; 0 is no trace.
        images: how many of the test images, the first ones.
        kept: how many of these keep their maps, for pictures.

    Raises:
        UsageError: a negative number.
    """

    def __init__(
        self,
        test: ImageSet,
        size: int,
        device: str | torch.device,
        folder: Path,
        points: int = 4,
        images: int = 500,
        kept: int = 8,
    ):
        for name, value in (("points", points), ("images", images), ("kept", kept)):
            if value < 0:
                raise UsageError(f"evaluation.trace.{name} is 0 or more, not {value}")
        self.test = test.subset(range(min(images, len(test))))
        self.size = size
        self.device = device
        self.folder = Path(folder)
        self.points = points
        self.kept = kept
        self.steps = 0

    def observer(self, method: nn.Module, steps: int | None) -> Observer | None:
        """What the training loop calls; None for a method without maps, or where the number of steps is not known."""
        if steps is None or not self.points or not len(self.test):
            return None
        with frozen(method):
            probe = part_view(self.test.images[:1].to(self.device), torch.zeros(1, 2), 1.0, self.size)
            if method.saliency(probe) is None:
                return None
        self.steps = steps
        places = sorted({round(steps * point / self.points) for point in range(self.points + 1)})
        return Observer(tuple(places), lambda step: self.look(method, step))

    def look(self, method: nn.Module, step: int) -> None:
        """Score the maps as they are and write down what was seen."""
        maps = extract_saliency(method, self.test.images, self.size, device=self.device)
        numbers = map_indicators(maps)
        if self.test.masks is not None:
            numbers |= saliency_scores(maps, self.test.masks)
        agreement = view_agreement(method, self.test.images, maps, self.size, self.device)
        if agreement is not None:
            numbers["view_agreement"] = agreement
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {"maps": maps[: self.kept].cpu().contiguous()}
        text = json.dumps({name: round(numbers[name], 6) for name in KEPT_NUMBERS if name in numbers})
        write_atomically(self.folder / f"{step:08d}.safetensors", lambda path: save_file(kept, path))
        write_atomically(self.folder / f"{step:08d}.json", lambda path: path.write_text(text, encoding="utf-8"))

    def numbers(self) -> dict[str, float]:
        """All looks as flat numbers: ``saliency_iou@0.25`` is the score after a quarter of the training."""
        found = {}
        for path in sorted(self.folder.glob("*.json")):
            share = int(path.stem) / max(self.steps, 1)
            seen = json.loads(path.read_text(encoding="utf-8"))
            found |= {f"{name}@{share:.2f}": value for name, value in seen.items()}
        return found


def view_agreement(
    method: nn.Module, images: Tensor, maps: Tensor, size: int, device: str | torch.device, batch: int = 256
) -> float | None:
    """How much a map depends on the place and not on the view: a correlation in [-1, 1].

    Pearson's correlation, over positions, between the map of a corner rectangle (3/4 of the side, corners in turn over
    the images) and the part of the whole image's map that covers it; mean over the images where both vary. None where
    no image has two maps that vary.

    Args:
        maps: (N, h, w) of the whole images.
    """
    corners = CORNERS[torch.arange(len(images)) % len(CORNERS)]
    seen = []
    with frozen(method):
        for rows in torch.arange(len(images)).split(batch):
            views = part_view(images[rows].to(device), corners[rows], SIDE, size)
            inside = method.saliency(views).float()
            seen.append(correlation(inside, part_of_maps(maps[rows], corners[rows], inside.shape[1:])))
    values = torch.cat(seen)
    values = values[values.isfinite()]
    return float(values.mean()) if len(values) else None


def part_view(images: Tensor, corner: Tensor, side: float, size: int) -> Tensor:
    """Test-time views (B, 3, size, size) of the squares at ``corner`` (B, 2) x0, y0 in [0, 1] of uint8 images."""
    corner = corner.to(images.device)
    across, down = (
        interpolation_matrix(low, low + side, images.shape[2], size)[:, None] for low in corner.unbind(dim=1)
    )
    return normalise(resample(row_layout(images), down, across)[0], IMAGENET_MEAN, IMAGENET_STD)


def part_of_maps(maps: Tensor, corner: Tensor, shape: tuple[int, int]) -> Tensor:
    """The squares at ``corner`` of maps (B, h, w), bilinear, on a grid of ``shape``."""
    h, w = shape
    y = (torch.arange(h, device=maps.device) + 0.5) / h * SIDE
    x = (torch.arange(w, device=maps.device) + 0.5) / w * SIDE
    corner = corner.to(maps.device)
    grid_x = (corner[:, 0, None, None] + x).expand(-1, h, -1)
    grid_y = (corner[:, 1, None, None] + y[:, None]).expand(-1, -1, w)
    grid = torch.stack([grid_x, grid_y], dim=3) * 2 - 1  # (B, h, w, 2) in [-1, 1]
    return F.grid_sample(maps[:, None], grid, mode="bilinear", padding_mode="border", align_corners=False)[:, 0]


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation (B,) over positions of two maps (B, h, w); NaN where one of them does not vary."""
    a, b = (m.flatten(1).double() for m in (first, second))
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    spread = a.norm(dim=1) * b.norm(dim=1)
    varies = (a.abs().amax(dim=1) > 1e-6) & (b.abs().amax(dim=1) > 1e-6)
    return torch.where(varies, (a * b).sum(dim=1) / spread.clamp_min(1e-300), float("nan"))
