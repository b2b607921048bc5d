"""A layout as arguments of `bwrap`, in the order in which it has to do them (tools.md 6.2). Pure."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping

from engine.execution.process import SpawnError
from engine.execution.sandbox.errors import SandboxPolicyError
from engine.execution.sandbox.layout import Layout, Mount

__all__ = [
    "MAX_ARGUMENTS",
    "OWN_LEADER",
    "TAKE_TERMINAL",
    "WHOLE_DISK",
    "encode_arguments",
    "environment_arguments",
    "layout_arguments",
    "network_arguments",
    "session_arguments",
]

MAX_ARGUMENTS = 9000  # of bwrap, those of the command included

# A command that gets the terminal which bwrap binds to that place. The leader of a session without terminal gets the
# one that it opens; with `OWN_LEADER` the shell is that leader. Keys like Ctrl-C then reach the command, and not bwrap
# itself, which would end.
TAKE_TERMINAL = ("/bin/sh", "-c", 'exec <>/dev/console >&0 2>&0; trap : INT QUIT; "$@"; exit $?', "sh")
OWN_LEADER = "--as-pid-1"

# A policy that lets everything be written needs no arrangement of mounts, only the namespaces.
WHOLE_DISK = ("--dev-bind", "/", "/")

_HIDDEN_FOLDER, _PASSABLE_FOLDER = "000", "111"


def layout_arguments(layout: Layout, *, proc: bool, root: bool, without: Iterable[str] = ()) -> Iterator[str]:
    """The mounts. `proc`: whether a fresh /proc can be mounted. `without`: placeholders that could not be made.

    `root`: the command runs as the machine's root. Without any capability it still owns what is in /proc: it could set
    the kernel's parameters, and with them a program that the kernel runs outside.
    """
    left_out = frozenset(without)
    yield from ("--ro-bind", "/", "/") if layout.whole_disk else ("--tmpfs", "/")
    own_folders = ["--dev", "/dev"]
    if proc:
        own_folders += ("--proc", "/proc", *(("--remount-ro", "/proc") if root else ()))
    # Covered by a bind of the whole disk, and before what lies below them.
    if not any(mount.path == "/" for mount in layout.mounts):
        yield from own_folders
    sealed: list[str] = []
    for mount in layout.mounts:
        if mount.path in left_out and mount.kind.startswith("placeholder"):
            continue
        yield from _mount_arguments(mount)
        if mount.path == "/":
            yield from own_folders
        if mount.kind == "hidden_folder":
            # The places for what is reopened below have to be made in it first.
            sealed += ("--remount-ro", mount.path)
    yield from sealed


def _mount_arguments(mount: Mount) -> tuple[str, ...]:
    match mount.kind:
        case "write":
            return "--bind", mount.source, mount.path
        case "hidden_folder":
            return "--perms", _PASSABLE_FOLDER if mount.open_below else _HIDDEN_FOLDER, "--tmpfs", mount.path
        case "placeholder_folder":
            # Not the placeholder itself: its lock is not for commands.
            return "--perms", "555", "--tmpfs", mount.path, "--remount-ro", mount.path
        case "hidden_file" | "placeholder_file":
            # A device on a mount without devices: opening it fails, whoever tries.
            return "--ro-bind", "/dev/null", mount.path
    return "--ro-bind", mount.source, mount.path


def session_arguments(*, network: bool) -> tuple[str, ...]:
    """The namespaces, and that the command ends with its owner and gets no capability, even as root."""
    return (
        "--new-session",
        "--die-with-parent",
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        *(() if network else ("--unshare-net",)),
        "--cap-drop",
        "ALL",
    )


def network_arguments() -> tuple[str, ...]:
    """For a policy that keeps only the network away: everything else stays as it is."""
    return "--new-session", "--die-with-parent", "--unshare-user", "--unshare-net", "--cap-drop", "ALL"


def environment_arguments(env: Mapping[str, str]) -> Iterator[str]:
    """The command's environment. bwrap itself gets none: variables of the loader would take effect outside."""
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise SpawnError("bwrap", errno.EINVAL, f"{name!r} can't be an environment variable")
        yield from ("--setenv", name, value)


def encode_arguments(arguments: Iterable[str], *, command_length: int) -> bytes:
    """For `bwrap --args FD`, whose list no other user of the machine sees. Raises `SandboxPolicyError`, `SpawnError`.

    `command_length` is the number of arguments that are given to bwrap besides.
    """
    encoded = [os.fsencode(argument) for argument in arguments]
    if any(b"\0" in argument for argument in encoded):
        raise SpawnError("bwrap", errno.EINVAL, "a path contains a NUL byte")
    total = len(encoded) + command_length
    if total > MAX_ARGUMENTS:
        raise SandboxPolicyError(
            f"cannot enforce sandbox: it takes {total} arguments, but bubblewrap accepts {MAX_ARGUMENTS}; deny folders "
            "instead of many files",
            path="/",
        )
    return b"\0".join(encoded) + b"\0" if encoded else b""
