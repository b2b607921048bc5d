"""Holding on to places that other commands may rename or replace while a command is being started."""

from __future__ import annotations

import errno
import os
import stat

from engine.execution.sandbox.errors import SandboxPolicyError

__all__ = ["open_steady"]


def open_steady(path: str) -> int:
    """A descriptor of what is at `path`, with no link anywhere on the way.

    The path had none when the plan was made; if it has one now, somebody is trying to get something else mounted.
    Raises `SandboxPolicyError` then, and `PermissionError` where we may not look.
    """
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open("/", flags)
    try:
        for name in filter(None, path.split("/")):
            above, fd = fd, os.open(name, flags, dir_fd=fd)
            os.close(above)
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    except PermissionError:
        os.close(fd)
        raise
    except OSError as exc:
        os.close(fd)
        raise SandboxPolicyError(
            f"cannot enforce sandbox: {path} changed while the command was being started; try again", path=path
        ) from exc
    return fd
