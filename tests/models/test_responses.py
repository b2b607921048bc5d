"""From raw events to typed ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ContextWindowExceeded, ModelError
from engine.models import responses as r
from engine.models.failures import Disconnected
from engine.protocol.items import FunctionCall, Message, OutputText
from engine.protocol.settings import TokenUsage
from engine.protocol.wire import UnknownVariant

USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 10},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 120,
}


def feed(*events: dict[str, Any]) -> list[r.ResponseEvent]:
    decoder = r.ResponseDecoder()
    return [found for event in events for found in decoder.feed(event)]


def failure(*events: dict[str, Any]) -> ModelError:
    decoder = r.ResponseDecoder()
    for event in events:
        assert list(decoder.feed(event)) == []
    return decoder.closed()


def failed(**error: Any) -> dict[str, Any]:
    return {"type": "response.failed", "response": {"id": "r", "error": error}}


def test_text_events_in_order() -> None:
    message = {"type": "message", "role": "assistant", "id": "m1", "content": [], "phase": "commentary"}
    done = message | {"content": [{"type": "output_text", "text": "Hi", "annotations": []}]}
    assert feed(
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.output_item.added", "output_index": 0, "item": message},
        {"type": "response.output_text.delta", "item_id": "m1", "delta": "Hi"},
        {"type": "response.output_item.done", "item": done},
        {"type": "response.completed", "response": {"id": "r", "usage": USAGE, "end_turn": False}},
    ) == [
        r.Created(),
        r.ItemAdded(Message("assistant", (), phase="commentary", id="m1")),
        r.TextDelta("m1", "Hi"),
        r.ItemDone(Message("assistant", (OutputText("Hi", extra={"annotations": []}),), phase="commentary", id="m1")),
        r.Completed("r", TokenUsage(100, 10, 20, 5, 120), end_turn=False),
    ]


def test_reasoning_and_custom_input_deltas() -> None:
    assert feed(
        {"type": "response.reasoning_summary_part.added", "item_id": "rs", "summary_index": 1},
        {"type": "response.reasoning_summary_text.delta", "item_id": "rs", "summary_index": 1, "delta": "a"},
        {"type": "response.reasoning_text.delta", "item_id": "rs", "content_index": 0, "delta": "b"},
        {"type": "response.custom_tool_call_input.delta", "item_id": "c", "call_id": "k", "delta": "*** B"},
    ) == [
        r.ReasoningSummaryPartAdded("rs", 1),
        r.ReasoningSummaryDelta("rs", "a", 1),
        r.ReasoningTextDelta("rs", "b", 0),
        r.CustomInputDelta("c", "k", "*** B"),
    ]


def test_function_calls_and_items_of_unknown_kind() -> None:
    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "n", "arguments": "{"}
    strange: dict[str, Any] = {"type": "hologram", "id": "h"}
    first, second = feed(
        {"type": "response.output_item.done", "item": call}, {"type": "response.output_item.done", "item": strange}
    )
    assert first == r.ItemDone(FunctionCall(name="n", arguments="{", call_id="c", id="f"))
    assert second == r.ItemDone(UnknownVariant(strange))


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": 5},
        {"type": "response.future", "x": 1},
        {"type": "response.created"},
        {"type": "response.output_item.done"},
        {"type": "response.output_item.done", "item": {"role": "assistant"}},
        {"type": "response.output_item.done", "item": {"type": "function_call", "name": "n"}},
        {"type": "response.output_item.added", "item": "text"},
        {"type": "response.output_text.delta"},
        {"type": "response.reasoning_text.delta", "delta": "x"},
        {"type": "response.reasoning_summary_part.added", "summary_index": True},
        {"type": "response.completed"},
        {"type": "response.failed"},
        {"type": "response.metadata", "metadata": {"openai_verification_recommendation": ["other"]}},
    ],
)
def test_unknown_events_and_events_without_their_parts_are_ignored(event: dict[str, Any]) -> None:
    decoder = r.ResponseDecoder()
    assert list(decoder.feed(event)) == []
    assert str(decoder.closed()) == "stream disconnected before completion: stream closed before response.completed"


def test_nothing_follows_completion() -> None:
    done = {"type": "response.completed", "response": {"id": "r"}}
    assert feed(done, done, failed(code="context_length_exceeded")) == [r.Completed("r")]


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"id": 1},
        "text",
        {"id": "r", "usage": {"input_tokens": 1}},
        {"id": "r", "usage": 5},
        {"id": "r", "end_turn": 1},
    ],
)
def test_an_unparsable_completion_is_a_stream_error(response: Any) -> None:
    with pytest.raises(Disconnected, match="failed to parse ResponseCompleted") as caught:
        feed({"type": "response.completed", "response": response})
    assert caught.value.retryable


@pytest.mark.parametrize("details", [None, {}, {"cached_tokens": None}])
def test_usage_details_may_be_absent(details: Any) -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "input_tokens_details": details}
    done = {"type": "response.completed", "response": {"id": "r", "usage": usage}}
    assert feed(done) == [r.Completed("r", TokenUsage(1, 0, 2, 0, 3))]


def test_a_failure_is_reported_when_the_stream_closes() -> None:
    assert isinstance(failure(failed(code="context_length_exceeded", message="long")), ContextWindowExceeded)


def test_without_deferring_a_failure_is_raised_at_once() -> None:
    decoder = r.ResponseDecoder(deferred=False)
    with pytest.raises(ContextWindowExceeded):
        decoder.feed(failed(code="context_length_exceeded"))
    with pytest.raises(ModelError, match="Incomplete response"):
        decoder.feed({"type": "response.incomplete", "response": {}})


def test_a_completion_after_a_failure_wins() -> None:
    assert feed(failed(code="x"), {"type": "response.completed", "response": {"id": "r"}}) == [r.Completed("r")]


def test_incomplete_is_final() -> None:
    found = failure(
        {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}}
    )
    assert (str(found), found.retryable) == ("Incomplete response returned, reason: max_output_tokens", False)
    assert str(failure({"type": "response.incomplete"})) == "Incomplete response returned, reason: unknown"


def test_headers_speak_before_the_first_event() -> None:
    headers = {
        "openai-model": "gpt-x",
        "x-codex-primary-used-percent": "12.5",
        "x-models-etag": " v1 ",
        "x-reasoning-included": "",
    }
    model, limits, etag, reasoning = r.ResponseDecoder().open(headers)
    assert model == r.ServerModel("gpt-x")
    assert isinstance(limits, r.RateLimits)
    assert limits.snapshot["primary"] == {"used_percent": 12.5, "window_minutes": None, "resets_at": None}
    assert (etag, reasoning) == (r.ModelsEtag("v1"), r.ReasoningIncluded())


def test_the_server_model_is_told_when_it_changes() -> None:
    decoder = r.ResponseDecoder()
    decoder.open({"openai-model": "a"})

    def fed(**more: Any) -> list[r.ResponseEvent]:
        return list(decoder.feed({"type": "response.in_progress", **more}))

    assert fed(headers={"OpenAI-Model": "a"}) == []
    assert fed(response={"headers": {"X-OpenAI-Model": ["b", "c"]}}) == [r.ServerModel("b")]
    assert fed(headers={"openai-model": "b"}) == []
    assert fed(headers={"openai-model": ""}) == []
    created = decoder.feed({"type": "response.created", "response": {"headers": {"openai-model": "c"}}})
    assert list(created) == [r.ServerModel("c"), r.Created()]


@pytest.mark.parametrize("recommended", ["trusted_access_for_cyber", ["x", "trusted_access_for_cyber"]])
def test_a_recommended_verification_is_told(recommended: Any) -> None:
    metadata = {"openai_verification_recommendation": recommended}
    assert feed({"type": "response.metadata", "metadata": metadata}) == [
        r.VerificationRequested(("trusted_access_for_cyber",))
    ]


def test_rate_limits_in_band() -> None:
    (found,) = feed({"type": "codex.rate_limits", "rate_limits": {"primary": {"used_percent": 5}}})
    assert isinstance(found, r.RateLimits)
    assert found.snapshot["primary"] == {"used_percent": 5.0, "window_minutes": None, "resets_at": None}


KEYS = ["id", "item", "response", "error", "code", "usage", "type", "headers", "openai-model", "delta", "content"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner),
    max_leaves=12,
)
events = st.fixed_dictionaries(
    {"type": st.sampled_from(sorted(r._HANDLERS))},
    optional=dict.fromkeys(["item", "response", "delta", "headers", "metadata", "summary_index"], json_values),
)


@given(st.lists(events | st.dictionaries(st.text(max_size=3), json_values), max_size=5), st.booleans())
def test_any_events_give_events_or_a_model_error(stream: list[dict[str, Any]], deferred: bool) -> None:
    decoder = r.ResponseDecoder(deferred=deferred)
    try:
        for event in stream:
            decoder.feed(event)
    except ModelError:
        return
    assert isinstance(decoder.closed(), ModelError)
