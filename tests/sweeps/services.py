"""The optional services of a start, as steps with real things behind them: folders, threads, processes, sockets.

MCP servers, hooks, skills, plugins, contributors and the network proxy come later; here the graph has their places
(session.md 2.2-2.5), so that the sweeps know today what a start with all of them leaves. What outlives its step is a
child of the session's nursery, and counts as running from its start to its stop.
"""

from __future__ import annotations

import functools
import os
import shutil
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from engine.errors import EngineError
from engine.protocol.events import Warning
from engine.session.startup import Start, Step, check_graph
from engine.session.steps import GRAPH

__all__ = ["CONTRIBUTORS", "EVERYTHING", "HOOK_WARNING", "OPTIONAL", "RUNNING", "SERVERS", "NoServer", "running"]

SERVERS = ("alpha", "zeta")
CONTRIBUTORS = ("contributor one", "contributor two")
HOOK_WARNING = "the hook of the test is of no use"
RUNNING: Counter[str] = Counter()  # what was started and not stopped yet, in this process


class NoServer(EngineError):
    """A required server did not come up."""


@contextmanager
def running(name: str) -> Iterator[None]:
    """Something runs for the length of the block."""
    RUNNING[name] += 1
    try:
        yield
    finally:
        RUNNING[name] -= 1
        if not RUNNING[name]:
            del RUNNING[name]


Child = Callable[[Start, trio.Event], Awaitable[None]]


async def _beside(start: Start, name: str, child: Child) -> None:
    """Starts a child of the session, and waits until it is up."""
    up = trio.Event()
    start.ward.start_soon(name, child, start, up)
    await up.wait()


async def _plugins(start: Start) -> None:
    """Unpacks into a folder that goes with the session."""

    async def keep(start: Start, up: trio.Event) -> None:
        folder = start.services.home / "unpacked" / str(id(start))
        try:
            await trio.to_thread.run_sync(lambda: folder.mkdir(parents=True))
            (folder / "plugin.json").write_text("{}")
            with running("plugins"):
                up.set()
                await trio.sleep_forever()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if folder.parent.exists() and not os.listdir(folder.parent):
                folder.parent.rmdir()

    await _beside(start, "plugins", keep)


async def _skills(start: Start) -> None:
    """Reads folders, and nobody waits for it."""
    with running("skills"):
        await trio.to_thread.run_sync(os.listdir, start.services.home, abandon_on_cancel=True)


async def _hooks(start: Start) -> None:
    """Reads them; what is wrong with one is told."""
    await trio.to_thread.run_sync(os.listdir, start.services.home, abandon_on_cancel=True)
    start.warn(HOOK_WARNING)


async def _network_proxy(start: Start) -> None:
    """Listens for the commands of the session."""

    async def serve(start: Start, up: trio.Event) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            with running("network proxy"):
                up.set()
                while True:
                    await (await listener.accept()).aclose()

    await _beside(start, "network proxy", serve)


async def _mcp_servers(start: Start) -> None:
    """Starts their processes and waits for none of them."""
    for name in SERVERS:
        start.ward.start_soon(f"mcp server {name}", _mcp_server, name, start)


async def _mcp_server(name: str, start: Start) -> None:
    """One server: a process that answers lines, until the session ends."""
    services = start.services
    spawning = services.supervisor.spawn(["cat"], cwd=os.fspath(services.home), env=services.environment, stdin="pipe")
    async with await spawning as process:
        with running(f"mcp server {name}"):
            assert process.stdin is not None
            await process.stdin.send_all(b"initialize\n")
            if await process.stdout.receive_some() != b"initialize\n":
                raise NoServer(f"{name}: it does not answer")
            _up(start, name).set()
            await process.wait()
            raise NoServer(f"{name}: it has ended")


_UP: weakref.WeakKeyDictionary[Start, dict[str, trio.Event]] = weakref.WeakKeyDictionary()


def _up(start: Start, name: str) -> trio.Event:
    """Set once the server answers."""
    return _UP.setdefault(start, {}).setdefault(name, trio.Event())


async def _required_mcp_wait(start: Start) -> None:
    """Waits for each; their events come after those of the session."""
    assert start.core is not None
    for name in SERVERS:
        await _up(start, name).wait()
        start.core.hub.emit("", Warning(f"{name} is ready"))


async def _contributors(start: Start) -> None:
    """Each hears of the start, and of the stop even where the start fails after it."""

    async def contribute(name: str, start: Start, up: trio.Event) -> None:
        with running(name):
            await trio.lowlevel.checkpoint()  # `on_thread_start`
            up.set()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.checkpoint()  # `on_thread_stop`

    for name in CONTRIBUTORS:
        await _beside(start, name, functools.partial(contribute, name))


OPTIONAL = (
    Step("plugins", _plugins, needs=("configuration",), on_failure="log", deadline=5),
    Step("network_proxy", _network_proxy, needs=("configuration",), deadline=5),
    Step("mcp_servers", _mcp_servers, needs=("plugins",), deadline=5),
    Step("hooks", _hooks, needs=("plugins", "shell"), on_failure="warn", deadline=5),
    Step("contributors", _contributors, needs=("session",), deadline=5),
    Step("required_mcp_wait", _required_mcp_wait, needs=("mcp_servers", "session"), deadline=5),
    Step("skills", _skills, needs=("session",), when="background", on_failure="log", deadline=5),
)


def _everything() -> tuple[Step, ...]:
    before = [step for step in OPTIONAL if "session" not in step.needs]
    after = [step for step in OPTIONAL if "session" in step.needs]
    graph: list[Step] = []
    for step in GRAPH:
        if step.name == "session":
            graph += before
            step = attrs.evolve(step, needs=(*step.needs, "network_proxy", "hooks"))
        graph.append(step)
    return (*graph, *after)


EVERYTHING = _everything()
check_graph(EVERYTHING)
