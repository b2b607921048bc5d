"""Data for a command that reads it from a file descriptor, and is on no disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import ProcessError

__all__ = ["memory_file", "open_memory_file"]


def open_memory_file(data: bytes) -> int:
    """A descriptor from which `data` can be read once. The caller closes it. Raises `ProcessError`."""
    try:
        fd = os.memfd_create("engine", os.MFD_CLOEXEC)
    except OSError as exc:
        raise ProcessError(f"no file descriptor for a sandboxed command: {exc.strerror}") from exc
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except OSError as exc:
        os.close(fd)
        raise ProcessError(f"no memory for the arguments of a sandboxed command: {exc.strerror}") from exc
    return fd


@contextmanager
def memory_file(data: bytes) -> Iterator[int]:
    """`open_memory_file` for a block."""
    fd = open_memory_file(data)
    try:
        yield fd
    finally:
        os.close(fd)
