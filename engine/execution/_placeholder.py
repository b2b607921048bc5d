"""Empty files and folders that stand on the host only while a sandboxed command runs (tools.md 6.2).

Something missing can't be protected by a mount, so an empty placeholder is put there, and taken away when the last
command that needs it is gone. Each of them holds a shared `flock` on it, whichever engine it belongs to; who can turn
that into an exclusive one was the last. The lock is on the file itself, so it can't be another one of the same name,
and it ends with its holders, however they end. A date nobody else sets tells a placeholder from an empty folder of the
user's, so that one left behind by a crash is known for what it is.

Also runs in the supervisor process, where every module costs start-up time: nothing but cheap built-in ones here.
"""

from __future__ import annotations

import os
import stat

PLACEHOLDER_MTIME_NS = 981_173_106_123_456_789  # of all placeholders


def is_placeholder(status: os.stat_result) -> bool:
    """Whether a file or folder is one, still empty. (A folder's date changes with its first entry.)"""
    if status.st_mtime_ns != PLACEHOLDER_MTIME_NS:
        return False
    return stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_size == 0)


def same_file(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def release_placeholder(fd: int, path: bytes | str) -> None:
    """Give up one hold on the placeholder behind `fd`, and remove it if nobody else has one. Closes `fd`."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held, found = os.fstat(fd), os.lstat(path)
        if same_file(held, found) and is_placeholder(found):
            (os.rmdir if stat.S_ISDIR(found.st_mode) else os.unlink)(path)
    except OSError:
        pass  # somebody else holds it, somebody put something in, or it is gone
    finally:
        os.close(fd)
