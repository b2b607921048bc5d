"""`exec_command`: a command that may run on in the background of the session (tools.md 3.3)."""

from __future__ import annotations

from typing import Literal

import attrs

from engine.errors import ProcessError
from engine.execution.environment import unified_exec_environment
from engine.execution.sandbox.denial import is_denial
from engine.execution.sandbox.launcher import SandboxedCommand
from engine.execution.shells import shell_for
from engine.execution.terminals import DEFAULT_EXEC_YIELD_MS, TerminalCallbacks, TerminalEnd, TerminalOutput
from engine.protocol.settings import TruncationPolicy
from engine.protocol.wire import JsonObject, Wire
from engine.records import define, frozen
from engine.telemetry.handle import current
from engine.tools import specs
from engine.tools.base import ToolContext, ToolError, ToolInvocation, ToolOutput, parse_arguments
from engine.tools.command_events import CommandEvents
from engine.tools.command_requests import (
    check_environment,
    command_argv,
    command_folder,
    command_parameters,
    whole_number,
)
from engine.tools.command_texts import (
    exec_command_failure,
    exec_command_rejection,
    intercepted_text,
    terminal_text,
)
from engine.tools.orchestrator import Attempted, CommandRequest, Rejected, run_orchestrated
from engine.tools.overrides import check_override
from engine.tools.patches import intercept

__all__ = ["DEFAULT_MAX_OUTPUT_TOKENS", "ExecCommand", "output_limit"]

DEFAULT_MAX_OUTPUT_TOKENS = 10_000

_DESCRIPTION = (
    "Runs a command in a shell. Answers with its output and exit code if it ends within `yield_time_ms`. A command "
    "that takes longer runs on in the background; the answer then has a session ID, with which `write_stdin` gets more "
    "output or sends input."
)


@frozen(kw_only=True)
class ExecCommandArguments(Wire):
    """What the model sends; an explicit null means the default."""

    cmd: str
    workdir: str | None = None
    shell: str | None = None
    tty: bool | None = None
    yield_time_ms: float | None = None
    max_output_tokens: float | None = None
    login: bool | None = None
    environment_id: str | None = None
    sandbox_permissions: str | None = None
    justification: str | None = None
    prefix_rule: tuple[str, ...] | None = None
    additional_permissions: JsonObject | None = None


