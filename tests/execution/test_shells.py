"""Discovery of the shell and its command lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.execution import shells
from engine.execution.shells import (
    Shell,
    ShellKind,
    choose_shell,
    discover_shell,
    refuse_zsh_fork,
    shell_argv,
    shell_for,
    shell_kind,
)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with zsh and pwsh alone, and no user database."""
    for name in ("zsh", "pwsh", "fish"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(shells, "_passwd_shell", lambda: None)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/bin/zsh", ShellKind.ZSH),
        ("bash", ShellKind.BASH),
        ("/usr/local/bin/sh", ShellKind.SH),
        ("pwsh", ShellKind.POWERSHELL),
        ("PowerShell.exe", ShellKind.POWERSHELL),
        ("cmd.exe", ShellKind.CMD),
        ("/usr/bin/fish", None),
        ("", None),
    ],
)
def test_kinds_are_told_by_the_stem(path: str, kind: ShellKind | None) -> None:
    assert shell_kind(path) == kind


def test_the_users_shell_is_taken_if_we_can_call_it(programs: Path) -> None:
    assert choose_shell(str(programs / "zsh")) == Shell(ShellKind.ZSH, str(programs / "zsh"))
    assert choose_shell("/gone/zsh") == Shell(ShellKind.ZSH, str(programs / "zsh"))  # PATH has one


@pytest.mark.parametrize("passwd_shell", ["/usr/bin/fish", "/usr/sbin/nologin", "/gone/pwsh7", None])
def test_else_the_platforms_usual_one(programs: Path, passwd_shell: str | None) -> None:
    assert choose_shell(passwd_shell, platform="linux").kind is ShellKind.BASH  # /bin/bash, not on this PATH
    assert choose_shell(passwd_shell, platform="darwin") == Shell(ShellKind.ZSH, str(programs / "zsh"))


def test_the_last_resort(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shells, "_find", lambda *_: None)
    assert choose_shell("/bin/zsh") == Shell(ShellKind.SH, "/bin/sh")


def test_what_a_model_asks_for(programs: Path) -> None:
    assert shell_for("zsh") == Shell(ShellKind.ZSH, str(programs / "zsh"))
    assert shell_for("/bin/sh") == Shell(ShellKind.SH, "/bin/sh")
    assert shell_for("/no/such/sh") == Shell(ShellKind.SH, "/bin/sh")
    assert shell_for(str(programs / "fish")) == Shell(ShellKind.SH, "/bin/sh")
    assert shell_for("powershell") == Shell(ShellKind.POWERSHELL, str(programs / "pwsh"))
    assert shell_for("cmd") == Shell(ShellKind.SH, "/bin/sh")


@pytest.mark.parametrize(
    ("shell", "login", "argv"),
    [
        (Shell(ShellKind.BASH, "/bin/bash"), True, ["/bin/bash", "-lc", "x y"]),
        (Shell(ShellKind.ZSH, "/bin/zsh"), False, ["/bin/zsh", "-c", "x y"]),
        (Shell(ShellKind.POWERSHELL, "pwsh"), True, ["pwsh", "-Command", "x y"]),
        (Shell(ShellKind.POWERSHELL, "pwsh"), False, ["pwsh", "-NoProfile", "-Command", "x y"]),
        (Shell(ShellKind.CMD, "cmd"), True, ["cmd", "/c", "x y"]),
    ],
)
def test_command_lines(shell: Shell, login: bool, argv: list[str]) -> None:
    assert shell_argv(shell, "x y", login=login) == argv


def test_discovery_finds_a_shell_that_is_there() -> None:
    found = discover_shell()
    assert Path(found.path).is_file()
    assert found.name == found.kind.value
    assert discover_shell() is found


@pytest.mark.parametrize(
    ("zsh_path", "text"),
    [
        (None, "zsh fork feature enabled, but `zsh_path` is not configured; set `zsh_path` in config.toml"),
        ("missing", "is not usable; set `zsh_path` to a valid zsh executable"),
        ("folder", "is not usable; set `zsh_path` to a valid zsh executable"),
        ("plain", "is not usable; set `zsh_path` to a valid zsh executable"),
        ("zsh", "this engine has no zsh fork backend"),
    ],
)
def test_the_fork_backend_of_zsh_is_refused_for_what_it_lacks(tmp_path: Path, zsh_path: str | None, text: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_text("")
    (tmp_path / "zsh").write_text("")
    (tmp_path / "zsh").chmod(0o755)
    with pytest.raises(ConfigError, match=re.escape(text)) as caught:
        refuse_zsh_fork(None if zsh_path is None else tmp_path / zsh_path)
    if zsh_path not in (None, "zsh"):
        assert f"zsh fork feature enabled, but zsh_path `{tmp_path / zsh_path}`" in str(caught.value)
