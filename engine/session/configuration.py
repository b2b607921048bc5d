"""The settings a session runs with, and the one way to change them: `SessionConfiguration.apply`, all or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from engine.errors import InvalidRequest
from engine.protocol.profiles import DangerFullAccess, ReadOnly, SandboxPolicy, WorkspaceWrite
from engine.protocol.settings import ApprovalPolicy, GranularApproval, SessionSource
from engine.session.settings import SessionSettings, SettingsUpdate, Unset

if TYPE_CHECKING:
    from engine.config.model import Config

__all__ = ["SessionConfiguration", "sandbox_name"]

_APPROVAL_POLICIES = ("untrusted", "on-failure", "on-request", "never")


@attrs.frozen(kw_only=True)
class SessionConfiguration:
    """What holds now. Paths are absolute and exist when the configuration is made."""

    config: Config
    cwd: str
    model: str | None
    approval_policy: ApprovalPolicy
    sandbox_policy: SandboxPolicy
    sandbox_updated: bool = False
    """Whether the policy was set after the start; it is then bound to the cwd (permissions.md 7)."""
    reasoning_effort: str | None
    reasoning_summary: str | None
    service_tier: str | None
    instructions: str | None
    developer_instructions: str | None
    source: SessionSource
    thread_source: str | None
    ephemeral: bool
    persistence: str

    @classmethod
    def make(cls, config: Config, settings: SessionSettings, cwd: str) -> SessionConfiguration:
        """Settings over configuration. Raises `InvalidRequest` for a value that makes no sense."""
        return cls(
            config=config,
            cwd=cwd,
            model=settings.model or config.model,
            approval_policy=_approval(settings.approval_policy or config.approval_policy),
            sandbox_policy=_sandbox(settings.sandbox, config.sandbox_policy),
            reasoning_effort=settings.reasoning_effort or config.model_reasoning_effort,
            reasoning_summary=settings.reasoning_summary or config.model_reasoning_summary,
            service_tier=settings.service_tier or config.service_tier,
            instructions=settings.instructions or config.base_instructions,
            developer_instructions=settings.developer_instructions or config.developer_instructions,
            source=settings.source,
            thread_source=settings.thread_source,
            ephemeral=settings.ephemeral,
            persistence=settings.persistence,
        )

    def apply(self, update: SettingsUpdate, *, cwd: str | None = None) -> SessionConfiguration:
        """The configuration after `update`; `cwd` is the update's, made absolute. Raises `InvalidRequest`."""
        effort, tier = update.reasoning_effort, update.service_tier
        return attrs.evolve(
            self,
            cwd=cwd or self.cwd,
            model=update.model or self.model,
            approval_policy=_approval(update.approval_policy or self.approval_policy),
            sandbox_policy=_sandbox(update.sandbox, self.sandbox_policy, self.config.sandbox_policy),
            sandbox_updated=self.sandbox_updated or update.sandbox is not None,
            reasoning_effort=self.reasoning_effort if isinstance(effort, Unset) else effort,
            reasoning_summary=update.reasoning_summary or self.reasoning_summary,
            service_tier=self.service_tier if isinstance(tier, Unset) else tier,
        )


def _approval(policy: ApprovalPolicy) -> ApprovalPolicy:
    if isinstance(policy, GranularApproval) or policy in _APPROVAL_POLICIES:
        return policy
    raise InvalidRequest(f"unknown approval policy {policy!r}; known are {', '.join(_APPROVAL_POLICIES)}")


def _sandbox(wanted: str | SandboxPolicy | None, current: SandboxPolicy, configured: object = None) -> SandboxPolicy:
    if wanted is None:
        return current
    if not isinstance(wanted, str):
        return wanted
    for policy in (current, configured):
        # A mode named again keeps what the configuration says about it, e.g. extra writable roots.
        if isinstance(policy, DangerFullAccess | ReadOnly | WorkspaceWrite) and policy.type == wanted:
            return policy
    match wanted:
        case "danger-full-access":
            return DangerFullAccess()
        case "read-only":
            return ReadOnly()
        case "workspace-write":
            return WorkspaceWrite()
    raise InvalidRequest(f"unknown sandbox mode {wanted!r}; known are read-only, workspace-write, danger-full-access")


def sandbox_name(policy: SandboxPolicy) -> str:
    """The mode's name as people write it."""
    return policy.type
