"""Whether a failed command was probably refused something by its sandbox (tools.md 6.6). Pure."""

from __future__ import annotations

import sys

__all__ = ["is_denial"]

_SIGNS = (
    "operation not permitted",
    "permission denied",
    "read-only file system",
    "seccomp",
    "sandbox",
    "landlock",
    "failed to write file",
)
# A shell's own: bad usage, not executable, not found.
_NOT_BY_THE_SANDBOX = (2, 126, 127)
_BAD_SYSTEM_CALL = 128 + 31  # SIGSYS on Linux


def is_denial(exit_code: int, *outputs: str, sandboxed: bool) -> bool:
    """The heuristic: what the command wrote (stdout, stderr, both together) is searched for words of a refusal.

    `sandboxed`: whether a sandbox held the command at all.
    """
    if not sandboxed or exit_code == 0:
        return False
    if any(sign in output.lower() for output in outputs for sign in _SIGNS):
        return True
    if exit_code in _NOT_BY_THE_SANDBOX:
        return False
    return exit_code == _BAD_SYSTEM_CALL and sys.platform == "linux"
