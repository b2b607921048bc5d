"""`engine sandbox`: any command under a policy, and what a policy says of a path."""

from __future__ import annotations

import os
import shutil

import trio

from engine.cli.arguments import SandboxArguments
from engine.cli.explaining import explain_path
from engine.cli.policies import ConfiguredPolicy, configured_policy
from engine.cli.signals import StopRequest, stop_on_signals
from engine.cli.streams import Stderr
from engine.errors import EngineError, ProcessError
from engine.execution.sandbox.launcher import Sandbox
from engine.execution.supervisor import open_supervisor
from engine.permissions.view import DiskView

__all__ = ["run_sandbox"]

STOPPED = 130
NOT_STARTED = 125


def run_sandbox(arguments: SandboxArguments) -> int:
    """Returns the command's exit code (128 + signal), 130 when stopped, 125 when it could not be started."""
    stderr = Stderr()
    try:
        policy = configured_policy(
            cwd=arguments.cd, profile=arguments.profile, overrides=arguments.overrides, environment=os.environ
        )
        for warning in policy.warnings:
            stderr.line(f"warning: {warning}")
        if arguments.explain is not None:
            return _explain(policy, arguments.explain)
        with stop_on_signals() as stop:
            return trio.run(_run, policy, arguments.command, stop)
    except EngineError as exc:
        stderr.line(f"Error: {exc}")
        return NOT_STARTED


def _explain(policy: ConfiguredPolicy, path: str) -> int:
    place = os.path.join(os.getcwd(), os.path.expanduser(path))
    lines = explain_path(place, policy.permissions.file_system, policy.cwd, DiskView())
    print("\n".join([*lines, f"under the permissions of {policy.cwd} ({policy.name})"]))
    return 0


async def _run(policy: ConfiguredPolicy, command: tuple[str, ...], stop: StopRequest) -> int:
    stop.arm()
    program = command[0]
    if shutil.which(os.path.join(policy.cwd, program) if os.sep in program else program) is None:
        raise ProcessError(f"there is no program `{program}`")  # else its sandbox would fail, with a code of its own
    async with open_supervisor() as supervisor:
        sandbox = Sandbox(supervisor, protected=(str(policy.home),))
        with await sandbox.prepare(
            command,
            file_system=policy.permissions.file_system,
            network=policy.permissions.network,
            policy_cwd=policy.cwd,
            cwd=policy.cwd,
            env=os.environ,
        ) as prepared:
            # Its streams are ours, whatever they are.
            prepared.files.fds = {**prepared.files.fds, **{number: _copy(number) for number in range(3)}}
            process = await supervisor.spawn(prepared.argv, cwd=policy.cwd, env=prepared.env, files=prepared.files)
        async with process, trio.open_nursery() as nursery:

            async def stop_it() -> None:
                await stop.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(stop_it)
            await process.wait()
            nursery.cancel_scope.cancel()
        return STOPPED if stop.asked or process.status is None else process.status.returncode


def _copy(number: int) -> int:
    try:
        return os.dup(number)
    except OSError:
        return os.open(os.devnull, os.O_RDWR)  # a process may be started without it
