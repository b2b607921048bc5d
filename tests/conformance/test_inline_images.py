"""The real program lists, shows, forks and goes on with threads that hold an inline image once."""

from __future__ import annotations

import base64
import os
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import trio

import engine
from benchmarks.peer import AppServer, find_peer, open_app_server
from engine.protocol.thread_items import ShownUserMessage
from engine.thread_store.verifying import verify_home
from tests.cli.running import make_repository
from tests.mock_responses import message_reply, serve_responses

pytestmark = pytest.mark.conformance


def png(seed: int) -> str:
    """A real image, as the real program looks into those it sends."""
    noise = random.Random(seed)
    rows = b"".join(b"\0" + noise.randbytes(3 * 40) for _ in range(40))

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(data).decode()


FIRST, SECOND, THIRD = png(1), png(2), png(3)


@pytest.fixture
def peer() -> Path:
    """The real binary."""
    found = find_peer(None)
    if found is None:
        if os.environ.get("ENGINE_REQUIRE_CONFORMANCE"):
            pytest.fail("the package openai-codex-cli-bin is not installed")
        pytest.skip("the package openai-codex-cli-bin (extra `conformance`) is not installed")
    return found


async def written_here(home: Path, project: Path) -> tuple[str, Path]:
    """A thread that begins with nothing but an image; its id and its rollout."""
    async with engine.open_engine(home=home) as host:
        session = await host.start_session(engine.SessionSettings(cwd=project, sandbox="danger-full-access"))
        await session.run([engine.ImageInput(FIRST)])
        await session.run([engine.TextInput("and these"), engine.ImageInput(SECOND), engine.ImageInput(THIRD)])
        await session.aclose()
        assert session.rollout_path is not None
        return session.thread_id, Path(session.rollout_path)


async def shown_here(home: Path, thread: str) -> list[list[str]]:
    """The images of each message of the user."""
    async with engine.open_threads(home=home) as threads:
        page = await threads.turns(thread, engine.ListTurns(direction="asc", view="full"))
    messages = [item for turn in page.turns for item in turn.items if isinstance(item, ShownUserMessage)]
    return [[str(part["url"]) for part in message.content if part["type"] == "image"] for message in messages]


def kinds_of_input(thread: Any) -> list[list[str]]:
    """What the real program shows of each message of the user."""
    items = [item for turn in thread["turns"] for item in turn["items"] if item["type"] == "userMessage"]
    return [[part["type"] for part in item["content"]] for item in items]


async def test_it_has_the_image_that_stands_once(peer: Path, tmp_path: Path) -> None:
    home, project = Path(os.environ["CODEX_HOME"]), make_repository(tmp_path / "project")
    with serve_responses([message_reply("seen", number=number) for number in range(3)]) as mock:
        (home / "config.toml").write_text(
            'model = "gpt-5.5"\nmodel_provider = "served"\n'
            f'[model_providers.served]\nname = "served"\nbase_url = "{mock.base_url}"\nstream_max_retries = 0\n'
        )
        thread, rollout = await written_here(home, project)
        images = (FIRST, SECOND, THIRD)
        assert [rollout.read_text().count(image) for image in images] == [1, 1, 1]
        async with open_app_server(peer, dict(os.environ), project) as server:
            fork = await looked_at(server, thread)
        sent = mock.requests[-1]
    asked = [part["image_url"] for item in sent["input"] for part in item.get("content", []) if "image_url" in part]
    assert asked == [FIRST, SECOND, THIRD], "its model gets the images whole"
    for each in (thread, fork):
        assert (await shown_here(home, each))[:2] == [[FIRST], [SECOND, THIRD]]
    assert verify_home(home).clean


async def looked_at(server: AppServer, thread: str) -> str:
    """Lists, reads, forks and resumes the thread, and takes a turn in it; the fork."""
    await server.initialize()
    listed, _ = await server.call("thread/list", {})
    data: Any = listed["data"]
    assert [(found["id"], found["preview"]) for found in data] == [(thread, "[Image]")]
    read, _ = await server.call("thread/read", {"threadId": thread, "includeTurns": True})
    assert kinds_of_input(read["thread"]) == [["image"], ["text", "image", "image"]]
    made, _ = await server.call("thread/fork", {"threadId": thread})
    fork: Any = made["thread"]
    assert kinds_of_input(fork) == [["image"], ["text", "image", "image"]]
    await server.call("thread/resume", {"threadId": thread})
    with trio.fail_after(60):
        await server.run_turn(thread, "and now")
    return str(fork["id"])
