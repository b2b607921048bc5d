"""The workspace under attack, the attacker's commands, and the check that nothing else was touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from engine.execution.oneshot import CommandResult
from tests.execution.conftest import _nothing_is_left as _nothing_is_left
from tests.execution.sandbox.conftest import place as place
from tests.execution.sandbox.conftest import processes as processes
from tests.execution.sandbox.conftest import runner as runner
from tests.execution.sandbox.conftest import workspace as workspace
from tests.execution.sandbox.running import NOBODY, Runner

from .host import snapshot

# What can be had for the asking: an attack prints it when it has got hold of something, and then what that is.
ESCAPED = "ESCAPED"


@attrs.define
class Attacker(Runner):
    """Runs attacks in the workspace; none may say that it succeeded."""

    async def attack(self, script: str, *arguments: str, timeout_ms: int = 30_000) -> CommandResult:
        """A shell script that prints `ESCAPED` and how, if it gets out."""
        result = await self.run("/bin/sh", "-c", script, "sh", *arguments, timeout_ms=timeout_ms)
        return self.check(result)

    async def attack_in_python(self, script: str, *arguments: str) -> CommandResult:
        """The same in Python, with what it takes to make system calls by number."""
        result = await self.run("python3", "-I", "-S", "-c", PRELUDE + script, *arguments)
        if "PRELUDE DONE" not in result.stdout_text:
            pytest.skip(f"no Python in the sandbox: {result.stderr_text}")
        return self.check(result)

    def check(self, result: CommandResult) -> CommandResult:
        assert "yntax error" not in result.stdout_text + result.stderr_text, result.stderr_text
        assert ESCAPED not in result.stdout_text, result.stdout_text + result.stderr_text
        return result


PRELUDE = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    return -ctypes.get_errno() if result < 0 else result
def attempt(what, function, *arguments):
    try:
        result = function(*arguments)
    except OSError as exc:
        print(what, "refused:", exc.strerror)
        return None
    print("ESCAPED", what, result)
    return result
print("PRELUDE DONE")
"""


@pytest.fixture(params=[None, NOBODY], ids=["as-is", "nobody"])
def user(request: pytest.FixtureRequest) -> int | None:
    """Who runs the attacks: this user (root, in CI), and an unprivileged one, to whom all of the place belongs then."""
    chosen: int | None = request.param
    return chosen


@pytest.fixture
def attacker(runner: Runner, place: Path, user: int | None) -> Iterator[Attacker]:
    """An attacker; afterwards nothing may be different but the workspace's ordinary files."""
    if user is not None and os.geteuid() == 0:
        for folder, folders, files in os.walk(place):
            for name in (".", *folders, *files):
                os.lchown(os.path.join(folder, name), user, user)
    before = snapshot(place, runner.cwd)
    yield Attacker(runner.supervisor, runner.sandbox, runner.cwd, runner.policy, user=user)
    assert snapshot(place, runner.cwd) == before
