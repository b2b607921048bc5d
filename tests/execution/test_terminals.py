"""Unified exec: replies, background terminals, input, pruning, and who dies when."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ProcessError, SessionClosed
from engine.execution import _terminal, output, terminals
from engine.execution.environment import unified_exec_environment
from engine.execution.process import SpawnError
from engine.execution.supervisor import Supervisor, open_supervisor
from engine.execution.terminals import (
    TerminalCallbacks,
    TerminalEnd,
    TerminalInputClosed,
    TerminalManager,
    TerminalOutput,
    TerminalStatistics,
    UnknownTerminal,
    choose_victim,
    clamp,
)

from .processes import FAMILY, environment, marked_processes, wait_ended


@attrs.define
class Heard:
    """What a tool hears of its command."""

    begin: list[int] = attrs.Factory(list)
    output: list[bytes] = attrs.Factory(list)
    end: list[TerminalEnd] = attrs.Factory(list)
    some_output: trio.Event = attrs.Factory(trio.Event)
    ended: trio.Event = attrs.Factory(trio.Event)

    def callbacks(self) -> TerminalCallbacks:
        return TerminalCallbacks(on_begin=self.begin.append, on_output=self._on_output, on_end=self._on_end)

    def _on_output(self, data: bytes) -> None:
        self.output.append(data)
        self.some_output.set()

    def _on_end(self, end: TerminalEnd) -> None:
        self.end.append(end)
        self.ended.set()


@asynccontextmanager
async def open_terminals(supervisor: Supervisor) -> AsyncIterator[TerminalManager]:
    async with trio.open_nursery() as nursery:
        manager = TerminalManager(supervisor, nursery, random_source=random.Random(1))
        try:
            yield manager
        finally:
            await manager.close()
    assert manager.statistics() == TerminalStatistics(background=0, in_call=0)


@pytest.fixture
async def manager(supervisor: Supervisor) -> AsyncIterator[TerminalManager]:
    async with open_terminals(supervisor) as manager:
        yield manager


async def execute(
    manager: TerminalManager, script: str, *, tty: bool = False, yield_time_ms: int = 10_000, heard: Heard | None = None
) -> TerminalOutput:
    return await manager.exec_command(
        ["sh", "-c", script],
        cwd="/",
        env=unified_exec_environment(environment()),
        call_id="call-1",
        tty=tty,
        yield_time_ms=yield_time_ms,
        callbacks=heard.callbacks() if heard else None,
    )


async def start(manager: TerminalManager, script: str, *, tty: bool = False, heard: Heard | None = None) -> int:
    reply = await execute(manager, script, tty=tty, yield_time_ms=250, heard=heard)
    assert reply.session_id is not None
    return reply.session_id


# --- a command that ends in its call -----------------------------------------------------------


@pytest.mark.parametrize("tty", [False, True])
async def test_a_command_that_ends_answers_at_once(manager: TerminalManager, tty: bool) -> None:
    heard = Heard()
    started = time.monotonic()
    reply = await execute(manager, "echo out; echo err >&2; exit 3", tty=tty, heard=heard)
    assert time.monotonic() - started < 2  # of the 10 s that it may take
    newline = "\r\n" if tty else "\n"
    assert attrs.evolve(reply, wall_time_s=0, chunk_id="") == TerminalOutput(
        chunk_id="",
        call_id="call-1",
        wall_time_s=0,
        exit_code=3,
        session_id=None,
        original_token_count=3 if tty else 2,
        output=f"out{newline}err{newline}",
    )
    assert len(reply.chunk_id) == 6
    assert int(reply.chunk_id, 16) >= 0
    assert len(heard.begin) == len(heard.end) == 1
    assert heard.begin[0] in terminals.SESSION_IDS
    assert b"".join(heard.output) == heard.end[0].output == reply.output.encode()
    assert heard.end[0].exit_code == 3
    with pytest.raises(UnknownTerminal):
        await manager.write_stdin(heard.begin[0])


async def test_the_environment_and_terminal_of_a_command(manager: TerminalManager) -> None:
    reply = await execute(manager, "echo $TERM-$LANG-$PAGER-$CODEX_CI-$NO_COLOR; stty size", tty=True)
    assert reply.output == "dumb-C.UTF-8-cat-1-1\r\n24 80\r\n"


async def test_a_command_killed_by_a_signal(manager: TerminalManager) -> None:
    assert (await execute(manager, "kill -9 $$")).exit_code == 137


async def test_what_a_finished_command_left_dies_with_the_call(manager: TerminalManager) -> None:
    reply = await execute(manager, "sleep 1000 & (setsid sleep 1000 &) ; echo hi")
    assert (reply.exit_code, reply.output) == (0, "hi\n")
    assert reply.wall_time_s < 2
    assert marked_processes() == []


async def test_much_output_keeps_head_and_tail() -> None:
    heard = Heard()
    async with open_supervisor() as supervisor, open_terminals(supervisor) as manager:
        reply = await execute(manager, "echo first; head -c 3145728 /dev/zero; echo last", heard=heard)
    assert len(reply.output) == 1024 * 1024
    assert reply.output.startswith("first\n\0")
    assert reply.output.endswith("\0last\n")
    total = 3145728 + len("first\nlast\n")
    assert reply.omitted_bytes == total - 1024 * 1024
    assert reply.original_token_count == (total + 3) // 4
    assert sum(map(len, heard.output)) == total
    assert max(map(len, heard.output)) <= 8192
    assert heard.end[0].output_text == reply.output


async def test_no_more_than_ten_thousand_deltas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert output.MAX_DELTAS == 10_000
    monkeypatch.setattr(_terminal, "MAX_DELTAS", 3)
    heard = Heard()
    async with open_supervisor() as supervisor, open_terminals(supervisor) as manager:
        reply = await execute(manager, "head -c 100000 /dev/zero", heard=heard)
    assert len(heard.output) == 3
    assert len(reply.output) == 100_000


async def test_a_start_that_fails_is_heard_of_by_nobody(manager: TerminalManager) -> None:
    heard = Heard()
    with pytest.raises(SpawnError, match="No such file or directory"):
        await manager.exec_command(["no-such"], cwd="/", env={}, call_id="c", callbacks=heard.callbacks())
    assert (heard.begin, heard.end) == ([], [])
    assert manager.statistics() == TerminalStatistics(background=0, in_call=0)


async def test_twenty_at_once(manager: TerminalManager) -> None:
    outputs: dict[int, str] = {}

    async def one(number: int) -> None:
        outputs[number] = (await execute(manager, f"sleep 0.05; echo {number}")).output

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(one, number)
    assert outputs == {number: f"{number}\n" for number in range(20)}


# --- background terminals ----------------------------------------------------------------------


async def test_a_command_that_runs_on_is_polled_to_its_end(manager: TerminalManager) -> None:
    heard = Heard()
    reply = await execute(manager, "echo one; sleep 0.6; echo two; exit 7", yield_time_ms=1, heard=heard)
    assert 0.25 <= reply.wall_time_s < 0.6  # clamped
    assert (reply.exit_code, reply.output) == (None, "one\n")
    assert reply.session_id == heard.begin[0]
    assert [(info.session_id, info.running) for info in manager.terminals()] == [(reply.session_id, True)]
    end = await manager.write_stdin(reply.session_id, yield_time_ms=1)
    assert end.wall_time_s < 4  # clamped to 5 s at least; its end ends the wait
    assert (end.exit_code, end.session_id, end.output, end.call_id) == (7, None, "two\n", "call-1")
    assert [(end.exit_code, end.output) for end in heard.end] == [(7, b"one\ntwo\n")]
    with pytest.raises(UnknownTerminal, match=f"^Unknown process id {reply.session_id}$"):
        await manager.write_stdin(reply.session_id)


async def test_its_end_is_told_when_it_comes_and_kept_for_the_next_call(manager: TerminalManager) -> None:
    heard = Heard()
    session_id = await start(manager, "sleep 0.4; echo done", heard=heard)
    with trio.fail_after(10):
        await heard.ended.wait()
    assert not manager.terminals()[0].running
    reply = await manager.write_stdin(session_id, "" if session_id else "x")
    assert (reply.exit_code, reply.output) == (0, "done\n")


async def test_input_to_a_terminal_is_echoed_and_answered(manager: TerminalManager) -> None:
    heard = Heard()
    session_id = await start(manager, "exec cat", tty=True, heard=heard)
    reply = await manager.write_stdin(session_id, "hi\n")
    assert (reply.output, reply.session_id, reply.input_accepted) == ("hi\r\nhi\r\n", session_id, True)
    assert 0.25 <= reply.wall_time_s < 2
    end = await manager.write_stdin(session_id, "\x04")
    assert (end.exit_code, end.output) == (0, "")
    assert end.wall_time_s < 2
    assert heard.end[0].output == b"hi\r\nhi\r\n"
    with pytest.raises(UnknownTerminal):
        await manager.write_stdin(session_id)


async def test_ctrl_c_interrupts(manager: TerminalManager) -> None:
    session_id = await start(manager, "exec sleep 1000", tty=True)
    reply = await manager.write_stdin(session_id, "\x03")
    assert (reply.exit_code, reply.output) == (130, "^C")


async def test_input_without_a_terminal_is_refused(manager: TerminalManager) -> None:
    session_id = await start(manager, "exec sleep 1000")
    with pytest.raises(TerminalInputClosed, match="stdin is closed for this session; rerun exec_command with tty=true"):
        await manager.write_stdin(session_id, "x")
    assert manager.statistics().background == 1


async def test_input_that_nobody_reads_does_not_block_for_ever(manager: TerminalManager) -> None:
    session_id = await start(manager, "stty raw -echo; echo ready; exec sleep 1000", tty=True)
    reply = await manager.write_stdin(session_id, "x" * 200_000)
    assert (reply.session_id, reply.input_accepted) == (session_id, False)
    assert reply.wall_time_s < 2


async def test_a_character_that_is_still_coming_in_is_kept_for_the_next_reply(manager: TerminalManager) -> None:
    heard = Heard()
    session_id = await start(manager, "printf 'a\\342\\202'; sleep 0.5; printf '\\254b'", heard=heard)
    with trio.fail_after(10):
        await heard.ended.wait()
    reply = await manager.write_stdin(session_id)
    assert (reply.output, reply.original_token_count) == ("€b", 1)
    assert heard.output == [b"a", "€b".encode()]


async def test_polls_are_clamped(manager: TerminalManager, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (terminals.MIN_POLL_MS, terminals.DEFAULT_MAX_POLL_MS) == (5_000, 300_000)
    monkeypatch.setattr(terminals, "MIN_POLL_MS", 300)
    session_id = await start(manager, "exec sleep 1000")
    reply = await manager.write_stdin(session_id, yield_time_ms=0)
    assert 0.3 <= reply.wall_time_s < 2


async def test_a_manager_never_polls_shorter_than_the_floor(supervisor: Supervisor) -> None:
    async with trio.open_nursery() as nursery:
        assert TerminalManager(supervisor, nursery, max_poll_ms=1)._max_poll_ms == 5_000


# --- who dies when -----------------------------------------------------------------------------


async def cancel_when(heard: Heard, scope: trio.CancelScope, lines: int) -> None:
    while b"".join(heard.output).count(b"\n") < lines:
        await heard.some_output.wait()
        heard.some_output = trio.Event()
    scope.cancel()


async def test_a_cancelled_call_leaves_nothing(manager: TerminalManager) -> None:
    heard = Heard()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when, heard, scope, 4)
            await execute(manager, FAMILY, heard=heard)
    assert scope.cancelled_caught
    assert marked_processes() == []
    assert manager.statistics() == TerminalStatistics(background=0, in_call=0)
    assert [end.exit_code for end in heard.end] == [137]


async def test_a_call_cancelled_before_and_during_the_start_leaves_nothing(manager: TerminalManager) -> None:
    for delay in (0, 1, 2, 3, 5, 8):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def soon(checkpoints: int, scope: trio.CancelScope) -> None:
                    for _ in range(checkpoints):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(soon, delay, scope)
                await execute(manager, FAMILY)
        assert marked_processes() == []
        assert manager.statistics() == TerminalStatistics(background=0, in_call=0)


async def test_a_background_terminal_survives_an_interrupted_poll(manager: TerminalManager) -> None:
    heard = Heard()
    session_id = await start(manager, FAMILY, heard=heard)
    with trio.move_on_after(0.05) as scope:
        await manager.write_stdin(session_id)
    assert scope.cancelled_caught
    assert len(marked_processes()) == 4
    assert not heard.end
    await manager.terminate_all()
    assert marked_processes() == []
    assert manager.statistics() == TerminalStatistics(background=0, in_call=0)
    assert len(heard.end) == 1
    assert (await execute(manager, "echo still open")).output == "still open\n"


async def test_closing_kills_everything_and_ends_calls(supervisor: Supervisor) -> None:
    heard = [Heard(), Heard()]
    replies: list[TerminalOutput] = []
    async with open_terminals(supervisor) as manager:
        session_id = await start(manager, FAMILY, heard=heard[0])

        async def call() -> None:
            replies.append(await execute(manager, "echo x; exec sleep 1000", heard=heard[1]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await heard[1].some_output.wait()
            await manager.close()
            assert marked_processes() == []
        assert replies[0].exit_code == 137
        assert [len(one.end) for one in heard] == [1, 1]
        with pytest.raises(UnknownTerminal):
            await manager.write_stdin(session_id)
        with pytest.raises(SessionClosed):
            await execute(manager, "true")


async def test_the_end_of_the_sessions_nursery_is_the_end_of_its_terminals(supervisor: Supervisor) -> None:
    heard = Heard()
    async with trio.open_nursery() as nursery:
        manager = TerminalManager(supervisor, nursery)
        await start(manager, FAMILY, heard=heard)
        nursery.cancel_scope.cancel()
    assert marked_processes() == []
    assert len(heard.end) == 1
    with pytest.raises(SessionClosed):
        await execute(manager, "true")
    assert marked_processes() == []
    await manager.close()


async def test_the_death_of_the_supervisor_is_an_error_of_the_next_call() -> None:
    heard = Heard()
    async with open_supervisor() as supervisor, open_terminals(supervisor) as manager:
        session_id = await start(manager, FAMILY, heard=heard)
        pid = supervisor.statistics().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(10):
            await heard.ended.wait()
        await wait_ended([pid])
        with pytest.raises(ProcessError, match="signal 9"):
            await manager.write_stdin(session_id)
        with pytest.raises(UnknownTerminal):
            await manager.write_stdin(session_id)
        assert heard.end[0].exit_code == -1
        assert (await execute(manager, "echo again")).output == "again\n"


@pytest.mark.parametrize("which", ["on_begin", "on_output", "on_end"])
async def test_a_callback_that_raises_ends_its_command_alone(manager: TerminalManager, which: str) -> None:
    def fail(_: object) -> None:
        raise LookupError(which)

    other = await start(manager, "exec sleep 1000")
    script = "echo x" if which == "on_end" else "echo x; exec sleep 1000"
    with pytest.raises(LookupError, match=which):
        await manager.exec_command(
            ["sh", "-c", script],
            cwd="/",
            env=environment(),
            call_id="c",
            callbacks=attrs.evolve(TerminalCallbacks(), **{which: fail}),
        )
    assert [info.session_id for info in manager.terminals()] == [other]
    assert len(marked_processes()) == 1


# --- pruning -----------------------------------------------------------------------------------


async def test_the_65th_terminal_displaces_the_least_recently_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminals.MAX_TERMINALS == 64
    monkeypatch.setattr(terminals, "MIN_YIELD_MS", 0)
    async with open_supervisor() as supervisor, open_terminals(supervisor) as manager:

        async def background(script: str, heard: Heard | None = None) -> int:
            reply = await execute(manager, script, yield_time_ms=0, heard=heard)
            assert reply.session_id is not None
            return reply.session_id

        first, second = Heard(), Heard()
        ids = [await background("exec sleep 1000", first), await background("exec sleep 1000", second)]
        ids += [await background("exec sleep 1000") for _ in range(62)]
        assert manager.statistics().background == 64
        with trio.move_on_after(0.01):
            await manager.write_stdin(ids[0])  # used again: now the second is the oldest
        await background("exec sleep 1000")
        assert manager.statistics().background == 64
        assert ids[1] not in {info.session_id for info in manager.terminals()}
        assert ([end.exit_code for end in second.end], first.end) == ([137], [])
        assert len(marked_processes()) == 64
        # A command that ends in its call displaces nobody.
        assert (await execute(manager, "true")).exit_code == 0
        assert manager.statistics().background == 64


entries = st.lists(st.tuples(st.integers(1000, 99999), st.integers(), st.booleans()), min_size=9, max_size=70)


@given(entries.map(lambda found: [(id_, use, ended) for use, (id_, _, ended) in enumerate(found)]), st.randoms())
def test_the_victim_is_never_one_of_the_newest_and_rather_one_that_has_ended(
    by_use: list[tuple[int, int, bool]], shuffler: random.Random
) -> None:
    shuffled = list(by_use)
    shuffler.shuffle(shuffled)
    victim = choose_victim(shuffled)
    candidates = by_use[:-8]
    ended = [entry for entry in candidates if entry[2]]
    assert victim == (ended or candidates)[0][0]


@given(st.integers(), st.integers(0, 10), st.integers(10, 20))
def test_clamp(value: int, low: int, high: int) -> None:
    assert low <= clamp(value, low, high) <= high
    if low <= value <= high:
        assert clamp(value, low, high) == value
