"""The words of a command line, in hydra's grammar but for seeds, arms and paths, which are taken as they are."""

import hashlib
import importlib
import os
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scd.errors import DataError, UsageError, unknown
from studies.suite.planning.checks import at, check_axes, check_axes_hold, check_kind
from studies.suite.planning.references import followed, references_in
from studies.suite.planning.settings import PRESETS, Settings
from studies.suite.planning.study import Study, merge

STUDIES = Path(__file__).resolve().parents[2]
CONF = STUDIES / "conf"
GROUPS = ("tier", "data", "method", "backbone", "launcher")
DEFAULTS = {"tier": "cpu", "data": "shapes", "method": "moco"}
RUN_KEYS = (
    "views", "backbone", "method", "wrapper", "annotations", "optimizer", "schedule", "training", "evaluation",
    "seed_of",
)  # fmt: skip
ARGUMENTS = ("method", "wrapper")  # whose words are arguments of one class, and hold for no other
DATA_KEYS = ("title", "size", "stream", "train_limit", "test_limit", "options")
LONGEST_PART = 40  # characters of a page's name that say which options were changed; a longer one is a hash
LONGEST_TITLE = 100  # bytes of a page's name that say which data are meant
UNNAMED = ("evaluation.protocols", "data.locations", "data.title", "data.options.columns", "data.stream")


def study_names() -> list[str]:
    """Names of the studies: the files of ``studies/`` that hold one each."""
    with_study = re.compile(r"^STUDY = ", re.MULTILINE)
    files = [path for path in STUDIES.glob("*.py") if not path.stem.startswith("_")]
    return sorted(path.stem for path in files if with_study.search(path.read_text(encoding="utf-8")))


def load_study(name: str) -> Study:
    """The constant ``STUDY`` of ``studies/NAME.py``.

    Raises:
        UsageError: no such study; the text lists the valid ones.
    """
    if name not in study_names():
        raise unknown("study", name, study_names())
    return importlib.import_module(f"studies.{name}").STUDY


