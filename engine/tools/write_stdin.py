"""`write_stdin`: input for a background terminal, or its output so far (tools.md 3.3)."""

from __future__ import annotations

from typing import Literal

from engine.errors import ProcessError
from engine.execution.terminals import DEFAULT_WRITE_YIELD_MS
from engine.protocol.events import TerminalInteraction
from engine.protocol.wire import JsonObject, Wire
from engine.records import frozen
from engine.tools import specs
from engine.tools.base import ToolContext, ToolError, ToolInvocation, ToolOutput, parse_arguments
from engine.tools.command_requests import whole_number
from engine.tools.command_texts import terminal_text
from engine.tools.exec_command import output_limit

__all__ = ["WriteStdin"]

_DESCRIPTION = (
    "Sends input to a command that `exec_command` left running, and answers with the output since the last answer. "
    "Without input it waits for the command to end or for the time to be over, and answers the same way."
)
_PARAMETERS = specs.object_schema(
    {
        "chars": specs.string(
            "The characters to send, exactly as they are: end a line with \\n, send Ctrl-C as \\u0003. Needs a command "
            "that was started with `tty`. Empty (the default) only waits."
        ),
        "max_output_tokens": specs.number(
            "The most tokens of output to answer with; what is more is cut out of the middle. Defaults to 10000."
        ),
        "session_id": specs.number("The session ID that `exec_command` answered with."),
        "yield_time_ms": specs.number(
            "How long to wait for the command to end before answering, in milliseconds. With input from 250 (the "
            "default) to 30000; without input at least 5000."
        ),
    },
    ["session_id"],
)


@frozen(kw_only=True)
class WriteStdinArguments(Wire):
    """What the model sends; an explicit null means the default."""

    session_id: int
    chars: str | None = None
    yield_time_ms: float | None = None
    max_output_tokens: float | None = None


@frozen(eq=False)
class WriteStdin:
    """Serves `write_stdin`. A cancelled call leaves the command running and its output for the next call."""

    name: str = "write_stdin"
    namespace: None = None
    kind: Literal["function"] = "function"
    parallel: bool = False

    def spec(self) -> JsonObject:
        """What the model is told."""
        return specs.function_spec(self.name, _DESCRIPTION, _PARAMETERS)

    async def call(self, invocation: ToolInvocation) -> ToolOutput:
        """Sends the input and waits."""
        context = invocation.context
        arguments = parse_arguments(invocation, WriteStdinArguments)
        chars = arguments.chars or ""
        limit = output_limit(context, arguments.max_output_tokens)
        yield_time = whole_number("yield_time_ms", arguments.yield_time_ms, DEFAULT_WRITE_YIELD_MS)
        _tell(context, arguments.session_id, chars)
        try:
            output = await context.terminals.write_stdin(arguments.session_id, chars, yield_time_ms=yield_time)
        except ProcessError as exc:
            raise ToolError(f"write_stdin failed: {exc}") from exc
        return ToolOutput(terminal_text(output, limit))


def _tell(context: ToolContext, session_id: int, chars: str) -> None:
    """Announces the interaction, before the output it causes; not one that is going to be refused."""
    for terminal in context.terminals.terminals():
        if terminal.session_id == session_id and (terminal.tty or not chars):
            context.emit(TerminalInteraction(terminal.call_id, str(session_id), chars))
