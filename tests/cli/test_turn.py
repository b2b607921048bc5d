"""The run around the turn: signals that come before there is a turn, sessions that crash, what the header says."""

from __future__ import annotations

import gc
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from engine import Event, Session
from engine.cli.output import Machine
from engine.cli.person import sandbox_text
from engine.errors import SessionCrashed
from engine.protocol.codec import json_bytes
from engine.protocol.ids import parse_thread_id
from engine.protocol.profiles import DangerFullAccess, ReadOnly, SandboxPolicy, WorkspaceWrite
from tests.cli.running import Cli

ANSWER = '[[responses]]\ntext = "the answer"\n'


def test_the_first_line_names_the_thread(cli: Cli) -> None:
    done = cli.exec("--json", *cli.script(ANSWER), "x")
    first = done.stdout.splitlines()[0]
    thread = json.loads(first)["thread_id"]
    assert parse_thread_id(thread) == thread
    assert first.encode() == json_bytes({"type": "thread.started", "thread_id": thread})


@pytest.mark.parametrize("collects", [True, False])
def test_the_collector_rests_until_a_turn_is_under_way(cli: Cli, collects: bool) -> None:
    seen: list[bool] = []

    class Watching(Machine):  # type: ignore[misc]  # final for everybody else
        def started(self, session: Session) -> None:
            seen.append(gc.isenabled())
            super().started(session)

        def event(self, event: Event) -> None:
            seen.append(gc.isenabled())
            super().event(event)

    cli.monkeypatch.setattr("engine.cli.turn.Machine", Watching)
    assert gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        assert cli.exec("--json", *cli.script(ANSWER), "x").code == 0
        assert gc.isenabled() is collects
    finally:
        gc.enable()
    assert seen[0] is False
    assert set(seen[1:]) == {True}


def test_a_signal_during_the_start_ends_it_quietly(cli: Cli) -> None:
    @asynccontextmanager
    async def slow_engine(**arguments: object) -> AsyncIterator[None]:
        signal.raise_signal(signal.SIGINT)
        await trio.Event().wait()
        yield

    cli.monkeypatch.setattr("engine.cli.turn.open_engine", slow_engine)
    before = signal.getsignal(signal.SIGINT)
    done = cli.exec("--json", *cli.script(ANSWER), "x")
    assert (done.code, done.stdout, done.stderr) == (1, "", "")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_session_that_crashes_is_an_error_with_its_cause(cli: Cli) -> None:
    @asynccontextmanager
    async def broken_engine(**arguments: object) -> AsyncIterator[None]:
        if arguments:
            raise SessionCrashed("the session x ended by an error: oops")
        yield

    cli.monkeypatch.setattr("engine.cli.turn.open_engine", broken_engine)
    done = cli.exec(*cli.script(ANSWER), "x")
    assert (done.code, done.stderr) == (1, "Error: the session x ended by an error: oops\n")


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        (DangerFullAccess(), "danger-full-access"),
        (ReadOnly(), "read-only"),
        (WorkspaceWrite(), "workspace-write [workdir, /tmp, $TMPDIR]"),
        (
            WorkspaceWrite(("/more",), True, True, True),
            "workspace-write [workdir, /more] (network access enabled)",
        ),
    ],
)
def test_the_sandbox_in_the_header(policy: SandboxPolicy, shown: str) -> None:
    assert sandbox_text(policy) == shown
