"""The trained backbone of a run under the names of another library.

    python -m studies.export RUN_FOLDER --naming torchvision --out resnet50.safetensors

RUN_FOLDER is the folder of a finished pretraining, ``runs/pretraining/ID``. The exported file is loaded into a fresh
model of the library and its features are compared. Namings: see :mod:`scd.export.backbone`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from scd.errors import DataError, UsageError
from scd.export.backbone import NAMINGS, export, load_check, read
from studies.suite.planning.assembly import instantiate


def backbone_of(folder: Path) -> nn.Module:
    """The trained backbone of a finished pretraining: built from its config.json, with its backbone.safetensors.

    Raises:
        DataError: a folder without these files, or files that do not belong together.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["backbone"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"'{folder}' is not a run: its config.json cannot be read ({error})") from error
    with torch.random.fork_rng(devices=[]):
        backbone = instantiate(config)
    state = read(folder / "backbone.safetensors")
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(
            f"'{folder}': backbone.safetensors is not the backbone of its config.json: {' '.join(str(error).split())}"
        ) from error
    return backbone


def main(argv: Sequence[str] | None = None) -> int:
    """Export the backbone of a run and check the file; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m studies.export", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished pretraining")
    parser.add_argument("--naming", choices=NAMINGS, default="torchvision", help="whose names (default: torchvision)")
    parser.add_argument("--out", type=Path, help="file to write; default: RUN/NAMING.safetensors, detectron2.pth")
    given = parser.parse_args(argv)
    ending = ".pth" if given.naming == "detectron2" else ".safetensors"
    try:
        backbone = backbone_of(given.run)
        path = export(backbone, given.out or given.run / f"{given.naming}{ending}", given.naming)
        difference = load_check(path, backbone, given.naming)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    checked = "names and shapes fit" if given.naming == "detectron2" else f"features differ by {difference:.1g} at most"
    print(f"{path}: {getattr(backbone, 'name', 'backbone')} under the names of {given.naming}; {checked}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
