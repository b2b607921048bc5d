"""Which tools a session offers, in the order in which the model is told about them (tools.md 1.2, 1.3)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from engine.tools.base import ToolHandler
from engine.tools.exec_command import ExecCommand
from engine.tools.functions import FunctionHandler, Tool
from engine.tools.patches import ApplyPatch
from engine.tools.request_permissions import RequestPermissions
from engine.tools.shell_command import ShellCommand
from engine.tools.update_plan import UpdatePlan
from engine.tools.view_image import ViewImage
from engine.tools.write_stdin import WriteStdin

if TYPE_CHECKING:
    from engine.config.model import Config
    from engine.models.catalogue import ModelInfo

__all__ = ["ShellFamily", "session_tools", "shell_family"]

ShellFamily = Literal["disabled", "shell_command", "unified_exec"]


def session_tools(
    config: Config, model_info: ModelInfo, functions: Sequence[Tool] = (), *, somewhere: bool = True
) -> list[ToolHandler]:
    """The tools of a session with this model: the built-in ones, then those of the host.

    Without an environment (`somewhere` is false) there are none that run commands or touch files.
    """
    return [
        *_builtin_tools(
            somewhere,
            shell_family(config.features, model_info.shell_type),
            login=config.allow_login_shell,
            additional=config.features.get("exec_permission_approvals", False),
            permission_requests=config.features.get("request_permissions_tool", False),
            patches=model_info.apply_patch_tool_type == "freeform",
            original_images=model_info.supports_image_detail_original,
        ),
        *map(FunctionHandler, functions),
    ]


def shell_family(features: Mapping[str, bool], shell_type: str) -> ShellFamily:
    """Which way commands are offered; the feature `unified_exec` counts for more than the model's own `shell_type`."""
    if not features.get("shell_tool", True):
        return "disabled"
    if features.get("shell_zsh_fork", False):
        return "shell_command"
    if features.get("unified_exec", True):
        return "unified_exec"
    return "disabled" if shell_type == "disabled" else "shell_command"


@functools.cache
def _builtin_tools(
    somewhere: bool,
    family: ShellFamily,
    *,
    login: bool,
    additional: bool,
    permission_requests: bool,
    patches: bool,
    original_images: bool,
) -> tuple[ToolHandler, ...]:
    """Without state, so all sessions share them."""
    if not somewhere:
        return (UpdatePlan(),)
    tools: list[ToolHandler] = []
    if family == "unified_exec":
        tools += [ExecCommand(login, additional), WriteStdin(), ShellCommand(login, False, additional)]
    elif family == "shell_command":
        tools.append(ShellCommand(login, True, additional))
    tools.append(UpdatePlan())
    if permission_requests:
        tools.append(RequestPermissions())
    if patches:
        tools.append(ApplyPatch())
    tools.append(ViewImage(original_images))
    return tuple(tools)
