"""Calls between the host and the engine's loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import attrs
import outcome
import trio

from engine.portal import Call, Portal
from engine.tools.approvals import refuse

if TYPE_CHECKING:
    from engine import (
        ApprovalRequest,
        Approver,
        CompactionFacts,
        CompactionHooks,
        Decision,
        Tool,
    )

__all__ = ["HooksOnLoop", "Host"]

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


class Host(Generic[S]):
    """The host's loop, and the portal to the engine's."""

    def __init__(self, portal: Portal[S]) -> None:
        self.portal = portal
        self.loop = asyncio.get_running_loop()

    async def call(
        self, function: Callable[..., Awaitable[T]], *args: object, undo: Callable[[T], Awaitable[object]] | None = None
    ) -> T:
        """Awaits `function(*args)` on the engine's loop, to its end even where the waiting is cancelled."""
        done = asyncio.Event()
        call = Call(function, *args, undo=undo, on_done=lambda: self._tell(done))
        self.portal.submit(call)
        cancelled: asyncio.CancelledError | None = None
        while not call.done.is_set():
            try:
                await done.wait()
            except asyncio.CancelledError as exc:
                cancelled = cancelled or exc
                call.cancel("its caller was cancelled")
        if cancelled is not None:
            if (undo_late := call.untaken()) is not None:
                with contextlib.suppress(Exception, asyncio.CancelledError):
                    await self.call(undo_late)
            raise cancelled
        return call.value

    def _tell(self, done: asyncio.Event) -> None:
        try:
            self.loop.call_soon_threadsafe(done.set)
        except RuntimeError:
            pass  # the host's loop is closed: nobody waits

    def now(self, function: Callable[..., T], *args: object) -> T:
        """The result of a function that does not wait, called on the engine's loop."""

        async def call() -> T:
            return function(*args)

        asked = Call(call)
        self.portal.submit(asked)
        asked.done.wait()
        return asked.value

    def callback(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """`function` of the host as one for the engine's loop."""

        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return await _on_loop(self.loop, functools.partial(function, *args, **kwargs))

        return call

    def tools(self, tools: Sequence[Tool]) -> tuple[Tool, ...]:
        """Tools whose functions run on the host's loop."""
        return tuple(attrs.evolve(tool, function=self.callback(tool.function)) for tool in tools)

    def approver(self, approve: Approver) -> Approver:
        """An approver that runs on the host's loop."""
        if approve is refuse:
            return refuse

        async def ask(request: ApprovalRequest, /) -> Decision:
            return await _on_loop(self.loop, functools.partial(approve, request))

        return ask


class HooksOnLoop:
    """Compaction hooks that run on the host's loop."""

    def __init__(self, hooks: CompactionHooks) -> None:
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()

    async def before(self, facts: CompactionFacts) -> str | None:
        return await _on_loop(self._loop, functools.partial(self._hooks.before, facts))

    async def after(self, facts: CompactionFacts) -> str | None:
        return await _on_loop(self._loop, functools.partial(self._hooks.after, facts))


async def _on_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[T]]) -> T:
    """Awaits `function()` on the host's loop, from the engine's. A cancellation here cancels there and waits."""
    token = trio.lowlevel.current_trio_token()
    waiting = trio.lowlevel.current_task()
    context = contextvars.copy_context()
    running: list[asyncio.Task[T]] = []
    cancelled: list[Callable[[], Any]] = []

    async def run() -> T:
        return await function()

    def begin() -> None:
        task = loop.create_task(run(), context=context)
        running.append(task)
        task.add_done_callback(over)

    def over(task: asyncio.Task[T]) -> None:
        result: outcome.Outcome[T]
        if not task.cancelled():
            error = task.exception()
            result = outcome.Value(task.result()) if error is None else outcome.Error(error)
        elif cancelled:
            result = outcome.capture(cancelled[0])
        else:
            result = outcome.Error(RuntimeError("the host cancelled its own callback"))
        try:
            token.run_sync_soon(trio.lowlevel.reschedule, waiting, result)
        except trio.RunFinishedError:
            pass  # the engine is gone: nobody waits

    def abort(raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
        cancelled.append(raise_cancel)
        try:
            loop.call_soon_threadsafe(lambda: running[0].cancel("the turn was interrupted"))
        except RuntimeError:
            return trio.lowlevel.Abort.SUCCEEDED  # the host's loop is closed, and its task with it
        return trio.lowlevel.Abort.FAILED  # `over` comes when the host has cleaned up

    loop.call_soon_threadsafe(begin)
    result: T = await trio.lowlevel.wait_task_rescheduled(abort)
    return result
