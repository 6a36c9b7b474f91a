"""The identity of a run: hashes of its configuration and of the code that can change its numbers."""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from scd.errors import UsageError
from studies.suite.planning.settings import source_class

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("scd", "baselines")
ASSEMBLY = "studies.suite.planning.assembly"
PRETRAINING = ("studies.suite.execution.pretraining", ASSEMBLY)
EVALUATION = ("studies.suite.execution.evaluation", "studies.suite.planning.protocols", ASSEMBLY)
MEASUREMENT = ("studies.suite.execution.measurement", ASSEMBLY)
AXES_OF_TRAINING = ("init", "order", "views")  # of seed_of; "probe" belongs to the evaluation


def pretraining_id(config: Mapping[str, Any], inputs: Mapping[str, str] | None = None, fresh: bool = False) -> str:
    """16 hexadecimal digits of a pretraining; equal for equal weights.

    They cover the part of the configuration that can change the weights, the code that it reaches, and the ids of
    earlier runs that it uses. Protocols, test images and the probe's seed are not part of it.

    Args:
        inputs: name of an earlier run in the configuration -> its id.
        fresh: read the code from the disk again instead of keeping this process's first answer.
    """
    part = pretraining_part(config)
    return _hash([canonical(part), dict(inputs or {}), code_of(part, PRETRAINING, fresh)])


def evaluation_id(pretraining: str, config: Mapping[str, Any], protocol: Mapping[str, Any], fresh: bool = False) -> str:
    """16 hexadecimal digits of one protocol's evaluation of a pretraining; the protocol's own name does not count."""
    part = evaluation_part(config, protocol)
    return _hash([pretraining, canonical(part), code_of(part, EVALUATION, fresh)])


def measurement_id(config: Mapping[str, Any], fresh: bool = False) -> str:
    """16 hexadecimal digits of a measurement (cost): its configuration and the code that it reaches."""
    return _hash([canonical(config), code_of(config, MEASUREMENT, fresh)])


def pretraining_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's configuration can change its weights."""
    data = dict(config["data"])
    test_only = _test_options(config)
    data = {key: value for key, value in data.items() if key not in ("title", "test_limit", "probe_l2")}
    data["options"] = {key: value for key, value in data["options"].items() if key not in test_only}
    if data.get("fingerprints"):
        data["fingerprints"] = {"train": data["fingerprints"]["train"]}
    seeds = {axis: seed for axis, seed in config["seed_of"].items() if axis in AXES_OF_TRAINING}
    kept = {key: value for key, value in config.items() if key not in ("data", "evaluation", "seed_of")}
    return {**kept, "data": data, "seed_of": seeds}


