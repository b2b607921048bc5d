"""SIGINT and SIGTERM of a command-line run: the first one stops it in good order, the second one at once.

Only the command line touches signal handlers; the library never does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import trio

__all__ = ["StopRequest", "stop_on_signals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether somebody asked to stop; `wait` returns when that happens."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self.asked = False

    def arm(self) -> None:
        """Called inside the Trio run: from now on a request wakes `wait`."""
        self._token = trio.lowlevel.current_trio_token()
        if self.asked:
            self.event.set()

    async def wait(self) -> None:
        """Returns once a stop was asked for."""
        await self.event.wait()

    def ask(self) -> None:
        """Asks for a stop; safe in a signal handler. A second call ends the process."""
        if self.asked:
            os._exit(1)  # what the run started dies with it: its supervisor sees the socket close
        self.asked = True
        if self._token is not None:
            try:
                self._token.run_sync_soon(self.event.set)
            except trio.RunFinishedError:
                pass


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns signals into a `StopRequest` while the block runs; the old handlers come back after it."""
    request = StopRequest()

    def handle(signum: int, frame: FrameType | None) -> None:
        request.ask()

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
