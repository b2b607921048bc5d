"""The first connection to a model that takes WebSockets, made before anybody asks for a turn (session.md 2.6)."""

from __future__ import annotations

import importlib
import logging
import sys
from typing import TYPE_CHECKING

import attrs
import trio

from engine.errors import EngineError
from engine.protocol.ids import SubmissionId
from engine.records import define
from engine.session.submissions import Submission, UserTurn
from engine.session.telling import telling_phase
from engine.telemetry.handle import current

if TYPE_CHECKING:
    from engine.session.core import SessionCore

__all__ = ["Prewarm"]

logger = logging.getLogger("engine")
TURNS = "engine.session.turn_operations"


@define(eq=False)
class Prewarm:
    """Runs once, in the background of a session. A failure is a line in the log: the first turn will meet it itself."""

    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _done: trio.Event = attrs.field(factory=trio.Event, init=False)
    _began: float = attrs.field(factory=trio.current_time, init=False)
    _outcome: str = attrs.field(default="cancelled", init=False)

    async def run(self, core: SessionCore) -> None:
        """Connects and lets the server prepare for the session's requests. Raises nothing of its own."""
        self._began = trio.current_time()
        self._outcome = "cancelled"
        try:
            with self._scope, telling_phase("startup_prewarm_total"):
                await _warm(core)
                self._outcome = "ready"
        except EngineError as exc:
            self._outcome = "failed"
            logger.info("the model connection of session %s could not be prepared: %s", core.thread_id, exc)
        finally:
            self._done.set()
            current().measure("codex.startup_prewarm.duration_ms", self._age(), {"status": self._outcome})

    async def settle(self, limit: float) -> None:
        """Waits until it is over, at most until it is `limit` seconds old; then, or if cancelled, it is given up."""
        age, outcome = self._age(), "cancelled"
        try:
            with telling_phase("startup_prewarm_resolve"):
                with trio.move_on_at(self._began + limit):
                    await self._done.wait()
            outcome = "timed_out"
        finally:
            if not self._done.is_set():
                self._scope.cancel(reason="the first turn waits no longer")
            elif outcome != "cancelled":
                outcome = "consumed" if self._outcome == "ready" else self._outcome
            current().measure("codex.startup_prewarm.age_at_first_turn_ms", age, {"status": outcome})

    def _age(self) -> int:
        """Milliseconds since it began."""
        return int((trio.current_time() - self._began) * 1000)


async def _warm(core: SessionCore) -> None:
    # In a thread: the session is up, and its host need not wait for what turns import.
    if TURNS not in sys.modules:
        await trio.to_thread.run_sync(importlib.import_module, TURNS)
    from engine.session.turn_setup import make_turn

    await core.generation_counted()
    with telling_phase("startup_prewarm_create_turn_context"):
        turn = make_turn(core, Submission(UserTurn(()), id=SubmissionId("")), (), core.model_info())
    with telling_phase("startup_prewarm_build_prompt"):
        request = await turn.warm_request()
    with telling_phase("startup_prewarm_websocket_warmup"):
        await turn.model.prewarm(request)
