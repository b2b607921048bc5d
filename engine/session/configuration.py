"""The settings a session runs with, and the one way to change them: `SessionConfiguration.apply`, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING

import attrs

from engine.config.permissions import PermissionOverrides, legacy_policy
from engine.config.requirements import approval_name, fallback_warning
from engine.config.resolve import service_tier
from engine.errors import ConfigError, InvalidRequest
from engine.execution.shells import Shell, named_shell
from engine.models.personality import PERSONALITIES
from engine.permissions.canonical import absolute
from engine.permissions.constrained import Constrained, ConstraintError
from engine.permissions.state import PermissionUpdate, SessionPermissions
from engine.protocol.profiles import (
    ActivePermissionProfile,
    PermissionProfile,
    SandboxPolicy,
)
from engine.protocol.settings import ApprovalPolicy, CollaborationMode, GranularApproval, SessionSource
from engine.records import frozen
from engine.session.collaboration import Collaboration, chosen
from engine.session.environments import EnvironmentManager, EnvironmentSelection, following
from engine.session.settings import SessionSettings, SettingsUpdate, Unset

if TYPE_CHECKING:
    from engine.config.layers import LayerStack
    from engine.config.model import Config
    from engine.permissions.view import View
    from engine.protocol.rollout_items import TurnContext

__all__ = ["SessionConfiguration", "ThreadConfiguration", "permission_overrides"]

_APPROVAL_POLICIES = ("untrusted", "on-failure", "on-request", "never")
_REVIEWERS = ("user", "guardian_subagent", "auto_review")
_MODES = ("read-only", "workspace-write", "danger-full-access")

Place = PathLike[str] | str


@frozen(kw_only=True)
class ThreadConfiguration:
    """What others may know of how a thread is configured now; `permission_profile` has no workspace symbols left."""

    model: str | None
    model_provider_id: str
    service_tier: str | None
    reasoning_effort: str | None
    personality: str | None
    collaboration_mode: str
    approval_policy: ApprovalPolicy
    approvals_reviewer: str
    permission_profile: PermissionProfile
    active_permission_profile: ActivePermissionProfile | None
    sandbox_policy: SandboxPolicy
    cwd: str
    workspace_roots: tuple[str, ...]
    ephemeral: bool
    source: SessionSource


@frozen(kw_only=True)
class SessionConfiguration:
    """What holds now. Paths are absolute; the cwd existed when it was set.

    `warnings` is what the start has to say about settings that were not allowed. `environments` are those of a turn
    that selects none itself.
    """

    config: Config
    permissions: SessionPermissions
    model: str | None
    approval: Constrained[ApprovalPolicy]
    approvals_reviewer: str
    reasoning_effort: str | None
    reasoning_summary: str | None
    service_tier: str | None
    personality: str | None
    collaboration: Collaboration
    environments: tuple[EnvironmentSelection, ...]
    instructions: str | None
    developer_instructions: str | None
    source: SessionSource
    thread_source: str | None
    ephemeral: bool
    persistence: str
    shell: Shell | None = None
    """What runs commands instead of the user's shell."""
    warnings: tuple[str, ...] = ()

    @classmethod
    def make(
        cls,
        config: Config,
        settings: SessionSettings,
        cwd: str,
        *,
        environments: EnvironmentManager | None = None,
        last: TurnContext | None = None,
    ) -> SessionConfiguration:
        """Settings over configuration, which was loaded for `cwd` and the settings' `permission_overrides`.

        What a resumed thread had chosen for itself (`last` is its latest turn) stays where the settings say nothing:
        the collaboration mode with its effort, and the personality. A value that an administrator does not allow is
        replaced, with a warning. Raises `InvalidRequest` for a value that makes no sense.
        """
        warnings: list[str] = []
        requirements = config.requirements
        approval = Constrained(config.approval_policy, requirements.check_approval_policy)
        if settings.approval_policy is not None:
            wanted = _approval(settings.approval_policy)
            try:
                approval = approval.set(wanted)
            except ConstraintError as error:
                allowed = (requirements.approval_policies or (wanted,))[0]
                warning = fallback_warning("approval_policy", approval_name(allowed), error)
                if warning not in config.warnings:
                    warnings.append(warning)
                approval = approval.set(allowed)
        manager = environments or EnvironmentManager()
        selected = manager.default if settings.environments is None else manager.select(settings.environments)
        made = cls(
            config=config,
            permissions=config.permissions.session(),
            model=settings.model or config.model,
            approval=approval,
            approvals_reviewer=config.approvals_reviewer,
            reasoning_effort=settings.reasoning_effort or config.model_reasoning_effort,
            reasoning_summary=settings.reasoning_summary or config.model_reasoning_summary,
            service_tier=_tier(settings.service_tier, config),
            personality=_personality(settings.personality) or (last and last.personality) or config.personality,
            collaboration=Collaboration(),
            environments=following(selected, cwd),
            instructions=settings.instructions or config.base_instructions,
            developer_instructions=settings.developer_instructions or config.developer_instructions,
            source=settings.source,
            thread_source=settings.thread_source,
            ephemeral=settings.ephemeral,
            persistence=settings.persistence,
            shell=None if settings.shell is None else named_shell(fspath(settings.shell)),
            warnings=tuple(warnings),
        )
        if settings.collaboration_mode is not None:
            return made._collaborating(settings.collaboration_mode)
        if last is not None and last.collaboration_mode is not None and last.collaboration_mode.mode != "default":
            recorded = last.collaboration_mode
            effort = settings.reasoning_effort or recorded.settings.reasoning_effort
            mode = Collaboration(recorded.mode, recorded.settings.developer_instructions, (made.reasoning_effort,))
            return attrs.evolve(made, collaboration=mode, reasoning_effort=effort)
        return made

    def _collaborating(self, wanted: CollaborationMode | str) -> SessionConfiguration:
        mode, model, effort = chosen(
            wanted, self.collaboration, model=self.model, effort=self.reasoning_effort, config=self.config
        )
        return attrs.evolve(self, collaboration=mode, model=model, reasoning_effort=effort)

    @property
    def cwd(self) -> str:
        """Where commands run."""
        return self.permissions.cwd

    @property
    def approval_policy(self) -> ApprovalPolicy:
        """When the user is asked."""
        return self.approval.value

    @property
    def sandbox_policy(self) -> SandboxPolicy:
        """The legacy policy that stands for the permissions."""
        return self.permissions.sandbox_policy(self.view)

    @property
    def view(self) -> View:
        """What permissions may know of the machine."""
        return self.config.permissions.source.view

    def apply(self, update: SettingsUpdate, *, cwd: str | None = None) -> SessionConfiguration:
        """The configuration after `update`; `cwd` is the update's, made absolute. This one stays as it is.

        Raises `InvalidRequest` for what makes no sense and `ConstraintError`, one of those, for what an administrator
        does not allow (permissions.md 7). The update's `environments` are not looked at: see `in_environments`.
        """
        if update.collaboration_mode is not None:
            mode, update = update.collaboration_mode, attrs.evolve(update, collaboration_mode=None)
            return self._collaborating(mode).apply(update, cwd=cwd)
        collaboration = self.collaboration
        if not isinstance(update.reasoning_effort, Unset):
            collaboration = attrs.evolve(collaboration, before=None)  # somebody's own choice outlives the mode
        effort, tier = update.reasoning_effort, update.service_tier
        reviewer = self.approvals_reviewer
        if update.approvals_reviewer is not None:
            reviewer = _reviewer(update.approvals_reviewer)
            self.config.requirements.check_approvals_reviewer(reviewer)
        return attrs.evolve(
            self,
            permissions=self._permissions(update, cwd),
            model=update.model or self.model,
            approval=self.approval
            if update.approval_policy is None
            else self.approval.set(_approval(update.approval_policy)),
            approvals_reviewer=reviewer,
            reasoning_effort=self.reasoning_effort if isinstance(effort, Unset) else effort,
            reasoning_summary=update.reasoning_summary or self.reasoning_summary,
            service_tier=self.service_tier if isinstance(tier, Unset) else service_tier(tier, self.config.features),
            personality=_personality(update.personality) or self.personality,
            collaboration=collaboration,
        )

    def with_user_layers(self, fresh: LayerStack) -> SessionConfiguration:
        """The same settings over the user's configuration as it stands in `fresh`. Raises `ConfigError`."""
        from engine.config.reloading import with_user_layers

        return attrs.evolve(self, config=with_user_layers(self.config, fresh))

    def in_environments(
        self, selections: Sequence[EnvironmentSelection] | None, manager: EnvironmentManager
    ) -> SessionConfiguration:
        """The same configuration in other environments; None leaves them. Raises `InvalidRequest`."""
        if selections is None:
            return self
        return attrs.evolve(self, environments=following(manager.select(selections), self.cwd))

    def _permissions(self, update: SettingsUpdate, cwd: str | None) -> SessionPermissions:
        if cwd is None and update.sandbox is None and update.permissions is None and update.workspace_roots is None:
            return self.permissions
        if update.sandbox is not None and update.permissions is not None:
            raise InvalidRequest("`permissions` cannot be combined with `sandbox`")
        where = cwd or self.cwd
        roots = _roots(update.workspace_roots, where, self.view)
        if update.permissions is None:
            policy = None if update.sandbox is None else self._policy(update.sandbox)
            return self.permissions.apply(
                PermissionUpdate(cwd=cwd, workspace_roots=roots, sandbox_policy=policy), self.view
            )
        try:
            compiled = self.config.permissions.source.named(
                update.permissions, cwd=where, roots=self.permissions.workspace_roots if roots is None else roots
            )
        except ConfigError as error:
            raise InvalidRequest(f"failed to load configuration: {error}") from error
        return self.permissions.apply(
            PermissionUpdate(
                cwd=cwd,
                workspace_roots=roots,
                permission_profile=compiled.snapshot.profile,
                active=compiled.snapshot.active,
                profile_workspace_roots=compiled.snapshot.workspace_roots,
            ),
            self.view,
        )

    def _policy(self, wanted: str | SandboxPolicy) -> SandboxPolicy:
        """A policy as it is; a mode with what the configuration says about it, e.g. extra writable roots."""
        if not isinstance(wanted, str):
            return wanted
        if wanted not in _MODES:
            raise InvalidRequest(f"unknown sandbox mode {wanted!r}; known are {', '.join(_MODES)}")
        settings = self.config.raw.get("sandbox_workspace_write")
        return legacy_policy(wanted, settings if isinstance(settings, dict) else {})

    def snapshot(self) -> ThreadConfiguration:
        """What others may know of this configuration; looks at the disk."""
        return ThreadConfiguration(
            model=self.model,
            model_provider_id=self.config.model_provider_id,
            service_tier=self.service_tier,
            reasoning_effort=self.reasoning_effort,
            personality=self.personality,
            collaboration_mode=self.collaboration.mode,
            approval_policy=self.approval_policy,
            approvals_reviewer=self.approvals_reviewer,
            permission_profile=self.permissions.profile,
            active_permission_profile=self.permissions.snapshot.active,
            sandbox_policy=self.permissions.turn(self.view).sandbox_policy,
            cwd=self.cwd,
            workspace_roots=self.permissions.workspace_roots,
            ephemeral=self.ephemeral,
            source=self.source,
        )


