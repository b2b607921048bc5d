"""Rollout traces of whole sessions: what is told in which order, and that a trace never fails a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

import engine
from engine.models.scripts import call, cut, failed, reply, response, say, think, usage, wait
from engine.protocol.wire import JsonObject
from engine.session.tracing import ThreadTrace
from engine.telemetry.bundles import Bundles
from tests.mock_responses import Reply, message_reply, serve_responses
from tests.session.conftest import Lab


@engine.tool(name="greet")
async def greet(name: str) -> str:
    """Greets."""
    return f"hello {name}"


class Traced:
    """A bundle as a reader finds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Any] = [json.loads(line) for line in (path / "trace.jsonl").read_text().splitlines()]

    def types(self) -> list[str]:
        """What happened, in order."""
        return [line["payload"].get("event_type") or line["payload"]["type"] for line in self.lines]

    def all(self, kind: str) -> list[Any]:
        """The events of a type."""
        return [line["payload"] for line in self.lines if line["payload"]["type"] == kind]

    def one(self, kind: str) -> Any:
        """The only event of a type."""
        (found,) = self.all(kind)
        return found

    def payload(self, reference: JsonObject) -> Any:
        """The content of a payload."""
        return json.loads((self.path / str(reference["path"])).read_text())

    def check(self) -> None:
        """Numbers without gaps, time that does not run back, and a payload for each name."""
        assert [line["seq"] for line in self.lines] == list(range(1, len(self.lines) + 1))
        times = [line["wall_time_unix_ms"] for line in self.lines]
        assert times == sorted(times)
        assert self.types()[:2] == ["rollout_started", "thread_started"]
        named = [
            value["path"]
            for line in self.lines
            for value in line["payload"].values()
            if isinstance(value, dict) and "raw_payload_id" in value
        ]
        assert len(set(named)) == len(named)
        assert {f"payloads/{path.name}" for path in (self.path / "payloads").iterdir()} == set(named)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CODEX_ROLLOUT_TRACE_ROOT", str(tmp_path / "bundles"))
    return tmp_path / "bundles"


def traces(root: Path) -> list[Traced]:
    found = [Traced(path) for path in root.iterdir()]
    for trace in found:
        trace.check()
    return sorted(found, key=lambda trace: trace.path.name.partition("-")[2][36:])


def only(root: Path) -> Traced:
    (trace,) = traces(root)
    return trace


async def test_a_session_with_a_turn(lab: Lab, root: Path) -> None:
    answers = (
        response(think("hm"), call("greet", name="you"), call("exec_command", cmd="echo hi"), usage(10, 5)),
        response(say("Done."), usage(20, 7)),
    )
    async with lab.session(*answers, tools=(greet,)) as session:
        result = await session.run("do it")
    trace = only(root)
    happened = trace.types()
    assert happened[:5] == [
        *("rollout_started", "thread_started", "session_configured"),
        *("codex_turn_started", "turn_started"),
    ]
    assert happened[-5:] == [
        *("codex_turn_ended", "turn_complete"),
        *("shutdown_complete", "thread_ended", "rollout_ended"),
    ]
    started = trace.one("thread_started")
    assert (started["thread_id"], started["agent_path"]) == (session.thread_id, "/root")
    metadata = trace.payload(started["metadata_payload"])
    assert metadata == {
        "thread_id": session.thread_id,
        "agent_path": "/root",
        **dict.fromkeys(("task_name", "nickname", "agent_role")),
        "session_source": "vscode",
        "cwd": str(lab.cwd),
        "rollout_path": str(lab.rollouts()[0]),
        "model": metadata["model"],
        "provider_name": metadata["provider_name"],
        "approval_policy": "on-request",
        "sandbox_policy": "danger-full-access",
    }
    turns = {line["codex_turn_id"] for line in trace.lines if line["thread_id"] is not None}
    assert turns == {result.id}
    assert trace.one("codex_turn_ended")["status"] == trace.one("rollout_ended")["status"] == "completed"


async def test_requests_with_what_came_of_them(lab: Lab, root: Path) -> None:
    async with lab.session(
        response(call("greet", name="you"), usage(10, 5)), reply("Done."), tools=(greet,)
    ) as session:
        await session.run("do it")
    trace = only(root)
    requests, responses = trace.all("inference_started"), trace.all("inference_completed")
    assert [request["inference_call_id"] for request in requests] == [
        response["inference_call_id"] for response in responses
    ]
    bodies = [trace.payload(request["request_payload"]) for request in requests]
    assert bodies == [request.body for request in lab.model.requests]
    first = trace.payload(responses[0]["response_payload"])
    assert first["token_usage"]["total_tokens"] == 15
    assert [item["type"] for item in first["output_items"]] == ["function_call"]
    assert first["response_id"] == responses[0]["response_id"]


