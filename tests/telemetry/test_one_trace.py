"""One trace per session: its start, background steps, operations, turns, requests, tool calls, compactions.

Whether it is new, resumed, forked or compacted; a start that fails or is cancelled is told, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

import engine
import engine.aio
from engine.models.scripted import ScriptedModel
from engine.models.scripts import call, reply, response, usage
from engine.models.scripts import script as make_script
from engine.models.serving import serve_script
from engine.session import steps
from engine.session.startup import Start, Step
from tests.session.conftest import Lab
from tests.telemetry.conftest import ALL, Kept

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = int("0af7651916cd43dd8448eb211c80319c", 16)


@engine.tool(name="greet")
async def greet(name: str) -> str:
    """Greets."""
    return f"hello {name}"


def of_session(kept: Kept, session: engine.Session) -> list[ReadableSpan]:
    """The spans of a session, which are one trace, and nobody else's."""
    spans = [span for span in kept.spans if (span.attributes or {}).get("conversation.id") == session.thread_id]
    (trace,) = {span.context.trace_id for span in spans}
    assert all(span.context.trace_id != trace for span in kept.spans if span not in spans)
    assert_whole(spans)
    return spans


def assert_whole(spans: list[ReadableSpan]) -> None:
    """Each span is below another one of them, but for the start."""
    known = {span.context.span_id for span in spans}
    outside = [span for span in spans if span.parent is None or span.parent.span_id not in known]
    assert [span.name for span in outside] == ["session_init"]


def names(spans: list[ReadableSpan]) -> set[str]:
    return {span.name for span in spans}


def attribute(spans: list[ReadableSpan], name: str, key: str) -> object:
    (span,) = (span for span in spans if span.name == name)
    return (span.attributes or {}).get(key)


async def test_new_resumed_forked_and_compacted_sessions_are_one_trace_each(kept: Kept, lab: Lab) -> None:
    answers = (
        *(response(call("greet", name="you"), usage(10, 5)), reply("a")),
        *(reply("What was said."), reply("b"), reply("c")),
    )
    async with lab.open(*answers, config=ALL) as opened:
        async with opened.session(lab.settings(), tools=(greet,)) as first:
            await first.run("one")
            await first.compact()
            await first.update(engine.SettingsUpdate(reasoning_effort="low"))
        fork = await opened.fork_session(first.thread_id, settings=lab.settings())
        await fork.run("two")
        await fork.aclose()
        again = await opened.resume_session(fork.thread_id, settings=lab.settings())
        await again.run("three")
    whole = of_session(kept, first)
    traces = [span.context.trace_id for span in kept.spans if span.name == "session_init"]
    assert len(set(traces)) == 3
    _, forked, resumed = ([span for span in kept.spans if span.context.trace_id == trace] for trace in traces)
    assert_whole(forked)
    assert_whole(resumed)
    assert {"session_init", "session_loop", "op.dispatch.user_turn", "session_task.turn", "model_request"} <= names(
        whole
    )
    assert {"tool.call", "session_task.compact", "op.dispatch.compact", "op.dispatch.override_turn_context"} <= names(
        whole
    )
    assert "op.dispatch.shutdown" in names(whole)
    requests = [span.attributes or {} for span in whole if span.name == "model_request"]
    assert [request.get("compaction", False) for request in requests] == [False, False, True]
    assert attribute(whole, "session_init.stored_thread", "session_init.kind") == "new"
    assert attribute(whole, "session_init.thread_persistence", "session_init.ephemeral") is False
    assert attribute(forked, "session_init.stored_thread", "session_init.kind") == "forked"
    assert attribute(resumed, "session_init.stored_thread", "session_init.kind") == "resumed"
    assert "session_task.turn" in names(resumed)


async def test_an_ephemeral_session_says_so(kept: Kept, lab: Lab) -> None:
    async with lab.open(config=ALL) as opened:
        async with opened.session(lab.settings(ephemeral=True)):
            pass
    assert attribute(kept.spans, "session_init.thread_persistence", "session_init.ephemeral") is True


@asynccontextmanager
async def step_in_the_way(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[Start], object], **changes: object
) -> AsyncIterator[None]:
    """A step more in the graph of engines that open meanwhile."""
    step = Step("extra", run, needs=("configuration",), **changes)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr("engine.runtime.GRAPH", (*steps.GRAPH, step))
        yield