@frozen(eq=False)
class ExecCommand:
    """Serves `exec_command`. `login` says whether the model may choose a login shell, `additional` whether it may ask
    for permissions for one command.

    A cancelled call kills its command, unless the session id has been handed out.
    """

    login: bool = True
    additional: bool = False
    name: str = "exec_command"
    namespace: None = None
    kind: Literal["function"] = "function"
    parallel: bool = True

    def spec(self) -> JsonObject:
        """What the model is told."""
        properties: dict[str, JsonObject] = {
            **command_parameters(self.login, self.additional),
            "cmd": specs.string("The shell script to run."),
            "max_output_tokens": specs.number(
                "The most tokens of output to answer with; what is more is cut out of the middle. Defaults to 10000."
            ),
            "shell": specs.string("The shell to run it in, by name or path. Defaults to the user's shell."),
            "tty": specs.boolean(
                "Whether to give the command a terminal, and so a standard input that `write_stdin` can write to. "
                "Defaults to false: plain pipes, standard input closed."
            ),
            "yield_time_ms": specs.number(
                "How long to wait for the command to end before answering, in milliseconds, from 250 to 30000. "
                "Defaults to 10000."
            ),
        }
        return specs.function_spec(self.name, _DESCRIPTION, specs.object_schema(properties, ["cmd"]))

    async def call(self, invocation: ToolInvocation) -> ToolOutput:
        """Runs the command until it ends or the wait is over."""
        context, call_id = invocation.context, invocation.call_id
        arguments = parse_arguments(invocation, ExecCommandArguments)
        check_environment(arguments.environment_id)
        yield_time = whole_number("yield_time_ms", arguments.yield_time_ms, DEFAULT_EXEC_YIELD_MS)
        limit = output_limit(context, arguments.max_output_tokens)
        shell = shell_for(arguments.shell) if arguments.shell else context.shell
        argv = command_argv(context, shell, arguments.cmd, arguments.login)
        cwd = command_folder(context, arguments.workdir)
        override = check_override(
            context, arguments.sandbox_permissions, arguments.additional_permissions, verb="cannot", cwd=cwd
        )
        patched = await intercept(context, call_id, argv, cwd)
        if patched is not None:
            return ToolOutput(intercepted_text(patched.text)) if patched.success else ToolOutput(patched.text, False)
        request = CommandRequest(
            call_id=call_id,
            argv=argv,
            cwd=cwd,
            env=unified_exec_environment(context.environment),
            tty=bool(arguments.tty),
            override=override,
            justification=arguments.justification,
            prefix_rule=arguments.prefix_rule or (),
        )
        current().count("codex.tool.unified_exec", tags={"tty": "true" if arguments.tty else "false"})
        runs = _Runs(context, request, yield_time)
        try:
            outcome = await run_orchestrated(context, request, runs.run)
        except Rejected as exc:
            raise ToolError(exec_command_rejection(argv, str(exc))) from exc
        except ProcessError as exc:
            if runs.events.begun:
                raise ToolError(exec_command_failure(argv, "ProcessFailed", str(exc))) from exc
            reason = f"Failed to create unified exec process: {exc}"
            raise ToolError(exec_command_rejection(argv, reason)) from exc
        finally:
            runs.settle()
        output = attrs.evolve(outcome.result, wall_time_s=0.0) if outcome.denied else outcome.result
        return ToolOutput(terminal_text(output, limit))


@define(eq=False)
class _Runs:
    """The runs of one call, at most two, as one command to whoever listens: one begin, one end."""

    context: ToolContext
    request: CommandRequest
    yield_time_ms: int
    events: CommandEvents = attrs.field(init=False)
    _ended: TerminalEnd | None = attrs.field(default=None, init=False)
    _holding: bool = attrs.field(default=True, init=False)

    def __attrs_post_init__(self) -> None:
        request = self.request
        self.events = CommandEvents(self.context, request.call_id, request.argv, request.cwd, "unified_exec_startup")

    async def run(self, command: SandboxedCommand) -> Attempted[TerminalOutput]:
        """Runs it until it ends or the wait is over."""
        self._ended = None
        output = await self.context.terminals.exec_command(
            command.argv,
            cwd=self.request.cwd,
            env=command.env,
            call_id=self.request.call_id,
            tty=bool(self.request.tty),
            yield_time_ms=self.yield_time_ms,
            callbacks=TerminalCallbacks(on_begin=self._begin, on_output=self._output, on_end=self._end),
            files=command.files,
        )
        if output.session_id is not None:
            self.events.hand_over()
            self.settle()
        code = output.exit_code
        return Attempted(output, code is not None and is_denial(code, output.output, sandboxed=command.sandboxed))

    def settle(self) -> None:
        """There will be no other run: the end is told, now or when it comes."""
        self._holding = False
        if self._ended is not None:
            self._end(self._ended)

    def _begin(self, process_id: int) -> None:
        if not self.events.begun:
            self.events.begin(process_id)

    def _output(self, data: bytes) -> None:
        self.events.output("stdout", data)

    def _end(self, end: TerminalEnd) -> None:
        if self._holding:
            self._ended = end
        else:
            self.events.end(exit_code=end.exit_code, seconds=end.duration_s, stdout=end.output_text)


def output_limit(context: ToolContext, max_output_tokens: float | None) -> TruncationPolicy:
    """How much output a reply may have: what the model asked for, within the budget of the turn."""
    tokens = whole_number("max_output_tokens", max_output_tokens, DEFAULT_MAX_OUTPUT_TOKENS)
    return TruncationPolicy("tokens", min(tokens, context.truncation.token_budget))
