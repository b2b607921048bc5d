"""Telemetry and rollout traces of an engine for the length of a block; nothing is imported where nobody wants them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from engine.errors import ConfigError
from engine.telemetry.handle import NO_TELEMETRY, Telemetry

if TYPE_CHECKING:
    from engine.telemetry.bundles import Bundles
    from engine.telemetry.exporters import Sending
    from engine.telemetry.settings import OtelSettings

__all__ = ["TRACE_ROOT", "open_bundles", "open_telemetry"]

TRACE_ROOT: Final = "CODEX_ROLLOUT_TRACE_ROOT"
FINISH_BOUND: Final = 5.0  # seconds that the end of a block waits for servers to take what is left

logger = logging.getLogger("engine.telemetry")


@asynccontextmanager
async def open_telemetry(settings: OtelSettings, *, version: str) -> AsyncIterator[Telemetry]:
    """The handle of an engine. Leaving the block sends what is left, within five seconds, also when cancelled.

    Raises `ConfigError` where an exporter is configured and its packages are not installed, or its files not there.
    """
    if not settings.exports:
        yield NO_TELEMETRY
        return
    sending = await trio.to_thread.run_sync(_start, settings, version)
    try:
        yield sending.telemetry
    finally:
        await _finish(sending)


def _start(settings: OtelSettings, version: str) -> Sending:
    """In a thread: the import alone takes a tenth of a second."""
    try:
        from engine.telemetry import exporters
    except ImportError as exc:
        raise ConfigError(
            f"`[otel]` names an exporter, which needs packages that are not installed ({exc.name}): install "
            '`session-engine[otel]`, or set the exporters to "none"'
        ) from exc
    return exporters.send_to(exporters.exporters_of(settings), settings, version)


async def _finish(sending: Sending) -> None:
    with trio.move_on_after(FINISH_BOUND) as scope:
        scope.shield = True
        async with trio.open_nursery() as nursery:
            for call in sending.finish:
                nursery.start_soon(partial(trio.to_thread.run_sync, call, abandon_on_cancel=True))
    if scope.cancelled_caught:
        sending.interrupt()
        logger.warning("the servers of `[otel]` did not take all telemetry within %s seconds", FINISH_BOUND)


@asynccontextmanager
async def open_bundles(environment: Mapping[str, str]) -> AsyncIterator[Bundles | None]:
    """The trace bundles of an engine, where the environment names a directory for them; else `None`.

    Leaving the block writes what is left, within five seconds, also when cancelled.
    """
    root = environment.get(TRACE_ROOT)
    if not root:
        yield None
        return
    from engine.telemetry.bundles import Bundles

    bundles = Bundles(root)
    try:
        yield bundles
    finally:
        await bundles.aclose()
