"""The recorded compaction (`app_server/31_compact.jsonl`), played against a session: its turns, items and token usage.

The server's own messages (status, rate limits, read state) are not a session's; the estimate after the compaction
depends on the instructions of the program.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import engine
from engine.protocol.events import (
    Event,
    EventMsg,
    ItemCompleted,
    ItemStarted,
    TaskComplete,
    TaskStarted,
    TokenCount,
    Warning,
)
from engine.protocol.settings import TokenUsage
from engine.protocol.thread_items import to_json
from engine.thread_store.interface import ListTurns
from tests.mock_responses import Reply, serve_responses
from tests.session.conftest import Lab, texts

FILE = Path(__file__).parent / "app_server" / "31_compact.jsonl"
SHOWN = ("turn/started", "item/started", "item/completed", "thread/tokenUsage/updated", "warning", "turn/completed")
KINDS = {"ContextCompaction": "contextCompaction", "UserMessage": "userMessage", "AgentMessage": "agentMessage"}


def told(msg: EventMsg) -> tuple[str, object] | None:
    """What the server makes of an event, as far as it is compared."""
    match msg:
        case TaskStarted():
            return "turn/started", None
        case ItemStarted(item=item):
            return "item/started", KINDS[item.type]
        case ItemCompleted(item=item):
            return "item/completed", KINDS[item.type]
        case TokenCount(info=info) if info is not None:
            return "thread/tokenUsage/updated", (_numbers(info.total_token_usage), _numbers(info.last_token_usage))
        case Warning(message=text) if "metadata" not in text:
            return "warning", text
        case TaskComplete():
            return "turn/completed", "completed"
    return None


def _numbers(usage: TokenUsage) -> tuple[int, ...]:
    return usage.total_tokens, usage.input_tokens, usage.cached_input_tokens, usage.output_tokens


def recorded(message: dict[str, Any]) -> tuple[str, object] | None:
    """The same of a recorded message."""
    method, params = message.get("method"), message.get("params", {})
    match method:
        case "turn/started":
            return method, None
        case "item/started" | "item/completed":
            return method, params["item"]["type"]
        case "thread/tokenUsage/updated":
            usage = params["tokenUsage"]
            keys = ("totalTokens", "inputTokens", "cachedInputTokens", "outputTokens")
            return method, tuple(tuple(usage[which][key] for key in keys) for which in ("total", "last"))
        case "warning" if "metadata" not in params["message"]:
            return method, params["message"]
        case "turn/completed":
            return method, params["turn"]["status"]
    return None


def without_estimate(found: tuple[str, object]) -> tuple[str, object]:
    method, value = found
    if method == "thread/tokenUsage/updated" and isinstance(value, tuple) and value[1][1] == 0:
        return method, (value[0], "estimate")
    return found


async def test_a_compaction_as_it_was_recorded(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lines = [json.loads(line) for line in FILE.read_text().splitlines()]
    replies = [Reply.of(line["reply"]) for line in lines if line["dir"] == "model"]
    messages = [line["msg"] for line in lines if line["dir"] == "s2c"]
    wanted = [shown for message in messages if (shown := recorded(message)) is not None]
    (read,) = [
        message["result"]["thread"]
        for message in messages
        if "turns" in message.get("result", {}).get("thread", {}) and message["result"]["thread"]["turns"]
    ]
    with serve_responses(replies) as mock:
        table = {"name": "mock", "base_url": mock.base_url, "request_max_retries": 0, "stream_max_retries": 0}
        config = {"model": "mock-model", "model_provider": "mock", "model_providers.mock": table}
        async with engine.open_engine(home=lab.home, config=config) as opened:
            async with opened.session(lab.settings(instructions="Test harness instructions.")) as session:
                with session.events() as stream:
                    await session.run("one")
                    await session.compact()
                    await session.run("two")
                    seen: list[Event] = [await anext(stream) for _ in range(stream.pending())]
                thread = session.thread_id
            page = await opened.threads.turns(thread, ListTurns(direction="asc", view="full"))
        sent = mock.requests[1]
    found = [shown for event in seen if (shown := told(event.msg)) is not None]
    assert list(map(without_estimate, found)) == list(map(without_estimate, wanted))
    assert texts(sent["input"])[-3:-1] == ["one", "First."]
    assert [_shape(to_json(turn)) for turn in page.turns] == [_shape(turn) for turn in read["turns"]]


def _shape(turn: Any) -> object:
    return turn["status"], [(item["type"], item.get("text"), item.get("content")) for item in turn["items"]]
