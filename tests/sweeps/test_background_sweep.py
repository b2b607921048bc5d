"""What a start leaves running in the background ends with its session, wherever it is (session.md 2.6, CONCURRENCY 2).

For a provider that takes WebSockets and has a command that prints tokens, that is: a process, a request for the
catalogue of models, the file it is kept in, and the prepared connection. For a stored thread: the count of its
compactions, the snapshot of the user's shell, and the index that is built anew.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import attrs
import pytest
import trio

import engine
from engine.models.scripted import ScriptedModel
from engine.models.scripts import reply
from engine.models.serving import ScriptServer, serve_script
from tests.sweeps.leaks import Snapshot, differences, inside, outside
from tests.sweeps.places import PATIENCE_S, Stored, opened_on
from tests.sweeps.points import interrupt
from tests.sweeps.sweeping import Case, Places, sizes, sweep

GRACE = 2.0  # nothing here needs it
SOON = 1.5
POLL_S = 0.001
SHELL = "bash"
BESIDE = ("trio.", "tests.", "engine.models.serving")  # tasks of the server and of the test


class Background(Protocol):
    """What goes on behind a session that has just started. `leave`: it is over, or the point was reached."""

    leave: trio.Event

    def open(self) -> AbstractAsyncContextManager[engine.Engine]: ...
    async def start(self, opened: engine.Engine) -> engine.Session: ...
    def is_busy(self, session: engine.Session) -> bool: ...
    async def watch(self) -> None: ...
    async def check(self, opened: engine.Engine) -> None: ...


@attrs.define(eq=False)
class Watched:
    """The part that all have in common."""

    home: Path
    cwd: Path
    leave: trio.Event = attrs.field(factory=trio.Event, init=False)
    sessions: list[engine.Session] = attrs.field(factory=list, init=False)

    def is_busy(self, session: engine.Session) -> bool:
        """Whether something of the start runs still."""
        raise NotImplementedError

    async def watch(self) -> None:
        """Sets `leave` once the first session has nothing in the background any more."""
        while not self.sessions or self.is_busy(self.sessions[0]):  # noqa: ASYNC110
            await trio.sleep(POLL_S)
        self.leave.set()


def runs(session: engine.Session, *names: str) -> bool:
    """Whether a session has one of these tasks."""
    return any(task.name in names for task in session._core.ward.nursery.child_tasks)


@attrs.define(eq=False)
class OfAProvider(Watched):
    """A home, and a server for the engines on it."""

    server: ScriptServer

    def is_busy(self, session: engine.Session) -> bool:
        """See `Background`."""
        return runs(session, "model_catalogue", "prewarm")

    def open(self) -> AbstractAsyncContextManager[engine.Engine]:
        """An engine whose model is behind the server."""
        provider = {
            "name": "mock",
            "base_url": self.server.url,
            "supports_websockets": True,
            "request_max_retries": 0,
            "auth": {"command": "echo", "args": ["token"]},
        }
        config: dict[str, object] = {"model_provider": "mock", "model_providers.mock": provider}
        return engine.open_engine(home=self.home, config=config, grace=GRACE)

    async def start(self, opened: engine.Engine) -> engine.Session:
        """A session, up, with all of its background before it."""
        session = await opened.start_session(engine.SessionSettings(cwd=self.cwd))
        self.sessions.append(session)
        return session

    async def check(self, opened: engine.Engine) -> None:
        """The next session does what the first may not have come to, and works."""
        session = await self.start(opened)
        while self.is_busy(session):  # noqa: ASYNC110
            await trio.sleep(POLL_S)
        assert [path.name for path in self.home.glob("*models*")] == ["models_cache.json"]  # whole, and nothing beside
        assert (await session.run("go on")).final_message == "fine"
        await session.aclose()


@attrs.define(eq=False)
class OfAThread(Watched):
    """A copy of stored threads whose index is gone, and a user whose shell has a profile."""

    stored: Stored
    opened: list[engine.Engine] = attrs.field(factory=list, init=False)

    def is_busy(self, session: engine.Session) -> bool:
        """See `Background`."""
        counting, snapshots = session._core.counting, session._core.resources().snapshots()
        assert snapshots is not None
        wanted, index = snapshots._wanted, session._core.services.store.index  # type: ignore[attr-defined]
        counts = counting is not None and not counting.is_set()  # not where the engine before had come to the end of it
        return counts or wanted is None or not wanted.settled.is_set() or index.progress.running

    def open(self) -> AbstractAsyncContextManager[engine.Engine]:
        """An engine that has all of it to do."""
        return opened_on(self.home, grace=GRACE)

    async def start(self, opened: engine.Engine) -> engine.Session:
        """A session that has counted nothing yet."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("engine.thread_store.stored_tail.AT_ONCE", 64)
            session = await opened.resume_session(self.stored.thread, settings=self.stored.settings(shell=SHELL))
        self.opened.append(opened)
        self.sessions.append(session)
        return session

    async def use(self, opened: engine.Engine, session: engine.Session) -> None:
        """A command that wants a snapshot, and somebody who lists the threads."""
        assert len((await opened.threads.list()).threads) == 2
        await session.run_shell("true")

    async def watch(self) -> None:
        """See `Background`."""
        while not self.sessions:  # noqa: ASYNC110
            await trio.sleep(POLL_S)
        try:
            await self.use(self.opened[0], self.sessions[0])
        except (engine.SessionClosed, engine.TurnInterrupted):
            return  # by the test
        await super().watch()

    async def check(self, opened: engine.Engine) -> None:
        """The next session does what the first may not have come to; then all of it is gone, but for the index."""
        session = await self.start(opened)
        await self.use(opened, session)
        while self.is_busy(session):  # noqa: ASYNC110
            await trio.sleep(POLL_S)
        (snapshot,) = self.home.glob("shell_snapshots/*")
        assert snapshot.name.startswith(session.thread_id)
        assert (await session.run("go on")).final_message == "fine"
        await session.aclose()
        assert list(self.home.glob("shell_snapshots/*")) == []
        assert len((await opened.threads.list()).threads) == 2


