"""The way to blocking code, as a seam: a worker thread, or on the spot for tests under a mock clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple

import trio

__all__ = ["Hop", "in_thread", "on_the_spot"]

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Hop(Protocol):
    """Runs `function(*args)` where blocking does no harm. Cancelling drops the result; the call itself runs on."""

    async def __call__(self, function: Callable[[*Args], T], *args: *Args) -> T: ...


async def in_thread(function: Callable[[*Args], T], *args: *Args) -> T:
    """On one of Trio's worker threads."""
    return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)


async def on_the_spot(function: Callable[[*Args], T], *args: *Args) -> T:
    """Right here, after a checkpoint."""
    await trio.lowlevel.checkpoint()
    return function(*args)
