"""`shell_command`: a command that runs to its end within a time limit (tools.md 3.2)."""

from __future__ import annotations

import time
from typing import Literal

import attrs

from engine.errors import ProcessError
from engine.execution.oneshot import DEFAULT_TIMEOUT_MS, CommandResult, run_command
from engine.execution.output import HeadBuffer, aggregate, decode_lossy
from engine.execution.sandbox.denial import is_denial
from engine.execution.sandbox.launcher import SandboxedCommand
from engine.protocol.wire import JsonObject, Wire
from engine.records import define, frozen
from engine.tools import specs
from engine.tools.base import ToolContext, ToolError, ToolInvocation, ToolOutput, parse_arguments
from engine.tools.command_events import CommandEvents
from engine.tools.command_requests import (
    command_argv,
    command_folder,
    command_parameters,
    whole_number,
)
from engine.tools.command_texts import shell_command_content, shell_command_text
from engine.tools.orchestrator import Attempted, CommandRequest, Rejected, run_orchestrated
from engine.tools.overrides import check_override
from engine.tools.patches import intercept

__all__ = ["ShellCommand"]

_DESCRIPTION = (
    "Runs a command in the user's shell and answers with its exit code and output once it has ended. What it leaves "
    "running in the background is killed then."
)


@frozen(kw_only=True)
class ShellCommandArguments(Wire):
    """What the model sends; an explicit null means the default. `timeout` is an older name of `timeout_ms`."""

    command: str
    workdir: str | None = None
    timeout_ms: float | None = None
    timeout: float | None = None
    login: bool | None = None
    sandbox_permissions: str | None = None
    justification: str | None = None
    prefix_rule: tuple[str, ...] | None = None
    additional_permissions: JsonObject | None = None


@frozen(eq=False)
class ShellCommand:
    """Serves `shell_command`. One that is not `offered` is served all the same, but not beside other calls."""

    login: bool = True
    offered: bool = True
    additional: bool = False
    name: str = "shell_command"
    namespace: None = None
    kind: Literal["function"] = "function"

    @property
    def parallel(self) -> bool:
        """Whether it may run beside others."""
        return self.offered

    def spec(self) -> JsonObject | None:
        """What the model is told."""
        if not self.offered:
            return None
        properties: dict[str, JsonObject] = {
            **command_parameters(self.login, self.additional),
            "command": specs.string("The shell script to run."),
            "timeout_ms": specs.number("After how many milliseconds to kill the command. Defaults to 10000."),
        }
        return specs.function_spec(self.name, _DESCRIPTION, specs.object_schema(properties, ["command"]))

    async def call(self, invocation: ToolInvocation) -> ToolOutput:
        """Runs the command to its end. Being cancelled kills it."""
        context, call_id = invocation.context, invocation.call_id
        arguments = parse_arguments(invocation, ShellCommandArguments)
        given = arguments.timeout if arguments.timeout_ms is None else arguments.timeout_ms
        timeout = whole_number("timeout_ms", given, DEFAULT_TIMEOUT_MS)
        argv = command_argv(context, context.shell, arguments.command, arguments.login)
        cwd = command_folder(context, arguments.workdir)
        override = check_override(
            context, arguments.sandbox_permissions, arguments.additional_permissions, verb="should not", cwd=cwd
        )
        patched = await intercept(context, call_id, argv, cwd)
        if patched is not None:
            return ToolOutput(patched.text, patched.success)
        request = CommandRequest(
            call_id=call_id,
            argv=argv,
            cwd=cwd,
            env=context.environment,
            override=override,
            justification=arguments.justification,
            prefix_rule=arguments.prefix_rule or (),
        )
        events = CommandEvents(context, call_id, argv, cwd, "agent")
        events.begin()
        runs = _Runs(context, events, timeout)
        try:
            outcome = await run_orchestrated(context, request, runs.run)
            runs.end(outcome.result)
        except Rejected as exc:
            runs.end_without_result(str(exc), declined=True)
            raise
        except ProcessError as exc:
            runs.end_without_result(f"execution error: {exc}")
            raise ToolError(f"execution error: {exc}") from exc
        finally:
            runs.end_without_result("aborted by user")
        result = outcome.result
        return ToolOutput(shell_command_text(result, context.truncation), success=result.exit_code == 0)


@define(eq=False)
class _Runs:
    """The runs of one call and their events; keeps what was written, for the event of a run that is cut short."""

    context: ToolContext
    events: CommandEvents
    timeout_ms: int
    _began: float = attrs.field(factory=time.perf_counter)
    _written: dict[str, HeadBuffer] = attrs.field(factory=lambda: {"stdout": HeadBuffer(), "stderr": HeadBuffer()})

    async def run(self, command: SandboxedCommand) -> Attempted[CommandResult]:
        """Runs it to its end. Raises `ProcessError` if it can't be started or supervised."""
        result = await run_command(
            self.context.supervisor,
            command.argv,
            cwd=self.events.cwd,
            env=command.env,
            timeout_ms=self.timeout_ms,
            on_output=self._on_output,
            files=command.files,
        )
        texts = (result.stdout_text, result.stderr_text, result.aggregated_text)
        denied = not result.timed_out and is_denial(result.exit_code, *texts, sandboxed=command.sandboxed)
        return Attempted(result, denied)

    def end(self, result: CommandResult) -> None:
        """Tells how the last run ended."""
        self.events.end(
            exit_code=result.exit_code,
            seconds=result.duration_s,
            stdout=result.stdout_text,
            stderr=result.stderr_text,
            aggregated=result.aggregated_text,
            shown=shell_command_content(result),
        )

    def _on_output(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        self._written[stream].append(data)
        self.events.output(stream, data)

    def end_without_result(self, message: str, *, declined: bool = False) -> None:
        """Ends a run that has no exit code; nothing if it has ended already."""
        if self.events.ended:
            return
        stdout, stderr = self._written["stdout"].value(), self._written["stderr"].value()
        self.events.end(
            exit_code=-1,
            seconds=time.perf_counter() - self._began,
            stdout=decode_lossy(stdout),
            stderr=decode_lossy(stderr) or message,
            aggregated=decode_lossy(aggregate(stdout, stderr)) or message,
            declined=declined,
        )