async def test_tool_calls_with_what_they_do(lab: Lab, root: Path) -> None:
    patch = "apply_patch <<'EOF'\n*** Begin Patch\n*** Add File: x.txt\n+hello\n*** End Patch\nEOF\n"
    answers = (
        response(call("greet", name="you"), call("exec_command", cmd="exit 3")),
        response(call("nobody"), call("exec_command", cmd=patch)),
        reply("Done."),
    )
    async with lab.session(*answers, tools=(greet,)) as session:
        await session.run("do it")
    trace = only(root)
    calls = {event["summary"]["label"]: event for event in trace.all("tool_call_started")}
    assert calls["greet"]["kind"] == {"type": "other", "name": "greet"}
    assert calls["exec_command"]["kind"] == {"type": "exec_command"}
    assert calls["greet"]["requester"] == {"type": "model"}
    assert trace.payload(calls["greet"]["invocation_payload"]) == {
        "tool_name": "greet",
        "tool_namespace": None,
        "payload": {"type": "function", "arguments": '{"name":"you"}'},
    }
    ended = {event["tool_call_id"]: event for event in trace.all("tool_call_ended")}
    assert len(ended) == 4
    greeted = ended[calls["greet"]["tool_call_id"]]
    assert greeted["status"] == "completed"
    assert trace.payload(greeted["result_payload"])["response_item"]["output"] == "hello you"
    assert ended[calls["nobody"]["tool_call_id"]]["status"] == "failed"
    runs, ends = trace.one("tool_call_runtime_started"), trace.one("tool_call_runtime_ended")
    assert runs["tool_call_id"] == ends["tool_call_id"]
    assert ends["status"] == "failed"
    assert trace.payload(ends["runtime_payload"])["exit_code"] == 3
    assert {"patch_apply_begin", "patch_apply_end"} <= set(trace.types())


async def test_an_interrupt_cancels_request_call_and_turn_with_a_reason(lab: Lab, root: Path) -> None:
    called = trio.Event()

    @engine.tool(name="hang")
    async def hang() -> str:
        called.set()
        await trio.sleep_forever()
        raise AssertionError("nobody wakes it")

    async with lab.session(response(say("Well"), call("hang"), wait()), tools=(hang,)) as session:
        async with session.turn("hi") as turn:
            async for _ in turn:
                if called.is_set():
                    break
            else:
                raise AssertionError("the turn ended")
            await session.interrupt()
    trace = only(root)
    cancelled = trace.one("inference_cancelled")
    assert cancelled["reason"] == "interrupted"
    partial = trace.payload(cancelled["partial_response_payload"])
    assert "function_call" in [item["type"] for item in partial["output_items"]]
    assert trace.one("tool_call_ended")["status"] == "cancelled"
    assert trace.one("codex_turn_ended")["status"] == "cancelled"
    assert "turn_aborted" in trace.types()
    assert trace.one("rollout_ended")["status"] == "completed"


async def test_a_request_that_fails(lab: Lab, root: Path) -> None:
    async with lab.session(response(say("Well"), cut("drop")), failed("invalid_prompt", "no")) as session:
        with pytest.raises(engine.TurnFailed):
            await session.run("hi")
    trace = only(root)
    broke, refused = trace.all("inference_failed")
    assert broke["error"]
    partial = trace.payload(broke["partial_response_payload"])
    assert [item["type"] for item in partial["output_items"]] == ["message"]
    assert "no" in refused["error"]
    assert refused["partial_response_payload"] is None
    assert "error" in trace.types()


async def test_each_session_has_a_bundle_a_resumed_one_too(lab: Lab, root: Path) -> None:
    async with lab.open(reply("a"), reply("b"), reply("c")) as opened:
        async with opened.session(lab.settings()) as first:
            await first.run("one")
        again = await opened.resume_session(first.thread_id, settings=lab.settings())
        await again.run("two")
        await again.aclose()
        fork = await opened.fork_session(first.thread_id, settings=lab.settings())
        await fork.aclose()
    assert {trace.one("rollout_started")["root_thread_id"] for trace in traces(root)} == {
        first.thread_id,
        fork.thread_id,
    }
    assert len(traces(root)) == 3
    for trace in traces(root):
        configured = trace.all("protocol_event_observed")[0]
        assert "initial_messages" not in trace.payload(configured["event_payload"])


