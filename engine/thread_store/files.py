"""The file operations of the writer, as a seam: the real ones, and the place where tests put failing ones."""

from __future__ import annotations

import errno
import os
from typing import Protocol

from engine.records import frozen

__all__ = ["FileOperations", "FileStatus", "RealFiles", "create_with_folders"]

TRIES = 20  # against others who make and remove folders at the same moment
COPIED_AT_ONCE = 8 << 20  # bytes


@frozen
class FileStatus:
    """Which file it is, how many names it has, and its size in bytes."""

    device: int
    inode: int
    links: int
    size: int

    @property
    def identity(self) -> tuple[int, int]:
        """The same for the same file under any name, as long as it exists."""
        return self.device, self.inode

    @classmethod
    def of(cls, found: os.stat_result) -> FileStatus:
        """From what the system tells."""
        return cls(found.st_dev, found.st_ino, found.st_nlink, found.st_size)


class FileOperations(Protocol):
    """Blocking calls on files; all raise `OSError`. Paths are absolute."""

    def make_directories(self, path: str) -> list[str]:
        """Makes a directory and its missing parents; those that were made, innermost first."""

    def create(self, path: str) -> int:
        """A handle for appending to a new file; the file must not exist."""

    def open(self, path: str) -> int:
        """A handle for appending to an existing file, and for reading it where that is allowed."""

    def status(self, path: str) -> FileStatus | None:
        """What is at a path; `None` if nothing is."""

    def handle_status(self, handle: int) -> FileStatus:
        """What a handle leads to, though its name may be gone."""

    def read(self, handle: int, length: int, offset: int) -> bytes:
        """Up to `length` bytes from `offset` on; nothing at the end of the file."""

    def write(self, handle: int, data: bytes | memoryview) -> int:
        """Appends; returns how many bytes were written, which may be fewer."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Appends the first `length` bytes of one file to another."""

    def truncate(self, handle: int, length: int) -> None:
        """Cuts a file to its first `length` bytes."""

    def close(self, handle: int) -> None:
        """Gives a handle back."""

    def add_to(self, path: str, data: bytes) -> None:
        """Appends to a file that is made if it is missing."""

    def rename(self, old: str, new: str) -> None:
        """Gives a file another name; one that has it is replaced."""

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


def create_with_folders(files: FileOperations, path: str, made: list[str]) -> int:
    """Creates `path` and the folders it lacks; puts what was made before `made`, innermost first, also where it fails.

    Others may take back a folder they have made, while it is empty, at the same moment. Raises `OSError`.
    """
    for number in range(TRIES):
        last = number == TRIES - 1
        try:
            new = files.make_directories(os.path.dirname(path))
        except (FileExistsError, FileNotFoundError):  # or there is a file in the way
            if last:
                raise
            continue
        made[:0] = [folder for folder in new if folder not in made]
        try:
            return files.create(path)
        except FileNotFoundError:
            if last:
                raise
    raise AssertionError("unreachable")


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
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def open(self, path: str) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except PermissionError:
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def status(self, path: str) -> FileStatus | None:
        try:
            return FileStatus.of(os.stat(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def handle_status(self, handle: int) -> FileStatus:
        return FileStatus.of(os.fstat(handle))

    def read(self, handle: int, length: int, offset: int) -> bytes:
        return os.pread(handle, length, offset)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        return os.write(handle, data)

    def copy(self, source: int, target: int, length: int) -> None:
        offset = 0
        while offset < length:
            data = os.pread(source, min(COPIED_AT_ONCE, length - offset), offset)
            if not data:
                raise OSError(errno.EIO, "the source has become shorter")
            offset += len(data)
            view = memoryview(data)
            while view:
                view = view[os.write(target, view) :]

    def truncate(self, handle: int, length: int) -> None:
        os.ftruncate(handle, length)

    def close(self, handle: int) -> None:
        os.close(handle)

    def add_to(self, path: str, data: bytes) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
        finally:
            os.close(handle)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

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
