"""`engine sandbox` and `--explain`, run whole but in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.explaining import explain_path
from engine.cli.main import main
from engine.cli.policy_arguments import SandboxArguments, parse_sandbox
from engine.permissions.legacy import UNRESTRICTED
from engine.permissions.memory_view import MemoryView
from engine.permissions.view import DiskView
from engine.protocol.profiles import FileSystemEntry, FileSystemSandboxPolicy, GlobPath, LiteralPath, SpecialPath

from ..execution.sandbox.conftest import place as place  # a folder outside of /tmp
from ..execution.sandbox.conftest import workspace as workspace


@pytest.fixture
def here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace as current directory, and a configuration with a profile of its own."""
    monkeypatch.chdir(workspace)
    Path(os.environ["CODEX_HOME"], "config.toml").write_text(
        'default_permissions = "dev"\n'
        "[permissions.dev]\n"
        'extends = ":workspace"\n'
        "[permissions.dev.filesystem]\n"
        '":workspace_roots" = { "src" = "read", "*.env" = "none" }\n'
    )
    return workspace


def needs_sandbox(capfd: pytest.CaptureFixture[str]) -> None:
    if main(["doctor", "-C", "/"]) != 0:
        pytest.skip(capfd.readouterr().out)
    capfd.readouterr()


# --- arguments ---------------------------------------------------------------------------------


def test_words() -> None:
    assert parse_sandbox(["-P", ":workspace", "-C", "x", "-c", "a=1", "--", "ls", "--", "-l"]) == SandboxArguments(
        ("ls", "--", "-l"), None, ":workspace", "x", ("a=1",)
    )
    assert parse_sandbox(["--explain", "p"]) == SandboxArguments(explain="p")


@pytest.mark.parametrize(
    "words",
    [["sandbox"], ["sandbox", "ls"], ["sandbox", "--"], ["sandbox", "--explain", "x", "--", "ls"]],
)
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "--help"]) == 0
    assert "engine sandbox" in capsys.readouterr().out


# --- running -----------------------------------------------------------------------------------


def test_a_command_runs_under_the_configured_profile(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    needs_sandbox(capfd)
    (here / "x.env").write_text("secret")
    script = "echo new > new; echo x > src/x; echo x > .git/x; cat x.env; echo done; exit 7"
    assert main(["sandbox", "--", "/bin/sh", "-c", script]) == 7
    output = capfd.readouterr()
    assert output.out == "done\n"
    assert output.err.count("Read-only file system") == 2
    assert output.err.count("Permission denied") == 1
    assert (here / "new").exists()
    assert sorted(os.listdir(here)) == [".git", "new", "src", "x.env"]


def test_another_profile_and_another_folder(here: Path, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    needs_sandbox(capfd)
    words = ["sandbox", "-P", ":read-only", "-C", str(place), "--", "/bin/sh", "-c", "pwd; echo x > y"]
    assert main(words) != 0
    output = capfd.readouterr()
    assert output.out == f"{place}\n"
    assert "Read-only" in output.err
    assert (
        main(["sandbox", "-P", ":danger-full-access", "--", "/bin/sh", "-c", f"echo x > {place}/y; kill -9 $$"]) == 137
    )
    assert (place / "y").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-P", ":nope"], "unknown built-in profile `:nope`"),
        (["-P", "nope"], "nope"),
        (["-C", "/no/such/folder"], "/no/such/folder does not exist"),
        (["-c", "sandbox_mode=7"], "sandbox_mode"),
        (["-c", "x"], "x"),
    ],
)
def test_what_can_not_be_started_says_why(
    here: Path, words: list[str], text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["sandbox", *words, "--", "true"]) == 125
    error = capfd.readouterr().err
    assert error.startswith("Error: ")
    assert text in error
    assert "Traceback" not in error


@pytest.mark.parametrize("program", ["no-such-program", "./missing", "/nowhere/at/all"])
def test_a_program_that_is_not_there_could_not_be_started(
    here: Path, program: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["sandbox", "--", program]) == 125
    assert capfd.readouterr().err == f"Error: there is no program `{program}`\n"


def test_ctrl_c_ends_the_command(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    needs_sandbox(capfd)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "engine", "sandbox", "--", "/bin/sh", "-c", "echo up; exec sleep 1000"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert sorted(os.listdir(here)) == [".git", "src"]


# --- explaining --------------------------------------------------------------------------------


def test_explain(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "--explain", "src/main.py"]) == 0
    output = capsys.readouterr().out
    assert f"{here}/src/main.py can be read, not written" in output
    assert f"read {here}/src" in output
    assert f"under the permissions of {here} (dev)" in output


POLICY = FileSystemSandboxPolicy(
    "restricted",
    entries=(
        FileSystemEntry(SpecialPath.of("root"), "read"),
        FileSystemEntry(SpecialPath.of("project_roots"), "write"),
        FileSystemEntry(LiteralPath("/ws/secret"), "none"),
        FileSystemEntry(GlobPath("/ws/**/*.env"), "none"),
        FileSystemEntry(SpecialPath.of("project_roots", "docs"), "read"),
    ),
)
VIEW = MemoryView(
    files={"/ws/src/a": "", "/ws/x.env": ""},
    links={"/ws/link": "/etc/hosts"},
    directories=frozenset(["/ws/.git", "/etc/hosts"]),
)


@pytest.mark.parametrize(
    ("path", "verdict", "why"),
    [
        ("src/a", "/ws/src/a can be read and written", "number 1: write :project_roots"),
        ("/etc/x", "/etc/x can be read, not written", "number 0: read :root"),
        ("secret/x", "/ws/secret/x can't be read or written", "number 2: none /ws/secret"),
        (
            ".codex/x",
            "/ws/.codex/x can be read, not written",
            ".codex of a writable place is protected; the place is entry 1",
        ),
        ("x.env", "/ws/x.env can't be read or written", "matches the glob /ws/**/*.env"),
        ("docs", "/ws/docs can be read, not written", "read :project_roots/docs"),
        ("link", "/ws/link can be read and written", "it leads to /etc/hosts, for which holds:"),
    ],
)
def test_why(path: str, verdict: str, why: str) -> None:
    lines = explain_path(path, POLICY, "/ws", VIEW)
    assert lines[0] == verdict
    assert why in "\n".join(lines)


def test_why_without_any_rule() -> None:
    assert explain_path("/x", UNRESTRICTED, "/", DiskView()) == [
        "/x can be read and written",
        "  the policy restricts no files",
    ]
    nothing = FileSystemSandboxPolicy("restricted")
    assert explain_path("/x", nothing, "/", MemoryView())[1] == "  no entry of the policy covers it"
