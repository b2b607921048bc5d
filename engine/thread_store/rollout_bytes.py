"""The bytes of a rollout file as they were when it was opened, read piece by piece."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import final

from engine.errors import StoreError, ThreadNotFound

__all__ = ["RolloutBytes"]


@final
class RolloutBytes:
    """A `ByteSource` over an open file. What was appended since is not seen; a file that was moved or removed stays
    readable.

    The handle is given back with the last reference: a worker thread may still read while nobody waits for it.
    """

    __slots__ = ("_handle", "identity", "path", "size")

    def __init__(self, path: Path) -> None:
        """Opens it. Raises `ThreadNotFound`, `StoreError`."""
        self._handle = -1
        self.path = path
        try:
            # Not to wait for a writer where the name is that of a pipe.
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            found = os.fstat(self._handle)
        except FileNotFoundError as exc:
            raise ThreadNotFound(f"no rollout found at {path}", thread=str(path)) from exc
        except OSError as exc:
            raise StoreError(f"failed to read {path}: {exc}") from exc
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise StoreError(f"failed to read {path}: it is no regular file")
        self.identity = found.st_dev, found.st_ino
        self.size = found.st_size

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Gives the handle back; nothing can be read any more. For who knows that nobody else reads. Idempotent."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def read(self, start: int, end: int) -> bytes:
        """See `ByteSource`. Raises `StoreError`, also where the file was cut since it was opened."""
        try:
            data = os.pread(self._handle, end - start, start)
            while start + len(data) < end:  # it was interrupted, or asked for more than one read gives
                more = os.pread(self._handle, end - start - len(data), start + len(data))
                if not more:
                    raise StoreError(f"{self.path} was cut while it was being read")
                data += more
        except OSError as exc:
            raise StoreError(f"failed to read {self.path}: {exc}") from exc
        return data
