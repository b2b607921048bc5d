"""The remote flow: the server compacts, and answers with what stands in place of the history (session.md 4.10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from engine.errors import ContextWindowExceeded, ModelError, ProtocolError
from engine.models.compacting import CompactingModel
from engine.protocol.codec import decode_item
from engine.protocol.items import CompactionItem, CompactionTrigger, ContextCompactionItem, ResponseItem
from engine.session.compaction.replacement import after_remote, retained, within_window
from engine.session.compaction.requests import Ask, ask_within_window
from engine.session.request_telling import ask_to_compact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.models.base import Model
    from engine.models.catalogue import ModelInfo
    from engine.session.tracing import CompactionTrace
    from engine.session.turn import TurnRun

__all__ = ["compact_remotely", "is_remote"]

PREFIX = "Error running remote compact task: "
# What the endpoint takes of a request.
_KEYS = (
    *("model", "input", "instructions", "tools", "parallel_tool_calls"),
    *("reasoning", "service_tier", "prompt_cache_key", "text"),
)
_HEADERS_LEFT_OUT = ("x-codex-turn-metadata", "x-codex-turn-state")


def is_remote(turn: TurnRun) -> bool:
    """Whether the provider compacts by itself: OpenAI, and what speaks like Azure."""
    provider = turn.provider
    if not (provider.is_openai or provider.is_azure_style):
        return False
    return _by_trigger(turn) or isinstance(_model(turn), CompactingModel)


async def compact_remotely(turn: TurnRun, model: ModelInfo, trace: CompactionTrace | None = None) -> list[ResponseItem]:
    """The new history. Raises `ModelError`, told as an error of the remote task. Cancelled: nothing has changed."""

    async def ask(items: Sequence[ResponseItem]) -> list[ResponseItem]:
        if _by_trigger(turn):
            return await _trigger(turn, model, items, trace)
        return await _endpoint(turn, model, items, trace)

    items = within_window(turn.core.history.items, model.window, turn.core.base_instructions)
    try:
        return after_remote(await ask_within_window(items, ask))
    except ContextWindowExceeded as exc:
        raise ContextWindowExceeded(PREFIX + exc.message) from exc
    except ModelError as exc:
        raise ModelError(PREFIX + exc.message, info=exc.info, status=exc.status) from exc


def _by_trigger(turn: TurnRun) -> bool:
    return turn.facts.configuration.config.features.get("remote_compaction_v2", False)


def _model(turn: TurnRun) -> Model:
    config = turn.facts.configuration.config
    return turn.core.services.model_for(config, config.model_provider_id)


async def _endpoint(
    turn: TurnRun, model: ModelInfo, items: Sequence[ResponseItem], trace: CompactionTrace | None
) -> list[ResponseItem]:
    whole = turn.request_for(items, model)
    body = {key: whole.body[key] for key in _KEYS if whole.body.get(key) is not None}
    headers = {name: value for name, value in whole.headers.items() if name not in _HEADERS_LEFT_OUT}
    headers["x-codex-installation-id"] = turn.installation_id
    client = _model(turn)
    assert isinstance(client, CompactingModel)
    output = await ask_to_compact(turn, client, attrs.evolve(whole, body=body, headers=headers), trace)
    try:
        return [decode_item(item) for item in output]
    except ProtocolError as exc:
        raise ModelError(f"the server compacted to what can't be read: {exc}") from exc


async def _trigger(
    turn: TurnRun, model: ModelInfo, items: Sequence[ResponseItem], trace: CompactionTrace | None
) -> list[ResponseItem]:
    request = turn.request_for([*items, CompactionTrigger()], model)
    answer = await Ask(turn, 0, trace).run(request)
    made = [item for item in answer.items if isinstance(item, CompactionItem | ContextCompactionItem)]
    if len(made) != 1:
        raise ModelError(f"Fatal error: expected exactly one compaction item, the server sent {len(made)}")
    return [*retained(items), *made]
