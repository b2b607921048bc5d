"""`request_permissions`: the model asks the user for more than its turn may touch (tools.md 4.6)."""

from __future__ import annotations

from typing import Literal

from engine.permissions.additional import intersect
from engine.protocol.codec import encode, json_bytes
from engine.protocol.profiles import AdditionalPermissionProfile
from engine.protocol.settings import GranularApproval
from engine.protocol.wire import JsonObject, Wire
from engine.records import frozen
from engine.tools import specs
from engine.tools.approvals import PermissionGrant, PermissionsApproval, agreed, decide
from engine.tools.base import ToolError, ToolInvocation, ToolOutput, parse_arguments
from engine.tools.command_requests import PERMISSIONS
from engine.tools.overrides import NoPermissions, decode_permissions

__all__ = ["RequestPermissions"]

_DESCRIPTION = (
    "Asks the user for permissions that the commands and patches to come need. Answers with what was granted, which "
    "may be less than what was asked for, and whether it holds for the turn or for the session."
)


@frozen(kw_only=True)
class RequestPermissionsArguments(Wire):
    """What the model sends."""

    permissions: JsonObject
    reason: str | None = None


@frozen(eq=False)
class RequestPermissions:
    """Serves `request_permissions`."""

    name: str = "request_permissions"
    namespace: None = None
    kind: Literal["function"] = "function"
    parallel: bool = False

    def spec(self) -> JsonObject:
        """What the model is told."""
        properties: dict[str, JsonObject] = {
            "permissions": PERMISSIONS,
            "reason": specs.string("One short sentence to the user: what the permissions are needed for."),
        }
        return specs.function_spec(self.name, _DESCRIPTION, specs.object_schema(properties, ["permissions"]))

    async def call(self, invocation: ToolInvocation) -> ToolOutput:
        """Asks, and grants what the user agreed to of what was asked for."""
        context = invocation.context
        arguments = parse_arguments(invocation, RequestPermissionsArguments)
        try:
            requested = decode_permissions(context, arguments.permissions)
        except NoPermissions as exc:
            raise ToolError("request_permissions requires at least one permission") from exc
        policy = context.approval_policy
        if policy == "never" or (isinstance(policy, GranularApproval) and not policy.request_permissions):
            return _answer(AdditionalPermissionProfile(), "turn")
        decision = await decide(
            context,
            PermissionsApproval(
                call_id=invocation.call_id,
                turn_id=context.turn_id,
                permissions=requested,
                cwd=context.cwd,
                reason=arguments.reason,
            ),
        )
        if not agreed(decision):
            return _answer(AdditionalPermissionProfile(), "turn")
        granted, scope = requested, "session" if decision == "approved_for_session" else "turn"
        if isinstance(decision, PermissionGrant):
            granted = intersect(requested, decision.permissions, context.cwd, context.permissions.view)
            scope = decision.scope
        context.permissions.grant(granted, for_session=scope == "session")
        return _answer(granted, scope)


def _answer(granted: AdditionalPermissionProfile, scope: str) -> ToolOutput:
    permissions: JsonObject = {"network": None, "file_system": None, **encode(granted)}
    return ToolOutput(json_bytes({"permissions": permissions, "scope": scope}).decode())
