"""The texts of command tools, byte for byte."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.execution.oneshot import CommandResult
from engine.execution.terminals import TerminalOutput
from engine.protocol.settings import TruncationPolicy
from engine.tools.command_texts import (
    exec_command_failure,
    exec_command_rejection,
    intercepted_text,
    rust_debug,
    shell_command_text,
    terminal_text,
)

PLENTY = TruncationPolicy("tokens", 10_000)


def ended(output: str, **changes: object) -> TerminalOutput:
    fields: dict[str, object] = {"exit_code": 0, "session_id": None, "original_token_count": 2, **changes}
    return TerminalOutput("32588f", "call", 0.00004, output=output, **fields)  # type: ignore[arg-type]


def result(**changes: object) -> CommandResult:
    fields: dict[str, object] = {"exit_code": 0, "signal": None, "timed_out": False, "duration_s": 0.0}
    fields |= {"stdout": b"", "stderr": b"", **changes}
    return CommandResult(**fields)  # type: ignore[arg-type]


def test_terminal_that_ended() -> None:
    assert terminal_text(ended("hello\n"), PLENTY) == (
        "Chunk ID: 32588f\nWall time: 0.0000 seconds\nProcess exited with code 0\nOriginal token count: 2\n"
        "Output:\nhello\n"
    )


def test_terminal_that_runs_on_and_did_not_take_the_input() -> None:
    output = ended("x", exit_code=None, session_id=1234, input_accepted=False)
    assert terminal_text(output, PLENTY) == (
        "Chunk ID: 32588f\nWall time: 0.0000 seconds\nProcess running with session ID 1234\nOriginal token count: 2\n"
        "Warning: the command did not read all of the input within the wait; the rest of it was dropped\nOutput:\nx"
    )


def test_terminal_output_is_cut_with_its_number_of_lines_in_front() -> None:
    text = terminal_text(ended("a" * 108_894), TruncationPolicy("tokens", 50))
    body = text.partition("Output:\n")[2]
    assert body == f"Total output lines: 1\n\n{'a' * 100}…27174 tokens truncated…{'a' * 100}"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0"),
        (0.04, "0"),
        (0.05, "0.1"),
        (0.1, "0.1"),
        (0.96, "1"),
        (1.24, "1.2"),
        (12.0, "12"),
        (3600.5, "3600.5"),
    ],
)
def test_wall_time_of_shell_command(seconds: float, shown: str) -> None:
    assert (
        shell_command_text(result(duration_s=seconds), PLENTY) == f"Exit code: 0\nWall time: {shown} seconds\nOutput:\n"
    )


@given(tenths=st.integers(0, 10**7), part=st.integers(-49, 49))
def test_wall_time_is_rounded_to_tenths(tenths: int, part: int) -> None:
    exact = max(Decimal(tenths) / 10 + Decimal(part) / 1000, Decimal(0))
    text = shell_command_text(result(duration_s=float(exact)), PLENTY).splitlines()[1]
    shown = exact.quantize(Decimal("0.1"), ROUND_HALF_UP)
    assert text == f"Wall time: {str(shown).removesuffix('.0')} seconds"


def test_shell_command_tells_its_streams_one_after_the_other() -> None:
    text = shell_command_text(result(exit_code=3, stdout=b"out\n", stderr=b"err\xff\n"), PLENTY)
    assert text == "Exit code: 3\nWall time: 0 seconds\nOutput:\nout\nerr\ufffd\n"


def test_shell_command_counts_lines_only_where_their_number_changed() -> None:
    one_line = shell_command_text(result(stdout=b"x" * 100), TruncationPolicy("bytes", 10))
    assert one_line == "Exit code: 0\nWall time: 0 seconds\nOutput:\nxxxxx…90 chars truncated…xxxxx"
    lines = shell_command_text(result(stdout=b"1234\n" * 20), TruncationPolicy("bytes", 10))
    assert lines == (
        "Exit code: 0\nWall time: 0 seconds\nTotal output lines: 20\nOutput:\n1234\n…90 chars truncated…1234\n"
    )


def test_shell_command_that_ran_out_of_time() -> None:
    text = shell_command_text(result(exit_code=124, timed_out=True, duration_s=0.2004, stdout=b"begin\n"), PLENTY)
    assert text == (
        "Exit code: 124\nWall time: 0.2 seconds\nOutput:\ncommand timed out after 200 milliseconds\nbegin\n"
    )


def test_shell_command_that_was_killed() -> None:
    assert shell_command_text(result(exit_code=137, signal=9), PLENTY) == (
        "execution error: the command was killed by signal 9 (SIGKILL)"
    )
    assert shell_command_text(result(exit_code=168, signal=40, stdout=b"a"), PLENTY) == (
        "execution error: the command was killed by signal 40\nOutput:\na"
    )


def test_failures_of_exec_command() -> None:
    assert exec_command_rejection(["/bin/bash", "-lc", 'echo "a"'], 'exec "x" rejected\n') == (
        "exec_command failed for `/bin/bash -lc 'echo \"a\"'`: "
        'CreateProcess { message: "Rejected(\\"exec \\\\\\"x\\\\\\" rejected\\\\n\\")" }'
    )
    assert exec_command_failure(["true"], "ProcessFailed", "gone") == (
        'exec_command failed for `true`: ProcessFailed { message: "gone" }'
    )


def test_patch_in_exec_command() -> None:
    assert intercepted_text("{}") == "Wall time: 0.0000 seconds\nOutput:\n{}"


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("", '""'), ("it's", '"it\'s"'), ('"\\', '"\\"\\\\"'), ("\n\r\t\0\x1b", '"\\n\\r\\t\\0\\u{1b}"'), ("é…", '"é…"')],
)
def test_quoting_as_rust_does(text: str, quoted: str) -> None:
    assert rust_debug(text) == quoted


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"])))
def test_quoted_text_can_be_read_back(text: str) -> None:
    quoted = rust_debug(text)
    assert "\n" not in quoted
    inner = quoted[1:-1]
    escapes = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", '"': '"', "\\": "\\"}
    read = re.sub(
        r"\\(?:u\{([0-9a-f]+)\}|(.))", lambda found: chr(int(found[1], 16)) if found[1] else escapes[found[2]], inner
    )
    assert read == text
