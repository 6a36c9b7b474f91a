"""Output of libraries is hidden inside the blocks and comes back after them, also after an error."""

import logging

import pytest
from datasets import are_progress_bars_disabled

from scd.data.sources.quiet import errors_only, without_progress_bars


def test_progress_bars_come_back():
    with pytest.raises(ValueError), without_progress_bars():
        assert are_progress_bars_disabled()
        raise ValueError
    assert not are_progress_bars_disabled()


def test_warnings_come_back(caplog):
    logger = logging.getLogger("some.library")
    with errors_only("some.library"):
        logger.warning("hidden")
        logger.error("shown")
    logger.warning("shown, too")
    assert [record.message for record in caplog.records] == ["shown", "shown, too"]
