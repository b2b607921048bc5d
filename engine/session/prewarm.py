"""The first connection to a model that takes WebSockets, made before anybody asks for a turn (session.md 2.6)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import trio

from engine.errors import EngineError
from engine.protocol.ids import SubmissionId
from engine.records import define
from engine.session.submissions import Submission, UserTurn

if TYPE_CHECKING:
    from engine.session.core import SessionCore

__all__ = ["Prewarm"]

logger = logging.getLogger("engine")


@define(eq=False)
class Prewarm:
    """Runs once, in the background of a session. A failure is a line in the log: the first turn will meet it itself."""

    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _done: trio.Event = attrs.field(factory=trio.Event, init=False)
    _began: float = attrs.field(factory=trio.current_time, init=False)

    async def run(self, core: SessionCore) -> None:
        """Connects and lets the server prepare for the session's requests. Raises nothing of its own."""
        self._began = trio.current_time()
        try:
            with self._scope:
                await _warm(core)
        except EngineError as exc:
            logger.info("the model connection of session %s could not be prepared: %s", core.thread_id, exc)
        finally:
            self._done.set()

    async def settle(self, limit: float) -> None:
        """Waits until it is over, at most until it is `limit` seconds old; then, or if cancelled, it is given up."""
        try:
            with trio.move_on_at(self._began + limit):
                await self._done.wait()
        finally:
            if not self._done.is_set():
                self._scope.cancel(reason="the first turn waits no longer")


async def _warm(core: SessionCore) -> None:
    from engine.session.turn_setup import make_turn

    await core.generation_counted()
    turn = make_turn(core, Submission(UserTurn(()), id=SubmissionId("")), (), core.model_info())
    await turn.model.prewarm(await turn.warm_request())
