"""What is told of what goes over the wire, whatever a server sends; nothing where nobody listens."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ModelError
from engine.models.retries import HttpRetry
from engine.models.telling import EventTelling, telling_connect, telling_request, telling_send
from engine.protocol.wire import JsonObject
from engine.telemetry.handle import carrying
from tests.telemetry.recording import Recording

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["response.completed", "responsesapi.websocket_timing", "x.delta"]) | JSON},
            optional={"response": JSON, "timing_metrics": JSON},
        ),
        max_size=4,
    )
)
def test_no_event_of_a_server_is_too_strange(values: list[JsonObject]) -> None:
    recording = Recording()
    telling = EventTelling("sse", recording)
    telling.wait()
    telling.came(values)
    named = [value for value in values if isinstance(value["type"], str)]
    assert len(recording.counts("codex.sse_event")) == len(named)
    assert all(
        isinstance(value, str | int) for event in recording.events("codex.sse_event") for value in event.values()
    )


def test_the_servers_own_times_are_told() -> None:
    recording = Recording()
    times: JsonObject = {"engine_service_total_ms": 12, "engine_iapi_ttft_total_ms": 3.5, "other": 1, "x": True}
    EventTelling("websocket", recording).came([{"type": "responsesapi.websocket_timing", "timing_metrics": times}])
    told = {name: value for name, value, _ in recording.measured if name.startswith("codex.responses_api")}
    assert told == {
        "codex.responses_api_inference_time.duration_ms": 12,
        "codex.responses_api_engine_iapi_ttft.duration_ms": 3.5,
    }


def test_a_stream_that_breaks_is_told_without_words_of_the_server() -> None:
    recording = Recording()
    telling = EventTelling("websocket", recording)
    telling.came([{"type": "response.failed", "response": {"error": {"message": "secret"}}}])
    telling.broke(ModelError("secret"))
    failed, broke = recording.events("codex.websocket_event")
    assert (failed["event.kind"], failed["success"]) == ("response.failed", "false")
    assert (broke["error.type"], broke["success"]) == ("ModelError", "false")
    assert "secret" not in str(recording.logged)


def test_nobody_is_told_outside_of_a_session() -> None:
    assert EventTelling.of("sse") is None


async def test_a_request_is_told_with_its_status_or_its_failure() -> None:
    recording = Recording()

    async def answered(note: object) -> str:
        assert callable(note)
        note(201)
        return "answer"

    async def refused(note: object) -> str:
        assert callable(note)
        note(500)
        raise HttpRetry(ModelError("no"))

    async def hang(note: object) -> str:
        await trio.sleep_forever()
        raise AssertionError("nobody wakes it")

    with carrying(recording):
        assert await telling_request("/x", answered) == "answer"
        with pytest.raises(HttpRetry):
            await telling_request("/x", refused)
        with trio.CancelScope() as scope:
            scope.cancel()
            await telling_request("/x", hang)
    told = [
        (event["success"], event.get("http.response.status_code"), event.get("error.type"))
        for event in recording.events("codex.api_request")
    ]
    assert told == [("true", 201, None), ("false", 500, "ModelError"), ("false", None, "Cancelled")]
    assert [tags["status"] for tags in recording.counts("codex.api_request")] == ["201", "500", "none"]


async def test_connections_and_what_is_sent_over_them() -> None:
    recording = Recording()

    async def open_it() -> str:
        return "socket"

    async def send() -> None:
        raise ModelError("gone")

    with carrying(recording):
        assert await telling_connect("/x", open_it) == "socket"
        with pytest.raises(ModelError):
            await telling_send(send, reused=True)
    assert recording.events("codex.websocket_connect")[0]["success"] == "true"
    (sent,) = recording.events("codex.websocket_request")
    assert (sent["success"], sent["auth.connection_reused"]) == ("false", True)


async def test_without_telemetry_it_is_only_done() -> None:
    async def send(note: object) -> str:
        assert callable(note)
        note(200)
        return "answer"

    assert await telling_request("/x", send) == "answer"
