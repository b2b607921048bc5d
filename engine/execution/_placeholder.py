"""Empty files and folders that stand on the host only while a sandboxed command runs (tools.md 6.2).

Something missing can't be protected by a mount, so an empty placeholder is put there, and taken away when the last
command that needs it is gone. Each of them holds a shared `flock` on it, whichever engine it belongs to; who can turn
that into an exclusive one was the last. The lock is on the file itself, so it can't be another one of the same name,
and it ends with its holders, however they end. A mode that nobody else uses, given at its creation, tells a placeholder
from an empty folder of the user's, so that one left behind by a crash is known for what it is.

Also runs in the supervisor process, where every module costs start-up time: nothing but cheap built-in ones here.
"""

from __future__ import annotations

import os
import stat

# The sticky bit, which the umask leaves alone, and nothing for others, which it could take away.
FOLDER_MODE, FILE_MODE = 0o1700, 0o1600

# Placeholders of this process on file systems without modes: (device, inode).
unmarked: set[tuple[int, int]] = set()


def identity(status: os.stat_result) -> tuple[int, int]:
    """What stays the same when a file gets another name, and differs when another file gets its name."""
    return status.st_dev, status.st_ino


def is_marked(status: os.stat_result) -> bool:
    """Whether a file or folder was made as a placeholder."""
    mode = status.st_mode
    if mode in (stat.S_IFDIR | FOLDER_MODE, stat.S_IFREG | FILE_MODE):
        return True
    return bool(unmarked) and identity(status) in unmarked


def is_placeholder(status: os.stat_result, path: str | int) -> bool:
    """Whether a file or folder, by its path or descriptor, is one, and nobody put anything in."""
    if not is_marked(status):
        return False
    if stat.S_ISREG(status.st_mode):
        return status.st_size == 0
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except OSError:
        return True  # gone just now


def release_placeholder(fd: int, folder_fd: int, name: bytes | str) -> None:
    """Give up one hold on the placeholder behind `fd`, and remove it if nobody else has one. Closes both.

    It is the entry `name` of `folder_fd`: a path could lead somewhere else by now.
    """
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        if identity(found) == identity(os.fstat(fd)):
            if stat.S_ISDIR(found.st_mode):
                os.rmdir(name, dir_fd=folder_fd)
            elif found.st_size == 0:
                os.unlink(name, dir_fd=folder_fd)
    except OSError:
        pass  # somebody else holds it, somebody put something in, or it is gone
    finally:
        os.close(fd)
        os.close(folder_fd)
