"""Sessions over WebSocket: the prepared connection, continuation within and across turns, retries, the way to HTTPS."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import engine
from engine.errors import TurnFailed
from engine.models.scripted import ScriptedModel
from engine.models.scripts import call, cut, http_error, reply, response, say, script, shell, think, usage
from engine.models.serving import ScriptServer, serve_script
from engine.protocol.events import EventMsg, StreamError, TokenCount, Warning
from engine.session.prewarm import TURNS, Prewarm
from tests.session.conftest import Lab, collect, texts, types


@asynccontextmanager
async def serving(
    lab: Lab, *answers: Any, websocket: bool | int = True, features: tuple[str, ...] = (), **fields: Any
) -> AsyncIterator[tuple[engine.Engine, ScriptServer]]:
    """An engine whose provider is a script server that takes WebSockets."""
    lab.model = ScriptedModel(script(*answers))
    async with trio.open_nursery() as nursery:
        server: ScriptServer = await nursery.start(serve_script, lab.model)
        server.websocket = websocket
        table = {"name": "mock", "base_url": server.url, "supports_websockets": True, "request_max_retries": 0}
        config: dict[str, object] = {"model_provider": "mock", "model_providers.mock": {**table, **fields}}
        config |= {f"features.{name}": True for name in features}
        async with engine.open_engine(home=lab.home, config=config) as opened:
            yield opened, server
        server.stop()


def frames(lab: Lab) -> list[dict[str, Any]]:
    found = [request.frame for request in lab.model.requests]
    assert None not in found
    return found  # type: ignore[return-value]


def metadata(headers: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(headers["x-codex-turn-metadata"])
    return found


async def run(session: engine.Session, text: str = "hi") -> list[EventMsg]:
    async with session.turn(text) as turn:
        return await collect(turn)


def warnings(events: list[EventMsg]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warning) and "metadata" not in event.message]


def notices(events: list[EventMsg]) -> list[str]:
    return [event.message for event in events if isinstance(event, StreamError)]


async def test_the_connection_is_prepared_and_the_first_turn_goes_on_from_it(lab: Lab) -> None:
    async with serving(lab, "one", "two") as (opened, server), opened.session(lab.settings()) as session:
        events = await run(session, "first")
        assert types(events)[0] == "task_started"
        (upgrade,) = server.upgrades
        assert metadata(upgrade)["turn_id"] == ""
        assert upgrade["thread-id"] == session.thread_id
        (warm,) = server.warmed
        assert (warm["generate"], warm["input"]) == (False, [])
        await run(session, "second")
        assert len(server.upgrades) == 1
        one, two = frames(lab)
        assert one["previous_response_id"] == "warm_1"
        assert texts(one["input"])[-1] == "first"
        assert texts(two["input"])[-1] == "second"
        assert len(two["input"]) == 1  # what the first turn said and heard is known
        turn_ids = [metadata(one["client_metadata"])["turn_id"] for one in frames(lab)]
        assert len({"", *turn_ids}) == 3


async def test_within_a_turn_only_what_is_new_is_sent(lab: Lab) -> None:
    answers = (
        response(think("hm", raw="raw", encrypted="e"), say("Looking."), shell("echo one"), shell("echo two")),
        response(call("update_plan", plan=[{"step": "a", "status": "completed"}])),
        "done",
    )
    async with serving(lab, *answers) as (opened, server), opened.session(lab.settings()) as session:
        result = await session.run("go")
        assert result.final_message == "done"
        assert server.upgraded == 1
        _, two, three = frames(lab)
        assert [item["type"] for item in two["input"]] == ["function_call_output", "function_call_output"]
        assert [item["type"] for item in three["input"]] == ["function_call_output"]
        assert lab.model.requests[2].tool_outputs[0].endswith("one\n")


async def test_other_settings_send_everything_over_the_same_connection(lab: Lab) -> None:
    async with serving(lab, "one", "two") as (opened, server), opened.session(lab.settings()) as session:
        await run(session)
        await session.run("more", engine.SettingsUpdate(output_schema={"type": "object"}))
        assert "previous_response_id" not in frames(lab)[1]
        assert server.upgraded == 1


async def test_a_provider_without_websockets_sees_no_upgrade(lab: Lab) -> None:
    async with serving(lab, "one", supports_websockets=False) as (opened, server):
        async with opened.session(lab.settings()) as session:
            await run(session)
        assert server.upgrades == []
        assert server.answered == 1


async def test_426_is_silent_and_for_the_whole_session(lab: Lab) -> None:
    async with serving(lab, "one", "two", websocket=426) as (opened, server):
        async with opened.session(lab.settings()) as session:
            for text in ("a", "b"):
                events = await run(session, text)
                assert (notices(events), warnings(events)) == ([], [])
        assert len(server.upgrades) == 1
        assert server.answered == 2


async def test_a_prewarm_that_fails_is_no_event(lab: Lab) -> None:
    async with serving(lab, "one", websocket=404, stream_max_retries=0) as (opened, server):
        async with opened.session(lab.settings()) as session:
            await trio.testing.wait_all_tasks_blocked(0.05)
            server.websocket = True
            events = await run(session)
            assert (notices(events), warnings(events)) == ([], [])
        assert server.upgraded == 1
        assert "previous_response_id" not in frames(lab)[0]


async def test_retries_are_used_up_before_https_and_start_again_there(lab: Lab) -> None:
    answers = (response(say("a"), cut()), reply("fine"))
    async with serving(lab, *answers, websocket=500, stream_max_retries=2) as (opened, server):
        async with opened.session(lab.settings()) as session:
            events = await run(session)
    assert notices(events) == ["Reconnecting... 2/2", "Reconnecting... 1/2"]  # the first over WebSocket is hidden
    (warning,) = warnings(events)
    assert warning.startswith("Falling back from WebSockets to HTTPS transport. We\u2019re currently")
    assert len(server.upgrades) == 1 + 3  # the prewarm, then one per try
    assert server.answered == 2


async def test_without_retries_left_over_https_the_turn_fails(lab: Lab) -> None:
    async with serving(lab, response(http_error(500), repeat=None), websocket=500, stream_max_retries=0) as (opened, _):
        async with opened.session(lab.settings()) as session:
            with pytest.raises(TurnFailed):
                await session.run("a")


async def test_final_errors_do_not_fall_back(lab: Lab) -> None:
    async with serving(lab, http_error(400, "bad"), "fine") as (opened, server):
        async with opened.session(lab.settings()) as session:
            with pytest.raises(TurnFailed, match="bad"):
                await session.run("a")
            await session.run("b")
            assert frames(lab)[1]["type"] == "response.create"
        assert server.answered == 2


async def test_a_used_up_account_tells_its_limits(lab: Lab) -> None:
    error = http_error(
        429, "used up", kind="usage_limit_reached", plan_type="plus", headers={"x-codex-primary-used-percent": "100"}
    )
    async with serving(lab, error) as (opened, _), opened.session(lab.settings()) as session:
        events = await run(session)
        limits = [event.rate_limits for event in events if isinstance(event, TokenCount)]
        assert limits[-1] is not None
        assert limits[-1]["primary"] == {"used_percent": 100.0, "window_minutes": None, "resets_at": None}


async def test_processed_responses_are_acknowledged_with_the_feature(lab: Lab) -> None:
    feature = "responses_websocket_response_processed"
    async with serving(lab, shell("true"), "one", features=(feature,)) as (opened, server):
        async with opened.session(lab.settings()) as session:
            await run(session)
        assert len(server.processed) >= 1


async def test_interrupting_drops_the_connection_and_the_next_turn_makes_one(lab: Lab) -> None:
    from engine.models.scripts import wait

    async with serving(lab, response(say("a"), wait()), "b") as (opened, server):
        async with opened.session(lab.settings()) as session:
            async with session.turn("a"):
                await lab.model.until_waiting()
            result = await session.run("b")
            assert result.final_message == "b"
            assert server.upgraded == 2


async def test_the_connection_ends_with_the_session(lab: Lab) -> None:
    async with serving(lab, "one") as (opened, server):
        session = await opened.start_session(lab.settings())
        await run(session)
        await session.aclose()
        assert server.upgraded == 1


async def test_a_resumed_thread_prepares_with_its_own_window(lab: Lab) -> None:
    async with serving(lab, reply("one", repeat=None)) as (opened, server):
        async with opened.session(lab.settings()) as session:
            await run(session)
        resumed = await opened.resume_session(session.thread_id)
        await run(resumed, "again")
        assert len(server.upgrades) == 2
        assert server.upgrades[1]["x-codex-window-id"] == f"{session.thread_id}:0"
        assert server.warmed[1]["input"] == []
        assert texts(frames(lab)[1]["input"])[-1] == "again"
        assert "one" in texts(frames(lab)[1]["input"])
        await resumed.aclose()


async def test_usage_comes_over_websocket_too(lab: Lab) -> None:
    async with serving(lab, response(say("a"), usage(10, 5))) as (opened, _):
        async with opened.session(lab.settings()) as session:
            result = await session.run("a")
            assert result.usage.total_tokens == 15


# --- the prepared connection alone -----------------------------------------------------------------


class _Core:
    thread_id = "t"

    def __init__(self, seconds: float) -> None:
        importlib.import_module(TURNS)  # else a thread would, and the clock would jump over that
        self.seconds = seconds
        self.ended = ""

    async def generation_counted(self) -> None:
        self.ended = "cancelled"
        await trio.sleep(self.seconds)
        self.ended = "done"
        raise engine.EngineError("nobody there")


@pytest.mark.parametrize(("seconds", "waited", "ended"), [(1, 0, "done"), (8, 3, "done"), (60, 10, "cancelled")])
async def test_the_first_turn_waits_as_long_as_a_connection_may_take(
    seconds: float, waited: float, ended: str, autojump_clock: trio.testing.MockClock
) -> None:
    prewarm, core = Prewarm(), _Core(seconds)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prewarm.run, core)  # type: ignore[arg-type]
        await trio.sleep(5)
        before = trio.current_time()
        await prewarm.settle(15)
        assert trio.current_time() - before == pytest.approx(waited)
    assert core.ended == ended


async def test_a_cancelled_turn_gives_the_prepared_connection_up(autojump_clock: trio.testing.MockClock) -> None:
    prewarm, core = Prewarm(), _Core(60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prewarm.run, core)  # type: ignore[arg-type]
        with trio.move_on_after(1):
            await prewarm.settle(15)
    assert core.ended == "cancelled"
