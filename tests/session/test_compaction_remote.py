"""Compaction by the provider: its endpoint, the trigger in a request, what is kept of the answer, failures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import engine
from engine.protocol.wire import JsonObject
from engine.session.compaction.replacement import IMAGE_LEFT_OUT
from tests.mock_responses import MockResponses, Reply, message_reply, serve_responses
from tests.session.conftest import Lab, collect, texts, types

PIXEL = "data:image/png;base64,iVBORw0KGgo="
OPAQUE: JsonObject = {"type": "compaction", "encrypted_content": "sealed"}
OUTPUT: list[JsonObject] = [
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rules"}]},
    {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "first"}, {"type": "input_image", "image_url": PIXEL}],
    },
    {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "<environment_context>x</environment_context>"}],
    },
    {"type": "reasoning", "summary": [], "encrypted_content": "thoughts"},
    {"type": "function_call", "name": "look", "arguments": "{}", "call_id": "1"},
    {"type": "function_call_output", "call_id": "1", "output": "seen"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
    OPAQUE,
]


@asynccontextmanager
async def talking(lab: Lab, *replies: Reply, **features: bool) -> AsyncIterator[tuple[engine.Session, MockResponses]]:
    """A session with a provider that is named as OpenAI's is."""
    with serve_responses(replies) as mock:
        table = {"name": "OpenAI", "base_url": mock.base_url, "request_max_retries": 0, "stream_max_retries": 0}
        config: dict[str, object] = {"model_provider": "mock", "model_providers.mock": table}
        config |= {f"features.{name}": value for name, value in features.items()}
        async with engine.open_engine(home=lab.home, config=config) as opened:
            async with opened.session(lab.settings()) as session:
                yield session, mock


def compacted(lab: Lab) -> dict[str, Any]:
    (line,) = [line["payload"] for line in lab.lines() if line["type"] == "compacted"]
    assert isinstance(line, dict)
    return line


async def test_the_endpoint_gives_the_new_history(lab: Lab) -> None:
    replies = message_reply("a"), Reply(status=200, json={"output": OUTPUT}), message_reply("b")
    async with talking(lab, *replies) as (session, mock):
        await session.run("first")
        kinds = types(await collect(await session.start_compaction()))
        assert kinds == [
            *["task_started", "item_started", "token_count", "item_completed", "context_compacted", "task_complete"]
        ]
        body, headers = mock.requests[1], mock.request_headers[1]
        assert set(body) == {
            *("model", "instructions", "input", "tools", "parallel_tool_calls"),
            *(
                "prompt_cache_key",
                *(key for key in ("reasoning", "text") if key in mock.requests[0] and mock.requests[0][key]),
            ),
        }
        assert texts(body["input"])[-2:] == ["first", "a"]
        assert "x-codex-installation-id" in headers
        assert "x-codex-turn-metadata" not in headers
        assert headers["x-codex-window-id"].endswith(":0")
        await session.run("second")
        sent = mock.requests[2]["input"]
        assert texts(sent)[:3] == ["first", IMAGE_LEFT_OUT, "a"]
        assert OPAQUE in sent
        assert [item["type"] for item in sent].count("reasoning") == 0
        assert mock.request_headers[2]["x-codex-window-id"].endswith(":1")
    assert compacted(lab)["message"] == ""
    assert PIXEL not in str(compacted(lab))


async def test_the_trigger_asks_within_a_request(lab: Lab) -> None:
    done = {"type": "response.output_item.done", "output_index": 0, "item": OPAQUE}
    end = {"type": "response.completed", "response": {"id": "r"}}
    replies = message_reply("a"), Reply(events=(done, end)), message_reply("b")
    async with talking(lab, *replies, remote_compaction_v2=True) as (session, mock):
        await session.run("first")
        await session.compact()
        assert mock.requests[1]["input"][-1] == {"type": "compaction_trigger"}
        assert mock.requests[1]["tools"] == mock.requests[0]["tools"]
        await session.run("second")
        sent = mock.requests[2]["input"]
    assert sent[1] == OPAQUE
    assert texts(sent)[0] == "first"
    assert "a" not in texts(sent)


async def test_no_compaction_in_the_answer_is_an_error(lab: Lab) -> None:
    async with talking(lab, message_reply("a"), message_reply("b"), remote_compaction_v2=True) as (session, _):
        await session.run("first")
        with pytest.raises(engine.TurnFailed, match="remote compact task: Fatal error: expected exactly one"):
            await session.compact()
    assert "compacted" not in lab.kinds()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Reply(status=400, json={"error": {"message": "no"}}), "Error running remote compact task: "),
        (Reply(status=200, json={"items": []}), "without a list `output`"),
        (Reply(status=200, json={"output": [7]}), "what can't be read"),
        (Reply(status=500, json={}), "Error running remote compact task: "),
    ],
)
async def test_a_failure_changes_nothing(lab: Lab, answer: Reply, problem: str) -> None:
    async with talking(lab, message_reply("a"), answer, message_reply("b")) as (session, mock):
        await session.run("first")
        with pytest.raises(engine.TurnFailed, match=problem):
            await session.compact()
        await session.run("second")
        assert texts(mock.requests[2]["input"])[-3:] == ["first", "a", "second"]
    assert "compacted" not in lab.kinds()


async def test_what_is_too_long_for_the_endpoint_gets_shorter(lab: Lab) -> None:
    overflow = Reply(status=400, json={"error": {"code": "context_length_exceeded", "message": "too long"}})
    replies = message_reply("a"), overflow, Reply(status=200, json={"output": [OPAQUE]}), message_reply("b")
    async with talking(lab, *replies) as (session, mock):
        await session.run("first")
        await session.compact()
        assert mock.requests[2]["input"] == mock.requests[1]["input"][1:]
        await session.run("second")
        assert mock.requests[3]["input"][0] == OPAQUE
