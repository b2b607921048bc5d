"""One way to write a scenario, three ways to run it: on Trio, on asyncio, and blocking.

A scenario is an `async` function of a `Style`. For the blocking API a thin wrapper makes every call awaitable; nothing
in it waits, so one step of the coroutine runs all of the scenario.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

import engine
import engine.aio
import engine.blocking

Host = Any  # engine.Engine, engine.aio.Engine, or a wrapped engine.blocking.Engine
Scenario = Callable[["Style"], Coroutine[Any, Any, None]]


class Style:
    """The API of `engine`, `engine.aio` or `engine.blocking` as a scenario uses it."""

    name: str

    def open_engine(self, **arguments: Any) -> AbstractAsyncContextManager[Host]:
        raise NotImplementedError

    def open_threads(self, **arguments: Any) -> AbstractAsyncContextManager[Host]:
        raise NotImplementedError

    def tool(self, function: Callable[..., Any], **arguments: Any) -> engine.Tool:
        """A tool made of a plain function."""
        raise NotImplementedError

    def approver(self, approve: Callable[[engine.ApprovalRequest], engine.Decision]) -> Any:
        """An approver made of a plain function."""
        raise NotImplementedError

    def compaction_hooks(self, hook: Callable[[str, engine.CompactionFacts], str | None]) -> Any:
        """Compaction hooks made of one plain function, which is told when it is asked, too."""
        raise NotImplementedError

    def run(self, scenario: Scenario) -> None:
        """Runs a scenario to its end."""
        raise NotImplementedError

    def stream(self, subscription: Any) -> AbstractAsyncContextManager[Any]:
        """`Session.events()` as an async context manager."""
        return _Entered(subscription, lambda value: value)


def _coroutine(function: Callable[..., Any], name: str | None = None) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    call.__annotations__ = function.__annotations__
    call.__name__, call.__doc__ = function.__name__, function.__doc__
    return call


class TrioStyle(Style):
    name = "trio"

    def open_engine(self, **arguments: Any) -> AbstractAsyncContextManager[Host]:
        return engine.open_engine(**arguments)

    def open_threads(self, **arguments: Any) -> AbstractAsyncContextManager[Host]:
        return engine.open_threads(**arguments)

    def tool(self, function: Callable[..., Any], **arguments: Any) -> engine.Tool:
        return engine.tool(**arguments)(_coroutine(function))

    def approver(self, approve: Callable[[engine.ApprovalRequest], engine.Decision]) -> Any:
        return _coroutine(approve)

    def compaction_hooks(self, hook: Callable[[str, engine.CompactionFacts], str | None]) -> Any:
        class Hooks:
            async def before(self, facts: engine.CompactionFacts) -> str | None:
                return hook("before", facts)

            async def after(self, facts: engine.CompactionFacts) -> str | None:
                return hook("after", facts)

        return Hooks()

    def run(self, scenario: Scenario) -> None:
        trio.run(scenario, self)


class AioStyle(TrioStyle):
    name = "aio"

    def open_engine(self, **arguments: Any) -> AbstractAsyncContextManager[Host]:
        return engine.aio.open_engine(**arguments)

    def open_threads(self, **arguments: Any) -> AbstractAsyncContextManager[Host]:
        return engine.aio.open_threads(**arguments)

    def run(self, scenario: Scenario) -> None:
        asyncio.run(scenario(self))


class BlockingStyle(Style):
    name = "blocking"

    def open_engine(self, **arguments: Any) -> AbstractAsyncContextManager[Host]:
        return _Entered(engine.blocking.open_engine(**arguments), _Awaitable)

    def open_threads(self, **arguments: Any) -> AbstractAsyncContextManager[Host]:
        return _Entered(engine.blocking.open_threads(**arguments), _Awaitable)

    def tool(self, function: Callable[..., Any], **arguments: Any) -> engine.Tool:
        return engine.blocking.tool(**arguments)(function)

    def approver(self, approve: Callable[[engine.ApprovalRequest], engine.Decision]) -> Any:
        return approve

    def compaction_hooks(self, hook: Callable[[str, engine.CompactionFacts], str | None]) -> Any:
        class Hooks:
            def before(self, facts: engine.CompactionFacts) -> str | None:
                return hook("before", facts)

            def after(self, facts: engine.CompactionFacts) -> str | None:
                return hook("after", facts)

        return Hooks()

    def run(self, scenario: Scenario) -> None:
        running = scenario(self)
        try:
            running.send(None)
        except StopIteration:
            return
        running.close()
        raise AssertionError("a blocking scenario waited")

    def stream(self, subscription: Any) -> AbstractAsyncContextManager[Any]:
        return _Entered(subscription, _Awaitable)


class _Entered:
    """A plain context manager, entered by `async with`."""

    def __init__(self, manager: Any, wrap: Callable[[Any], Any]) -> None:
        self._manager, self._wrap = manager, wrap

    async def __aenter__(self) -> Any:
        return self._wrap(self._manager.__enter__())

    async def __aexit__(self, *exc: Any) -> bool | None:
        suppressed: bool | None = self._manager.__exit__(*exc)
        return suppressed


_PLAIN = ("sessions", "pending")  # methods that do not wait in any style


class _Awaitable:
    """An object of the blocking API whose methods can be awaited."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Awaitable) and other._inner == self._inner

    def __hash__(self) -> int:
        return hash(self._inner)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return _wrapped(value)
        if name in _PLAIN:
            return lambda *args: _wrapped(value(*args))
        if name in ("session", "turn"):
            return lambda *args, **kwargs: _Entered(value(*args, **kwargs), _Awaitable)
        if name == "events":
            return value

        async def call(*args: Any, **kwargs: Any) -> Any:
            return _wrapped(value(*args, **kwargs))

        return call

    def __aiter__(self) -> _Awaitable:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._inner)
        except StopIteration:
            raise StopAsyncIteration from None


def _wrapped(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_wrapped, value))
    return _Awaitable(value) if isinstance(value, _HANDLES) else value


_HANDLES = (engine.blocking.Session, engine.blocking.Turn, engine.blocking.Threads)
STYLES = (TrioStyle(), AioStyle(), BlockingStyle())
