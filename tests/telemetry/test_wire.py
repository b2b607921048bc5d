"""What is told of what goes over the wire: requests, connections, events, renewed logins; whose session it is."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import engine
from engine.models.scripted import ScriptedModel
from engine.models.scripts import call, http_error, reply, response, script, usage
from engine.models.serving import ScriptServer, serve_script
from tests.session.conftest import Lab
from tests.telemetry.conftest import ALL, Kept


@asynccontextmanager
async def serving(
    lab: Lab, *answers: Any, websocket: bool | int = False, auth: engine.ExternalTokens | None = None, **fields: Any
) -> AsyncIterator[tuple[engine.Engine, ScriptServer]]:
    """An engine that talks to a script server, and tells about it."""
    lab.model = ScriptedModel(script(*answers))
    async with trio.open_nursery() as nursery:
        server: ScriptServer = await nursery.start(serve_script, lab.model)
        server.websocket = websocket
        table = {"name": "mock", "base_url": server.url, "supports_websockets": bool(websocket), **fields}
        table = {"request_max_retries": 1, "stream_max_retries": 0, **table}
        config: dict[str, object] = {**ALL, "model_provider": "mock", "model_providers.mock": table}
        async with engine.open_engine(home=lab.home, config=config, auth=auth) as opened:
            yield opened, server
        server.stop()


def names(kept: Kept, event: str, key: str) -> list[object]:
    return [attributes.get(key) for attributes in kept.events(event)]


async def test_each_try_of_a_request_is_told(kept: Kept, lab: Lab) -> None:
    async with serving(lab, http_error(500), reply("a")) as (opened, _):
        async with opened.session(lab.settings()) as session:
            await session.run("hi")
    first, second = kept.events("codex.api_request")
    assert (first["success"], first["http.response.status_code"], first["endpoint"]) == ("false", 500, "/responses")
    assert (second["success"], second["http.response.status_code"]) == ("true", 200)
    assert {(tags["status"], tags["success"]): count for tags, count in kept.points("codex.api_request")} == {
        ("500", "false"): 1,
        ("200", "true"): 1,
    }


async def test_events_of_a_response_are_counted_and_logged_but_for_deltas(kept: Kept, lab: Lab) -> None:
    async with serving(lab, response(call("update_plan", plan=[]), usage(10, 5, cached=2)), reply("Well done.")) as (
        opened,
        _,
    ):
        async with opened.session(lab.settings()) as session:
            await session.run("hi")
    kinds = names(kept, "codex.sse_event", "event.kind")
    assert kinds[0] == "response.created"
    assert kinds.count("response.completed") == 2
    assert not [kind for kind in kinds if str(kind).endswith(".delta")]
    counted = {tags["kind"]: count for tags, count in kept.points("codex.sse_event")}
    assert counted["response.output_text.delta"] >= 1
    assert counted["response.completed"] == 2
    completed = [event for event in kept.events("codex.sse_event") if event["event.kind"] == "response.completed"]
    told = completed[0]
    assert (told["input_token_count"], told["output_token_count"], told["cached_token_count"]) == (10, 5, 2)
    assert "Well done" not in "".join(span.to_json() for span in kept.spans)


async def test_a_session_over_websocket(kept: Kept, lab: Lab) -> None:
    async with serving(lab, "one", "two", websocket=True) as (opened, _):
        async with opened.session(lab.settings()) as session:
            await session.run("first")
            await session.run("second")
    (connect,) = kept.events("codex.websocket_connect")
    assert (connect["success"], connect["auth.connection_reused"]) == ("true", False)
    requests = kept.events("codex.websocket_request")
    assert [request["auth.connection_reused"] for request in requests] == [False, True, True]  # the first one warms
    assert names(kept, "codex.websocket_event", "event.kind").count("response.completed") == 3
    assert [count for _, count in kept.points("codex.websocket.request")] == [3]
    assert not kept.points("codex.api_request")
    phases = {tags["phase"] for tags, _ in kept.points("codex.startup.phase.duration_ms")}
    assert phases == {
        "thread_start_total",
        "startup_prewarm_total",
        "startup_prewarm_create_turn_context",
        "startup_prewarm_build_prompt",
        "startup_prewarm_websocket_warmup",
        "startup_prewarm_resolve",
    }
    assert [tags["status"] for tags, _ in kept.points("codex.startup_prewarm.duration_ms")] == ["ready"]
    assert [tags["status"] for tags, _ in kept.points("codex.startup_prewarm.age_at_first_turn_ms")] == ["consumed"]


@pytest.mark.parametrize("answer", [426, 500])
async def test_the_way_to_https(kept: Kept, lab: Lab, answer: int) -> None:
    async with serving(lab, "one", "two", websocket=answer) as (opened, _):
        async with opened.session(lab.settings()) as session:
            await session.run("first")
    assert [(tags["from_wire_api"], count) for tags, count in kept.points("codex.transport.fallback_to_http")] == [
        ("responses_websocket", 1)
    ]
    assert set(names(kept, "codex.websocket_connect", "success")) == {"false"}
    assert kept.events("codex.api_request")


async def test_a_login_that_is_renewed_is_told_and_whose_it_is_stands_in_logs_only(kept: Kept, lab: Lab) -> None:
    asked = 0

    async def tokens(previous: str | None) -> engine.ExternalLogin:
        nonlocal asked
        asked += 1
        await trio.lowlevel.checkpoint()
        return engine.ExternalLogin(_token(asked), "acc-17")

    answers = http_error(401, "no"), reply("a"), reply("b")
    async with serving(lab, *answers, auth=tokens, requires_openai_auth=True, name="OpenAI") as (opened, _):
        async with opened.session(lab.settings()) as session:
            await session.run("hi")
            await session.run("again")
    assert asked == 2
    (recovery,) = kept.events("codex.auth_recovery")
    assert (recovery["auth.mode"], recovery["auth.step"]) == ("external", "external_refresh")
    assert recovery["auth.outcome"] == "recovery_succeeded"
    assert "auth_mode" not in kept.events("codex.conversation_starts")[0]  # nobody has asked for the login by then
    last = kept.events("codex.turn_ttft")[-1]
    assert (last["auth_mode"], last["user.account_id"]) == ("chatgptAuthTokens", "acc-17")
    traced = "".join(span.to_json() for span in kept.spans)
    assert "acc-17" not in traced
    assert "chatgptAuthTokens" in traced
    tags = [tags for tags, _ in kept.points("codex.turn.e2e_duration_ms")]
    assert [found.get("auth_mode") for found in tags] == ["chatgptAuthTokens"]
    assert not [found for found in tags if "user.account_id" in found]


def _token(number: int) -> str:
    parts = ({"alg": "none"}, {"n": number})
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts), "x"])


async def test_commands_and_decisions_by_configuration(kept: Kept, lab: Lab) -> None:
    async with lab.open(response(call("exec_command", cmd="echo hi")), reply("a"), config=ALL) as opened:
        async with opened.session(lab.settings(approval_policy="never")) as session:
            await session.run("hi")
    (decision,) = kept.events("codex.tool_decision")
    assert (decision["tool_name"], decision["decision"], decision["source"]) == ("exec_command", "approved", "config")
    assert [(tags["tty"], count) for tags, count in kept.points("codex.tool.unified_exec")] == [("false", 1)]
    snapshots = [tags for tags, _ in kept.points("codex.shell_snapshot")]
    assert len(snapshots) <= 1  # it is made in the background, and may have no time to be made
