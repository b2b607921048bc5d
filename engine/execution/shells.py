"""Which shell runs a script, and how it is called (tools.md 3.4, session.md 2.8)."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import PurePath
from typing import NoReturn

from engine.errors import ConfigError, InvalidRequest
from engine.records import frozen

__all__ = ["Shell", "ShellKind", "discover_shell", "named_shell", "refuse_zsh_fork", "shell_argv", "shell_for"]


class ShellKind(StrEnum):
    ZSH = "zsh"
    BASH = "bash"
    SH = "sh"
    POWERSHELL = "powershell"
    CMD = "cmd"


_STEMS = {kind.value: kind for kind in ShellKind} | {"pwsh": ShellKind.POWERSHELL}
_PROGRAMS = {ShellKind.POWERSHELL: ("pwsh", "powershell")}


@frozen
class Shell:
    kind: ShellKind
    path: str

    @property
    def name(self) -> str:
        """What people and models call it: `bash`, `zsh`, `sh` ..."""
        return self.kind.value


_LAST_RESORT = Shell(ShellKind.SH, "/bin/sh")


def shell_kind(path: str) -> ShellKind | None:
    """Told from the file's stem; None for those that we can't call (fish, nu ...)."""
    return _STEMS.get(PurePath(path).stem.lower())


@functools.cache
def discover_shell() -> Shell:
    """The user's login shell if it is of a known kind, else the platform's usual one. Looked up once per process."""
    return choose_shell(_passwd_shell())


def choose_shell(passwd_shell: str | None, *, platform: str = sys.platform) -> Shell:
    """`discover_shell` for a given entry of the user database."""
    kinds = [ShellKind.ZSH, ShellKind.BASH] if platform == "darwin" else [ShellKind.BASH, ShellKind.ZSH]
    own = shell_kind(passwd_shell) if passwd_shell else None
    for kind in [own, *kinds] if own else kinds:
        if path := _find(kind, passwd_shell):
            return Shell(kind, path)
    return _LAST_RESORT


def shell_for(name_or_path: str) -> Shell:
    """The shell that a model asked for, by name or path; `/bin/sh` for an unknown kind or one that is not there."""
    kind = shell_kind(name_or_path)
    if kind is None:
        return _LAST_RESORT
    if os.path.isfile(name_or_path):
        return Shell(kind, name_or_path)
    path = _find(kind, _passwd_shell())
    return Shell(kind, path) if path else _LAST_RESORT


def named_shell(name_or_path: str) -> Shell:
    """The shell that a host wants instead of the user's, by name or path. Raises `InvalidRequest`."""
    kind = shell_kind(name_or_path)
    if kind is None:
        raise InvalidRequest(f"`{name_or_path}` is no shell that commands can be run with: use sh, bash or zsh")
    path = name_or_path if os.path.isfile(name_or_path) else None
    if path is None and os.sep not in name_or_path:
        path = _find(kind, _passwd_shell())
    if path is None:
        raise InvalidRequest(f"there is no shell `{name_or_path}` on this machine")
    return Shell(kind, path)


def shell_argv(shell: Shell, script: str, *, login: bool) -> list[str]:
    """The command line that runs `script`; `login` loads the user's profile."""
    if shell.kind is ShellKind.CMD:
        return [shell.path, "/c", script]
    if shell.kind is ShellKind.POWERSHELL:
        return [shell.path, *(() if login else ("-NoProfile",)), "-Command", script]
    return [shell.path, "-lc" if login else "-c", script]


def refuse_zsh_fork(zsh_path: str | os.PathLike[str] | None) -> NoReturn:
    """Raises `ConfigError`: for what the feature `shell_zsh_fork` lacks, else because there is no such thing here.

    With it, one zsh would run all commands by forking; here each command has a shell of its own.
    """
    if zsh_path is None:
        raise ConfigError(
            "zsh fork feature enabled, but `zsh_path` is not configured; set `zsh_path` in config.toml", key="zsh_path"
        )
    if not (os.path.isfile(zsh_path) and os.access(zsh_path, os.X_OK)):
        problem = f"zsh fork feature enabled, but zsh_path `{os.fspath(zsh_path)}` is not usable"
        raise ConfigError(f"{problem}; set `zsh_path` to a valid zsh executable", key="zsh_path")
    raise ConfigError(
        "this engine has no zsh fork backend: every command gets a shell of its own; switch "
        "`features.shell_zsh_fork` off (a zsh that is your login shell is used all the same)",
        key="features.shell_zsh_fork",
    )


@functools.cache
def _passwd_shell() -> str | None:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_shell or None
    except KeyError:
        return None  # a uid without an entry, usual in containers


def _find(kind: ShellKind, passwd_shell: str | None) -> str | None:
    if passwd_shell and shell_kind(passwd_shell) is kind and os.path.isfile(passwd_shell):
        return passwd_shell
    programs: Sequence[str] = _PROGRAMS.get(kind, (kind.value,))
    for program in programs:
        if path := shutil.which(program):
            return path
    for program in programs:
        if os.path.isfile(path := f"/bin/{program}"):
            return path
    return None