async def test_a_session_that_is_stopped_by_force_is_aborted(lab: Lab, root: Path) -> None:
    async with lab.session() as session:
        session._core.force_stop()
        await session.wait_closed()
    assert only(root).one("rollout_ended")["status"] == "aborted"


async def test_a_session_that_crashes_has_failed(lab: Lab, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    async with lab.open(reply("fine")) as opened:
        session = await opened.start_session(lab.settings())
        with monkeypatch.context() as patch:
            patch.setattr("engine.session.turn.context_items", fail)
            with pytest.raises(engine.SessionCrashed):
                await session.run("go")
    assert only(root).one("rollout_ended")["status"] == "failed"


async def test_a_start_that_fails_leaves_no_bundle(lab: Lab, root: Path) -> None:
    async with lab.open() as opened:
        with pytest.raises(engine.SessionStartError):
            await opened.start_session(engine.SessionSettings(cwd=lab.cwd / "missing"))
    assert not root.exists()


async def test_a_root_that_can_not_be_written_changes_nothing(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CODEX_ROLLOUT_TRACE_ROOT", str(tmp_path / "file" / "x"))
    async with lab.session(reply("a")) as session:
        assert (await session.run("hi")).final_message == "a"


async def test_without_the_variable_there_is_no_trace(lab: Lab) -> None:
    async with lab.session(reply("a")) as session:
        assert session._core.trace is None
        assert session._core.services.bundles is None


async def test_a_child_is_in_the_bundle_of_its_root(tmp_path: Path) -> None:
    bundles = Bundles(str(tmp_path / "bundles"))
    root = ThreadTrace(bundles.begin("root"), "root", "/root", {})
    child = root.child("child", "/root/child", {"cwd": "/"})
    child.ended("completed")
    root.ended("completed")
    await bundles.aclose()
    trace = only(tmp_path / "bundles")
    assert trace.types() == [
        *("rollout_started", "thread_started", "thread_started"),
        *("thread_ended", "thread_ended", "rollout_ended"),
    ]
    assert trace.payload(trace.all("thread_started")[1]["metadata_payload"])["agent_path"] == "/root/child"


async def test_a_compaction_by_the_server(lab: Lab, root: Path) -> None:
    output: list[JsonObject] = [{"type": "compaction", "encrypted_content": "sealed"}]
    with serve_responses((message_reply("a"), Reply(status=200, json={"output": output}))) as mock:
        table = {"name": "OpenAI", "base_url": mock.base_url, "request_max_retries": 0, "stream_max_retries": 0}
        config: dict[str, object] = {"model_provider": "mock", "model_providers.mock": table}
        async with engine.open_engine(home=lab.home, config=config) as opened:
            async with opened.session(lab.settings()) as session:
                await session.run("first")
                await session.compact()
    trace = only(root)
    started, done = trace.one("compaction_request_started"), trace.one("compaction_request_completed")
    installed = trace.one("compaction_installed")
    assert started["compaction_id"] == done["compaction_id"] == installed["compaction_id"]
    assert started["compaction_request_id"] == done["compaction_request_id"]
    assert trace.payload(done["response_payload"])["output_items"] == output
    checkpoint = trace.payload(installed["checkpoint_payload"])
    assert checkpoint["replacement_history"][-1]["type"] == "compaction"
    assert len(checkpoint["input_history"]) > len(checkpoint["replacement_history"])


@pytest.mark.parametrize("by_trigger", [False, True])
async def test_a_compaction_that_fails(lab: Lab, root: Path, by_trigger: bool) -> None:
    with serve_responses((message_reply("a"), Reply(status=400, json={"error": {"message": "no room"}}))) as mock:
        table = {"name": "OpenAI", "base_url": mock.base_url, "request_max_retries": 0, "stream_max_retries": 0}
        config: dict[str, object] = {"model_provider": "mock", "model_providers.mock": table}
        config["features.remote_compaction_v2"] = by_trigger
        async with engine.open_engine(home=lab.home, config=config) as opened:
            async with opened.session(lab.settings()) as session:
                await session.run("first")
                with pytest.raises(engine.TurnFailed):
                    await session.compact()
    trace = only(root)
    assert "no room" in trace.one("compaction_request_failed")["error"]
    assert not trace.all("compaction_installed")
    assert len(trace.all("inference_started")) == 1