async def test_a_start_that_is_cancelled_is_told(kept: Kept, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = trio.Event()

    async def hang(start: Start) -> None:
        waits.set()
        await trio.sleep_forever()

    async with step_in_the_way(monkeypatch, hang), lab.open(config=ALL) as opened:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(opened.start_session, lab.settings())
                await waits.wait()
                scope.cancel()
    assert (kept.span("session_init").attributes or {})["status"] == "cancelled"
    assert (kept.span("session_init.extra").attributes or {})["status"] == "cancelled"
    assert "status" not in (kept.span("session_init.configuration").attributes or {})
    ((tags, count),) = kept.points("codex.startup.phase.duration_ms")
    assert (tags["status"], count) == ("cancelled", 1)
    assert not kept.events("codex.conversation_starts")


async def test_a_start_that_fails_is_told_with_the_step(kept: Kept, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(start: Start) -> None:
        raise engine.ConfigError("a secret")

    async with step_in_the_way(monkeypatch, fail), lab.open(config=ALL) as opened:
        with pytest.raises(engine.SessionStartError):
            await opened.start_session(lab.settings())
    assert (kept.span("session_init").attributes or {})["status"] == "failed"
    assert (kept.span("session_init.extra").attributes or {})["status"] == "failed"
    assert "secret" not in "".join(span.to_json() for span in kept.spans)


async def test_steps_in_the_background_are_in_the_trace(kept: Kept, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    done = trio.Event()

    async def work(start: Start) -> None:
        await trio.lowlevel.checkpoint()
        done.set()

    async with step_in_the_way(monkeypatch, work, when="background"), lab.open(config=ALL) as opened:
        async with opened.session(lab.settings()) as session:
            await done.wait()
    assert "session_init.extra" in names(of_session(kept, session))


async def test_a_host_names_the_trace_a_session_belongs_to(
    kept: Kept, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", "00-11111111111111111111111111111111-2222222222222222-01")
    carrier = {"traceparent": TRACEPARENT, "tracestate": "corp=x"}
    async with lab.open(reply("a"), config=ALL) as opened:
        async with opened.session(lab.settings(trace_context=carrier)) as session:
            await session.run("hi")
    assert {span.context.trace_id for span in kept.spans} == {TRACE}
    start = kept.span("session_init")
    assert start.parent is not None
    assert f"{start.parent.span_id:016x}" == "b7ad6b7169203331"
    assert start.context.trace_state.to_header() == "corp=x"


async def test_the_environment_names_it_where_nothing_else_does(
    kept: Kept, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", TRACEPARENT)
    async with lab.open(config=ALL) as opened:
        async with opened.session(lab.settings()):
            pass
    assert {span.context.trace_id for span in kept.spans} == {TRACE}


@pytest.mark.parametrize("text", ["", "garbage", "00-00000000000000000000000000000000-b7ad6b7169203331-01"])
async def test_a_trace_that_is_none_is_ignored_with_a_line_in_the_log(
    kept: Kept, lab: Lab, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    async with lab.open(config=ALL) as opened:
        async with opened.session(lab.settings(trace_context={"traceparent": text})):
            pass
    assert kept.span("session_init").parent is None
    assert ("is not valid and ignored" in caplog.text) == bool(text)


async def test_model_servers_can_continue_the_trace(kept: Kept, lab: Lab) -> None:
    lab.model = ScriptedModel(make_script(reply("a"), reply("b")))
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_script, lab.model)
        table = {"name": "mock", "base_url": server.url}
        config: dict[str, object] = {**ALL, "model_provider": "mock", "model_providers.mock": table}
        async with engine.open_engine(home=lab.home, config=config) as opened:
            async with opened.session(lab.settings()) as session:
                await session.run("hi")
        server.stop()
    sent = lab.model.requests[0].headers["traceparent"]
    request = kept.span("model_request")
    assert sent.startswith(f"00-{request.context.trace_id:032x}-{request.context.span_id:016x}-")
    assert of_session(kept, session)


async def test_without_traces_there_is_no_header(kept: Kept, lab: Lab) -> None:
    logs_only: dict[str, object] = {"otel.exporter": {"otlp-http": {"endpoint": "http://127.0.0.1:1"}}}
    async with lab.open(reply("a"), config=logs_only) as opened:
        async with opened.session(lab.settings()) as session:
            await session.run("hi")
    assert "traceparent" not in lab.model.requests[0].headers


async def test_turns_of_two_sessions_at_once_stay_in_their_traces(kept: Kept, lab: Lab) -> None:
    async with lab.open(reply("a", repeat=None), config=ALL) as opened:
        async with opened.session(lab.settings()) as one, opened.session(lab.settings()) as two:
            async with trio.open_nursery() as nursery:
                for session in (one, two, one, two):
                    nursery.start_soon(session.run, "hi")
    assert "session_task.turn" in names(of_session(kept, one))
    assert "session_task.turn" in names(of_session(kept, two))


async def test_metrics_know_the_service_and_what_runs_the_session(kept: Kept, lab: Lab) -> None:
    async with lab.open(reply("a"), config=ALL) as opened:
        async with opened.session(lab.settings(service_name="billing", source="exec")) as session:
            await session.run("hi")
    ((tags, _),) = kept.points("codex.turn.e2e_duration_ms")
    assert (tags["service_name"], tags["session_source"]) == ("billing", "exec")


def test_the_span_of_a_host_on_asyncio_is_the_parent_too(kept: Kept, lab: Lab) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("host")

    async def host() -> None:
        model = engine.ScriptedModel([reply("a")])
        async with engine.aio.open_engine(home=lab.home, model=model, config=ALL) as opened:
            with tracer.start_as_current_span("request") as span:
                session = await opened.start_session(lab.settings())
                await session.run("hi")
                await session.aclose()
        start, turn = kept.span("session_init"), kept.span("session_task.turn")
        assert start.parent == span.get_span_context()
        assert turn.context.trace_id == span.get_span_context().trace_id

    asyncio.run(host())
