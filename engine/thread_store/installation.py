"""The installation id: one UUID per home, agreed on by all processes that share it (session.md 1.1)."""

from __future__ import annotations

import fcntl
import os
import uuid
from os import PathLike

from engine.errors import StoreError

__all__ = ["resolve_installation_id"]

FILE_NAME = "installation_id"
MODE = 0o644
LONGEST = 4096  # a UUID has 45 characters in its longest spelling


def resolve_installation_id(home: PathLike[str] | str) -> str:
    """The id in `<home>/installation_id`, which is made if it is missing or holds none. Blocking, also on its lock.

    What stands in the file stays as it is if it is a UUID in any spelling. Raises `StoreError` if the file can't be
    read or written.
    """
    path = os.path.join(home, FILE_NAME)
    try:
        os.makedirs(home, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            return _resolve(handle)
        finally:
            os.close(handle)
    except OSError as exc:
        raise StoreError(f"failed to resolve the installation id in {path}: {exc}") from exc


def _resolve(handle: int) -> str:
    fcntl.flock(handle, fcntl.LOCK_EX)  # released with the handle
    if os.fstat(handle).st_mode & 0o777 != MODE:
        os.fchmod(handle, MODE)
    try:
        return str(uuid.UUID(os.pread(handle, LONGEST, 0).decode().strip()))
    except ValueError:
        pass
    made = str(uuid.uuid4())
    os.ftruncate(handle, 0)
    os.pwrite(handle, made.encode(), 0)
    os.fsync(handle)
    return made
