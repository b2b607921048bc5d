"""What a call asks for beyond the sandbox of its turn, and whether it may ask at all (tools.md 4.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from engine.errors import InvalidRequest, ProtocolError
from engine.exec_policy.requirement import SandboxPermissions
from engine.permissions.additional import intersect, normalize
from engine.protocol.profile_decoding import decode_additional
from engine.protocol.profiles import AdditionalPermissionProfile
from engine.protocol.settings import ApprovalPolicy, GranularApproval
from engine.protocol.wire import JsonObject
from engine.records import frozen
from engine.tools.base import ToolError

if TYPE_CHECKING:
    from engine.tools.base import ToolContext

__all__ = ["NoPermissions", "Override", "check_override", "decode_permissions", "policy_name"]

_KINDS = ("use_default", "require_escalated", "with_additional_permissions")
_POLICY_NAMES = {
    "untrusted": "UnlessTrusted",
    "on-failure": "OnFailure",
    "on-request": "OnRequest",
    "never": "Never",
}


class NoPermissions(ToolError):
    """A request for permissions that asks for none."""


@frozen
class Override:
    """What a call asks for: `kind`, and for `with_additional_permissions` what the command may touch besides.

    `preapproved`: the user granted all of it before, so nobody is asked again.
    """

    kind: SandboxPermissions = "use_default"
    additional: AdditionalPermissionProfile | None = None
    preapproved: bool = False


def check_override(
    context: ToolContext,
    sandbox_permissions: str | None,
    additional_permissions: JsonObject | None,
    *,
    verb: str,
    cwd: str,
) -> Override:
    """The override of a call in `cwd`. Raises `ToolError` where the call must not ask for it.

    `verb` is how the tool words it: `should not` or `cannot`.
    """
    kind = sandbox_permissions or "use_default"
    if kind not in _KINDS:
        raise ToolError(
            f"failed to parse function arguments: unknown variant `{kind}` for `sandbox_permissions`, expected one of "
            + ", ".join(f"`{name}`" for name in _KINDS)
        )
    if kind != "with_additional_permissions" and additional_permissions is not None:
        raise ToolError("`additional_permissions` requires `sandbox_permissions` set to `with_additional_permissions`")
    if kind == "with_additional_permissions":
        return _additional(context, additional_permissions, cwd)
    if kind == "require_escalated" and context.approval_policy != "on-request":
        name = policy_name(context.approval_policy)
        raise ToolError(
            f"approval policy is {name}; reject command — you {verb} ask for escalated permissions if the approval "
            f"policy is {name}"
        )
    return Override(cast(SandboxPermissions, kind))


def _additional(context: ToolContext, given: JsonObject | None, cwd: str) -> Override:
    if given is None:
        raise ToolError(
            "missing `additional_permissions`; provide at least one of `network` or `file_system` when using "
            "`with_additional_permissions`"
        )
    requested = decode_permissions(context, given)
    granted = context.permissions.granted_now
    if granted is not None and intersect(requested, granted, cwd, context.permissions.view) == requested:
        return Override("with_additional_permissions", requested, preapproved=True)
    if not context.features.get("exec_permission_approvals", False):
        raise ToolError(
            "additional permissions are disabled; enable `features.exec_permission_approvals` before using "
            "`with_additional_permissions`"
        )
    if context.approval_policy != "on-request":
        raise ToolError(
            f"approval policy is {policy_name(context.approval_policy)}; reject command — you cannot request "
            "additional permissions unless the approval policy is OnRequest"
        )
    return Override("with_additional_permissions", requested)


def decode_permissions(context: ToolContext, given: JsonObject) -> AdditionalPermissionProfile:
    """The permissions a model asks for, with canonical paths. Raises `ToolError`, for none at all `NoPermissions`."""
    try:
        requested = normalize(decode_additional(given), context.permissions.view)
    except (ProtocolError, InvalidRequest) as exc:
        raise ToolError(f"failed to parse function arguments: {exc}") from exc
    network = requested.network is not None and bool(requested.network.enabled)
    files = requested.file_system is not None and bool(requested.file_system.entries)
    if not network and not files:
        raise NoPermissions("`additional_permissions` must include at least one requested permission")
    return requested


def policy_name(policy: ApprovalPolicy) -> str:
    """An approval policy as texts for the model call it."""
    if not isinstance(policy, GranularApproval):
        return _POLICY_NAMES.get(policy, policy)
    flags = ("sandbox_approval", "rules", "skill_approval", "request_permissions", "mcp_elicitations")
    return f"Granular({', '.join(f'{flag}: {str(getattr(policy, flag)).lower()}' for flag in flags)})"
