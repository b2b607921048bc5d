"""What does a turn cost besides the model? One answer, and one with a command, held or not, against one mock server.

The overhead of a turn is the time from its input to its end, less the time its requests spent inside the mock.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import trio

import engine
from benchmarks.lab import Bench
from benchmarks.mock_server import Served, Step, answer, shell
from benchmarks.peer import AppServer, open_app_server
from engine.models import scripts
from engine.models.script_requests import ScriptedRequest
from engine.models.scripts import ScriptedResponse
from engine.protocol.profiles import SandboxMode

__all__ = ["run"]

WARM_UP = 3
SETTLE = 0.03  # seconds; what a side still does after a turn must not be in the other's sample
TURNS: dict[str, tuple[str, tuple[Step, ...]]] = {
    "answer": ("one answer", (answer(),)),
    "shell": ("one command `true`", (shell("true"), answer())),
    "sandboxed": ("`true` in workspace-write", (shell("true"), answer())),
}
PARTS = {
    "before": "input to the first request at the mock",
    "tool": "answer with the call to the next request",
    "after": "last answer to the end of the turn",
}


def run(bench: Bench) -> None:
    """The rows `turn.*`."""
    trio.run(_over_http, bench)
    trio.run(_scripted, bench)


def _settings(bench: Bench, kind: str) -> engine.SessionSettings:
    return engine.SessionSettings(cwd=bench.workspace, sandbox=_sandbox(kind), approval_policy="never")


def _sandbox(kind: str) -> SandboxMode:
    return "workspace-write" if kind == "sandboxed" else "danger-full-access"


async def _over_http(bench: Bench) -> None:
    rounds = bench.plan.size("turns")
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(engine.open_engine(home=bench.home()))
        peer: AppServer | None = None
        if bench.peer is not None:
            environment = bench.environment(bench.home())
            peer = await stack.enter_async_context(open_app_server(bench.peer, environment, bench.workspace))
            await peer.initialize()
        bench.results.note_machine("turns")
        for kind in TURNS:
            session = await host.start_session(_settings(bench, kind))
            thread = "" if peer is None else (await peer.start_thread(bench.workspace, sandbox=_sandbox(kind)))[0]
            await trio.sleep(SETTLE)
            gc.collect()
            with bench.progress.stage(f"turns: {TURNS[kind][0]}", rounds + WARM_UP):
                for number in range(-WARM_UP, rounds):
                    counts = number >= 0
                    await _our_turn(bench, session, kind, counts=counts)
                    await trio.sleep(SETTLE)
                    if peer is not None:
                        await _peer_turn(bench, peer, thread, kind, counts=counts)
                        await trio.sleep(SETTLE)
                    bench.progress.step()


async def _our_turn(bench: Bench, session: engine.Session, kind: str, *, counts: bool) -> None:
    title, steps = TURNS[kind]
    bench.mock.script(*steps)
    began = time.monotonic()
    await session.run("go")
    ended = time.monotonic()
    served = _served(bench, kind)
    if counts:
        bench.results.figure(f"turn.{kind}", f"turn with {title}, overhead").ours.append(
            _overhead((ended - began) * 1000, served)
        )
        for key, ms in _parts(kind, began, ended, served).items():
            bench.results.figure(f"turn.{kind}.{key}", f"... {PARTS[key]}").ours.append(ms)


async def _peer_turn(bench: Bench, peer: AppServer, thread: str, kind: str, *, counts: bool) -> None:
    title, steps = TURNS[kind]
    bench.mock.script(*steps)
    began, ended = await peer.run_turn(thread, "go")
    served = _served(bench, kind)
    if counts:
        bench.results.figure(f"turn.{kind}", f"turn with {title}, overhead").peer.append(
            _overhead((ended - began) * 1000, served)
        )
        for key, ms in _parts(kind, began, ended, served).items():
            bench.results.figure(f"turn.{kind}.{key}", f"... {PARTS[key]}").peer.append(ms)


def _parts(kind: str, began: float, ended: float, served: list[Served]) -> dict[str, float]:
    parts = {"before": served[0].received - began}
    if kind != "answer":
        parts["tool"] = served[1].received - served[0].sent
    parts["after"] = ended - served[-1].sent
    return {key: seconds * 1000 for key, seconds in parts.items()}


def _overhead(total: float, served: list[Served]) -> float:
    return total - sum(request.inside for request in served) * 1000


def _served(bench: Bench, kind: str) -> list[Served]:
    """The requests of the turn that just ended; that it did what it should have is made sure of."""
    served = bench.mock.served()
    expected = len(TURNS[kind][1])
    if len(served) != expected:
        raise RuntimeError(f"a turn of kind {kind!r} made {len(served)} requests instead of {expected}")
    if kind != "answer" and served[1].exits != served[0].exits + 1:
        raise RuntimeError("the command of a turn did not run to exit code 0")
    return served


async def _scripted(bench: Bench) -> None:
    """The same turns with the model in this process: no server, no HTTP; nothing is taken off."""
    rounds = bench.plan.size("turns")
    for kind, (title, _) in TURNS.items():
        figure = bench.results.figure(f"turn.{kind}.scripted", f"turn with {title}, model in process")
        async with engine.open_engine(home=bench.home(), model=engine.ScriptedModel([_responder(kind)])) as host:
            session = await host.start_session(_settings(bench, kind))
            gc.collect()
            with bench.progress.stage(f"turns in process: {title}", rounds + WARM_UP):
                for number in range(-WARM_UP, rounds):
                    began = time.perf_counter()
                    await session.run("go")
                    if number >= 0:
                        figure.ours.append((time.perf_counter() - began) * 1000)
                    bench.progress.step()


def _responder(kind: str) -> Callable[[ScriptedRequest], ScriptedResponse]:
    said = scripts.response(scripts.say("The answer is forty-two.", chunk=6))
    called = scripts.response(scripts.shell("true"))
    return lambda request: called if kind != "answer" and request.number % 2 else said
