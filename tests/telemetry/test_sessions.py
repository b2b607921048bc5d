"""What sessions tell: one trace for a start, its turns and tool calls; events, counters; what must not be said."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
import trio

import engine
from engine.models.scripts import call, reply, response, say, usage, wait
from engine.protocol.events import Warning
from engine.telemetry.handle import NO_TELEMETRY, Beginning, current
from engine.telemetry.trace import StartupTrace
from engine.tools.base import ToolError
from tests.session.conftest import Lab
from tests.telemetry.conftest import ALL, OTEL, Kept


@engine.tool(name="greet")
async def greet(name: str) -> str:
    """Greets."""
    return f"hello {name}"


@engine.tool(name="fail")
async def fail() -> str:
    """Fails."""
    raise ToolError("the secret of the tool")


ANSWERS = (
    response(call("greet", name="hidden"), call("fail"), usage(10, 5)),
    response(say("Done."), usage(20, 7, cached=3)),
)


async def run(lab: Lab, config: dict[str, object] | None = None) -> engine.Session:
    async with lab.open(*ANSWERS, config=config or ALL) as opened:
        async with opened.session(lab.settings(), tools=(greet, fail)) as session:
            await session.run("my secret question")
    return session


async def test_a_start_its_turns_and_tool_calls_are_one_trace(kept: Kept, lab: Lab) -> None:
    session = await run(lab)
    assert {span.context.trace_id for span in kept.spans if span.context} == {kept.spans[0].context.trace_id}
    start, turn = kept.span("session_init"), kept.span("session_task.turn")
    assert start.parent is None
    for name in ("configuration", "model", "thread_persistence", "session"):
        step = kept.span(f"session_init.{name}")
        assert step.parent is not None
        assert step.parent.span_id == start.context.span_id
        assert all(span.start_time and span.end_time for span in (start, step))
        assert (start.start_time or 0) <= (step.start_time or 0) <= (step.end_time or 0) <= (start.end_time or 0)
    assert turn.parent is not None
    assert turn.parent.span_id == start.context.span_id
    calls = [span for span in kept.spans if span.name == "tool.call"]
    assert {span.attributes["tool_name"] for span in calls if span.attributes} == {"greet", "fail"}
    asked, answered = (span for span in kept.spans if span.name == "model_request")
    assert {span.parent.span_id for span in calls if span.parent} == {asked.context.span_id}
    assert asked.parent == answered.parent == turn.context
    assert all(span.attributes and span.attributes["conversation.id"] == session.thread_id for span in kept.spans)


async def test_each_session_starts_one_conversation(kept: Kept, lab: Lab) -> None:
    session = await run(lab)
    (event,) = kept.events("codex.conversation_starts")
    assert event["conversation.id"] == session.thread_id
    assert (event["app.version"], event["approval_policy"]) == (engine.__version__, "on-request")
    assert event["sandbox_policy"] == "danger-full-access"
    assert str(event["event.timestamp"]).endswith("Z")
    assert [value for _, value in kept.points("codex.thread.started")] == [1]


async def test_what_the_user_wrote_is_redacted(kept: Kept, lab: Lab) -> None:
    await run(lab)
    (event,) = kept.events("codex.user_prompt")
    assert (event["prompt"], event["prompt_length"]) == ("[REDACTED]", len("my secret question"))


async def test_what_the_user_wrote_is_logged_where_configuration_wants_it_but_never_on_a_trace(
    kept: Kept, lab: Lab
) -> None:
    await run(lab, {"otel": {**OTEL, "log_user_prompt": True}})
    (event,) = kept.events("codex.user_prompt")
    assert event["prompt"] == "my secret question"
    traced = "".join(span.to_json() for span in kept.spans)
    for text in ("secret", "hidden", "hello"):
        assert text not in traced
    assert "arguments_length" in traced


async def test_what_steers_a_turn_is_told_like_what_began_it(kept: Kept, lab: Lab) -> None:
    steered = trio.Event()

    @engine.tool(name="pause")
    async def pause() -> str:
        await steered.wait()
        return ""

    async with lab.open(response(call("pause")), reply("a"), config=ALL) as opened:
        async with opened.session(lab.settings(), tools=(pause,)) as session, session.turn("one") as turn:
            async for event in turn:
                if event.msg.type == "item_completed":
                    break
            await turn.steer("three")
            steered.set()
            await turn.result()
    assert [event["prompt_length"] for event in kept.events("codex.user_prompt")] == [3, 5]


async def test_results_of_tools(kept: Kept, lab: Lab) -> None:
    await run(lab)
    results = {event["tool_name"]: event for event in kept.events("codex.tool_result")}
    assert (results["greet"]["success"], results["greet"]["output"]) == ("true", "hello hidden")
    assert results["greet"]["arguments"] == '{"name":"hidden"}'
    assert (results["fail"]["success"], results["fail"]["output"]) == ("false", "the secret of the tool")
    counted = {tags["tool"]: (tags["success"], value) for tags, value in kept.points("codex.tool.call")}
    assert counted == {"greet": ("true", 1), "fail": ("false", 1)}


async def test_what_a_turn_took(kept: Kept, lab: Lab) -> None:
    await run(lab)
    used = {tags["token_type"]: value for tags, value in kept.sums("codex.turn.token_usage")}
    assert used == {"total": 42, "input": 30, "cached_input": 3, "output": 12, "reasoning_output": 0}
    for name in ("codex.turn.e2e_duration_ms", "codex.turn.ttft.duration_ms", "codex.turn.ttfm.duration_ms"):
        ((tags, turns),) = kept.points(name)
        assert turns == 1
        assert "conversation.id" not in tags
        assert tags["session_source"] == "vscode"
    assert [value for _, value in kept.sums("codex.turn.tool.call")] == [2]
    assert [value for _, value in kept.points("codex.conversation.turn.count")] == [1]


async def test_an_interrupted_turn_is_told_as_cancelled(kept: Kept, lab: Lab) -> None:
    async with lab.open(response(say("Well"), wait()), config=ALL) as opened:
        async with opened.session(lab.settings()) as session, session.turn("hi") as turn:
            async for event in turn:
                if event.msg.type == "agent_message_content_delta":
                    break
            await session.interrupt()
    span = kept.span("session_task.turn")
    assert span.attributes is not None
    assert span.attributes["status"] == "cancelled"


async def test_what_the_user_decided_is_told(kept: Kept, lab: Lab) -> None:
    @engine.tool(name="ask", needs_approval=True)
    async def ask() -> str:
        """Asks first."""
        return "done"

    async def approve(request: engine.ApprovalRequest) -> engine.Decision:
        return "approved_for_session"

    async with lab.open(response(call("ask")), reply("a"), config=ALL) as opened:
        async with opened.session(lab.settings(), tools=(ask,), approve=approve) as session:
            await session.run("hi")
    (event,) = kept.events("codex.tool_decision")
    assert (event["kind"], event["decision"], event["source"]) == ("tool", "approved_for_session", "user")
    assert event["call_id"] == kept.events("codex.tool_result")[0]["call_id"]
    ((tags, asked),) = kept.points("codex.approval.requested")
    assert (tags["kind"], asked) == ("tool", 1)


async def test_a_command_of_the_user_is_a_task(kept: Kept, lab: Lab) -> None:
    async with lab.open(config=ALL) as opened:
        async with opened.session(lab.settings()) as session:
            await session.run_shell("echo hi")
    task, root = kept.span("session_task.user_shell"), kept.span("session_init")
    assert task.parent == root.context
    assert [value for _, value in kept.points("codex.task.user_shell")] == [1]
    assert not kept.events("codex.user_prompt")


async def test_a_start_that_fails_is_told(kept: Kept, lab: Lab) -> None:
    async with lab.open(config=ALL) as opened:
        with pytest.raises(engine.SessionStartError):
            await opened.start_session(engine.SessionSettings(cwd=lab.cwd / "missing"))
    assert kept.span("session_init.configuration").status.status_code.name == "ERROR"
    assert kept.span("session_init").status.status_code.name == "ERROR"
    assert not kept.events("codex.conversation_starts")


async def test_the_hosts_span_is_the_parent_of_a_start_and_linked_from_a_turn(kept: Kept, lab: Lab) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("host")
    async with lab.open(reply("a"), config=ALL) as opened:
        with tracer.start_as_current_span("host start") as outer:
            session = await opened.start_session(lab.settings())
        with tracer.start_as_current_span("host turn") as inner:
            await session.run("hi")
    start, turn = kept.span("session_init"), kept.span("session_task.turn")
    assert start.parent == outer.get_span_context()
    assert turn.context.trace_id == outer.get_span_context().trace_id
    assert [link.context for link in turn.links] == [inner.get_span_context()]


async def test_attributes_and_state_of_configuration(kept: Kept, lab: Lab) -> None:
    otel = {**OTEL, "span_attributes": {"team": "a"}, "tracestate": {"corp": {"x": "1"}}, "environment": "prod"}
    await run(lab, {"otel": otel})
    for span in kept.spans:
        assert span.attributes is not None
        assert span.attributes["team"] == "a"
        assert span.context.trace_state.to_header() == "corp=x:1"
        assert span.resource.attributes["env"] == "prod"


async def test_a_session_of_its_own_mind_is_told_that_the_engine_decides(kept: Kept, lab: Lab) -> None:
    from engine.session.steps import OTEL_OF_ENGINE

    async with lab.open(config=ALL) as opened:
        async with opened.session(lab.settings(config={"otel.environment": "prod"})) as session:
            with session.events() as events:
                async for event in events:
                    if isinstance(event.msg, Warning):
                        break
    assert event.msg == Warning(OTEL_OF_ENGINE)


@pytest.mark.parametrize("token", ["garbage", "a.b.c", "e30.e30.e30"])
async def test_the_login_is_named_by_its_kind_and_never_fails_a_start(
    kept: Kept, lab: Lab, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("CODEX_ACCESS_TOKEN", token)
    await run(lab)
    assert kept.events("codex.conversation_starts")[0]["auth_mode"] == "chatgptAuthTokens"
    assert all(token not in str(event) for event in kept.events("codex.conversation_starts"))


async def test_traces_are_not_sent_because_logs_are(kept: Kept, lab: Lab) -> None:
    await run(lab, {"otel": {"exporter": OTEL["exporter"]}})
    assert kept.events("codex.tool_result")
    assert not kept.spans
    assert not kept.points("codex.tool.call")


async def test_tools_find_the_handle_in_their_context_and_nobody_else_does(kept: Kept, lab: Lab) -> None:
    seen = []

    @engine.tool(name="look")
    async def look() -> str:
        seen.append(current())
        return ""

    async with lab.open(response(call("look")), reply("a"), config=ALL) as opened:
        async with opened.session(lab.settings(), tools=(look,)) as session:
            await session.run("hi")
    assert seen
    assert seen[0] is not NO_TELEMETRY
    assert current() is NO_TELEMETRY


def test_without_an_exporter_a_handle_does_nothing() -> None:
    assert not NO_TELEMETRY.enabled
    assert NO_TELEMETRY.session(Beginning({}, StartupTrace((), 0.0))) is NO_TELEMETRY
    assert NO_TELEMETRY.propagation() == {}
    with pytest.raises(ZeroDivisionError), NO_TELEMETRY.span("a"):
        raise ZeroDivisionError


DEFAULT_SESSION = """
import sys, tempfile, trio, engine
from engine.models.scripts import reply
async def main():
    with tempfile.TemporaryDirectory() as home:
        config = {"otel": {"exporter": "statsig", "span_attributes": {"a": "b"}}}
        async with engine.open_engine(home=home, model=engine.ScriptedModel([reply("a")]), config=config) as opened:
            async with opened.session() as session:
                await session.run("hi")