def permission_overrides(settings: SessionSettings, cwd: str, view: View) -> PermissionOverrides:
    """What the settings of a start in the absolute `cwd` say of permissions. Raises `InvalidRequest`."""
    sandbox = settings.sandbox
    if sandbox is not None and settings.permissions is not None:
        raise InvalidRequest("`permissions` cannot be combined with `sandbox`")
    if isinstance(sandbox, str) and sandbox not in _MODES:
        raise InvalidRequest(f"unknown sandbox mode {sandbox!r}; known are {', '.join(_MODES)}")
    return PermissionOverrides(
        sandbox=sandbox,
        permissions=settings.permissions,
        workspace_roots=_roots(settings.workspace_roots, cwd, view),
    )


def _roots(given: Sequence[Place] | None, cwd: str, view: View) -> tuple[str, ...] | None:
    return None if given is None else tuple(dict.fromkeys(absolute(fspath(root), view, cwd) for root in given))


def _approval(policy: ApprovalPolicy) -> ApprovalPolicy:
    if isinstance(policy, GranularApproval) or policy in _APPROVAL_POLICIES:
        return policy
    raise InvalidRequest(f"unknown approval policy {policy!r}; known are {', '.join(_APPROVAL_POLICIES)}")


def _tier(wanted: str | Unset | None, config: Config) -> str | None:
    """The tier a start asks for; left out, the configured one."""
    if isinstance(wanted, Unset):
        return config.service_tier
    return None if wanted is None else service_tier(wanted, config.features) or config.service_tier


def _personality(personality: str | None) -> str | None:
    if personality is None or personality in PERSONALITIES:
        return personality
    raise InvalidRequest(f"unknown personality {personality!r}; known are {', '.join(PERSONALITIES)}")


def _reviewer(reviewer: str) -> str:
    if reviewer in _REVIEWERS:
        return "user" if reviewer == "user" else "guardian_subagent"
    raise InvalidRequest(f"unknown approvals reviewer {reviewer!r}; known are {', '.join(_REVIEWERS)}")
