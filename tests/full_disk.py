"""A full disk, for tests of what is written."""

import errno
import os


class FullDisk:
    """Replaces the operating system's fsync on a full disk."""

    def __init__(self, after):
        self.after = after

    def __call__(self, handle):
        self.after -= 1
        if self.after < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
