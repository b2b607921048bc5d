"""Waits for the end of a thread of ours, whatever happens to the task that waits."""

from __future__ import annotations

import threading

import trio

__all__ = ["wait_for_end"]


async def wait_for_end(over: threading.Event, grace: float) -> bool:
    """Waits until a thread has said that it is over, `grace` seconds at most; whether it has. Not cut short.

    Raises what it was interrupted by afterwards: Ctrl-C ends whatever the main task waits for, shielded or not, so a
    task of its own waits here.
    """
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_wait, over, grace)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return over.is_set()


async def _wait(over: threading.Event, grace: float) -> None:
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(over.wait, grace)
