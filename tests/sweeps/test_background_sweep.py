"""What a start leaves running in the background ends with its session, wherever it is (session.md 2.6, CONCURRENCY 2).

The provider takes WebSockets and has a command that prints tokens, so that is: a process, a request for the catalogue
of models, the file it is kept in, and the prepared connection.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import pytest
import trio

import engine
from engine.models.scripted import ScriptedModel
from engine.models.scripts import reply
from engine.models.serving import ScriptServer, serve_script
from tests.sweeps.leaks import Snapshot, differences, inside, outside
from tests.sweeps.places import PATIENCE_S
from tests.sweeps.sweeping import Case, Places, sizes, sweep

GRACE = 2.0  # nothing here needs it
SOON = 1.5
POLL_S = 0.001
BACKGROUND = {"model_catalogue", "prewarm"}
BESIDE = ("trio.", "tests.", "engine.models.serving")  # tasks of the server and of the test


@attrs.define(eq=False)
class Served:
    """A home, and a server for the engines on it. `leave`: the background is over, or the point was reached."""

    home: Path
    cwd: Path
    server: ScriptServer
    leave: trio.Event = attrs.field(factory=trio.Event)
    sessions: list[engine.Session] = attrs.field(factory=list)

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

    async def watch(self) -> None:
        """Sets `leave` once the first session has nothing in the background any more."""
        while not self.sessions or is_busy(self.sessions[0]):  # noqa: ASYNC110
            await trio.sleep(POLL_S)
        self.leave.set()

    async def check(self, opened: engine.Engine) -> None:
        """The next session does what the first may not have come to, and works."""
        session = await self.start(opened)
        while is_busy(session):  # noqa: ASYNC110
            await trio.sleep(POLL_S)
        assert [path.name for path in self.home.glob("*models*")] == ["models_cache.json"]  # whole, and nothing beside
        assert (await session.run("go on")).final_message == "fine"
        await session.aclose()


def is_busy(session: engine.Session) -> bool:
    """Whether something of the start runs still."""
    return any(task.name in BACKGROUND for task in session._core.ward.nursery.child_tasks)


def of_the_engine(snapshot: Snapshot) -> Snapshot:
    """Without the tasks of the server and its clock, and the idle connections that an engine keeps."""
    tasks = Counter({name: number for name, number in snapshot.tasks.items() if not name.startswith(BESIDE)})
    return attrs.evolve(snapshot, tasks=tasks, descriptors=Counter())


async def session_closed(served: Served, points: Places) -> str:
    """The session is closed; the engine goes on."""
    async with served.open() as opened:
        before = await inside(opened)
        points.arm(served.leave.set)
        session = await served.start(opened)
        await served.leave.wait()
        points.disarm()
        outcome = "busy" if is_busy(session) else "settled"
        began = time.perf_counter()
        await session.aclose()
        assert time.perf_counter() - began < SOON
        assert differences(of_the_engine(before), of_the_engine(await inside(opened))) == []
        await served.check(opened)
    return outcome


async def engine_cancelled(served: Served, points: Places) -> str:
    """The engine is cancelled, with the session in it; the next one goes on."""
    with trio.CancelScope() as scope:
        async with served.open() as opened:
            points.arm(scope.cancel)
            await served.start(opened)
            await served.leave.wait()
    points.disarm()
    assert opened.sessions() == ()
    async with served.open() as another:
        await served.check(another)
    return "cancelled" if scope.cancelled_caught else "settled"


def case_of(how: Callable[[Served, Places], Awaitable[str]]) -> Case:
    """Runs `how` beside a server, whose tasks are no points."""

    async def main(points: Places, folder: Path) -> str:
        outcomes: list[str] = []

        async def client(served: Served) -> None:
            outcomes.append(await how(served, points))
            callers.cancel_scope.cancel()

        home, cwd = folder / "home", folder / "work"
        home.mkdir()
        cwd.mkdir()
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                server: ScriptServer = await nursery.start(serve_script, ScriptedModel([reply("fine", repeat=None)]))
                server.models = [{"slug": "told", "visibility": "list", "priority": 0}]
                served = Served(home, cwd, server)
                async with trio.open_nursery() as callers:
                    callers.start_soon(served.watch)
                    callers.start_soon(client, served)
                server.stop()
        (outcome,) = outcomes
        return outcome

    def case(points: Places, folder: Path) -> str:
        before = outside()
        outcome = trio.run(main, points, folder)
        assert differences(before, outside()) == []
        return outcome

    return case


CASES = {"the session is closed": session_closed, "the engine is cancelled": engine_cancelled}


@sizes(20)
@pytest.mark.parametrize("how", CASES)
def test_what_a_start_left_in_the_background_ends(how: str, size: int, tmp_path: Path) -> None:
    sweep(case_of(CASES[how]), tmp_path, size).check()
