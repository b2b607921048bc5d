"""The events of one command: begin, output, end, each at its time and at most once (tools.md 3.2, 3.3)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import attrs

from engine.protocol.events import EventMsg, ExecCommandBegin, ExecCommandEnd, ExecCommandOutputDelta
from engine.protocol.truncation import formatted_truncate
from engine.protocol.wire import JsonObject
from engine.records import define
from engine.tools.parsed_commands import parse_command

if TYPE_CHECKING:
    from engine.tools.base import ToolContext

__all__ = ["CommandEvents", "CommandSource"]

CommandSource = Literal["agent", "unified_exec_startup", "user_shell"]


@define(eq=False)
class CommandEvents:
    """Tells subscribers about a command. Nothing here waits or raises.

    Events belong to the turn, and a closed turn drops them, until `hand_over` makes the command one of the session.
    """

    context: ToolContext
    call_id: str
    argv: tuple[str, ...]
    cwd: str
    source: CommandSource
    begun: bool = attrs.field(default=False, init=False)
    ended: bool = attrs.field(default=False, init=False)
    _emit: Callable[[EventMsg], None] = attrs.field(init=False)
    _parsed: tuple[JsonObject, ...] = attrs.field(default=(), init=False)
    _process_id: str | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._emit = self.context.emit

    def hand_over(self) -> None:
        """The command may outlive its turn from now on; so do its events."""
        self._emit = self.context.emit_later

    def begin(self, process_id: int | None = None) -> None:
        """The command runs, or is about to; `process_id` is its session id, if it has one."""
        self.begun = True
        self._parsed = parse_command(self.argv)
        self._process_id = None if process_id is None else str(process_id)
        self._emit(
            ExecCommandBegin(
                self.call_id,
                self.context.turn_id,
                self.context.now_ms(),
                command=self.argv,
                cwd=self.cwd,
                parsed_cmd=self._parsed,
                source=self.source,
                process_id=self._process_id,
            )
        )

    def output(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """It wrote something."""
        self._emit(ExecCommandOutputDelta(self.call_id, stream, base64.b64encode(data).decode("ascii")))

    def end(
        self,
        *,
        exit_code: int,
        seconds: float,
        stdout: str,
        stderr: str = "",
        aggregated: str | None = None,
        shown: str | None = None,
        declined: bool = False,
    ) -> None:
        """It has ended, or never ran. `aggregated` is both streams (default: stdout), `shown` is what counts as output.

        Does nothing for a command that has not begun, or a second time.
        """
        if not self.begun or self.ended:
            return
        self.ended = True
        aggregated = stdout if aggregated is None else aggregated
        nanos = max(0, int(seconds * 1e9))
        self._emit(
            ExecCommandEnd(
                self.call_id,
                self.context.turn_id,
                self.context.now_ms(),
                command=self.argv,
                cwd=self.cwd,
                exit_code=exit_code,
                duration={"secs": nanos // 1_000_000_000, "nanos": nanos % 1_000_000_000},
                status="declined" if declined else "completed" if exit_code == 0 else "failed",
                parsed_cmd=self._parsed,
                source=self.source,
                stdout=stdout,
                stderr=stderr,
                aggregated_output=aggregated,
                formatted_output=formatted_truncate(aggregated if shown is None else shown, self.context.truncation),
                process_id=self._process_id,
            )
        )
