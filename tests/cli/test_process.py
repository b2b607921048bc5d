"""The command line as a real process: signals, terminals, pipes that close."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Cli, provider_toml, start_process
from tests.mock_responses import MockResponses, Reply, message_reply, serve_responses

HELD = Reply(events=(*message_reply("Partial ").events[:3], "WAIT"))


@pytest.fixture
def mock(cli: Cli) -> Iterator[MockResponses]:
    with serve_responses([HELD]) as server:
        cli.configure(provider_toml(server.port))
        yield server


def start(cli: Cli, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return start_process(
        ["exec", *words],
        cli.project,
        {"CODEX_HOME": str(cli.home)},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_the_turn(cli: Cli, mock: MockResponses, number: signal.Signals) -> None:
    process = start(cli, "--json", "x")
    assert mock.waiting.wait(30)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    types = [json.loads(line)["type"] for line in stdout.splitlines()]
    assert process.returncode == 1
    assert types == ["thread.started", "item.completed", "turn.started"]
    assert b"Traceback" not in stderr
    recorded = cli.sessions()[0].read_text()
    assert "turn_aborted" in recorded
    assert "task_complete" not in recorded


def test_an_interrupted_turn_says_so_to_people(cli: Cli, mock: MockResponses) -> None:
    process = start(cli, "x")
    assert mock.waiting.wait(30)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (1, b"")
    assert b"codex\nPartial \nturn interrupted\n" in stderr


def test_a_second_signal_ends_the_process_at_once(cli: Cli, mock: MockResponses) -> None:
    process = start(cli, "--json", "x")
    assert mock.waiting.wait(30)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    # The first one may have done its work already when the second one comes.
    assert process.returncode in (1, -signal.SIGTERM)


def test_an_interrupt_before_the_prompt_is_there(cli: Cli, mock: MockResponses) -> None:
    process = start(cli, stdin=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline() == b"Reading prompt from stdin...\n"
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (1, b"", b"")


def test_a_reader_that_goes_away_ends_the_run_quietly(cli: Cli) -> None:
    with serve_responses([HELD]) as mock:
        cli.configure(provider_toml(mock.port))
        process = start(cli, "--json", "x")
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"thread.started" in process.stdout.readline()
        assert mock.waiting.wait(30)
        process.stdout.close()
        mock.release.set()
        assert process.stderr.read() == b"Reading additional input from stdin...\n"
        assert process.wait(30) == 1
        process.stderr.close()


def test_a_process_without_streams(cli: Cli, tmp_path: Path) -> None:
    words = " ".join(cli.script('[[responses]]\ntext = "the answer"\n'))
    last = tmp_path / "last"
    line = f"exec {sys.executable} -P -m engine exec {words} -o {last} x <&- >&- 2>&-"
    done = subprocess.run(
        ["sh", "-c", line], cwd=cli.project, env={**os.environ, "CODEX_HOME": str(cli.home)}, check=False
    )
    assert (done.returncode, last.read_text()) == (0, "the answer")


def run_at_terminal(cli: Cli, *words: str, stdout: int | None = None) -> tuple[int, bytes, bytes]:
    """Runs with all three streams at one terminal; `stdout` may go elsewhere. (exit code, terminal, stdout)."""
    master, slave = pty.openpty()
    out = slave if stdout is None else stdout
    process = start_process(
        ["exec", *words],
        cli.project,
        {"CODEX_HOME": str(cli.home), "TERM": "xterm"},
        stdin=slave,
        stdout=out,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
    except OSError:
        pass  # the end of a terminal is an input/output error
    rest = b""
    if process.stdout is not None:
        rest = process.stdout.read()
        process.stdout.close()
    os.close(master)
    return process.wait(30), shown.replace(b"\r\n", b"\n"), rest


def test_a_terminal_without_a_prompt(cli: Cli) -> None:
    code, shown, _ = run_at_terminal(cli)
    assert code == 1
    assert shown == b"No prompt provided. Either specify one as an argument or pipe the prompt into stdin.\n"


def test_a_terminal_gets_colour_and_the_message_once(cli: Cli) -> None:
    script = cli.script('[[responses]]\ntext = "the answer"\n')
    code, shown, _ = run_at_terminal(cli, *script, "x")
    assert code == 0
    assert b"\x1b[1mworkdir:\x1b[0m" in shown
    assert b"Reading" not in shown
    assert shown.count(b"the answer") == 1


def test_a_redirected_stdout_gets_the_message_too(cli: Cli) -> None:
    script = cli.script('[[responses]]\ntext = "the answer"\n')
    code, shown, stdout = run_at_terminal(cli, *script, "x", stdout=subprocess.PIPE)
    assert (code, stdout) == (0, b"the answer\n")
    assert shown.count(b"the answer") == 1


def test_a_script_served_over_http(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "script.toml"
    file.write_text('[[responses]]\nrepeat = true\ntext = "served"\n')
    server = start_process(
        ["models", "serve-scripted", str(file)], tmp_path, {}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert server.stdout is not None
    url = server.stdout.readline().decode().strip()
    port = int(url.removeprefix("http://127.0.0.1:").removesuffix("/v1"))
    cli.configure(provider_toml(port))
    done = cli.exec("--json", "x")
    assert done.code == 0, done.stderr
    assert done.lines[-2]["item"]["text"] == "served"
    taken = start_process(
        ["models", "serve-scripted", str(file), "--port", str(port)], tmp_path, {}, stderr=subprocess.PIPE
    )
    _, stderr = taken.communicate(timeout=30)
    assert taken.returncode == 1
    assert stderr.startswith(f"Error: can't listen on port {port}: ".encode())
    server.send_signal(signal.SIGINT)
    rest, stderr = server.communicate(timeout=30)
    assert (server.returncode, rest, stderr) == (0, b"", b"")


def test_serving_a_script_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "script.toml"
    file.write_text("nonsense")
    process = start_process(["models", "serve-scripted", str(file)], tmp_path, {}, stderr=subprocess.PIPE)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert stderr.startswith(b"Error: ")
    assert str(file).encode() in stderr
