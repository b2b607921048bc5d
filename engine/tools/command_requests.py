"""What the command tools have in common: their shared parameters, and what becomes of them before anything runs."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.execution.shells import Shell, shell_argv
from engine.protocol.wire import JsonObject
from engine.tools import specs
from engine.tools.approvals import CommandApproval, ask
from engine.tools.base import ToolError

if TYPE_CHECKING:
    from engine.tools.base import ToolContext

__all__ = [
    "COMMAND_REJECTED",
    "approve_command",
    "check_environment",
    "check_sandbox_permissions",
    "command_argv",
    "command_folder",
    "command_parameters",
    "whole_number",
]

COMMAND_REJECTED = "exec command rejected by user"
LOCAL_ENVIRONMENT = "local"  # the one environment there is; calls need not name it
_SANDBOX_PERMISSIONS = ("use_default", "require_escalated", "with_additional_permissions")
_MOST = 2**53  # beyond that a JSON number is no exact integer; no limit here is near it


def command_parameters(login: bool) -> Mapping[str, JsonObject]:
    """Schemas of the parameters both command tools take; `login` only where login shells are allowed."""
    shared: dict[str, JsonObject] = {
        "justification": specs.string(
            "Only with `sandbox_permissions` set to `require_escalated`: one short question to the user that says what "
            "the command does and why it needs more than the sandbox allows."
        ),
        "prefix_rule": specs.array(
            {"type": "string"},
            "Only with `sandbox_permissions` set to `require_escalated`: the leading words of the command (for example "
            '["git", "pull"]) that the user may allow for similar commands from now on.',
        ),
        "sandbox_permissions": specs.string(
            "`use_default` (the default) runs the command inside the sandbox of the session; `require_escalated` asks "
            "for it to run outside."
        ),
        "workdir": specs.string(
            "The folder to run the command in, absolute or relative to the working directory of the turn, which is the "
            "default. Prefer this over `cd`."
        ),
    }
    if login:
        shared["login"] = specs.boolean(
            "Whether the shell loads the user's profile, as a login shell does. Defaults to true; false starts faster."
        )
    return shared


def check_environment(environment_id: str | None) -> None:
    """There is one environment; a call that names another one can't be served. Raises `ToolError`."""
    if environment_id not in (None, "", LOCAL_ENVIRONMENT):
        raise ToolError(f"unknown turn environment id `{environment_id}`")


def check_sandbox_permissions(value: str | None) -> None:
    """Raises `ToolError` for a word that is none of the three."""
    if value is not None and value not in _SANDBOX_PERMISSIONS:
        raise ToolError(
            f"failed to parse function arguments: unknown variant `{value}` for `sandbox_permissions`, expected one of "
            + ", ".join(f"`{name}`" for name in _SANDBOX_PERMISSIONS)
        )


def whole_number(name: str, value: float | None, default: int) -> int:
    """A JSON number as a non-negative integer. Raises `ToolError`."""
    if value is None:
        return default
    if not math.isfinite(value) or not 0 <= value <= _MOST:
        raise ToolError(f"failed to parse function arguments: `{name}` must be a number from 0 to 2^53, got {value:g}")
    return int(value)


def command_folder(context: ToolContext, workdir: str | None) -> str:
    """The absolute folder a command runs in; whether it exists turns out when the command starts."""
    return posixpath.normpath(posixpath.join(context.cwd, workdir)) if workdir else context.cwd


def command_argv(context: ToolContext, shell: Shell, script: str, login: bool | None) -> tuple[str, ...]:
    """The command line that runs `script`. Raises `ToolError` for a login shell that the configuration forbids."""
    if login and not context.allow_login_shell:
        raise ToolError("login shell is disabled by config; omit `login` or set it to false.")
    return tuple(shell_argv(shell, script, login=context.allow_login_shell if login is None else login))


async def approve_command(
    context: ToolContext, call_id: str, argv: tuple[str, ...], cwd: str, reason: str | None
) -> bool:
    """Whether the command may run. Asks under the policy `untrusted` only; the others ask about sandboxed commands."""
    if context.approval_policy != "untrusted":
        return True
    request = CommandApproval(call_id=call_id, turn_id=context.turn_id, command=argv, cwd=cwd, reason=reason)
    return await ask(context, request)
