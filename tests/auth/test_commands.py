"""Tokens from real commands: caching, one run for all, errors, one more run after a 401 (config.md 7)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.auth.base import ANONYMOUS, NO_RECOVERY
from engine.auth.commands import CommandTokens
from engine.auth.errors import TokenCommandFailed
from engine.config.providers import ProviderAuth
from engine.execution.oneshot import CommandResult, run_command
from engine.execution.supervisor import open_supervisor

ENV = {"PATH": os.environ["PATH"], "WHO": "env"}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def tokens(home: Path, *args: Any, **fields: Any) -> AsyncIterator[CommandTokens]:
    now: Callable[[], float] = fields.pop("now", Clock())
    command = fields.pop("command", "sh")
    async with open_supervisor() as supervisor:

        async def run(argv: Any, cwd: str, env: Any, timeout_ms: int) -> CommandResult:
            return await run_command(supervisor, argv, cwd=cwd, env=env, timeout_ms=timeout_ms)

        yield CommandTokens(ProviderAuth(command, tuple(args), **fields), run, home=str(home), env=ENV, now=now)


COUNT = "echo x >> runs; wc -l < runs | tr -d ' '"


async def test_the_output_is_the_token_and_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    async with tokens(tmp_path, "-c", f"echo ' ' ; {COUNT}; echo", now=clock) as found:
        first = await found.current()
        assert first.token == "1"
        assert dict(first.headers()) == {"authorization": "Bearer 1"}
        clock.now += 299.9
        assert (await found.current()).token == "1"
        clock.now += 0.1
        assert (await found.current()).token == "2"


async def test_without_an_interval_it_is_kept_until_a_401(tmp_path: Path) -> None:
    clock = Clock()
    async with tokens(tmp_path, "-c", COUNT, refresh_interval_ms=0, now=clock) as found:
        first = await found.current()
        clock.now += 1e9
        assert await found.current() == first
        recovery = found.recovery(first)
        assert await recovery.next()
        assert (await found.current()).token == "2"
        assert not await recovery.next()
        # a request that was refused with the old token is repeated with the new one
        assert await found.recovery(first).next()
        assert (await found.current()).token == "2"
        assert found.recovery(ANONYMOUS) is NO_RECOVERY


async def test_who_needs_it_at_the_same_time_shares_one_run(tmp_path: Path) -> None:
    async with tokens(tmp_path, "-c", COUNT) as found:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(found.current)
        assert (await found.current()).token == "1"


async def test_where_the_command_is_found(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "token"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\nprintf "%s %s" "$(pwd)" "$1 $WHO"')
    script.chmod(0o755)
    home = os.path.realpath(tmp_path)
    for command, cwd, where in [
        (str(script), None, home),
        ("bin/token", None, home),
        ("./token", "bin", f"{home}/bin"),
        ("../bin/token", str(tmp_path / "bin"), f"{home}/bin"),
    ]:
        async with tokens(tmp_path, "arg", command=command, cwd=cwd) as found:
            assert (await found.current()).token == f"{where} arg env"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"args": ("-c", "exit 3")}, "provider auth command `sh` exited with status 3"),
        ({"args": ("-c", "echo no >&2; exit 1")}, "provider auth command `sh` exited with status 1: no"),
        ({"args": ("-c", r"printf '\377'")}, "provider auth command `sh` wrote non-UTF-8 data to stdout"),
        ({"args": ("-c", "echo")}, "provider auth command `sh` produced an empty token"),
        ({"args": ("-c", "sleep 60"), "timeout_ms": 50}, "provider auth command `sh` timed out after 50 ms"),
    ],
)
async def test_errors(tmp_path: Path, fields: Any, said: str) -> None:
    async with tokens(tmp_path, *fields.pop("args"), **fields) as found:
        for _ in range(2):
            with pytest.raises(TokenCommandFailed) as caught:
                await found.current()
            assert str(caught.value) == said


async def test_a_command_that_does_not_start(tmp_path: Path) -> None:
    async with tokens(tmp_path, command="no-such-program-here") as found:
        with pytest.raises(
            TokenCommandFailed, match=r"^provider auth command `no-such-program-here` failed to start: "
        ):
            await found.current()


async def test_who_is_cancelled_leaves_the_run_to_the_next(tmp_path: Path) -> None:
    async with tokens(tmp_path, "-c", f"test -e go || sleep 60; {COUNT}", timeout_ms=60_000) as found:
        with trio.move_on_after(0.1):
            await found.current()
        (tmp_path / "go").touch()
        assert (await found.current()).token == "1"
