"""The texts in which command tools answer the model, byte for byte (tools.md 1.8, 3.3). Pure."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence

from engine.execution.oneshot import CommandResult
from engine.execution.terminals import TerminalOutput
from engine.protocol.settings import TruncationPolicy
from engine.protocol.truncation import formatted_truncate, truncate_text

__all__ = [
    "exec_command_failure",
    "exec_command_rejection",
    "intercepted_text",
    "rust_debug",
    "shell_command_content",
    "shell_command_text",
    "terminal_text",
]

_INPUT_LOST = "Warning: the command did not read all of the input within the wait; the rest of it was dropped"


def terminal_text(output: TerminalOutput, limit: TruncationPolicy) -> str:
    """The reply of `exec_command` and `write_stdin`; `limit` applies to the output of the command."""
    lines = [f"Chunk ID: {output.chunk_id}", f"Wall time: {output.wall_time_s:.4f} seconds"]
    if output.exit_code is not None:
        lines.append(f"Process exited with code {output.exit_code}")
    if output.session_id is not None:
        lines.append(f"Process running with session ID {output.session_id}")
    lines.append(f"Original token count: {output.original_token_count}")
    if not output.input_accepted:
        lines.append(_INPUT_LOST)
    return "\n".join([*lines, "Output:", formatted_truncate(output.output, limit)])


def intercepted_text(result: str) -> str:
    """The reply of an `exec_command` that turned out to be a patch."""
    return f"Wall time: 0.0000 seconds\nOutput:\n{result}"


def shell_command_content(result: CommandResult) -> str:
    """The output of a `shell_command`, which a timeout announces in front."""
    if not result.timed_out:
        return result.aggregated_text
    return f"command timed out after {int(result.duration_s * 1000)} milliseconds\n{result.aggregated_text}"


def shell_command_text(result: CommandResult, limit: TruncationPolicy) -> str:
    """The reply of `shell_command`."""
    content = shell_command_content(result)
    shown = truncate_text(content, limit)
    if result.signal is not None:
        text = f"execution error: the command was killed by signal {_signal_name(result.signal)}"
        return f"{text}\nOutput:\n{shown}" if shown else text
    lines = [f"Exit code: {result.exit_code}", f"Wall time: {_tenths(result.duration_s)} seconds"]
    if _line_count(shown) != _line_count(content):
        lines.append(f"Total output lines: {_line_count(content)}")
    return "\n".join([*lines, "Output:", shown])


def exec_command_rejection(argv: Sequence[str], reason: str) -> str:
    """The reply to an `exec_command` that was not run, or could not be."""
    return exec_command_failure(argv, "CreateProcess", f"Rejected({rust_debug(reason)})")


def exec_command_failure(argv: Sequence[str], kind: str, message: str) -> str:
    """The reply to an `exec_command` that failed as a whole; `kind` is `CreateProcess` or `ProcessFailed`."""
    return f"exec_command failed for `{shlex.join(argv)}`: {kind} {{ message: {rust_debug(message)} }}"


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}


def rust_debug(text: str) -> str:
    """`text` quoted as the debug format of Rust strings does it; these texts are compared by clients."""
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text) + '"'


def _tenths(seconds: float) -> str:
    """Rounded to tenths, without a trailing `.0`."""
    whole, rest = divmod(int(seconds * 10 + 0.5), 10)
    return f"{whole}.{rest}" if rest else str(whole)


def _line_count(text: str) -> int:
    return text.count("\n") + (not text.endswith("\n") and text != "")


def _signal_name(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)
