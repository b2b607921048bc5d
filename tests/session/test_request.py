"""The request body and the session's own headers (session.md 4.6)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import engine
from engine.models.scripts import call, reply, response
from tests.session.conftest import Lab


async def test_the_body_has_exactly_these_keys(lab: Lab) -> None:
    async with lab.session(reply("x"), model="gpt-5.4") as session:
        await session.run("go")
    body = lab.model.requests[-1].body
    assert list(body) == [
        *["model", "instructions", "input", "tools", "tool_choice", "parallel_tool_calls", "reasoning", "store"],
        *["stream", "include", "prompt_cache_key", "text", "client_metadata"],
    ]
    assert (body["model"], body["tool_choice"], body["store"], body["stream"]) == ("gpt-5.4", "auto", False, True)
    assert body["prompt_cache_key"] == session.thread_id
    assert body["include"] == ["reasoning.encrypted_content"]
    assert body["reasoning"] == {"effort": "medium"}
    identity = body["client_metadata"]
    assert identity == {"x-codex-installation-id": (lab.home / "installation_id").read_text()}


async def test_a_model_without_summaries_gets_no_reasoning(lab: Lab) -> None:
    async with lab.session(reply("x"), model="nobody-knows-it") as session:
        await session.run("go")
    body = lab.model.requests[-1].body
    assert (body["reasoning"], body["include"]) == (None, [])
    assert "text" not in body


async def test_the_headers_name_thread_window_and_turn(lab: Lab) -> None:
    async with lab.session(reply("x")) as session:
        async with session.turn("go") as turn:
            await turn.result()
    headers = lab.model.requests[-1].headers
    assert headers["session-id"] == headers["thread-id"] == headers["x-client-request-id"] == session.thread_id
    assert headers["x-codex-window-id"] == f"{session.thread_id}:0"
    assert headers["x-codex-beta-features"] == "terminal_resize_reflow"
    metadata = json.loads(headers["x-codex-turn-metadata"])
    assert metadata["turn_id"] == turn.id
    assert metadata["sandbox"] == "danger-full-access"
    assert "x-codex-turn-state" not in headers


async def test_requests_do_not_say_which_repository_they_come_from(lab: Lab) -> None:
    """docs/decisions.md: `workspaces` is optional, and a server that is not asked for it need not know."""
    for words in (["init", "-q"], ["remote", "add", "origin", "https://token@git.example.com/secret.git"]):
        subprocess.run(["git", *words], cwd=lab.cwd, check=True, capture_output=True)
    async with lab.session(reply("x"), reply("y"), thread_source="user") as session:
        await session.run("go")
        await session.run("on")
    for request in lab.model.requests:
        keys = set(json.loads(request.headers["x-codex-turn-metadata"]))
        assert keys == {"session_id", "thread_id", "thread_source", "turn_id", "sandbox", "turn_started_at_unix_ms"}
        assert "git.example.com" not in str(request)


async def test_requests_say_where_they_must_be_processed(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "requirements.toml").write_text("enforce_residency = 'us'\n")
    async with lab.open(reply("x"), system_folder=tmp_path) as host:
        async with host.session(lab.settings()) as session:
            await session.run("go")
    assert lab.model.requests[-1].headers["x-openai-internal-codex-residency"] == "us"


async def test_turn_state_is_sent_back_within_the_turn_only(lab: Lab) -> None:
    @engine.tool()
    async def quick() -> str:
        return "ok"

    first = response(call("quick"), headers={"x-codex-turn-state": "sticky"})
    async with lab.session(first, reply("done"), reply("next"), tools=(quick,)) as session:
        await session.run("go")
        await session.run("more")
    states = [request.headers.get("x-codex-turn-state") for request in lab.model.requests]
    assert states == [None, "sticky", None]


async def test_the_installation_id_is_kept_in_memory_where_home_cant_be_written(lab: Lab) -> None:
    (lab.home / "installation_id").mkdir()
    async with lab.session(reply("x"), reply("y")) as session:
        await session.run("go")
        await session.run("more")
    ids = [json.dumps(request.body["client_metadata"]) for request in lab.model.requests]
    assert len(ids) == 2
    assert ids[0] == ids[1]


async def test_verbosity_and_service_tier_are_sent_where_the_model_has_them(lab: Lab) -> None:
    async with lab.session(reply("x"), model="gpt-5.4", config={"model_verbosity": "high"}) as session:
        await session.run("go", engine.SettingsUpdate(service_tier="no-such-tier"))
    body = lab.model.requests[-1].body
    assert isinstance(body["text"], dict)
    assert body["text"]["verbosity"] == "high"
    assert "service_tier" not in body
