"""Less output from the data libraries."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from datasets import disable_progress_bars, enable_progress_bars


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Hide the progress bars of ``datasets``."""
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def errors_only(name: str) -> Iterator[None]:
    """Hide the warnings of the logger of this name."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
