"""One model request: body and the session's own headers (session.md 4.6)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from engine.config.features import beta_features
from engine.models.base import ModelRequest
from engine.protocol.ids import SessionId, ThreadId, TurnId, window_id
from engine.protocol.wire import JsonObject
from engine.records import frozen

if TYPE_CHECKING:
    from engine.models.catalogue import ModelInfo
    from engine.session.configuration import SessionConfiguration

__all__ = ["RequestFacts", "build_request"]


@frozen(kw_only=True)
class RequestFacts:
    """What the requests of one turn have in common."""

    thread_id: ThreadId
    session_id: SessionId
    turn_id: TurnId
    generation: int
    installation_id: str
    configuration: SessionConfiguration
    model: ModelInfo
    instructions: str
    effort: str | None
    summary: str
    output_schema: JsonObject | None
    started_at_ms: int


def build_request(
    facts: RequestFacts, items: list[JsonObject], tools: list[JsonObject], turn_state: str | None
) -> ModelRequest:
    """The request for the history so far; `turn_state` is what the server wants to see again within this turn."""
    model, configuration = facts.model, facts.configuration
    reasoning: JsonObject | None = None
    if model.supports_reasoning_summaries:
        reasoning = {}
        if facts.effort is not None:
            reasoning["effort"] = facts.effort
        if facts.summary != "none":
            reasoning["summary"] = facts.summary
    body: JsonObject = {"model": model.slug}
    if facts.instructions:
        body["instructions"] = facts.instructions
    body |= {
        "input": items,
        "tools": tools,
        "tool_choice": "auto",
        "parallel_tool_calls": model.supports_parallel_tool_calls,
        "reasoning": reasoning,
        "store": configuration.config.provider.is_azure_style,
        "stream": True,
        "include": ["reasoning.encrypted_content"] if reasoning is not None else [],
    }
    tier = configuration.service_tier
    if tier is not None and tier in model.service_tiers:
        body["service_tier"] = tier
    body["prompt_cache_key"] = facts.thread_id
    text = _text_controls(facts)
    if text:
        body["text"] = text
    body["client_metadata"] = {"x-codex-installation-id": facts.installation_id}
    compress = configuration.config.features.get("enable_request_compression", False)
    return ModelRequest(body=body, headers=_headers(facts, turn_state), compress=compress)


def _text_controls(facts: RequestFacts) -> JsonObject:
    text: JsonObject = {}
    if facts.model.support_verbosity:
        verbosity = facts.configuration.config.model_verbosity or facts.model.default_verbosity
        if verbosity is not None:
            text["verbosity"] = verbosity
    if facts.output_schema is not None:
        text["format"] = {
            "type": "json_schema",
            "strict": True,
            "schema": facts.output_schema,
            "name": "codex_output_schema",
        }
    return text


def _headers(facts: RequestFacts, turn_state: str | None) -> dict[str, str]:
    metadata: JsonObject = {"session_id": facts.session_id, "thread_id": facts.thread_id}
    if facts.configuration.thread_source is not None:
        metadata["thread_source"] = facts.configuration.thread_source
    metadata |= {
        "turn_id": facts.turn_id,
        "sandbox": facts.configuration.sandbox_policy.type,
        "turn_started_at_unix_ms": facts.started_at_ms,
    }
    headers = {
        "session-id": facts.session_id,
        "thread-id": facts.thread_id,
        "x-client-request-id": facts.thread_id,
        "x-codex-window-id": window_id(facts.thread_id, facts.generation),
        "x-codex-turn-metadata": json.dumps(metadata, separators=(",", ":")),
    }
    beta = beta_features(facts.configuration.config.features)
    if beta:
        headers["x-codex-beta-features"] = beta
    residency = facts.configuration.config.requirements.residency
    if residency is not None:
        headers["x-openai-internal-codex-residency"] = residency
    if turn_state is not None:
        headers["x-codex-turn-state"] = turn_state
    return headers
