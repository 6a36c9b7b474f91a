"""The trained backbone of a run for other libraries, as a folder with a model card.

    python -m studies.export RUN_FOLDER --naming torchvision --out FOLDER

RUN_FOLDER is the folder of a finished pretraining, ``runs/pretraining/ID``. The exported folder has the weights as
``model.safetensors`` under the names of the library, ``config.json`` for Hugging Face's and timm's loaders, and
``README.md``, the model card: what the run was trained on, and the numbers of its evaluations in the store. The weights
are loaded into a fresh model of the library and their features are compared. Namings: :mod:`scd.export.backbone`.
"""

import argparse
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scd.atomic import disk_full, is_disk_full
from scd.errors import DataError, UsageError
from scd.export.backbone import FORMATS, NAMINGS, export, load_check, read, renamed
from scd.export.card import TAG, model_card
from scd.export.hub import BUILDERS, CARD, CONFIGURATION, READ_BY_THE_MIXIN, WEIGHTS, configuration, difference
from studies.program import exit_code, program
from studies.suite.execution.store import is_intact, read_json
from studies.suite.pages.model_facts import facts_of
from studies.suite.planning.assembly import instantiate

PICKLED = "model.pth"  # of Detectron2, whose checkpointer reads no safetensors
OWN_FILES = {WEIGHTS, CONFIGURATION, CARD, PICKLED}


def main(argv: Sequence[str] | None = None) -> int:
    """Export the backbone of a run and check the folder; the exit code: 0, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog=program("export"), description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished pretraining, runs/pretraining/ID")
    parser.add_argument("--naming", choices=NAMINGS, default="torchvision", help="whose names (default: torchvision)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="new folder to write (default: RUN/exported/NAMING)")
    parser.add_argument("--licence", default="", metavar="TEXT", help="of the images, where they are your own")
    given = parser.parse_args(argv)

    def begin() -> int:
        print(export_run(given.run, given.naming, given.out, given.licence))
        return 0

    return exit_code(begin, "nothing was written")


def export_run(folder: Path, naming: str, out: Path | None, licence: str = "") -> str:
    """Write the folder of a run's backbone, completely or not at all; one line that says what was written and checked.

    Raises:
        UsageError: a folder that cannot be written or holds other files, or a backbone without names in the library.
        DataError: a folder that is not a finished pretraining, or files that do not belong together.
    """
    folder = folder.absolute()
    config, record = finished(folder)
    backbone = backbone_of(folder, config)
    renamed(backbone, naming)
    size = config["evaluation"]["size"]
    out = target(folder, naming, out)
    unfinished = out.with_name(f".writing-{out.name}")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        weights = export(backbone, unfinished / WEIGHTS, naming)
        checked = load_check(weights, backbone, naming, size)
        facts = facts_of(folder, config, record, backbone, licence)
        if naming == "detectron2":
            load_check(export(backbone, unfinished / PICKLED, naming), backbone, naming, size)
        if naming in READ_BY_THE_MIXIN and facts.builder in BUILDERS:
            text = configuration(backbone, facts.builder, facts.options, naming, size)
            (unfinished / CONFIGURATION).write_text(text, encoding="utf-8")
            checked = max(checked, difference(unfinished, backbone, size))
        files = sorted(path.name for path in unfinished.iterdir())
        (unfinished / CARD).write_text(model_card(facts, naming, files), encoding="utf-8")
        move_files(unfinished, out)
    except OSError as error:
        reason = disk_full(out.parent) if is_disk_full(error) else error.strerror or error
        raise UsageError(f"'{out}' cannot be written: {reason}; choose --out=FOLDER") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    said = "names and shapes fit" if naming == "detectron2" else f"features differ by {checked:.1g} at most"
    return (
        f"{out}: {facts.backbone} under the names of {naming}; {said}; "
        f"{CARD} has {len(facts.scores)} numbers of {len({score.evaluation for score in facts.scores})} evaluations"
    )


# ---------------------------------------------------------------- the folders


def finished(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and record of a finished pretraining.

    Raises:
        DataError: the folder is none; the text says what it is, and what to do.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder '{folder}'; give that of a finished pretraining, runs/pretraining/ID")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"'{folder}' is not a run: its config.json cannot be read ({error})") from error
    missing = [key for key in ("backbone", "method", "wrapper", "data", "training", "evaluation") if key not in config]
    if missing:
        raise DataError(f"'{folder}' is no pretraining: its config.json has no '{missing[0]}'")
    if (reason := (read_json(folder / "failure.json") or {}).get("reason")) and not (folder / "done").exists():
        raise DataError(f"run {folder.name} failed: {reason}; give the command of its study again")
    if not (folder / "done").exists():
        raise DataError(f"run {folder.name} has not finished: it is running, or its study goes on with it")
    if not is_intact(folder):
        raise DataError(f"run {folder.name} is damaged: its record does not match its checksum; run its study again")
    return config, read_json(folder / "record.json") or {}


def target(folder: Path, naming: str, out: Path | None) -> Path:
    """The folder to write.

    Raises:
        UsageError: it is a file, holds other files than an earlier export, or has no folder above it.
    """
    if out is None:
        return folder / "exported" / naming
    out = out.absolute()
    if out.suffix in FORMATS and not out.is_dir():
        raise UsageError(f"--out is a folder that gets {WEIGHTS} and {CARD}; '{out.name}' is the name of a file")
    if not out.parent.is_dir():
        raise UsageError(f"'{out}' cannot be written: there is no folder '{out.parent}'")
    if out.exists() and not out.is_dir():
        raise UsageError(f"'{out}' cannot be written: it is a file; choose --out=FOLDER")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    is_earlier = names <= OWN_FILES and CARD in names and TAG in (out / CARD).read_text(errors="replace")
    if names and not is_earlier:
        raise UsageError(f"'{out}' holds other files ({', '.join(sorted(names)[:3])}); choose a new or empty folder")
    return out


def move_files(unfinished: Path, out: Path) -> None:
    """Put complete files in the place of those of an earlier export; the card comes last."""
    out.mkdir(exist_ok=True)
    new = sorted(unfinished.iterdir(), key=lambda path: path.name == CARD)
    for path in new:
        path.chmod(0o644)
        os.replace(path, out / path.name)
    for name in OWN_FILES - {path.name for path in new}:
        (out / name).unlink(missing_ok=True)


def backbone_of(folder: Path, config: Mapping[str, Any]) -> nn.Module:
    """The trained backbone of a pretraining: built from its configuration, with its backbone.safetensors.

    Raises:
        DataError: weights that are missing, or of another backbone (a method may change the one that it is given).
    """
    options = {key: value for key, value in config["backbone"].items() if key != "weights"}  # those of the file count
    with torch.random.fork_rng(devices=[]):
        backbone = instantiate(options)
    state = read(folder / "backbone.safetensors")
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(
            f"'{folder}': backbone.safetensors is not the backbone of its config.json: {' '.join(str(error).split())}"
        ) from error
    return backbone


if __name__ == "__main__":
    raise SystemExit(main())
