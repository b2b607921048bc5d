"""Texts, retryability and wire info of everything a model server can do wrong."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ContextWindowExceeded, ModelError
from engine.models.failures import (
    Disconnected,
    IdleTimeout,
    InvalidImage,
    UsageLimitReached,
    http_failure,
    response_failure,
    retry_after,
)

URL = "http://127.0.0.1:1/v1/responses"


def http(status: int, error: Any = None, headers: dict[str, str] | None = None) -> ModelError:
    text = error if isinstance(error, str) else json.dumps({"error": error or {}})
    return http_failure(status, headers or {}, text, URL)


def facts(error: ModelError) -> tuple[str, object, bool, int | None]:
    return error.message, error.info, error.retryable, error.status


def test_500() -> None:
    assert facts(http(500, {"message": "boom"})) == (
        "We’re currently experiencing high demand, which may cause temporary errors.",
        "internal_server_error",
        True,
        None,
    )


def test_400_is_the_body_as_it_is() -> None:
    text = '{"error": {"message": "Invalid schema", "code": "invalid_json_schema"}}'
    assert facts(http(400, text)) == (text, "other", False, 400)


@pytest.mark.parametrize("status", [401, 404, 408, 503])
def test_other_statuses_name_themselves_the_message_and_the_place(status: int) -> None:
    error = http(status, {"message": "Incorrect API key"})
    phrase = {401: "Unauthorized", 404: "Not Found", 408: "Request Timeout", 503: "Service Unavailable"}[status]
    assert facts(error) == (
        f"unexpected status {status} {phrase}: Incorrect API key, url: {URL}",
        {"http_connection_failed": {"http_status_code": status}},
        True,
        status,
    )


def test_an_unexpected_status_shows_what_helps_to_find_the_cause() -> None:
    details = base64.b64encode(json.dumps({"error": {"code": "token_expired"}}).encode()).decode()
    headers = {
        "cf-ray": "ray",
        "x-request-id": "req",
        "x-oai-request-id": "other",
        "x-openai-authorization-error": "bad",
        "x-error-json": details,
    }
    assert http(401, "plain text ", headers).message == (
        f"unexpected status 401 Unauthorized: plain text, url: {URL}, cf-ray: ray, request id: req, "
        "auth error: bad, auth error code: token_expired"
    )


def test_an_unexpected_body_is_shortened_and_an_empty_one_named() -> None:
    assert f": {'é' * 500}..., url" in http(418, "é" * 600).message
    assert "unexpected status 599 <unknown status code>: Unknown error" in http(599, "  ").message


def test_cloudflare_gets_a_text_of_its_own() -> None:
    assert http(403, "<html>Cloudflare ... you have been blocked").message.startswith("Access blocked by Cloudflare")


def test_429_is_not_retried_unless_the_server_says_when() -> None:
    text = "exceeded retry limit, last status: 429 Too Many Requests"
    info = {"response_too_many_failed_attempts": {"http_status_code": 429}}
    error = {"message": "Rate limit reached", "type": "rate_limit_exceeded"}
    assert facts(http(429, error)) == (text, info, False, 429)
    assert http(429, error, {"x-request-id": "abc"}).message == text + ", request id: abc"
    retried = http(429, error, {"retry-after": "1"})
    assert (*facts(retried), retried.delay) == (text, info, True, 429, 1.0)


@pytest.mark.parametrize("text", ["", "soon", "-1", "3600", "nan", "inf", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_retry_after_that_names_no_short_time_is_ignored(text: str) -> None:
    assert retry_after({"retry-after": text}) is None


def test_a_usage_limit_keeps_its_facts() -> None:
    resets = int(time.time()) + 5 * 86400
    error = http(
        429,
        {"type": "usage_limit_reached", "plan_type": "plus", "resets_at": resets},
        {"x-codex-primary-used-percent": "100"},
    )
    assert isinstance(error, UsageLimitReached)
    assert (error.info, error.retryable, error.plan_type, error.resets_at) == (
        "usage_limit_exceeded",
        False,
        "plus",
        resets,
    )
    assert error.rate_limits["primary"] == {"used_percent": 100.0, "window_minutes": None, "resets_at": None}
    day = time.strftime("%Y-%m-%d at %H:%M", time.localtime(resets))
    assert error.message == (
        f"You've hit your usage limit. Buy more credits, upgrade your plan, or try again on {day}."
    )


@pytest.mark.parametrize("plan", [None, "free", "team", "enterprise", "unheard-of"])
@pytest.mark.parametrize("resets_at", [None, 0, 10**30, "soon"])
def test_a_usage_limit_has_a_text_for_every_plan_and_time(plan: str | None, resets_at: Any) -> None:
    error = http(429, {"type": "usage_limit_reached", "plan_type": plan, "resets_at": resets_at})
    assert error.message.startswith("You've hit your usage limit. ")
    assert "try again" in error.message.lower()


@pytest.mark.parametrize("code", ["usage_not_included", "insufficient_quota"])
def test_quota_errors_over_both_ways(code: str) -> None:
    over_http, in_stream = http(429, {"type": code}), response_failure({"code": code})
    assert facts(over_http)[:3] == facts(in_stream)[:3]
    assert (over_http.info, over_http.retryable) == ("usage_limit_exceeded", False)


@pytest.mark.parametrize("code", ["server_is_overloaded", "slow_down"])
def test_overload_over_both_ways(code: str) -> None:
    text = "Selected model is at capacity. Please try a different model."
    for error in (http(503, {"code": code}), response_failure({"code": code, "message": "m"})):
        assert (error.message, error.info, error.retryable) == (text, "server_overloaded", False)


@pytest.mark.parametrize(("message", "shown"), [("flagged", "flagged"), (" ", None), (None, None)])
def test_cyber_policy_over_both_ways(message: str | None, shown: str | None) -> None:
    error = {"code": "cyber_policy", "message": message}
    for found in (http(400, error), response_failure(error)):
        assert found.message == (shown or "This request has been flagged for possible cybersecurity risk.")
        assert (found.info, found.retryable) == ("cyber_policy", False)


@pytest.mark.parametrize(
    "error",
    [
        {"message": "The image data you provided does not represent a valid image. Please check"},
        {"code": "invalid_value", "param": "input[1].content[0].image_url"},
    ],
)
def test_an_image_the_server_cannot_read_is_told_apart(error: dict[str, str]) -> None:
    assert isinstance(http(400, error), InvalidImage)


def test_response_failed_codes() -> None:
    assert isinstance(response_failure({"code": "context_length_exceeded"}), ContextWindowExceeded)
    assert response_failure({"code": "invalid_prompt"}).message == "Invalid request."
    assert response_failure({"code": "invalid_prompt", "message": "no"}).message == "no"
    assert facts(response_failure({"code": "server_error", "message": "oops"})) == (
        "stream disconnected before completion: oops",
        "other",
        True,
        None,
    )
    assert response_failure(None).message == "stream disconnected before completion: response.failed event received"


@pytest.mark.parametrize(
    ("message", "delay"),
    [
        ("Please try again in 50ms.", 0.05),
        ("TRY AGAIN IN 1.5s", 1.5),
        ("try again in 20 seconds", 20.0),
        ("try again in 1 second", 1.0),
        ("try again in 3 minutes", None),
        ("later", None),
    ],
)
def test_the_delay_a_rate_limit_names(message: str, delay: float | None) -> None:
    assert response_failure({"code": "rate_limit_exceeded", "message": message}).delay == delay
    assert response_failure({"code": "other", "message": message}).delay is None


def test_idle_and_disconnect_texts() -> None:
    assert str(IdleTimeout()) == "stream disconnected before completion: idle timeout waiting for SSE"
    assert str(IdleTimeout("websocket")).endswith("idle timeout waiting for websocket")
    assert str(Disconnected("x")) == "stream disconnected before completion: x"


@given(
    st.integers(300, 599),
    st.dictionaries(st.sampled_from(["retry-after", "x-error-json", "x-request-id", "cf-ray"]), st.text()),
    st.text(max_size=50)
    | st.recursive(
        st.none() | st.text(max_size=5) | st.integers(),
        lambda inner: st.dictionaries(
            st.sampled_from(["error", "code", "type", "message", "param", "resets_at"]), inner
        ),
    ).map(json.dumps),
)
def test_any_answer_gives_a_model_error_with_a_text(status: int, headers: dict[str, str], text: str) -> None:
    error = http_failure(status, headers, text, URL)
    assert isinstance(error, ModelError)
