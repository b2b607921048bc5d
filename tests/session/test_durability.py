"""A thread can be resumed once `durable()` has returned, whatever happens to its file meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import engine
from engine.models import scripts
from engine.protocol.events import UserMessage, Warning
from engine.protocol.items import Message, OutputText
from engine.protocol.rollout_items import EventLine
from engine.rollout.loading import load

ROOT = Path(__file__).parents[2]
IMAGE = "data:image/png;base64," + "A" * 1000

KILLED = """
import os, signal, sys, trio, engine
async def main():
    async with engine.open_engine(home=sys.argv[1], model=engine.ScriptedModel(["hello"])) as host:
        session = await host.start_session(engine.SessionSettings(cwd="."))
        if sys.argv[2] == "durable":
            await session.durable()
        print(session.thread_id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
trio.run(main)
"""


def settings(cwd: Path) -> engine.SessionSettings:
    return engine.SessionSettings(cwd=cwd, sandbox="danger-full-access", approval_policy="never")


def answers(*texts: str) -> engine.ScriptedModel:
    return engine.ScriptedModel([scripts.response(scripts.say(text)) for text in texts])


@pytest.mark.parametrize("asked", ["durable", "not durable"])
async def test_a_crash_after_durable_loses_nothing(tmp_path: Path, asked: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), asked],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    thread = done.stdout.decode().strip()
    async with engine.open_engine(home=tmp_path, model=answers("here")) as host:
        if asked == "durable":
            session = await host.resume_session(thread)
            assert (await session.run("are you there?")).final_message == "here"
        else:
            with pytest.raises(engine.SessionStartError) as caught:
                await host.resume_session(thread)
            assert isinstance(caught.value.cause, engine.ThreadNotFound)
            assert not (tmp_path / "sessions").exists()


async def test_an_id_can_be_resumed_in_the_same_engine_as_soon_as_it_is_known(tmp_path: Path) -> None:
    async with engine.open_engine(home=tmp_path, model=answers("hello")) as host:
        session = await host.start_session(settings(tmp_path))
        assert await host.resume_session(session.thread_id) == session
        await session.durable()
        await session.durable()
        await session.aclose()
        with pytest.raises(engine.SessionClosed):
            await session.durable()
        again = await host.resume_session(session.thread_id)
        assert again.thread_id == session.thread_id
        assert (await again.run("hi")).final_message == "hello"


async def test_an_ephemeral_session_is_never_durable(tmp_path: Path) -> None:
    async with engine.open_engine(home=tmp_path, model=answers()) as host:
        session = await host.start_session(engine.SessionSettings(cwd=tmp_path, ephemeral=True))
        with pytest.raises(engine.InvalidRequest, match="ephemeral"):
            await session.durable()


async def test_another_engine_is_told_who_has_the_thread(tmp_path: Path) -> None:
    async with (
        engine.open_engine(home=tmp_path, model=answers("one")) as host,
        engine.open_engine(home=tmp_path, model=answers()) as other,
    ):
        session = await host.start_session(settings(tmp_path))
        await session.run("hi")
        with pytest.raises(engine.SessionStartError, match=f"is being written by process {os.getpid()}") as caught:
            await other.resume_session(session.thread_id)
        assert isinstance(caught.value.cause, engine.ConflictError)
        await session.aclose()
        await other.resume_session(session.thread_id)


@pytest.mark.parametrize("how", ["removed", "cut"])
async def test_a_thread_whose_file_others_took_away_goes_on(tmp_path: Path, how: str) -> None:
    home = tmp_path / "home"
    async with engine.open_engine(home=home, model=answers("one", "two", "three")) as host:
        session = await host.start_session(settings(tmp_path))
        assert session.rollout_path is not None
        path = Path(session.rollout_path)
        with session.events() as events:
            await session.run([engine.TextInput("first"), engine.ImageInput(IMAGE)])
            await session.flush()
            if how == "removed":
                path.unlink()
            else:
                os.truncate(path, 100)
            await session.run("second")
            await session.aclose()
            warnings = [event.msg.message async for event in events if isinstance(event.msg, Warning)]
        [told] = [text for text in warnings if "written anew" in text]
        assert str(path) in told
        loaded = load(path.read_bytes())
        assert (loaded.damaged, loaded.thread_id) == (0, session.thread_id)
        assert path.read_text().count(IMAGE) == 1
        shown = (await host.threads.history(session.thread_id)).items
        assert UserMessage("first", images=(IMAGE,)) in [item.msg for item in shown if isinstance(item, EventLine)]
        again = await host.resume_session(session.thread_id)
        history = again._core.history.items
        spoken = [item.content for item in history if isinstance(item, Message) and item.role == "assistant"]
        assert spoken == [(OutputText("one"),), (OutputText("two"),)]
        assert again._core.reference is not None
        assert again._core.usage == session._core.usage
        assert (await again.run("third")).final_message == "three"


async def test_a_full_disk_stops_no_turn_and_is_told_once_it_is_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "sessions").write_text("in the way")
    async with engine.open_engine(home=home, model=answers("one", "two")) as host:
        session = await host.start_session(settings(tmp_path))
        with session.events() as events:
            assert (await session.run("first")).final_message == "one"
            with pytest.raises(engine.StoreError):
                await session.durable()
            (home / "sessions").unlink()
            with trio.fail_after(10):
                async for event in events:
                    if isinstance(event.msg, Warning) and "can be written again" in event.msg.message:
                        break
        assert session.rollout_path is not None
        before = load(Path(session.rollout_path).read_bytes())  # nobody asked for it
        assert before.damaged == 0
        assert len(before.items) > 5
        await session.run("second")
