"""Calls between the host and the engine's loop."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

import trio

import engine
from engine.portal import Call, Portal
from engine.tools.approvals import refuse as refuse_async
from engine.tools.functions import tool as async_tool

if TYPE_CHECKING:
    from engine import (
        ApprovalRequest,
        CompactionFacts,
        Decision,
        Tool,
    )

__all__ = ["Approver", "CompactionHooks", "HooksInThreads", "Host", "in_thread", "refuse", "tool"]

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


class Approver(Protocol):
    """Decides an approval request, in a worker thread. An exception counts as a refusal."""

    def __call__(self, request: ApprovalRequest, /) -> Decision: ...


class CompactionHooks(Protocol):
    """As `engine.CompactionHooks`, with plain methods; they run in a worker thread."""

    def before(self, facts: CompactionFacts) -> str | None: ...
    def after(self, facts: CompactionFacts) -> str | None: ...


def refuse(request: ApprovalRequest, /) -> Decision:
    """The default approver: says no to everything."""
    return "denied"


def tool(
    *, name: str | None = None, parallel: bool = True, needs_approval: bool = False
) -> Callable[[Callable[..., object]], Tool]:
    """Makes a `Tool` of a plain function, as `engine.tool` does of an async one. It runs in a worker thread."""

    def make(function: Callable[..., object]) -> Tool:
        return async_tool(name=name, parallel=parallel, needs_approval=needs_approval)(in_thread(function))

    return make


def in_thread(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """A plain function as one for the engine's loop; it runs in a worker thread, and is left to itself on a cancel."""

    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await trio.to_thread.run_sync(functools.partial(function, *args, **kwargs), abandon_on_cancel=True)

    return call


class HooksInThreads:
    """Compaction hooks as ones for the engine's loop; they run in worker threads."""

    def __init__(self, hooks: CompactionHooks) -> None:
        self.before = in_thread(hooks.before)
        self.after = in_thread(hooks.after)


class Host(Generic[S]):
    """The portal to the engine's loop."""

    def __init__(self, portal: Portal[S]) -> None:
        self.portal = portal

    def call(
        self, function: Callable[..., Awaitable[T]], *args: object, undo: Callable[[T], Awaitable[object]] | None = None
    ) -> T:
        """The result of `function(*args)` on the engine's loop. Ctrl-C is raised when the call has ended."""
        call = Call(function, *args, undo=undo)
        interrupt: KeyboardInterrupt | None = None
        while not call.done.is_set():
            try:
                self.portal.submit(call)  # once more where Ctrl-C came just here
                if interrupt is not None:
                    call.cancel("Ctrl-C")
                call.done.wait()
            except KeyboardInterrupt as exc:
                interrupt = interrupt or exc
        if interrupt is not None:
            if (undo_late := call.untaken()) is not None:
                with contextlib.suppress(Exception, KeyboardInterrupt):
                    self.call(undo_late)
            raise interrupt
        return call.value

    def now(self, function: Callable[..., T], *args: object) -> T:
        """The result of a function that does not wait, called on the engine's loop."""

        async def call() -> T:
            return function(*args)

        return self.call(call)

    def approver(self, approve: Approver) -> engine.Approver:
        """An approver that runs in a worker thread."""
        return refuse_async if approve is refuse else in_thread(approve)