def evaluation_part(config: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's configuration can change the numbers of a protocol, given the weights."""
    data, evaluation = config["data"], config["evaluation"]
    options = ("_target_", *_test_options(config))
    probe = config["seed_of"].get("probe")
    return {
        "protocol": {key: value for key, value in protocol.items() if key != "name"},
        "size": evaluation["size"],
        "limits": [evaluation["train_limit"], evaluation["test_limit"], data["test_limit"]],
        "options": {key: value for key, value in data["options"].items() if key in options},
        "fingerprints": data.get("fingerprints"),
        "seed": config["seed"] if probe is None else probe,
    }


def _test_options(config: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(source_class(config["data"]).test_options)


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def canonical(value: Any, where: str = "config") -> Any:
    """The value as JSON knows it: string keys, lists for tuples, whole floats as integers.

    Raises:
        UsageError: a value that JSON cannot hold (an object, NaN), with the path of its key.
    """
    if isinstance(value, Mapping):
        return {str(key): canonical(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and value - value == 0:  # finite
        return int(value) if value.is_integer() else value
    raise UsageError(f"{where} is {value!r}; a run's configuration holds finite numbers, text, lists and mappings only")


def code_of(config: Mapping[str, Any], entries: tuple[str, ...], fresh: bool = False) -> str:
    """Fingerprint of the code that a configuration reaches: entry modules, and every ``_target_``'s module."""
    return code_fingerprint((*entries, *sorted(set(target_modules(config)))), fresh=fresh)


def target_modules(config: Any) -> Iterator[str]:
    """Modules of our packages that the ``_target_`` entries of a configuration name."""
    if isinstance(config, Mapping):
        target = config.get("_target_")
        if isinstance(target, str) and target.split(".")[0] in PACKAGES:
            yield target.rpartition(".")[0]
        for item in config.values():
            yield from target_modules(item)
    elif isinstance(config, list | tuple):
        for item in config:
            yield from target_modules(item)


def code_fingerprint(roots: Iterable[str], base: Path = ROOT, fresh: bool = False) -> str:
    """16 hexadecimal digits of the syntax trees of the modules that ``roots`` reach by import, within our packages.

    Comments, docstrings and layout do not count; names, numbers and structure do. Imports inside functions count too.
    The answer is kept for the life of the process: the code that runs is the code that was imported.

    Args:
        roots: dotted names of modules under ``base``; they count whatever their package.
        fresh: see :func:`fresh_fingerprint`.
    """
    return fresh_fingerprint(roots, base) if fresh else _fingerprint(tuple(roots), base)


def fresh_fingerprint(roots: Iterable[str], base: Path = ROOT) -> str:
    """The same of the files as they lie on the disk at this moment."""
    return _fingerprint.__wrapped__(tuple(roots), base)


@cache
def _fingerprint(roots: tuple[str, ...], base: Path) -> str:
    digest = hashlib.sha256()
    for name in reachable(roots, base):
        digest.update(f"{name}\n{_module(name, _path(name, base)).source}\n".encode())
    return digest.hexdigest()[:16]


def reachable(roots: Iterable[str], base: Path = ROOT) -> list[str]:
    """Sorted names of the roots, their packages, and all that they import, directly or not, within our packages."""
    found: set[str] = set()
    roots = list(roots)
    packages = [package for root in roots for package in _with_parents(root)[:-1]]
    waiting = roots + [name for name in packages if name.split(".")[0] in PACKAGES and _path(name, base)]
    while waiting:
        name = waiting.pop()
        path = _path(name, base)
        if name in found:
            continue
        if path is None:
            raise UsageError(f"module '{name}' is not a file under {', '.join(PACKAGES)}; check the _target_ entries")
        found.add(name)
        for candidate in _module(name, path).imports:
            if candidate not in found and _path(candidate, base):
                waiting.append(candidate)
    return sorted(found)


def _path(module: str, base: Path) -> Path | None:
    stem = base.joinpath(*module.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return path
    return None


def _with_parents(module: str) -> list[str]:
    """Importing a.b.c runs a and a.b as well."""
    parts = module.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)  # the name may be a module itself


class _Module(NamedTuple):
    """What the fingerprint needs of a file: its normalised source, and modules of our packages that it may import."""

    source: str
    imports: tuple[str, ...]


def _module(name: str, path: Path) -> _Module:
    """A file as it is on the disk now; it is parsed again only after it has changed."""
    stat = path.stat()
    return _parsed(name, path, stat.st_mtime_ns, stat.st_size)


@cache
def _parsed(name: str, path: Path, modified: int, size: int) -> _Module:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    imported = _imports(tree, name, path.name == "__init__.py")
    candidates = dict.fromkeys(candidate for module in imported for candidate in _with_parents(module))
    ours = tuple(candidate for candidate in candidates if candidate.split(".")[0] in PACKAGES)
    return _Module(repr(_normal(tree)), ours)


def _normal(node: Any) -> Any:
    """The tree as nested tuples without positions, docstrings and empty fields, so that Python versions agree."""
    if isinstance(node, ast.AST):
        pairs = ((name, _without_docstring(node, name, value)) for name, value in ast.iter_fields(node))
        return (type(node).__name__, *((name, _normal(value)) for name, value in pairs if value not in (None, [])))
    if isinstance(node, list):
        return tuple(_normal(item) for item in node)
    return node


def _without_docstring(node: ast.AST, name: str, value: Any) -> Any:
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if documented and name == "body" and ast.get_docstring(node, clean=False) is not None:
        return value[1:]
    return value
