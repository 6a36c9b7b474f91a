"""Reading a file of weights that somebody else wrote: nothing in it is run, and a bad file ends in one clear line.

PyTorch's files are read with ``weights_only=True``. The classes that it may build beside tensors are named in
``HARMLESS``, and those that the caller adds: containers of options that published checkpoints carry (DINO's and MAE's
``args``, hydra's configuration). They hold values and run no code.
"""

import argparse
import collections
import hashlib
import pathlib
import pickle
import re
import typing
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scd.errors import DataError

HARMLESS = [
    argparse.Namespace,
    collections.defaultdict,
    dict,
    int,
    list,
    typing.Any,
    pathlib.PosixPath,
    np.dtype,
    np.ndarray,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    type(np.dtype(np.int64)),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    (np._core.multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
]
OTHER_FILES = (  # how a file begins -> what it is, and what to do
    (b"Salted__", "it is encrypted (openssl); decrypt it first"),
    (b"age-encryption.org", "it is encrypted (age); decrypt it first"),
    (b"-----BEGIN", "it is encrypted, or a key; decrypt it first"),
    (b"\x8c\x0d\x04", "it is encrypted (gpg); decrypt it first"),
    (b"\x85\x02", "it is encrypted (gpg); decrypt it first"),
    (b"version https://git-lfs", "it is a pointer of Git LFS and not the file itself; fetch it with 'git lfs pull'"),
    (b"<!DOCTYPE", "it is a web page: the download did not give the file; download it again"),
    (b"<html", "it is a web page: the download did not give the file; download it again"),
    (b"\x1f\x8b", "it is compressed (gzip); unpack it first"),
    (b"\xfd7zXZ", "it is compressed (xz); unpack it first"),
    (b"BZh", "it is compressed (bzip2); unpack it first"),
)
ADDRESS = re.compile(r"\w+:/+\w")  # pathlib makes one slash of two
PICKLE = b"\x80"
OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # PyTorch's files before version 1.6
TRUNCATED = "it is truncated or damaged; copy or download it again"
SAVE = "save its weights alone, torch.save(model.state_dict(), FILE), and give that file"
NOT_WEIGHTS = ("optimizer", "scheduler", "scaler", "amp", "callbacks", "loops", "hyper_parameters", "ema_optimizer")
DEEPEST = 3  # mappings inside mappings that are looked into


@dataclass(frozen=True)
class Contents:
    """The tensors of a file.

    Attributes:
        path: of the file; sha256: of its bytes, in hexadecimal.
        tables: where in the file ("" at the top, "state_dict", "teacher", ...) -> name -> tensor.
        others: names of what else stands at the top, for example "epoch" and "optimizer".
    """

    path: Path
    sha256: str
    tables: dict[str, dict[str, Tensor]]
    others: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The file's name, for messages."""
        return f"'{self.path.name}'"


def read_checkpoint(path: Path | str, harmless: Sequence[type] = ()) -> Contents:
    """The tensors of a file of PyTorch (.pth, .pt, .tar, .ckpt, .bin) or of safetensors, whatever its name ends in.

    Args:
        path: of the file.
        harmless: further classes that it may hold, beside tensors and those of ``HARMLESS``.

    Raises:
        DataError: a file that does not exist, is encrypted, compressed, truncated or of another kind, that holds
            pickled objects, or that holds no tensors. The text says what to do.
    """
    path = Path(path).expanduser()
    if ADDRESS.match(str(path)):
        raise DataError(f"checkpoint: '{path}' is an address; download the file, and give its path")
    if not path.exists():
        raise DataError(f"checkpoint: '{path}' does not exist; give the path of a file of weights")
    if path.is_dir():
        raise DataError(f"checkpoint: '{path}' is a folder; give the file of weights in it")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise DataError(f"checkpoint: '{path}' cannot be read: {error.strerror or error}") from error
    if reason := _foreign(path, start):
        raise _unreadable(path, reason)
    loaded = _safetensors(path) if _is_safetensors(path, start) else _pytorch(path, harmless)
    tables = dict(_tables(loaded))
    if not tables:
        kind = f"a {type(loaded).__name__}" if not isinstance(loaded, Mapping) else f"only {_listed(loaded)}"
        raise _unreadable(path, f"it holds {kind} and no named tensors; {SAVE}")
    others = tuple(str(key) for key, value in loaded.items() if not isinstance(value, Tensor))
    return Contents(path, sha256_of(path), tables, tuple(name for name in others if name not in tables))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _foreign(path: Path, start: bytes) -> str:
    """Why a file that begins like this is no file of weights; empty where it may be one."""
    if not start:
        return "it is empty; copy or download it again"
    for beginning, reason in OTHER_FILES:
        if start.startswith(beginning):
            return reason
    if start.startswith(PICKLE) and not start.startswith(OLD_TORCH) and not _is_safetensors(path, start):
        return f"it is a plain pickle, which could run code and is not read; load it where you trust it and {SAVE}"
    if not start.startswith(b"PK"):
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError):
        return TRUNCATED
    if any(entry.flag_bits & 1 for entry in entries):
        return "it is encrypted (a zip archive with a password); unpack it first"
    names = [entry.filename for entry in entries]
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        return f"it is a TorchScript program, which is code; load it where you trust it and {SAVE}"
    if not any(name.endswith("data.pkl") for name in names):
        return "it is a zip archive and no file of PyTorch; unpack it first"
    return ""


def _is_safetensors(path: Path, start: bytes) -> bool:
    return path.suffix == ".safetensors" or start[8:9] == b"{"


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, f"{TRUNCATED} ({_first_line(error)})") from error


def _pytorch(path: Path, harmless: Sequence[type]) -> Any:
    """What a file of PyTorch holds; of classes only those of ``HARMLESS`` and ``harmless``."""
    try:
        with torch.serialization.safe_globals([*HARMLESS, *harmless]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|function|class) '?([\w.]+)", str(error))
        if found:
            name = found.group(1)
            raise _unreadable(
                path, f"it holds a pickled object ({name}), which could run code and is not read; {SAVE}"
            ) from error
        raise _unreadable(path, f"it is no file of weights, or {TRUNCATED.removeprefix('it is ')}") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise _unreadable(path, f"{TRUNCATED} ({_first_line(error)})") from error


def _tables(value: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping of names to tensors, outermost first, but for the state of optimisers and the like."""
    if not isinstance(value, Mapping):
        return
    tensors = {key: _tensor(item) for key, item in value.items() if isinstance(key, str) and _is_tensor(item)}
    if tensors:
        yield place, tensors
    for key, item in value.items():
        if isinstance(key, str) and depth < DEEPEST and not key.startswith(NOT_WEIGHTS):
            yield from _tables(item, f"{place}.{key}" if place else key, depth + 1)


def _is_tensor(item: Any) -> bool:
    return isinstance(item, Tensor) or (isinstance(item, np.ndarray) and item.dtype.kind == "f")


def _tensor(item: Any) -> Tensor:
    """A tensor that is not quantised, without gradient; Detectron2's files hold NumPy arrays."""
    return torch.from_numpy(item) if isinstance(item, np.ndarray) else item.detach()


def _listed(loaded: Mapping[Any, Any]) -> str:
    names = [str(key) for key in list(loaded)[:5]]
    return f"the entries {', '.join(names)}" if names else "an empty mapping"


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(f"checkpoint '{path}' cannot be read: {reason}")


def _first_line(error: Exception) -> str:
    with suppress(StopIteration):
        return next(line.strip() for line in str(error).splitlines() if line.strip())[:160]
    return type(error).__name__
