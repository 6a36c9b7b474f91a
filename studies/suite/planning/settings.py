"""From the command line's words to settings: hydra composes ``studies/conf``, and a wrong word gets one clear line."""

import importlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scd.errors import DataError, UsageError, unknown
from studies.suite.planning.study import PRESETS, Settings, Study

STUDIES = Path(__file__).resolve().parents[2]
CONF = STUDIES / "conf"
GROUPS = ("tier", "data", "method", "backbone", "launcher")
DEFAULTS = {"tier": "cpu", "data": "shapes", "method": "moco"}
RUN_KEYS = ("views", "backbone", "method", "wrapper", "optimizer", "schedule", "training", "evaluation", "seed_of")
DATA_KEYS = ("name", "size", "stream", "train_limit", "test_limit", "options")


def study_names() -> list[str]:
    """Names of the studies: the files of ``studies/`` that hold one each."""
    return sorted(path.stem for path in STUDIES.glob("*.py") if not path.stem.startswith("_"))


def load_study(name: str) -> Study:
    """The constant ``STUDY`` of ``studies/NAME.py``.

    Raises:
        UsageError: no such study; the text lists the valid ones.
    """
    if name not in study_names():
        raise unknown("study", name, study_names())
    return importlib.import_module(f"studies.{name}").STUDY


def choices(group: str) -> list[str]:
    """Names of the configurations in ``conf/GROUP``; data are also a folder of the user's."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def resolve_settings(
    study: str, words: Sequence[str], store: Path | str = "runs", out: Path | str = "reports", command: str = ""
) -> Settings:
    """Settings from words like ``tier=cpu``, ``seeds=5``, ``data=FOLDER``, ``arms=moco,scd``, ``optimizer.lr=0.1``.

    Args:
        study: name of the study; ``conf/study/NAME.yaml`` adds its axes where it exists.
        words: ``key=value``, in hydra's grammar but for seeds, arms and paths, which are taken as they are.

    Raises:
        UsageError: an unknown key, tier, data name, method or launcher (with the valid ones and the nearest), or a
            value that does not fit; in one line.
    """
    given = dict(_split(word) for word in words)
    chosen = {group: given.pop(group) for group in GROUPS if group in given}
    seeds, arms = given.pop("seeds", None), given.pop("arms", None)
    path = _data_path(chosen)
    for group, name in chosen.items():
        if name not in choices(group):
            raise unknown(group, name, choices(group))
    selection = [f"{group}={name}" for group, name in chosen.items()]
    selection += [f"+{group}@presets.{group}.{name}={name}" for group in PRESETS for name in choices(group)]
    if study in choices("study"):
        selection.append(f"+study={study}")
    config = _compose(selection)
    _check_keys(given, config)
    if given:
        config = _compose([*selection, *(f"{key}={_value(key, value)}" for key, value in given.items())])
    if path is not None:
        config.data.locations.path = str(path)
        config.data.title = config.data.title or path.name
    without_data = [word for word in selection if not word.startswith("data=")]
    usual = _compose(without_data).data.title if "data" in chosen else config.data.title
    plain = _plain(config)
    data = plain["data"]
    names = {group: chosen.get(group, default) for group, default in DEFAULTS.items()}
    return Settings(
        study=study,
        tier=names["tier"],
        seeds=_seeds(plain["seeds"] if seeds is None else seeds),
        base={"data": {key: data[key] for key in DATA_KEYS}, **{key: plain[key] for key in RUN_KEYS}},
        data=data["title"],
        locations={key: value for key, value in data["locations"].items() if value is not None},
        axes=plain["axes"],
        presets=plain["presets"],
        arms=tuple(plain["arms"] if arms is None else _list(arms)),
        store=Path(store),
        out=Path(out),
        launcher=plain["launcher"],
        page=_page(study, data["title"], usual, names),
        meaningful=plain["meaningful"],
        overrides=tuple(words),
        command=command,
    )


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
    return path.resolve()


def _compose(overrides: Iterable[str]) -> DictConfig:
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", overrides=list(overrides))
    except OverrideParseException as error:
        raise UsageError(f"cannot read '{error.override}': {_first_line(error)}; quote special characters") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(f"wrong option: {_first_line(error)}") from error


def _plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as dicts and lists, references followed."""
    presets = {group: {} for group in PRESETS}
    try:
        for key in sorted(OmegaConf.missing_keys(config)):
            if key != "seeds":
                raise UsageError(f"option '{key}' needs a value: {key}=...")
        config.seeds = None if OmegaConf.is_missing(config, "seeds") else config.seeds
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UsageError(f"wrong option: {_first_line(error)}") from error
    return {**plain, "presets": {**presets, **plain.get("presets", {})}}


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _check_keys(given: dict[str, str], config: DictConfig) -> None:
    """Every key of the words must stand in the configuration, whatever its value."""
    plain = OmegaConf.to_container(config, resolve=False)
    for key in given:
        if key.startswith(("+", "~")):  # hydra's signs for adding and removing: meant as such
            continue
        node, parts = plain, key.split(".")
        for depth, part in enumerate(parts):
            prefix = ".".join(parts[:depth])
            if not isinstance(node, dict):
                raise UsageError(f"option '{prefix}' is a single value and has no '{part}'")
            if part not in node:
                valid = [f"{prefix}.{name}" for name in node] if prefix else [*node, *GROUPS]
                raise unknown("option", key, set(valid))
            node = node[part]


def _value(key: str, value: str) -> str:
    """The value in hydra's grammar; paths are quoted, so that they may hold spaces and commas."""
    is_path = key.startswith("data.locations.") or value.startswith(("/", "./", "../", "~/"))
    if is_path and not value.startswith(("'", '"')) and value != "null":
        return "'" + value.replace("'", "\\'") + "'"
    return value


def _seeds(value: Any) -> tuple[int, ...]:
    """``5`` is the seeds 0 to 4; ``3,4`` and ``[3, 4]`` are these."""
    try:
        numbers = [int(item) for item in (value if isinstance(value, list) else _list(str(value)))]
    except ValueError:
        numbers = []
    is_count = not isinstance(value, list) and len(numbers) == 1 and not str(value).strip().startswith("[")
    seeds = tuple(range(numbers[0])) if is_count else tuple(numbers)
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UsageError(f"seeds={value}: give how many (seeds=5) or which ones, each once (seeds=3,4)")
    return seeds


def _list(text: str) -> list[str]:
    return [item.strip() for item in text.strip().strip("[]").split(",") if item.strip()]


def _page(study: str, data: str, usual: str, names: dict[str, str]) -> str:
    """The page's name: the study, then whatever differs from the defaults; its ``usual`` data have no name in it."""
    parts = [study.replace("_", "-")]
    parts += [data] if data != usual else []
    parts += [names[group] for group in ("method", "tier") if names[group] != DEFAULTS[group]]
    return "-".join(parts)
