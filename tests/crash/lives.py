"""What an engine does until it is killed: starts, turns, forks, compactions, archiving. What is done, it tells on.

Each life runs in a process of its own, forked by `forking`. A line it tells is an acknowledgement: what it says must be
on the disk, whatever happens next.
"""

from __future__ import annotations

import logging
import os
import random
import traceback
from collections.abc import Callable
from pathlib import Path

import trio

import engine
from engine.models.scripts import When, reply, response, say, script, shell
from engine.protocol.events import AgentMessage, TaskComplete
from engine.session.compaction.texts import SUMMARIZE
from engine.thread_store.interface import ListThreads

__all__ = ["LIVES", "Tell", "live"]

Tell = Callable[[str], None]

COMMAND = "sleep 1000 >/dev/null 2>&1 & echo out"  # leaves a process behind, unless somebody cares


def model() -> engine.ScriptedModel:
    """Every turn runs a command, then answers; a compaction gets its note."""
    return engine.ScriptedModel(
        script(
            response(say("the note"), when=When(user_text=SUMMARIZE), repeat=None),
            response(shell(COMMAND), when=When(user_text="question", step=1), repeat=None),
            reply("answer", repeat=None),
            usage=None,
        )
    )


class _Life:
    def __init__(self, home: Path, tell: Tell, chance: random.Random) -> None:
        self.home = home
        self.tell = tell
        self.chance = chance

    def settings(self) -> engine.SessionSettings:
        return engine.SessionSettings(cwd=self.home.parent, sandbox="danger-full-access", persistence="extended")

    async def threads(self, host: engine.Engine, *, archived: bool = False) -> list[str]:
        page = await host.threads.list(ListThreads(limit=100, archived=archived))
        return [thread.thread_id for thread in page.threads]

    async def start(self, host: engine.Engine) -> None:
        """Starts threads: one that is durable can be resumed."""
        while True:
            session = await host.start_session(self.settings())
            await session.durable()
            self.tell(f"durable {session.thread_id}")
            if self.chance.random() < 0.5:
                await session.aclose()

    async def compact(self, host: engine.Engine) -> None:
        """Compacts a thread after each turn, as soon as that is told."""
        session = await host.start_session(self.settings())
        for number in range(1000):
            turn = await session.start_turn(f"question {number}")
            await turn.result()
            self.tell(f"complete {session.thread_id} {turn.id} {number}")
            await session.compact()
            self.tell(f"compacted {session.thread_id} {number + 1}")

    async def turn(self, host: engine.Engine) -> None:
        """Runs turns in a thread: a new one, or one that an earlier life has left. An event was stored before it was
        delivered."""
        session = await self.some_thread(host)
        for number in range(1000):
            async with session.turn(f"question {number}") as turn:
                async for event in turn:
                    match event.msg:
                        case AgentMessage():
                            self.tell(f"answered {session.thread_id} {turn.id}")
                        case TaskComplete():
                            self.tell(f"complete {session.thread_id} {turn.id} {number}")
                        case _:
                            pass

    async def some_thread(self, host: engine.Engine) -> engine.Session:
        known = await self.threads(host)
        if known and self.chance.random() < 0.7:
            try:
                return await host.resume_session(self.chance.choice(known))
            except engine.EngineError:
                pass  # another life has it
        return await host.start_session(self.settings())

    async def fork(self, host: engine.Engine) -> None:
        """Copies threads, with and without running the copy."""
        while True:
            await trio.lowlevel.checkpoint()
            known = await self.threads(host)
            if not known:  # all were put away, and by one who is no more
                session = await host.start_session(self.settings())
                await session.durable()
                await session.aclose()
                known = [session.thread_id]
            for thread in known:
                try:
                    if self.chance.random() < 0.5:
                        made = await host.threads.fork(thread)
                        self.tell(f"forked {made.thread_id} {thread}")
                    else:
                        session = await host.fork_session(thread)
                        await session.durable()
                        self.tell(f"forked {session.thread_id} {thread}")
                        await session.aclose()
                except (engine.InvalidRequest, engine.SessionStartError, engine.ThreadNotFound) as exc:
                    if "archived" not in str(exc) and not isinstance(exc, engine.ThreadNotFound):
                        raise  # another life may put it away meanwhile, and that is all

    async def archive(self, host: engine.Engine) -> None:
        """Puts threads away and brings them back, and names them."""
        while True:
            for archived in (False, True):
                for thread in await self.threads(host, archived=archived):
                    try:
                        if archived:
                            await host.threads.unarchive(thread)
                        else:
                            await host.threads.archive(thread)
                    except engine.ThreadNotFound:
                        continue  # another life was quicker
                    self.tell(f"moved {thread}")
                    await host.threads.rename(thread, f"name {self.chance.random()}")
            await trio.lowlevel.checkpoint()

    async def list(self, host: engine.Engine) -> None:
        """Looks at everything all the time, and indexes it."""
        while True:
            await self.threads(host)
            await host.threads.reindex()
            self.tell("listed")

    async def run(self, kind: str) -> None:
        async with engine.open_engine(home=self.home, model=model()) as host:
            await getattr(self, kind)(host)


LIVES = ("start", "turn", "fork", "archive", "compact", "list")


def live(home: str, kind: str, seed: str, tell: Tell) -> None:
    """Lives until it is killed. What goes wrong, and whatever is logged as a warning, is told."""

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(f"logged {record.getMessage()!r}")

    logging.getLogger("engine").addHandler(Told(logging.WARNING))
    try:
        trio.run(_Life(Path(home), tell, random.Random(seed)).run, kind)
    except BaseException as exc:
        tell(f"failed {''.join(traceback.format_exception(exc, limit=-8))}")
    os._exit(1)
