"""The real command line reduces the rollout traces that this engine writes to its graph of what happened.

The binary comes with the extra `conformance`; without it the tests are skipped. With `ENGINE_REQUIRE_CONFORMANCE=1`
that is a failure.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import engine
from benchmarks.peer import find_peer
from engine.models.scripts import call, cut, reply, response, say, think, usage, wait
from engine.protocol.wire import JsonObject
from tests.mock_responses import Reply, message_reply, serve_responses
from tests.session.conftest import Lab

pytestmark = pytest.mark.conformance

PATCH = "apply_patch <<'EOF'\n*** Begin Patch\n*** Add File: x.txt\n+hello\n*** End Patch\nEOF\n"


@engine.tool(name="greet")
async def greet(name: str) -> str:
    """Greets."""
    return f"hello {name}"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CODEX_ROLLOUT_TRACE_ROOT", str(tmp_path / "bundles"))
    return tmp_path / "bundles"


def reduced(root: Path, tmp_path: Path) -> Any:
    """The graph that the peer makes of the only bundle."""
    peer = find_peer(None)
    if peer is None:
        if os.environ.get("ENGINE_REQUIRE_CONFORMANCE"):
            pytest.fail("the peer is not there: install the extra `conformance`")
        pytest.skip("the peer is not there")
    (bundle,) = root.iterdir()
    home = tmp_path / "peer"
    home.mkdir()
    done = subprocess.run(
        [peer, "debug", "trace-reduce", str(bundle)],
        env={**os.environ, "CODEX_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((bundle / "state.json").read_text())


async def test_turns_tool_calls_and_an_interrupt(lab: Lab, root: Path, tmp_path: Path) -> None:
    answers = (
        response(think("hm"), call("greet", name="you"), call("exec_command", cmd="exit 3"), usage(10, 5)),
        response(call("exec_command", cmd=PATCH)),
        response(say("Almost."), cut("drop")),
        reply("Done."),
        response(say("Well"), call("exec_command", cmd="sleep 30"), wait()),
    )
    async with lab.session(*answers, tools=(greet,)) as session:
        await session.run("do it")
        async with session.turn("again") as turn:
            async for event in turn:
                if event.msg.type == "exec_command_begin":
                    break
            await session.interrupt()
    graph = reduced(root, tmp_path)
    assert graph["status"] == "completed"
    assert [turn["execution"]["status"] for turn in graph["codex_turns"].values()] == ["completed", "cancelled"]
    assert len(graph["inference_calls"]) == 5
    assert sorted(tool["execution"]["status"] for tool in graph["tool_calls"].values()) == [
        *("cancelled", "completed", "completed", "completed")
    ]
    assert len(graph["terminal_operations"]) == 2


async def test_a_compaction_by_the_model(lab: Lab, root: Path, tmp_path: Path) -> None:
    async with lab.session(reply("a"), reply("What was said."), reply("b")) as session:
        await session.run("first")
        await session.compact()
        await session.run("second")
    graph = reduced(root, tmp_path)
    assert graph["status"] == "completed"
    assert len(graph["inference_calls"]) == 3


OPAQUE: JsonObject = {"type": "compaction", "encrypted_content": "sealed"}
BY_TRIGGER = Reply(
    events=(
        {"type": "response.output_item.done", "output_index": 0, "item": OPAQUE},
        {"type": "response.completed", "response": {"id": "r"}},
    )
)


@pytest.mark.parametrize("by_trigger", [False, True])
async def test_a_compaction_by_the_server(lab: Lab, root: Path, tmp_path: Path, by_trigger: bool) -> None:
    answer = BY_TRIGGER if by_trigger else Reply(status=200, json={"output": [OPAQUE]})
    with serve_responses((message_reply("a"), answer, message_reply("b", number=2))) as mock:
        table = {"name": "OpenAI", "base_url": mock.base_url, "request_max_retries": 0, "stream_max_retries": 0}
        config: dict[str, object] = {"model_provider": "mock", "model_providers.mock": table}
        config["features.remote_compaction_v2"] = by_trigger
        async with engine.open_engine(home=lab.home, config=config) as opened:
            async with opened.session(lab.settings()) as session:
                await session.run("first")
                await session.compact()
                await session.run("second")
    graph = reduced(root, tmp_path)
    assert len(graph["compactions"]) == len(graph["compaction_requests"]) == 1
    assert len(graph["inference_calls"]) == 2
