"""A wait for the appender that may be abandoned at any time: the work goes on, only nobody waits for it any more."""

from __future__ import annotations

from typing import final

import trio

from engine.errors import StoreError

__all__ = ["Barrier"]


@final
class Barrier:
    """Answered once by the appender, on Trio's thread; waited for by one task."""

    __slots__ = ("_answered", "_error", "_task")

    def __init__(self) -> None:
        self._answered = False
        self._error: StoreError | None = None
        self._task: trio.lowlevel.Task | None = None

    def answer(self, error: StoreError | None) -> None:
        """Wakes the waiter, if it still waits. Raises nothing."""
        self._answered = True
        self._error = error
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    @trio.lowlevel.enable_ki_protection  # else Ctrl-C between two lines leaves a dead task to be woken
    async def wait(self) -> None:
        """Waits for the answer and raises what is in it. Cancelling abandons the wait at once."""
        if self._answered:
            await trio.lowlevel.checkpoint()
        else:
            self._task = trio.lowlevel.current_task()

            def abandon(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
                self._task = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abandon)
        if self._error is not None:
            # A fresh one per waiter: a raised error collects the traceback of whoever raises it.
            raise StoreError(str(self._error)) from self._error.__cause__
