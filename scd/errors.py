"""Errors for the user: one line that says what is wrong and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(Exception):
    """A wrong option, name or setting. The command line prints its text and exits with code 2, without a traceback."""


class DataError(UsageError):
    """Images, masks, labels or files that cannot be used; the text names the file, row or column."""


def unknown(kind: str, name: object, valid: Iterable[str]) -> UsageError:
    """The error for a name that does not exist, with the nearest valid name and all valid names.

    Args:
        kind: what was asked for, in the singular ("tier", "arm", "backbone").
        name: what the user wrote.
        valid: every name that would have worked.
    """
    names = sorted(valid)
    nearest = get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f"did you mean '{nearest[0]}'? " if nearest else ""
    return UsageError(f"unknown {kind} '{name}'; {hint}valid: {', '.join(names)}")
