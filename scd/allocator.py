"""Settings of the C library's memory allocator (glibc): keep the memory of freed tensors, or return it at once."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h
MIB = 2**20


def keep_freed_memory() -> bool:
    """Keep the memory that a training step frees for the next step, which allocates the same tensors again.

    By default glibc returns tensors of some MB to the kernel, and the next step pays for every page again: about half
    of the time of a batch of views.

    Returns:
        Whether the setting was made; other systems stay as they are.
    """
    return set_thresholds(trim=512 * MIB, mmap=32 * MIB)  # glibc allows no larger mmap threshold


def return_freed_memory() -> bool:
    """Return freed tensors to the system at once, so that the resident set follows the tensors that are alive.

    Otherwise a tensor may lie in pages that were freed before, and seems to need no memory.

    Returns:
        Whether the setting was made; other systems stay as they are.
    """
    return set_thresholds(trim=0, mmap=32 * 1024)


def set_thresholds(trim: int, mmap: int) -> bool:
    """Set glibc's thresholds in bytes.

    Args:
        trim: free memory at the heap's end that is not returned to the system.
        mmap: size from which an allocation has pages of its own, which are returned when it is freed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_TRIM_THRESHOLD, trim) and libc.mallopt(M_MMAP_THRESHOLD, mmap))
