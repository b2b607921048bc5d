"""What does a sandbox cost a command, beside bare bubblewrap with the same mounts and beside the real program?"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence

import attrs
import trio

from benchmarks.lab import Bench
from engine.execution.oneshot import run_command
from engine.execution.sandbox.assembly import SandboxedCommand
from engine.execution.sandbox.capability import ARGUMENTS_FD
from engine.execution.sandbox.launcher import Sandbox
from engine.execution.supervisor import Supervisor, open_supervisor
from engine.permissions.legacy import from_legacy_for_cwd
from engine.permissions.view import DiskView
from engine.protocol.profiles import FileSystemSandboxPolicy, WorkspaceWrite

__all__ = ["run"]

COMMAND = "/bin/true"
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
WARM_UP = 2
PATIENCE = 60.0


def run(bench: Bench) -> None:
    """The rows `sandbox.*`; none where bubblewrap does not work."""
    trio.run(_run, bench)


@attrs.frozen
class Place:
    """Where commands work, and what both sides get as environment."""

    workspace: str
    environment: Mapping[str, str]
    policy: FileSystemSandboxPolicy

    @classmethod
    def below(cls, folder: str, environment: Mapping[str, str]) -> Place:
        """A workspace and a temporary folder side by side."""
        folder = os.path.realpath(folder)
        workspace, temporary = os.path.join(folder, "workspace"), os.path.join(folder, "tmp")
        os.makedirs(workspace, exist_ok=True)
        os.makedirs(temporary, exist_ok=True)
        own = {**environment, "TMPDIR": temporary}
        return cls(workspace, own, from_legacy_for_cwd(WorkspaceWrite(), workspace, DiskView(own)))


async def _run(bench: Bench) -> None:
    rounds = bench.plan.size("sandboxed_commands")
    environment = bench.environment(bench.home())
    with tempfile.TemporaryDirectory(dir="/var/tmp") as elsewhere:
        # A project usually lies beside /tmp; one below it is a writable place in another, which takes more.
        ordinary = Place.below(elsewhere, environment)
        nested = Place.below(str(bench.folder / "nested"), environment)
        async with open_supervisor() as supervisor:
            sandbox = Sandbox(supervisor, environment=ordinary.environment)
            capability = await sandbox.capability()
            if not capability.usable_launchers:
                raise RuntimeError(f"no sandbox to measure: {capability.why_no_launcher()}")
            bench.results.note_machine("sandbox")
            with bench.progress.stage("sandboxed commands", rounds + WARM_UP):
                for number in range(-WARM_UP, rounds):
                    await _round(bench, supervisor, sandbox, ordinary, counts=number >= 0)
                    began = time.perf_counter()
                    await _sandboxed(supervisor, sandbox, nested)
                    if number >= 0:
                        title = "... with a workspace below /tmp"
                        bench.results.figure("sandbox.nested", title).ours.append((time.perf_counter() - began) * 1000)
                    bench.progress.step()


async def _prepared(sandbox: Sandbox, place: Place) -> SandboxedCommand:
    return await sandbox.prepare(
        [COMMAND],
        file_system=place.policy,
        network="restricted",
        policy_cwd=place.workspace,
        cwd=place.workspace,
        env=ENVIRONMENT,
    )


async def _sandboxed(supervisor: Supervisor, sandbox: Sandbox, place: Place) -> float:
    """Runs the command; when it was ready to be started."""
    with await _prepared(sandbox, place) as command:
        planned = time.perf_counter()
        await run_command(supervisor, command.argv, cwd=place.workspace, env=command.env, files=command.files)
    return planned


async def _round(bench: Bench, supervisor: Supervisor, sandbox: Sandbox, place: Place, *, counts: bool) -> None:
    began = time.perf_counter()
    planned = await _sandboxed(supervisor, sandbox, place)
    ours = time.perf_counter()
    with await _prepared(sandbox, place) as command:
        # Its placeholders stand while it is held, so the mounts are the same.
        bare = _whole(_bare(command), place)
    plain_began = time.perf_counter()
    await run_command(supervisor, [COMMAND], cwd=place.workspace, env=ENVIRONMENT)
    plain = time.perf_counter()
    peer = None
    if bench.peer is not None:
        words = [str(bench.peer), "sandbox", "-c", 'sandbox_mode="workspace-write"', "--", COMMAND]
        peer = _whole(words, place)
    if not counts:
        return
    results = bench.results
    whole = results.figure("sandbox.true", f"`{COMMAND}` in the sandbox, by a running engine")
    whole.ours.append((ours - began) * 1000)
    if peer is not None:
        whole.peer.append(peer)
    results.figure("sandbox.prepare", "... of which working out and preparing").ours.append((planned - began) * 1000)
    results.figure("sandbox.bare", "bare bwrap with the same mounts").ours.append(bare)
    results.figure("sandbox.over_bare", "the sandbox over bare bwrap").ours.append((ours - began) * 1000 - bare)
    results.figure("sandbox.plain", f"`{COMMAND}` without a sandbox").ours.append((plain - plain_began) * 1000)


def _bare(command: SandboxedCommand) -> list[str]:
    """The same bwrap with the same arguments, but for the filter."""
    data = os.pread(command.files.fds[ARGUMENTS_FD], 1 << 20, 0)
    arguments = [os.fsdecode(argument) for argument in data.split(b"\0")[:-1]]
    at = arguments.index("--seccomp")
    del arguments[at : at + 2]
    return [command.argv[0], *arguments, "--", COMMAND]


def _whole(words: Sequence[str], place: Place) -> float:
    """Milliseconds of a process from start to end."""
    began = time.perf_counter()
    subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd=place.workspace,
        env=place.environment,
        check=True,
        timeout=PATIENCE,
    )
    return (time.perf_counter() - began) * 1000
