"""Making placeholders for what is protected and missing, and holding them (tools.md 6.2).

How they are told from other files, and how the last one who holds one removes it: `engine.execution._placeholder`.
"""

from __future__ import annotations

import errno
import fcntl
import os

import attrs

from engine.execution._placeholder import (
    FILE_MODE,
    FOLDER_MODE,
    identity,
    is_marked,
    is_placeholder,
    release_placeholder,
    unmarked,
)
from engine.execution.sandbox.errors import SandboxPolicyError
from engine.execution.sandbox.steady import open_steady
from engine.records import define

__all__ = ["Placeholders"]

# Who can't create something there for one of these reasons need not be kept from it.
_NOBODY_CAN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_ATTEMPTS = 1000  # each is lost only to another command that ends just then, and takes some microseconds


@define
class Placeholders:
    """Those that one command needs.

    `held` are (fd, fd of the folder, name in it), `left_out` the paths that nobody can create.
    """

    held: list[tuple[int, int, str]] = attrs.field(factory=list)
    left_out: list[str] = attrs.field(factory=list)
    _folders: dict[str, int] = attrs.field(factory=dict)

    def make(self, path: str, *, is_folder: bool) -> None:
        """Make one at a path without links, or share that of another command.

        Raises `SandboxPolicyError` when there is something else now, there or on the way.
        """
        folder, _, name = path.rpartition("/")
        try:
            # Opened once for all names in it; each of them has a copy to give away.
            folder_fd = os.dup(self._folders[folder]) if folder in self._folders else open_steady(folder or "/")
        except PermissionError:
            self.left_out.append(path)
            return
        try:
            fd = self._make(folder_fd, name, path, is_folder)
        except BaseException:
            os.close(folder_fd)
            raise
        if fd is None:
            os.close(folder_fd)
            self.left_out.append(path)
        else:
            self.held.append((fd, folder_fd, name))
            self._folders.setdefault(folder, folder_fd)

    def _make(self, folder_fd: int, name: str, path: str, is_folder: bool) -> int | None:
        """A descriptor that holds it; None where nobody can create it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        for _ in range(_ATTEMPTS):
            made = False
            try:
                if is_folder:
                    os.mkdir(name, FOLDER_MODE, dir_fd=folder_fd)
                else:
                    os.close(os.open(name, flags, FILE_MODE, dir_fd=folder_fd))
                made = True
            except FileExistsError:
                pass
            except OSError as exc:
                if exc.errno not in _NOBODY_CAN:
                    raise _failure(path, exc) from exc
                return None
            try:
                fd = _hold(folder_fd, name, path, made)
            except PermissionError:
                return None  # another user's, so nobody here can put anything in
            if fd is not None:
                return fd
            os.sched_yield()
        raise SandboxPolicyError(f"cannot enforce sandbox read-only path {path}: it comes and goes", path=path)

    def release(self) -> None:
        """Give up all of them. Idempotent."""
        held, self.held, self._folders = self.held, [], {}
        for fd, folder_fd, name in held:
            release_placeholder(fd, folder_fd, name)

    def close(self) -> None:
        """Close our descriptors without giving up the hold, which somebody else has taken over. Idempotent."""
        held, self.held, self._folders = self.held, [], {}
        for fd, folder_fd, _ in held:
            os.close(fd)
            os.close(folder_fd)


def _hold(folder_fd: int, name: str, path: str, made: bool) -> int | None:
    """Open and lock one; None when it is gone again: its last user removed it. `made`: it did not exist before."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder_fd)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise
    except OSError as exc:
        raise _failure(path, exc) from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        mine = os.fstat(fd)
        if identity(mine) == identity(os.stat(name, dir_fd=folder_fd, follow_symlinks=False)):
            if made and not is_marked(mine):
                unmarked.add(identity(mine))  # a file system without modes
            if not made and not is_placeholder(mine, fd):
                raise SandboxPolicyError(
                    f"cannot enforce sandbox read-only path {path}: it came into being just now; try again", path=path
                )
            return fd
    except (FileNotFoundError, BlockingIOError):
        pass  # being removed at this moment
    except OSError as exc:
        os.close(fd)
        raise _failure(path, exc) from exc
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _failure(path: str, exc: OSError) -> SandboxPolicyError:
    return SandboxPolicyError(f"cannot enforce sandbox read-only path {path}: {exc.strerror}", path=path)