def of_the_engine(snapshot: Snapshot) -> Snapshot:
    """Without the tasks of the server and its clock, and the idle connections that an engine keeps."""
    tasks = Counter({name: number for name, number in snapshot.tasks.items() if not name.startswith(BESIDE)})
    return attrs.evolve(snapshot, tasks=tasks, descriptors=Counter())


async def session_closed(background: Background, points: Places) -> str:
    """The session is closed; the engine goes on."""
    async with background.open() as opened:
        before = await inside(opened)
        points.arm(background.leave.set)
        session = await background.start(opened)
        await background.leave.wait()
        points.disarm()
        outcome = "busy" if background.is_busy(session) else "settled"
        began = time.perf_counter()
        await session.aclose()
        assert time.perf_counter() - began < SOON
        assert differences(of_the_engine(before), of_the_engine(await inside(opened))) == []
        await background.check(opened)
    return outcome


async def engine_cancelled(background: Background, points: Places) -> str:
    """The engine is cancelled, with the session in it; the next one goes on."""
    with trio.CancelScope() as scope:
        async with background.open() as opened:
            points.arm(scope.cancel)
            await background.start(opened)
            await background.leave.wait()
    points.disarm()
    assert opened.sessions() == ()
    async with background.open() as another:
        await background.check(another)
    return "cancelled" if scope.cancelled_caught else "settled"


Opening = Callable[[Stored, Path, Path], AbstractAsyncContextManager[Background]]


@asynccontextmanager
async def of_a_provider(stored: Stored, home: Path, cwd: Path) -> AsyncIterator[Background]:
    """The tasks of the server are no points."""
    home.mkdir(exist_ok=True)
    async with trio.open_nursery() as nursery:
        server: ScriptServer = await nursery.start(serve_script, ScriptedModel([reply("fine", repeat=None)]))
        server.models = [{"slug": "told", "visibility": "list", "priority": 0}]
        yield OfAProvider(home, cwd, server)
        server.stop()


@asynccontextmanager
async def of_a_thread(stored: Stored, home: Path, cwd: Path) -> AsyncIterator[Background]:
    """The user has a profile."""
    if not home.exists():
        stored.copy(home.parent)
        for index in home.glob("engine_index*"):
            index.unlink()
    yield OfAThread(home, cwd, stored)


BACKGROUNDS: dict[str, Opening] = {"provider": of_a_provider, "thread": of_a_thread}


async def beside(opening: Opening, stored: Stored, folder: Path, how: Callable[[Background], Awaitable[str]]) -> str:
    """What `how` says, beside what its background needs."""
    outcomes: list[str] = []

    async def client(background: Background) -> None:
        outcomes.append(await how(background))
        callers.cancel_scope.cancel()

    with trio.fail_after(PATIENCE_S):
        async with opening(stored, folder / "home", folder / "work") as background:
            async with trio.open_nursery() as callers:
                callers.start_soon(background.watch)
                callers.start_soon(client, background)
    (outcome,) = outcomes
    return outcome


def case_of(how: Callable[[Background, Places], Awaitable[str]], opening: Opening, stored: Stored) -> Case:
    """`how` as a case."""

    def case(points: Places, folder: Path) -> str:
        (folder / "work").mkdir()
        before = outside()
        outcome = trio.run(beside, opening, stored, folder, lambda background: how(background, points))
        assert differences(before, outside()) == []
        return outcome

    return case


def interrupted(opening: Opening, stored: Stored) -> Case:
    """The user presses Ctrl-C; the next run goes on."""

    async def wait(background: Background, points: Places) -> str:
        async with background.open() as opened:
            points.arm(interrupt)
            await background.start(opened)
            await background.leave.wait()
            await trio.lowlevel.checkpoint()
        points.disarm()
        return "settled"

    async def go_on(background: Background) -> str:
        async with background.open() as opened:
            await background.check(opened)
        return "went on"

    def case(points: Places, folder: Path) -> str:
        (folder / "work").mkdir()
        before = outside()
        outcome = "interrupted"
        try:
            outcome = trio.run(beside, opening, stored, folder, lambda background: wait(background, points))
        except BaseException as exc:
            if not is_ctrl_c(exc):  # nurseries of ours put it in a group
                raise
        assert points.hit == (outcome == "interrupted")
        assert differences(before, outside()) == []
        assert trio.run(beside, opening, stored, folder, go_on) == "went on"
        assert differences(before, outside()) == []
        return outcome

    return case


def is_ctrl_c(exc: BaseException) -> bool:
    """Whether it is that, and nothing else."""
    if isinstance(exc, BaseExceptionGroup):
        return all(map(is_ctrl_c, exc.exceptions))
    return isinstance(exc, KeyboardInterrupt)


CASES = {"the session is closed": session_closed, "the engine is cancelled": engine_cancelled}


@pytest.fixture(autouse=True)
def _profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / ".profile").write_text("export FROM=profile\n")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


@sizes(10)
@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("how", CASES)
def test_what_a_start_left_in_the_background_ends(
    how: str, background: str, size: int, stored: Stored, tmp_path: Path
) -> None:
    sweep(case_of(CASES[how], BACKGROUNDS[background], stored), tmp_path, size).check()


@sizes(10)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_ctrl_c_ends_it_too(background: str, size: int, stored: Stored, tmp_path: Path) -> None:
    sweep(interrupted(BACKGROUNDS[background], stored), tmp_path, size).check()
