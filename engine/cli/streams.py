"""The process's three streams: whole stdin, stdout flushed line by line, stderr that no character breaks."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

__all__ = ["OutputClosed", "Stderr", "Stdin", "Stdout", "same_terminal"]


class OutputClosed(Exception):
    """Nobody reads our stdout any more."""


class Stdin:
    """Stdin as bytes; a closed one is empty."""

    def is_terminal(self) -> bool:
        """Whether a person types."""
        return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()

    def read(self) -> bytes:
        """Everything up to the end."""
        if sys.stdin is None or sys.stdin.closed:
            return b""
        return sys.stdin.buffer.read()


class Stdout:
    """Stdout as UTF-8 lines, each on its way when the call returns. Raises `OutputClosed`."""

    def line(self, data: bytes) -> None:
        """Writes `data` and a newline."""
        if sys.stdout is None:
            return
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(data + b"\n")
            sys.stdout.buffer.flush()
        except BrokenPipeError as exc:
            # The interpreter flushes once more at exit; let that go nowhere instead of complaining.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise OutputClosed from exc


class Stderr:
    """Stderr for people. What goes wrong with it is not worth ending a run."""

    def __init__(self, stream: TextIO | None = None) -> None:
        # A process may be started without a stderr; then nobody listens.
        self.stream: TextIO = stream or sys.stderr or io.StringIO()
        if isinstance(self.stream, io.TextIOWrapper):
            self.stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> None:
        """Writes `text`, visible at once."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):
            pass

    def line(self, text: str) -> None:
        """Writes a line."""
        self.write(text + "\n")


def same_terminal() -> bool:
    """Whether stdout and stderr are one and the same terminal, so that what is on one need not be said on the other."""
    try:
        if not (os.isatty(1) and os.isatty(2)):
            return False
        return os.fstat(1).st_rdev == os.fstat(2).st_rdev
    except OSError:
        return False
