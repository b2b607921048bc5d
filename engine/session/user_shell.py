"""The user's own command (`!command`): unsandboxed, in a login shell; its result enters the history (tools.md 3.6)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from engine.errors import ProcessError, TurnInterrupted
from engine.execution.oneshot import USER_SHELL_TIMEOUT_MS, run_command
from engine.execution.shells import shell_argv
from engine.protocol.events import TaskComplete, TaskStarted
from engine.protocol.ids import new_item_id
from engine.protocol.items import Message, user_message
from engine.protocol.truncation import formatted_truncate
from engine.session.telling import telling
from engine.tools.command_events import CommandEvents

if TYPE_CHECKING:
    from engine.session.turn import TurnRun

__all__ = ["run_user_shell"]

ABORTED = "command aborted by user"


async def run_user_shell(turn: TurnRun, command: str, host: TurnRun | None) -> None:
    """Runs `command`: as a turn of its own, or beside the active turn `host`, which then gets the result."""
    began = time.perf_counter()
    handed_over = False
    try:
        with turn.scope, telling(turn):
            if host is None:
                turn.emit(
                    TaskStarted(
                        turn.id,
                        started_at=int(turn.started_at),
                        model_context_window=turn.model_info.effective_context_window,
                    )
                )
            _hand_over(turn, host, await _run(turn, command))
            handed_over = True
            if host is None:
                await turn.core.flush_quietly()
            _complete(turn, host)
        if turn.scope.cancelled_caught:
            if not handed_over:
                _hand_over(turn, host, _fragment(command, -1, time.perf_counter() - began, ABORTED))
            if host is not None:
                turn.conclude(TurnInterrupted("interrupted"))
    finally:
        turn.finished.set()


@trio.lowlevel.enable_ki_protection
def _complete(turn: TurnRun, host: TurnRun | None) -> None:
    if host is None:
        turn.emit(TaskComplete(turn.id, completed_at=int(time.time()), duration_ms=turn.duration_ms()))
    turn.conclude_ok()


async def _run(turn: TurnRun, command: str) -> Message:
    context = turn.tool_context
    argv = tuple(shell_argv(context.shell, command, login=True))
    events = CommandEvents(context, new_item_id(), argv, context.cwd, "user_shell")
    events.begin()
    began = time.perf_counter()
    exit_code, output, stdout, stderr = -1, ABORTED, "", ""
    try:
        result = await run_command(
            context.supervisor,
            context.with_snapshot(argv, cwd=context.cwd, env=context.environment),
            cwd=context.cwd,
            env=context.environment,
            timeout_ms=USER_SHELL_TIMEOUT_MS,
            on_output=events.output,
        )
        exit_code, output = result.exit_code, result.aggregated_text
        stdout, stderr = result.stdout_text, result.stderr_text
    except ProcessError as exc:
        output = f"execution error: {exc}"
    finally:
        seconds = time.perf_counter() - began
        events.end(exit_code=exit_code, seconds=seconds, stdout=stdout, stderr=stderr, aggregated=output)
    return _fragment(command, exit_code, seconds, formatted_truncate(output, context.truncation))


def _fragment(command: str, exit_code: int, seconds: float, output: str) -> Message:
    return user_message(
        f"<user_shell_command>\n<command>\n{command}\n</command>\n<result>\nExit code: {exit_code}\n"
        f"Duration: {seconds:.4f} seconds\nOutput:\n{output}\n</result>\n</user_shell_command>"
    )


def _hand_over(turn: TurnRun, host: TurnRun | None, result: Message) -> None:
    if host is not None and not host.over:
        host.pending.append(result)
        return
    core = turn.core
    core.history.record([result], turn.facts.truncation)
    core.hub.record(turn.id, [result])
