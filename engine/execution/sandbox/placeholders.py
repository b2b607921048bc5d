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

__all__ = ["Placeholders"]

# Who can't create something there for one of these reasons need not be kept from it.
_NOBODY_CAN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_ATTEMPTS = 1000  # each is lost only to another command that ends just then, and takes some microseconds


@attrs.define
class Placeholders:
    """Those that one command needs. `held` are (fd, path), `left_out` the paths that nobody can create."""

    held: list[tuple[int, str]] = attrs.field(factory=list)
    left_out: list[str] = attrs.field(factory=list)

    def make(self, path: str, *, is_folder: bool) -> None:
        """Make one, or share that of another command. Raises `SandboxPolicyError` when something else is there now."""
        for _ in range(_ATTEMPTS):
            made = False
            try:
                if is_folder:
                    os.mkdir(path, FOLDER_MODE)
                else:
                    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
                made = True
            except FileExistsError:
                pass
            except OSError as exc:
                if exc.errno not in _NOBODY_CAN:
                    raise _failure(path, exc) from exc
                self.left_out.append(path)
                return
            if self._hold(path, made):
                return
            os.sched_yield()
        raise SandboxPolicyError(f"cannot enforce sandbox read-only path {path}: it comes and goes", path=path)

    def _hold(self, path: str, made: bool) -> bool:
        """False when it is gone again: its last user removed it. `made`: it did not exist before."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except PermissionError:
            self.left_out.append(path)  # another user's, so nobody here can put anything in
            return True
        except OSError as exc:
            raise _failure(path, exc) from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            mine = os.fstat(fd)
            if identity(mine) == identity(os.lstat(path)):
                if made and not is_marked(mine):
                    unmarked.add(identity(mine))  # a file system without modes
                if not is_placeholder(mine, path):
                    raise SandboxPolicyError(
                        f"cannot enforce sandbox read-only path {path}: it came into being just now; try again",
                        path=path,
                    )
                self.held.append((fd, path))
                return True
        except (FileNotFoundError, BlockingIOError):
            pass  # being removed at this moment
        except OSError as exc:
            os.close(fd)
            raise _failure(path, exc) from exc
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return False

    def release(self) -> None:
        """Give up all of them. Idempotent."""
        held, self.held = self.held, []
        for fd, path in held:
            release_placeholder(fd, path)

    def close(self) -> None:
        """Close our descriptors without giving up the hold, which somebody else has taken over. Idempotent."""
        held, self.held = self.held, []
        for fd, _ in held:
            os.close(fd)


def _failure(path: str, exc: OSError) -> SandboxPolicyError:
    return SandboxPolicyError(f"cannot enforce sandbox read-only path {path}: {exc.strerror}", path=path)