def choices(group: str) -> list[str]:
    """Names of the configurations in ``conf/GROUP``; data may also be a folder of the user's."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def resolve_settings(
    study: str, words: Sequence[str], store: Path | str = "runs", out: Path | str = "reports", command: str = ""
) -> Settings:
    """Settings from words like ``tier=cpu``, ``seeds=5``, ``data=FOLDER``, ``arms=moco,scd``, ``optimizer.lr=0.1``.

    Args:
        study: name of the study; ``conf/study/NAME.yaml`` adds its axes and what its arms share, where it exists.
        words: ``key=value``.

    Raises:
        UsageError: an unknown key, tier, data name, method or launcher (with the valid ones and the nearest), or a
            value that does not fit; in one line.
    """
    given = {}
    for key, value in map(_split, words):
        if key in GROUPS and given.get(key, value) != value:
            raise UsageError(f"{key} is given twice, as {given[key]} and as {value}; give it once")
        given[key] = value
    chosen = {group: given.pop(group) for group in GROUPS if group in given}
    seeds, arms, minutes = (given.pop(word, None) for word in ("seeds", "arms", "minutes"))
    if seeds is not None and minutes is not None:
        raise UsageError("give seeds= or minutes=, not both: seeds= fixes the seeds, minutes= adds seeds in that time")
    path = _data_path(chosen)
    for group, name in chosen.items():
        if name not in choices(group):
            raise unknown(group, name, choices(group))
    selection = [f"{group}={name}" for group, name in chosen.items()]
    if study in choices("study"):
        selection.append(f"+study={study}")
    config = _compose(*selection)
    given = _places_as_locations(given, config)
    _check_keys(given, config)
    usual_protocols = OmegaConf.to_container(config.evaluation.protocols, resolve=True)
    words = [f"{key}={_value(key, value)}" for key, value in given.items() if not key.startswith("presets.")]
    usual = _usual(config)
    config = deepcopy(_compose(*selection, *words))
    OmegaConf.set_struct(config, False)
    if path is not None:
        config.data.locations.path = str(path)
        config.data.title = config.data.title or title_of(path)
    without_data = [word for word in selection if not word.startswith("data=")]
    usual_title = _compose(*without_data).data.title if "data" in chosen else config.data.title
    plain = _plain(config, {key: _parsed(key, value) for key, value in given.items() if key.startswith("presets.")})
    for key in given:
        place = key.lstrip("+~")
        check_kind(key, at(plain, place), at(usual, place))
    check_axes(plain["axes"], usual["axes"])
    data = plain["data"]
    if "left_out" in data["locations"]:
        data["locations"]["left_out"] = [
            *data["locations"]["left_out"],
            *_inside(data["locations"]["path"], store, out),
        ]
    names = {group: chosen.get(group, default) for group, default in DEFAULTS.items()}
    time = _minutes(plain["minutes"] if minutes is None else minutes)
    if time is not None and seeds is None:
        seeds = str(load_study(study).looks[-1])
    shared_protocols = plain["run"].get("evaluation", {}).get("protocols")
    settings = Settings(
        study=study,
        tier=names["tier"],
        seeds=_seeds(plain["seeds"] if seeds is None else seeds),
        base={"data": {key: data[key] for key in DATA_KEYS}, **{key: plain[key] for key in RUN_KEYS}},
        shared=plain["run"],
        given=_given(given, chosen, plain),
        options=_set_by_words(given, ("data",), plain).get("data", {}).get("options", {}),
        arguments=_set_by_words(given, (*ARGUMENTS, "backbone", "presets"), plain),
        data=str(data["title"]),
        locations={key: value for key, value in data["locations"].items() if value not in (None, [])},
        declared=data.get("declared") or {},
        axes=plain["axes"],
        departures={point: text for point, text in plain["deviations"].items() if text},
        presets=plain["presets"],
        arms=tuple(plain["arms"] if arms is None else _list(arms)),
        usual_protocols=tuple(usual_protocols if shared_protocols is None else shared_protocols),
        store=Path(store),
        out=Path(out),
        launcher=plain["launcher"],
        page=_page(
            study,
            str(data["title"]),
            None if path is not None else usual_title,
            names,
            given if arms is None else {"arms": arms, **given},
            chosen,
        ),
        meaningful=plain["meaningful"],
        command=command,
        minutes=time,
    )
    check_axes_hold(settings, given)
    return settings


def _split(word: str) -> tuple[str, str]:
    key, separator, value = word.partition("=")
    if not separator or not key:
        raise UsageError(f"'{word}' is not of the form key=value; for example tier=cpu, seeds=5, data=FOLDER")
    return key, value


def _data_path(chosen: dict[str, str]) -> Path | None:
    """The folder that ``data=`` names, if it names one and not a configuration; the choice is then ``path``."""
    name = chosen.get("data")
    if name is None or name in choices("data"):
        if name == "path":
            raise UsageError("data=path needs the folder itself: data=FOLDER")
        return None
    path = Path(name).expanduser()
    if not path.exists():
        if os.sep in name:
            raise DataError(f"data: '{name}' does not exist; give a folder, or one of {', '.join(choices('data'))}")
        raise unknown("data", name, set(choices("data")) - {"path"} | {"FOLDER"})
    chosen["data"] = "path"
    if "${" in str(path.resolve()):
        raise DataError(f"data: '{path.resolve()}' contains '${{', which no configuration can hold; rename that folder")
    return path.resolve()


def title_of(path: Path) -> str:
    """The name of a folder as the title of its data, in one line.

    Raises:
        DataError: a name that cannot be one.
    """
    title = " ".join(path.name.encode(errors="backslashreplace").decode().split())
    if title in ("", "???"):
        raise DataError(f"data: '{path}' has no name that can be a title; give one: data.title=NAME")
    return title


def _inside(folder: str, *paths: Path | str) -> list[str]:
    """Those of the paths that lie in the folder; they hold results, not the user's images."""
    root, resolved = Path(folder).expanduser().resolve(), [Path(path).resolve() for path in paths]
    return [str(path) for path in resolved if path.is_relative_to(root) and path != root]


@cache
def _compose(*overrides: str) -> DictConfig:
    """The configuration of these overrides; not to be changed."""
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", overrides=list(overrides))
    except OverrideParseException as error:
        raise UsageError(f"cannot read '{error.override}': {_first_line(error)}; quote special characters") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: wrapper=5
        raise UsageError(f"wrong option: {_first_line(error)}") from error


