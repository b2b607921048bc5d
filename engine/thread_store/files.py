"""The file operations of the writer, as a seam: the real ones, and the place where tests put failing ones."""

from __future__ import annotations

import os
from typing import Protocol

__all__ = ["FileOperations", "RealFiles"]


class FileOperations(Protocol):
    """Blocking calls on files; all raise `OSError`. Paths are absolute."""

    def make_directories(self, path: str) -> list[str]:
        """Makes a directory and its missing parents; those that were made, innermost first."""

    def create(self, path: str) -> int:
        """A handle for appending to a new file; the file must not exist."""

    def open(self, path: str) -> int:
        """A handle for appending to an existing file."""

    def lacks_line_end(self, path: str) -> bool:
        """Whether the file has bytes after its last line end."""

    def write(self, handle: int, data: bytes | memoryview) -> int:
        """Appends; returns how many bytes were written, which may be fewer."""

    def close(self, handle: int) -> None:
        """Gives a handle back."""

    def remove(self, path: str) -> None:
        """Removes a file."""

    def remove_directory(self, path: str) -> None:
        """Removes an empty directory."""

    def sync(self, path: str) -> None:
        """Returns when the content (of a directory: its entries) is on the disk."""

    def sync_file_system(self, path: str) -> bool:
        """Syncs the whole file system `path` is on; false where this machine can't."""

    def device(self, path: str) -> int:
        """Identifies the file system `path` is on."""


class RealFiles:
    """The operations of this machine."""

    def make_directories(self, path: str) -> list[str]:
        missing: list[str] = []
        parent = path
        while not os.path.isdir(parent) and os.path.dirname(parent) != parent:
            missing.append(parent)
            parent = os.path.dirname(parent)
        if missing:
            os.makedirs(path, exist_ok=True)
        return missing

    def create(self, path: str) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def open(self, path: str) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def lacks_line_end(self, path: str) -> bool:
        with open(path, "rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"

    def write(self, handle: int, data: bytes | memoryview) -> int:
        return os.write(handle, data)

    def close(self, handle: int) -> None:
        os.close(handle)

    def remove(self, path: str) -> None:
        os.remove(path)

    def remove_directory(self, path: str) -> None:
        os.rmdir(path)

    def sync(self, path: str) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle) if os.path.isdir(path) else _sync_data(handle)
        finally:
            os.close(handle)

    def sync_file_system(self, path: str) -> bool:
        import ctypes

        try:
            syncfs = ctypes.CDLL(None, use_errno=True).syncfs
        except (OSError, AttributeError):
            return False
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if syncfs(handle) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), path)
        finally:
            os.close(handle)
        return True

    def device(self, path: str) -> int:
        return os.stat(path).st_dev


def _sync_data(handle: int) -> None:
    if hasattr(os, "fdatasync"):
        os.fdatasync(handle)
    else:
        os.fsync(handle)
