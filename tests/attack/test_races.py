"""Changing what a launch has looked at before it is used: another command of the same workspace keeps swapping it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from engine.execution.sandbox.errors import SandboxPolicyError
from tests.execution.sandbox.running import READ_ALL, policy

from .conftest import PRELUDE, Attacker

# Exchanges `src/deep` and a link to what lies outside, in a rhythm that hits every step of a launch now and then.
SWAPPER = """
import os, time
os.makedirs("src/deep/er/secret", exist_ok=True)
for name in ("src/link",):
    if not os.path.islink(name):
        os.symlink("../../outside", name)
AT_FDCWD, RENAME_EXCHANGE = -100, 2
print("SWAPPING", flush=True)
turn = 0
while True:
    turn += 1
    libc.renameat2(AT_FDCWD, b"src/deep", AT_FDCWD, b"src/link", RENAME_EXCHANGE)
    time.sleep(turn % 8 * 0.0004)
"""


@pytest.mark.parametrize("rounds", [30])
async def test_folders_that_are_swapped_for_links(attacker: Attacker, rounds: int) -> None:
    """The first command runs under a policy that pins nothing; those that come after have more to protect."""
    ws = attacker.cwd
    weak = attacker.policy
    # Only folders that have to keep their names: a plan is made whenever `src/deep` is no link, and refused otherwise.
    strict = policy(READ_ALL, (str(ws), "write"), (f"{ws}/src/deep/er/secret", "none"))
    outcomes: list[str] = []
    with await attacker.sandbox.prepare(
        ["python3", "-I", "-S", "-c", PRELUDE + SWAPPER],
        file_system=weak,
        network="restricted",
        policy_cwd=str(ws),
        cwd=str(ws),
        env={"PATH": os.environ["PATH"]},
    ) as command:
        swapper = await attacker.supervisor.spawn(
            attacker.as_user(command.argv), cwd=str(ws), env=command.env, files=command.files
        )
    async with swapper:
        said = b""
        while b"SWAPPING" not in said:
            data = await swapper.stdout.receive_some()
            if not data:
                pytest.skip("no Python in the sandbox")
            said += data
        attacker.policy = strict
        while len(outcomes) < 20 * rounds and sum(outcome != "refused" for outcome in outcomes) < rounds:
            try:
                result = await attacker.attack(
                    "for d in src/deep src/link src/deep/er .. ../outside; do echo x > $d/file; echo x > $d/new; done;"
                    "echo x > /proc/self/cwd/../outside/file; true"
                )
            except SandboxPolicyError:
                outcomes.append("refused")
            else:
                outcomes.append("ran" if result.exit_code == 0 else "failed")
            await trio.lowlevel.checkpoint()
    # Those that failed were stopped by bwrap, or by the look at the mounts before the command.
    assert {"ran", "failed"} & set(outcomes)
    _remove_mount_points(ws.parent / "outside")


def _remove_mount_points(outside: Path) -> None:
    """What bwrap leaves when it was led astray: it makes missing mount points before anything is checked. All empty."""
    for folder, folders, files in os.walk(outside, topdown=False):
        for name in {"er", "secret"} & set(folders):
            (Path(folder) / name).rmdir()
        for name in {"er", "secret"} & set(files):
            assert (Path(folder) / name).stat().st_size == 0
            (Path(folder) / name).unlink()


async def test_metadata_that_comes_and_goes(attacker: Attacker) -> None:
    """Commands start and end all the time, each with a placeholder of the same name; it is never writable."""

    async def one() -> None:
        for _ in range(5):
            result = await attacker.attack(
                """
                for i in 1 2 3 4 5 6 7 8; do
                    mkdir .codex 2>/dev/null && echo ESCAPED
                    echo x 2>/dev/null > .codex/x && echo ESCAPED
                    rmdir .codex 2>/dev/null && echo ESCAPED
                done
                true
                """
            )
            assert result.exit_code == 0

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)
