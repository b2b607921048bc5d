"""The disk as verification and application see it: a protocol of five calls, the real one and one in memory.

All calls block: run them in a worker thread. A handler that must not read or write everything wraps the real one.
"""

from __future__ import annotations

import enum
import errno
import os
import posixpath
import stat
from collections.abc import Mapping
from typing import Protocol

from engine.records import frozen
from engine.tools.apply_patch.errors import NotAFile

__all__ = ["FileKind", "FileSystem", "MemoryFileSystem", "PathStatus", "RealFileSystem"]


class FileKind(enum.Enum):
    """What a path leads to, symbolic links followed."""

    ABSENT = "absent"
    FILE = "file"
    DIRECTORY = "directory"
    OTHER = "other"


@frozen
class PathStatus:
    """`kind` is what the path leads to; `symlink` says that the path itself is a link, dangling ones included."""

    kind: FileKind
    symlink: bool = False


class FileSystem(Protocol):
    """What a patch needs of the disk. Paths are absolute and lexically normalised; failures are `OSError`s."""

    def status(self, path: str) -> PathStatus:
        """What is there now. A path that can't be looked at reads as absent."""
        ...

    def read_bytes(self, path: str) -> bytes:
        """The content of a regular file; `NotAFile` for anything else that exists."""
        ...

    def write_bytes(self, path: str, data: bytes) -> None:
        """Replace the content in place, links followed, mode kept; creates the file but not its folders."""
        ...

    def make_parents(self, path: str) -> None:
        """Create the missing folders above `path`."""
        ...

    def remove_file(self, path: str) -> None:
        """Remove a file or a link to one."""
        ...


class RealFileSystem:
    """The machine's own file system, with this process's rights."""

    def status(self, path: str) -> PathStatus:
        try:
            own = os.lstat(path).st_mode
        except (OSError, ValueError):
            return PathStatus(FileKind.ABSENT)
        if not stat.S_ISLNK(own):
            return PathStatus(_kind(own))
        try:
            return PathStatus(_kind(os.stat(path).st_mode), symlink=True)
        except OSError:
            return PathStatus(FileKind.ABSENT, symlink=True)

    def read_bytes(self, path: str) -> bytes:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer that may never come.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NotAFile(path)
            return file.read()

    def write_bytes(self, path: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
            file.write(data)

    def make_parents(self, path: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)

    def remove_file(self, path: str) -> None:
        os.unlink(path)


def _kind(mode: int) -> FileKind:
    if stat.S_ISREG(mode):
        return FileKind.FILE
    return FileKind.DIRECTORY if stat.S_ISDIR(mode) else FileKind.OTHER


class MemoryFileSystem:
    """Files and folders in two sets, without links: for tests and dry runs. The errors are the real ones."""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self.files: dict[str, bytes] = dict(files or {})
        self.directories: set[str] = {"/"}
        for path in self.files:
            self._add_folders(posixpath.dirname(path))

    def status(self, path: str) -> PathStatus:
        if path in self.files:
            return PathStatus(FileKind.FILE)
        return PathStatus(FileKind.DIRECTORY if path in self.directories else FileKind.ABSENT)

    def read_bytes(self, path: str) -> bytes:
        self._check_parents(path)
        if path in self.directories:
            raise NotAFile(path)
        if path not in self.files:
            raise _os_error(errno.ENOENT, path)
        return self.files[path]

    def write_bytes(self, path: str, data: bytes) -> None:
        self._check_parents(path)
        if path in self.directories:
            raise _os_error(errno.EISDIR, path)
        self.files[path] = data

    def make_parents(self, path: str) -> None:
        parent = posixpath.dirname(path)
        for folder in _ancestors(path):
            if folder in self.files:
                raise _os_error(errno.EEXIST if folder == parent else errno.ENOTDIR, folder)
        self._add_folders(parent)

    def remove_file(self, path: str) -> None:
        self._check_parents(path)
        if path in self.directories:
            raise _os_error(errno.EISDIR, path)
        if self.files.pop(path, None) is None:
            raise _os_error(errno.ENOENT, path)

    def _check_parents(self, path: str) -> None:
        for folder in _ancestors(path):
            if folder in self.files:
                raise _os_error(errno.ENOTDIR, path)
            if folder not in self.directories:
                raise _os_error(errno.ENOENT, path)

    def _add_folders(self, path: str) -> None:
        self.directories.update(_ancestors(path))
        self.directories.add(path)


def _ancestors(path: str) -> list[str]:
    """The folders above `path`, outermost first."""
    above: list[str] = []
    while (parent := posixpath.dirname(path)) != path:
        above.append(parent)
        path = parent
    return above[::-1]


def _os_error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)
