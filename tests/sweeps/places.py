"""Where the cases of a sweep take place: homes with stored threads, engines on them, ways to start a session."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import pytest
import trio

import engine
from engine.auth.storage import AuthFile
from engine.models.scripted import scripted_provider
from engine.models.scripts import reply
from engine.session.startup import Start, Step
from engine.session.steps import GRAPH
from tests.auth.logins import chatgpt
from tests.sweeps.services import EVERYTHING

__all__ = ["KINDS", "WRITING", "Kind", "Stored", "after_step", "opened_on", "spread", "stored_threads"]

PATIENCE_S = 30.0  # a case that takes longer hangs


@attrs.frozen
class Stored:
    """A home with stored threads; cases work on copies of it."""

    home: Path
    cwd: Path
    thread: engine.ThreadId

    def copy(self, folder: Path) -> Path:
        """A home for one case."""
        home = folder / "home"
        shutil.copytree(self.home, home)
        return home

    def settings(self, **changes: object) -> engine.SessionSettings:
        """Settings of a session that may run commands."""
        return engine.SessionSettings(cwd=self.cwd, sandbox="danger-full-access", **changes)  # type: ignore[arg-type]


def stored_threads(root: Path) -> Stored:
    """Makes a home with two stored threads of one turn each, and a login that only models with accounts look at."""
    home, cwd = root / "home", root / "work"
    home.mkdir()
    AuthFile(home).save(chatgpt())
    cwd.mkdir()
    stored = Stored(home, cwd, engine.ThreadId(""))

    async def record() -> engine.ThreadId:
        async with opened_on(home) as opened:
            for _ in range(2):
                async with opened.session(stored.settings()) as session:
                    await session.run("hello")
            return session.thread_id

    return attrs.evolve(stored, thread=trio.run(record))


def opened_on(home: Path, **options: object) -> AbstractAsyncContextManager[engine.Engine]:
    """An engine whose model always says `fine`; with the option `account`, it takes logins."""
    account = options.pop("account", False) is True
    provider = attrs.evolve(scripted_provider(), requires_openai_auth=account)
    model = engine.ScriptedModel([reply("fine", repeat=None)], provider=provider, record=16)
    return engine.open_engine(home=home, model=model, **({"grace": 5.0} | options))  # type: ignore[arg-type]


def spread(graph: Sequence[Step]) -> tuple[Step, ...]:
    """The graph with a pause before and after the work of each step, so that there are points in between."""

    def slow(step: Step) -> Step:
        async def run(start: Start) -> None:
            await trio.lowlevel.checkpoint()
            await step.run(start)
            await trio.lowlevel.checkpoint()

        return attrs.evolve(step, run=run)

    return tuple(map(slow, graph))


def after_step(name: str, extra: Callable[[Start], Awaitable[None]]) -> tuple[Step, ...]:
    """The graph with another step after `name` and before all that come after it."""
    graph: list[Step] = []
    for step in GRAPH:
        graph.append(attrs.evolve(step, needs=(*step.needs, "extra")) if name in step.needs else step)
        if step.name == name:
            graph.append(Step("extra", extra, needs=(name,)))
    return tuple(graph)


async def _write(start: Start) -> None:
    """Brings the file into being, as a fork does with the items it copies."""
    assert start.live is not None
    await start.live.persist()


@attrs.frozen
class Kind:
    """A way to start a session.

    - `writes`: it leaves a file once it has succeeded
    - `config`: what the engine is configured with; `{home}` stands for its home
    - `account`: its model takes logins, so that the start looks at the stored one
    """

    name: str
    start: Callable[[engine.Engine, Stored], Awaitable[engine.Session]]
    graph: tuple[Step, ...] = spread(GRAPH)
    writes: bool = False
    config: Mapping[str, object] = attrs.field(factory=dict)
    account: bool = False

    def open(self, home: Path) -> AbstractAsyncContextManager[engine.Engine]:
        """An engine for it."""
        config = {
            key: value.format(home=home) if isinstance(value, str) else value for key, value in self.config.items()
        }
        return opened_on(home, account=self.account, config=config)

    async def __call__(self, opened: engine.Engine, stored: Stored) -> engine.Session:
        opened._graph = self.graph
        return await self.start(opened, stored)

    def __str__(self) -> str:
        return self.name


def _new(opened: engine.Engine, stored: Stored) -> Awaitable[engine.Session]:
    # Configuration of its own is not there yet, so it is loaded in a thread.
    return opened.start_session(stored.settings(config={"hide_agent_reasoning": True}))


async def _in_place(opened: engine.Engine, stored: Stored) -> engine.Session:
    """The user wants an empty session in place of the one there is."""
    old = await opened.resume_session(stored.thread, settings=stored.settings())
    await old.aclose()
    return await _new(opened, stored)


def _resumed(opened: engine.Engine, stored: Stored) -> Awaitable[engine.Session]:
    return opened.resume_session(stored.thread, settings=stored.settings())


async def _uncounted(opened: engine.Engine, stored: Stored) -> engine.Session:
    """Nothing is looked at but the last lines, so that the rest is left to the background."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.thread_store.stored_tail.AT_ONCE", 64)
        return await _resumed(opened, stored)


def _forked(opened: engine.Engine, stored: Stored) -> Awaitable[engine.Session]:
    return opened.fork_session(stored.thread, settings=stored.settings())


WRITING = after_step("thread_persistence", _write)
LOCKED = {"debug.config_lockfile.export_dir": "{home}/locks/deep"}
KINDS = (
    Kind("persistent", _new, account=True),
    Kind("ephemeral", lambda opened, stored: opened.start_session(stored.settings(ephemeral=True))),
    Kind("resumed", _resumed),
    Kind("last", lambda opened, stored: opened.resume_session("last", settings=stored.settings())),
    Kind("uncounted", _uncounted),
    Kind("forked", _forked, writes=True),
    Kind(
        "forked in memory",
        lambda opened, stored: opened.fork_session(stored.thread, settings=stored.settings(ephemeral=True)),
    ),
    Kind("in place", _in_place),
    Kind("writing", _new, spread(WRITING), writes=True),
    Kind("locked", _new, writes=True, config=LOCKED),
    Kind("swift", lambda opened, stored: opened.start_session(stored.settings()), GRAPH),
    Kind("swift writing", lambda opened, stored: opened.start_session(stored.settings()), WRITING, writes=True),
    Kind("everything", _new, EVERYTHING),
    Kind("everything resumed", _resumed, EVERYTHING),
    Kind("everything forked", _forked, EVERYTHING, writes=True),
)