@cache
def presets() -> dict[str, dict[str, Any]]:
    """The configurations that may be named, by group and name; references are not followed yet.

    A file may start from others of its group (``defaults: [NAME, _self_]``); a wrapper's map source may be a name of
    ``map/``.
    """
    read = {
        group: {
            name: OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"), resolve=False)
            for name in choices(group)
        }
        for group in PRESETS
    }
    found = {group: {name: _extended(name, files) for name in files} for group, files in read.items()}
    for wrapper in found["wrapper"].values():
        if isinstance(wrapper.get("saliency"), str):
            wrapper["saliency"] = deepcopy(found["map"][wrapper["saliency"]])
    return found


def _extended(name: str, files: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    own = {key: value for key, value in files[name].items() if key != "defaults"}
    parents = [parent for parent in files[name].get("defaults", []) if parent != "_self_"]
    return merge({}, *(_extended(parent, files) for parent in parents), own)


def _parsed(key: str, value: str) -> Any:
    """A word's value by hydra's grammar."""
    try:
        return OverridesParser.create().parse_override(f"{key}={_value(key, value)}").value()
    except OverrideParseException as error:
        raise UsageError(f"cannot read '{error.override}': {_first_line(error)}; quote special characters") from error


def _plain(config: DictConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as dicts and lists, with all named configurations under ``presets``; references are followed.

    Args:
        changes: key -> value of words that change a preset.
    """
    try:
        for key in sorted(OmegaConf.missing_keys(config)):
            if key != "seeds":
                raise UsageError(f"option '{key}' needs a value: {key}=...")
        config.seeds = None if OmegaConf.is_missing(config, "seeds") else config.seeds
        return _with_presets(config, changes)
    except OmegaConfBaseException as error:
        raise UsageError(f"wrong option: {_first_line(error)}") from error


def _usual(config: DictConfig) -> dict[str, Any]:
    """The configuration without the command line's own words, with ``???`` where it needs one."""
    config = deepcopy(config)
    OmegaConf.set_struct(config, False)
    try:
        return _with_presets(config, {})
    except OmegaConfBaseException as error:
        raise UsageError(f"wrong option: {_first_line(error)}") from error


def _with_presets(config: DictConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as dicts and lists, with the named configurations, all of whose references are followed.

    As nodes of OmegaConf the thousands of values of the named configurations take most of the time of a command line's
    reading. So only their few different references become nodes, unless a word changes one or refers to one.

    Args:
        config: is changed.
        changes: key -> value of words that change a preset.
    """
    named = presets()
    references = list(dict.fromkeys(references_in(named)))
    others = references_in(OmegaConf.to_container(config, resolve=False))
    if (
        changes
        or any("${." in text for text in references)
        or any("presets" in text for text in (*references, *others))
    ):
        config.presets = named
        for key, value in changes.items():
            OmegaConf.update(config, key, value)
        return OmegaConf.to_container(config, resolve=True)
    config.presets = references
    plain = OmegaConf.to_container(config, resolve=True)
    plain["presets"] = followed(named, dict(zip(references, plain["presets"], strict=True)))
    return plain


def _given(given: Mapping[str, str], chosen: Mapping[str, str], plain: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's configuration that the command line set itself: it wins over every recipe."""
    backbone = {"backbone": plain["backbone"]} if "backbone" in chosen else {}
    return _set_by_words(given, [key for key in RUN_KEYS if key not in ARGUMENTS], plain) | backbone


def _set_by_words(given: Mapping[str, str], groups: Sequence[str], plain: Mapping[str, Any]) -> dict[str, Any]:
    """What the words set under these keys of the configuration, nested."""
    nested: dict[str, Any] = {}
    for key in given:
        parts = key.lstrip("+").split(".")
        if key.startswith("~") or parts[0] not in groups:
            continue
        value, place = plain, nested
        for part in parts[:-1]:
            value, place = value[part], place.setdefault(part, {})
        place[parts[-1]] = value[parts[-1]]
    return nested


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _check_keys(given: dict[str, str], config: DictConfig) -> None:
    """Every key of the words must be an option of the configuration, whatever its value."""
    plain = {**OmegaConf.to_container(config, resolve=False), "presets": presets()}
    for key in given:
        if key.startswith(("+", "~")):  # hydra's signs for adding and removing an option
            continue
        if key == "evaluation.further":
            raise UsageError("evaluation.further is part of evaluation.protocols now: evaluation.protocols=[knn,NAME]")
        node, parts = plain, key.split(".")
        for depth, part in enumerate(parts):
            prefix = ".".join(parts[:depth])
            if not isinstance(node, dict):
                raise UsageError(f"option '{prefix}' is a single value and has no '{part}'")
            if part not in node:
                valid = [f"{prefix}.{name}" for name in node] if prefix else [*node, *GROUPS]
                raise unknown("option", key, set(valid))
            node = node[part]


def _places_as_locations(given: Mapping[str, str], config: DictConfig) -> dict[str, str]:
    """Words like ``data.options.root=PATH``, as in earlier versions, become ``data.locations.root=PATH``."""
    moved = {}
    for key, value in given.items():
        name = key.removeprefix("data.options.")
        is_place = name != key and name in config.data.locations and name not in config.data.options
        moved[f"data.locations.{name}" if is_place else key] = value
    return moved


def _value(key: str, value: str) -> str:
    """The value in hydra's grammar; paths are quoted, so that they may hold spaces and commas; lists are not."""
    is_path = key.startswith("data.locations.") or value.startswith(("/", "./", "../", "~/"))
    is_path = is_path and not (value.startswith("[") and value.endswith("]"))
    if is_path and not value.startswith(("'", '"')) and value != "null":
        return "'" + value.replace("'", "\\'") + "'"
    return value


def _seeds(value: Any) -> tuple[int, ...]:
    """``5`` is the seeds 0 to 4; ``3,4`` and ``[3, 4]`` are these two."""
    try:
        numbers = [int(item) for item in (value if isinstance(value, list) else _list(str(value)))]
    except ValueError:
        numbers = []
    is_count = not isinstance(value, list) and len(numbers) == 1 and not str(value).strip().startswith("[")
    seeds = tuple(range(numbers[0])) if is_count else tuple(numbers)
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UsageError(f"seeds={value}: give how many (seeds=5) or which ones, each once (seeds=3,4)")
    return seeds


def _minutes(value: Any) -> float | None:
    """A number above 0, or None."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise UsageError(f"minutes={value}: give a number above 0, for example minutes=20")
    return number


def _list(text: str) -> list[str]:
    return [item.strip() for item in text.strip().strip("[]").split(",") if item.strip()]


def _page(
    study: str,
    data: str,
    usual: str | None,
    names: Mapping[str, str],
    given: Mapping[str, str],
    chosen: Mapping[str, str],
) -> str:
    """The page's name: the study, then whatever differs from its defaults and changes its runs.

    Args:
        usual: title of the study's own data; None for a folder, whose title is always a part of the name.
    """
    parts = [study.replace("_", "-")]
    parts += [_for_file_names(data)] if data != usual else []
    parts += [names[group] for group in ("method", "tier") if names[group] != DEFAULTS[group]]
    changed = {"backbone": chosen["backbone"]} if "backbone" in chosen else {}
    changed |= {key: value for key, value in sorted(given.items()) if _changes_runs(key)}
    if changed:
        readable = "-".join(f"{key.split('.')[-1]}-{_for_lists(value)}" for key, value in changed.items())
        plain = re.fullmatch(r"[\w.-]+", readable, re.ASCII) and len(readable) <= LONGEST_PART
        exact = ",".join(f"{key}={value}" for key, value in changed.items())
        parts.append(readable if plain else hashlib.sha256(exact.encode()).hexdigest()[:8])
    return "-".join(parts)


def _for_file_names(title: str) -> str:
    """A title as a part of a file's name and of a link; a long one ends in a hash."""
    plain = re.sub(r"[^\w.-]+", "-", title).strip("-")
    if plain and len(plain.encode()) <= LONGEST_TITLE:
        return plain
    return f"{plain[:LONGEST_PART]}-{hashlib.sha256(title.encode()).hexdigest()[:8]}".lstrip("-")


def _for_lists(value: str) -> str:
    """A list as a part of a file's name: ``[0.0, 0.8]`` and ``0.0,0.8`` are 0.0-0.8."""
    return re.sub(r"\s*,\s*", "-", value.strip("[] "))


def _changes_runs(key: str) -> bool:
    """Whether a word changes which runs a page has, apart from their seeds, and not only where they are executed.

    More seeds and further protocols complete a page; other arms and axes are another page.
    """
    key = key.lstrip("+~")
    if any(key == name or key.startswith(f"{name}.") for name in UNNAMED):
        return False
    return key.split(".")[0] in (*RUN_KEYS, "arms", "axes", "data", "presets", "sizes", "run")