trio.run(main)
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("opentelemetry", "google", "requests")))
"""


def test_nothing_of_opentelemetry_is_imported_by_default() -> None:
    done = subprocess.run([sys.executable, "-c", DEFAULT_SESSION], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


async def test_a_missing_extra_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("opentelemetry", "engine.telemetry.exporters"))]:
        monkeypatch.delitem(sys.modules, name)
    import engine.telemetry

    monkeypatch.delattr(engine.telemetry, "exporters", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(engine.ConfigError, match=r"session-engine\[otel\]"):
        async with lab.open(config=ALL):
            raise AssertionError("it opened")


async def test_an_end_does_not_wait_for_a_server_that_hangs(
    kept: Kept, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.telemetry import opening

    monkeypatch.setattr(opening, "FINISH_BOUND", 0.1)
    go_on = trio.Event()
    blocked = threading.Event()
    monkeypatch.setattr(kept._spans, "export", lambda spans: blocked.wait(30))
    monkeypatch.setattr(kept._spans, "shutdown", blocked.set)
    began = time.perf_counter()
    with trio.CancelScope() as scope:
        async with lab.open(reply("a"), config=ALL) as opened:
            async with opened.session(lab.settings()) as session:
                await session.run("hi")
            scope.cancel()
            await go_on.wait()
    assert time.perf_counter() - began < 10
    assert blocked.is_set()
