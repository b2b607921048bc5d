"""What the command tools have in common: their shared parameters, and what becomes of them before anything runs."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.execution.shells import Shell, shell_argv
from engine.protocol.wire import JsonObject
from engine.tools import specs
from engine.tools.base import ToolError

if TYPE_CHECKING:
    from engine.tools.base import ToolContext

__all__ = [
    "LOCAL_ENVIRONMENT",
    "PERMISSIONS",
    "check_environment",
    "command_argv",
    "command_folder",
    "command_parameters",
    "whole_number",
]

LOCAL_ENVIRONMENT = "local"  # the one environment there is; calls need not name it
_MOST = 2**53  # beyond that a JSON number is no exact integer; no limit here is near it


PERMISSIONS: JsonObject = specs.object_schema(
    {
        "network": specs.object_schema({"enabled": specs.boolean("Whether it may use the network.")}, []),
        "file_system": specs.object_schema(
            {
                "read": specs.array({"type": "string"}, "Absolute paths it may read, with all below them."),
                "write": specs.array({"type": "string"}, "Absolute paths it may write, with all below them."),
            },
            [],
        ),
    },
    [],
)


def command_parameters(login: bool, additional: bool) -> Mapping[str, JsonObject]:
    """Schemas of the parameters both command tools take; `login` only where login shells are allowed.

    `additional`: whether a call may ask for permissions of its own.
    """
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
            + (
                " `with_additional_permissions` asks for it to run inside, with what `additional_permissions` lists."
                if additional
                else ""
            )
        ),
        "workdir": specs.string(
            "The folder to run the command in, absolute or relative to the working directory of the turn, which is the "
            "default. Prefer this over `cd`."
        ),
    }
    if additional:
        shared["additional_permissions"] = {
            **PERMISSIONS,
            "description": "Only with `sandbox_permissions` set to `with_additional_permissions`: what it needs.",
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
