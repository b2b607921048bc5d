"""File operations that fail when told to: no space, I/O errors, short writes."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter, deque

from engine.thread_store.files import FileStatus, RealFiles

__all__ = ["OK", "FaultyFiles", "short"]

OK = 0


def short(count: int) -> int:
    """A write that takes only `count` bytes."""
    return -count


class FaultyFiles:
    """The real operations, with a script of faults.

    - `script` has one entry per call of `write` (and, where `opening` is set, of `create` and `open`): `OK`, an `errno`
      to raise, or `short(n)`; when it is used up, all goes well
    - `broken` is an `errno` for every call as long as it is set
    - `calls` counts; while `gate` is closed, writes wait
    """

    def __init__(self, script: list[int] | None = None, *, opening: bool = False) -> None:
        self.script = deque(script or [])
        self.opening = opening
        self.broken = 0
        self.broken_sync: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.gate = threading.Event()
        self.gate.set()
        self.writing = threading.Event()
        self.open_handles: set[int] = set()
        self.most_open = 0
        self._real = RealFiles()

    def _next(self, scripted: bool) -> int:
        if self.broken:
            raise OSError(self.broken, os.strerror(self.broken))
        fault = self.script.popleft() if scripted and self.script else OK
        if fault > 0:
            raise OSError(fault, os.strerror(fault))
        return -fault

    def make_directories(self, path: str) -> list[str]:
        self.calls["make_directories"] += 1
        self._next(False)
        return self._real.make_directories(path)

    def create(self, path: str) -> int:
        self.calls["create"] += 1
        self._next(self.opening)
        return self._opened(self._real.create(path))

    def open(self, path: str) -> int:
        self.calls["open"] += 1
        self._next(self.opening)
        return self._opened(self._real.open(path))

    def _opened(self, handle: int) -> int:
        self.open_handles.add(handle)
        self.most_open = max(self.most_open, len(self.open_handles))
        return handle

    def status(self, path: str) -> FileStatus | None:
        return self._real.status(path)

    def handle_status(self, handle: int) -> FileStatus:
        return self._real.handle_status(handle)

    def read(self, handle: int, length: int, offset: int) -> bytes:
        return self._real.read(handle, length, offset)

    def copy(self, source: int, target: int, length: int) -> None:
        self._next(False)
        self._real.copy(source, target, length)

    def truncate(self, handle: int, length: int) -> None:
        self._real.truncate(handle, length)

    def add_to(self, path: str, data: bytes) -> None:
        self._next(False)
        self._real.add_to(path, data)

    def rename(self, old: str, new: str) -> None:
        self._real.rename(old, new)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        self.calls["write"] += 1
        self.writing.set()
        self.gate.wait()
        count = self._next(True)
        return self._real.write(handle, data[:count] if count else data)

    def close(self, handle: int) -> None:
        self.open_handles.discard(handle)
        self._real.close(handle)

    def remove(self, path: str) -> None:
        self.calls["remove"] += 1
        self._real.remove(path)

    def remove_directory(self, path: str) -> None:
        self._real.remove_directory(path)

    def sync(self, path: str) -> None:
        self.calls["sync"] += 1
        if path in self.broken_sync:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._real.sync(path)

    def sync_file_system(self, path: str) -> bool:
        self.calls["sync_file_system"] += 1
        return True

    def device(self, path: str) -> int:
        return self._real.device(path)
