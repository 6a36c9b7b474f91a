"""The C library's allocator, told to keep the memory that a training step frees for the step after it."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h
KEEP = 512 * 2**20  # bytes of free memory at the heap's end that are not given back
LARGEST_KEPT = 32 * 2**20  # bytes of an allocation that comes from the heap; glibc allows no more


def keep_freed_memory() -> bool:
    """Stop glibc from giving freed tensors back to the system after every step; elsewhere do nothing.

    A step allocates the same tensors as the step before. By default glibc returns those of some MB to the kernel, and
    the next step pays for every page anew: about half of the time of a batch of views.

    Returns:
        Whether the allocator was told so.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_TRIM_THRESHOLD, KEEP) and libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT))
