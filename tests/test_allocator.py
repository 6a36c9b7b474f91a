"""The options that are set in glibc; no option is set in another C library."""

import ctypes
import platform
from types import SimpleNamespace

import pytest

from scd.allocator import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory, return_freed_memory

MIB = 2**20


@pytest.fixture
def calls(monkeypatch):
    """The calls of mallopt, in place of real ones."""
    made = []

    def mallopt(name, value):
        made.append((name, value))
        return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    return made


def test_freed_memory_is_kept(calls):
    assert keep_freed_memory()
    assert calls == [(M_TRIM_THRESHOLD, 512 * MIB), (M_MMAP_THRESHOLD, 32 * MIB)]


def test_freed_memory_is_returned(calls):
    assert return_freed_memory()
    assert calls == [(M_TRIM_THRESHOLD, 0), (M_MMAP_THRESHOLD, 32 * 1024)]


def test_other_libraries_stay_as_they_are(calls, monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", ""))
    assert not keep_freed_memory() and not return_freed_memory() and not calls
