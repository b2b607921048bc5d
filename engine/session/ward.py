"""Children of one nursery whose failures are recorded, never raised through it: no error of ours crosses a nursery.

The first failure in time cancels the nursery; whoever opened it decides afterwards what the one error outside is.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio

__all__ = ["Ward", "collapse"]

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for exc in group.exceptions:
        found.extend(_leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc])
    return found


def collapse(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception of a group that its receiver can act on: Ctrl-C, then an error, then a cancellation."""
    leaves = _leaves(group)
    for wanted in (KeyboardInterrupt, SystemExit, Exception):
        for exc in leaves:
            if isinstance(exc, wanted):
                return exc
    return leaves[0]


class Ward:
    """Runs children in a nursery it is given; `failures` are `(name, exception)`, first in time first."""

    __slots__ = ("failures", "nursery")

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.failures: list[tuple[str, Exception]] = []

    async def run(self, name: str, fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T | None:
        """Awaits `fn(*args)`. An error is recorded under `name` and cancels the nursery; then the result is `None`."""
        try:
            return await fn(*args)
        except BaseExceptionGroup as group:  # a foreign nursery; before `Exception`, which would match a plain group
            exc = collapse(group)
            if not isinstance(exc, Exception):
                raise exc from None
            self.fail(name, exc)
        except Exception as exc:
            self.fail(name, exc)
        return None

    def start_soon(
        self,
        name: str,
        fn: Callable[[*Ts], Awaitable[object]],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> None:
        """Starts a child; with `context`, in those context variables instead of the caller's."""

        def start() -> None:
            self.nursery.start_soon(self.run, name, fn, *args, name=name)

        if context is None:
            start()
        else:
            context.run(start)

    def fail(self, name: str, exc: Exception) -> None:
        """Records a failure and cancels the nursery."""
        self.failures.append((name, exc))
        self.nursery.cancel_scope.cancel(reason=f"{name} failed")
