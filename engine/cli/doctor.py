"""`engine doctor`: what this machine can enforce, what holds in this directory, and how to get more."""

from __future__ import annotations

import json
import os

import trio

from engine.cli.doctor_report import Configured, Machine, Report, report_json, report_lines
from engine.cli.policies import ConfiguredPolicy, configured_policy
from engine.cli.policy_arguments import DoctorArguments
from engine.errors import EngineError, ProcessError
from engine.execution.sandbox.advice import advice, system_facts
from engine.execution.sandbox.launcher import Sandbox
from engine.execution.supervisor import open_supervisor

__all__ = ["run_doctor"]


def run_doctor(arguments: DoctorArguments) -> int:
    """Prints the report; 0 when a session here could run commands as its permissions say, else 1."""
    report = trio.run(_examine, arguments)
    print(
        json.dumps(report_json(report), indent=2, default=str) if arguments.as_json else "\n".join(report_lines(report))
    )
    return 0 if report.can_run else 1


async def _examine(arguments: DoctorArguments) -> Report:
    async with open_supervisor() as supervisor:
        sandbox = Sandbox(supervisor)
        try:
            capability = await sandbox.capability()
        except ProcessError as exc:
            return Report(None, None, f"no process can be started: {exc}")
        machine = Machine(capability, tuple(advice(capability, system_facts())))
        try:
            policy = configured_policy(cwd=arguments.cd, profile=None, overrides=(), environment=os.environ)
        except EngineError as exc:
            return Report(machine, None, f"configuration: {exc}")
        return Report(machine, await _try(sandbox, policy))


async def _try(sandbox: Sandbox, policy: ConfiguredPolicy) -> Configured:
    """Whether the permissions of the directory can be enforced as things stand."""
    try:
        with await sandbox.prepare(
            ["true"],
            file_system=policy.permissions.file_system,
            network=policy.permissions.network,
            policy_cwd=policy.cwd,
            cwd=policy.cwd,
            env={},
        ) as prepared:
            program = prepared.argv[0] if prepared.enforcement in ("bubblewrap", "seatbelt") else None
            return Configured(policy, prepared.enforcement, program)
    except ProcessError as exc:
        return Configured(policy, problem=str(exc))
