"""Calls code of the host (tools, approvers) so that only three things can come out: a result, an error, a cancellation.

A host that uses nurseries of its own may raise groups that mix its errors with our cancellation; such a mix would
cross our nurseries as an error and end the session.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import trio

__all__ = ["call_host"]

logger = logging.getLogger("engine.tools")

P = ParamSpec("P")
T = TypeVar("T")


async def call_host(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Awaits `function(...)`. Raises what it raises; of a group that is no plain error, the one part that counts.

    That is Ctrl-C or `SystemExit` if there is one, else the cancellation; errors beside it are logged.
    """
    try:
        return await function(*args, **kwargs)
    except BaseExceptionGroup as group:
        leaves = _leaves(group)
        errors = [leaf for leaf in leaves if isinstance(leaf, Exception)]
        if len(errors) == len(leaves):
            raise
        for error in errors:
            logger.error("code of the host failed while it was cancelled", exc_info=error)
        for kind in (KeyboardInterrupt, SystemExit, trio.Cancelled):
            for leaf in leaves:
                if isinstance(leaf, kind):
                    raise leaf from None
        raise


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for exc in group.exceptions:
        found += _leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return found
