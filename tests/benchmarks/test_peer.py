from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.peer import PeerError, find_peer, open_app_server

# Speaks just enough of the protocol; answers thread/start out of order on purpose.
FAKE = """#!{python}
import json, sys

def say(**message):
    print(json.dumps(message), flush=True)

held = []
for line in sys.stdin:
    asked = json.loads(line)
    number, params = asked.get("id"), asked.get("params", {{}})
    match asked["method"]:
        case "initialize":
            say(id=number, result={{"userAgent": "fake"}})
        case "thread/start" if params["ephemeral"]:
            held.append(number)
            if len(held) == 2:
                for one in reversed(held):
                    say(id=one, result={{"thread": {{"id": str(one)}}}})
        case "thread/start":
            say(method="thread/started", params={{}})
            say(id=number, result={{"thread": {{"id": "t1"}}}})
        case "turn/start":
            say(id=number, result={{}})
            say(method="turn/completed", params={{"threadId": "other", "turn": {{"status": "failed"}}}})
            status = "completed" if params["input"][0]["text"] == "go" else "failed"
            say(method="turn/completed", params={{"threadId": params["threadId"], "turn": {{"status": status}}}})
        case "die":
            break
        case "initialized":
            pass
        case _:
            say(id=number, error={{"message": "no such method"}})
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    path = tmp_path / "fake"
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(0o755)
    return path


async def test_threads_and_turns_are_timed(fake: Path, tmp_path: Path) -> None:
    async with open_app_server(fake, os.environ, tmp_path) as peer:
        await peer.initialize()
        thread, reply = await peer.start_thread(tmp_path)
        assert thread == "t1"
        assert reply.ms > 0
        began, ended = await peer.run_turn(thread, "go")
        assert ended > began


async def test_requests_may_overlap(fake: Path, tmp_path: Path) -> None:
    async with open_app_server(fake, os.environ, tmp_path) as peer:
        replies = [await peer.send("thread/start", {"ephemeral": True}) for _ in range(2)]
        assert [await reply.wait() for reply in replies] == [{"thread": {"id": "1"}}, {"thread": {"id": "2"}}]


async def test_failures_of_the_peer_are_told(fake: Path, tmp_path: Path) -> None:
    failures: list[PeerError] = []
    async with open_app_server(fake, os.environ, tmp_path) as peer:
        for attempt in (peer.call("nonsense", {}), peer.run_turn("t1", "fail"), peer.call("die", {})):
            try:
                await attempt
            except PeerError as exc:
                failures.append(exc)
    told = [str(failure) for failure in failures]
    assert "no such method" in told[0]
    assert "ended as failed" in told[1]
    assert "ended before it answered" in told[2]


def test_a_named_binary_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="no binary"):
        find_peer(str(tmp_path / "nothing"))
    there = tmp_path / "codex"
    there.touch()
    assert find_peer(str(there)) == there


@pytest.mark.conformance
@pytest.mark.skipif(find_peer(None) is None, reason="the extra `conformance` is not installed")
async def test_the_real_binary_starts_a_thread(tmp_path: Path) -> None:
    binary = find_peer(None)
    assert binary is not None
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "CODEX_HOME": str(home), "HOME": str(home)}
    async with open_app_server(binary, environment, tmp_path) as peer:
        await peer.initialize()
        assert (await peer.start_thread(tmp_path, ephemeral=True))[0]
