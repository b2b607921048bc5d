"""The local flow: the model itself writes the summary, as the answer to one more message (session.md 4.10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from engine.protocol.items import Message, ResponseItem, message_text, user_message
from engine.session.compaction.requests import Answer, Ask, ask_within_window
from engine.session.compaction.texts import SUMMARIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.models.base import ModelRequest
    from engine.models.catalogue import ModelInfo
    from engine.session.turn import TurnRun

__all__ = ["summarize"]


async def summarize(turn: TurnRun, model: ModelInfo) -> str | None:
    """What the model says about the conversation so far; `None` where it says nothing.

    Where the request does not fit the window, the oldest items are left out until it does. Raises `ModelError`, and
    `ContextWindowExceeded` where nothing is left to leave out. Cancelled: nothing has changed.
    """
    prompt = user_message(turn.facts.configuration.config.compact_prompt or SUMMARIZE)

    def request(items: Sequence[ResponseItem]) -> ModelRequest:
        made = turn.request_for([*items, prompt], model, tools=[])
        return attrs.evolve(made, body={**made.body, "parallel_tool_calls": False})

    async def ask(items: Sequence[ResponseItem]) -> Answer:
        return await Ask(turn, turn.provider.stream_max_retries).run(request(items))

    answer = await ask_within_window(turn.core.history.items, ask)
    said = [message_text(item) for item in answer.items if isinstance(item, Message) and item.role == "assistant"]
    return said[-1] if said else None
