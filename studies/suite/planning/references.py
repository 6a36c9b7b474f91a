"""References, texts like ``${sizes.dim}``, in a configuration of dicts and lists."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any


def references_in(value: Any) -> Iterator[str]:
    """Every text with a reference in nested dicts and lists, in their order."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from references_in(part)
    elif isinstance(value, str) and "${" in value:
        yield value


def followed(value: Any, found: Mapping[str, Any]) -> Any:
    """A copy of nested dicts and lists with values in the place of references.

    Args:
        found: text of a reference -> its value, of which every place receives a copy.
    """
    if isinstance(value, dict):
        return {key: followed(part, found) for key, part in value.items()}
    if isinstance(value, list):
        return [followed(part, found) for part in value]
    return deepcopy(found[value]) if isinstance(value, str) and value in found else value
