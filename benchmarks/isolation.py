"""Runs a benchmark where nothing but loopback can be reached, so that nobody waits for a network (Linux)."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from typing import Final

__all__ = ["IsolationError", "isolate"]

MARK: Final = "BENCH_ISOLATED"
SIOCSIFFLAGS: Final = 0x8914
UP_RUNNING: Final = 0x1 | 0x40


class IsolationError(Exception):
    """There is no network namespace to be had here."""


def isolate() -> None:
    """Starts this program again in a network namespace of its own; returns in there. Raises `IsolationError`."""
    if os.environ.get(MARK) != "1":
        os.environ[MARK] = "1"
        flags = "-n" if os.geteuid() == 0 else "-rn"
        try:
            os.execvp("unshare", ["unshare", flags, sys.executable, *sys.orig_argv[1:]])
        except OSError as exc:
            raise IsolationError(f"--isolate needs `unshare`: {exc}") from exc
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", UP_RUNNING))
        except OSError as exc:
            raise IsolationError(f"--isolate can't bring up loopback: {exc}") from exc
