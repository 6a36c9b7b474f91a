"""Checkpoints: tensors and numbers in one file whose name holds its checksum, written completely or not at all.

``step-00000120-<first 16 hex digits of the file's SHA-256>.pt`` is an ordinary ``torch.save`` archive that
``torch.load(path, weights_only=True)`` reads. The checksum is known before the file is renamed, so that one rename
publishes both; a process killed at any moment leaves the old checkpoints, with or without the new one.
"""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile

import torch
from torch import Tensor

NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{16})\.pt")
UNFINISHED = "writing.tmp"
BLOCK = 1 << 20


class CorruptCheckpoint(Exception):
    """A checkpoint file whose bytes are not those that were written; the text names the file and the reason."""


class HashingFile:
    """A binary file that computes the SHA-256 of what is written to it; ``torch.save`` writes strictly in order."""

    def __init__(self, file):
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def save_checkpoint(folder: Path, step: int, state: dict, keep: int = 2) -> Path:
    """Write a state to disk and remove all but the newest ``keep`` checkpoints.

    The order is: write to a temporary file, fsync, rename, fsync of the folder, only then remove old ones.

    Args:
        folder: created when missing; at most one process writes to it.
        step: number of optimiser steps behind this state.
        state: nested dicts and lists of tensors (any device; stored as CPU tensors), numbers, strings and None.
        keep: how many checkpoints stay, at least 1.

    Raises:
        OSError: the disk is full or not writable; the older checkpoints are intact, the unfinished file is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / UNFINISHED
    try:
        with unfinished.open("wb") as file:
            hashing = HashingFile(file)
            torch.save(on_cpu(state), hashing)
            file.flush()
            os.fsync(file.fileno())
        path = folder / f"step-{step:08d}-{hashing.digest.hexdigest()[:16]}.pt"
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    for _, old in list_checkpoints(folder)[keep:]:
        old.unlink(missing_ok=True)
    return path


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of every checkpoint in a folder, newest first; unfinished and set-aside files are not among them."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := NAME.fullmatch(path.name))]
    return sorted(found, key=lambda item: (item[0], item[1].stat().st_mtime_ns), reverse=True)


def load_checkpoint(path: Path) -> dict:
    """The state in a checkpoint, its tensors on the CPU.

    Raises:
        CorruptCheckpoint: the file is truncated or altered (checksum), unreadable, or holds other objects than tensors
            and numbers.
    """
    match = NAME.fullmatch(path.name)
    if match is None:
        raise CorruptCheckpoint(f"{path.name} is not named like a checkpoint")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    if digest.hexdigest()[:16] != match[2]:
        size = path.stat().st_size
        raise CorruptCheckpoint(f"{path.name} ({size} bytes) does not match its checksum: truncated or altered")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, BadZipFile, RuntimeError, EOFError) as error:
        raise CorruptCheckpoint(f"{path.name} cannot be read: {str(error).splitlines()[0]}") from error


def newest_checkpoint(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint, or None; corrupt ones get the suffix ``.corrupt`` and are reported to ``say``.

    Args:
        folder: of the checkpoints; may be missing.
        say: called with one line for every file that was set aside.
    """
    for _, path in list_checkpoints(folder):
        try:
            load_checkpoint(path)
        except CorruptCheckpoint as error:
            path.rename(path.with_name(path.name + ".corrupt"))
            say(f"checkpoint set aside as {path.name}.corrupt: {error}")
        else:
            return path
    return None


def on_cpu(state):
    """The state with every tensor detached and on the CPU; mappings become plain dicts."""
    if isinstance(state, Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {key: on_cpu(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(on_cpu(value) for value in state)
    return state


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk, so that a rename survives a power failure; POSIX only."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
