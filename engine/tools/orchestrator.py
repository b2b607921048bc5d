"""How a command comes to run: rules, the user's approval, the sandbox, and once more without it (tools.md 4.2)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import attrs

from engine.errors import ConfigError
from engine.exec_policy.requirement import Forbidden, NeedsApproval, ProfileFacts, Requirement, Skip, evaluate
from engine.exec_policy.scripts import canonical_command
from engine.execution.sandbox.launcher import NETWORK_VARIABLE, SandboxedCommand
from engine.permissions.additional import needs_platform_sandbox
from engine.permissions.profiles import file_system_of, network_of
from engine.permissions.whole_disk import has_denied_read
from engine.protocol.codec import encode
from engine.protocol.events import Warning
from engine.protocol.profiles import PermissionProfile
from engine.protocol.settings import ApprovalPolicy, GranularApproval
from engine.records import define, frozen
from engine.tools.approvals import CommandApproval, ExecPolicyAmendment, agreed, decide
from engine.tools.base import ToolContext, ToolError
from engine.tools.overrides import Override
from engine.tools.telling import tell_decision
from engine.tools.turn_permissions import SessionApprovals

__all__ = [
    "COMMAND_REJECTED",
    "RETRY_REASON",
    "Attempted",
    "CommandRequest",
    "Rejected",
    "escalates",
    "run_orchestrated",
]

COMMAND_REJECTED = "exec command rejected by user"
RETRY_REASON = "command failed; retry without sandbox?"

T = TypeVar("T")


class Rejected(ToolError):
    """The command was not run, or not again: a rule, the policy or the user says no. The text goes to the model."""


@frozen(kw_only=True)
class CommandRequest:
    """A command on its way. `argv` is the whole command line, `cwd` absolute, `env` complete.

    `tty` is None for a tool that has no terminals: it tells the two tools apart where approvals are remembered.
    """

    call_id: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str] = attrs.field(repr=False)
    tty: bool | None = None
    override: Override = Override()
    justification: str | None = None
    prefix_rule: tuple[str, ...] = ()


@frozen
class Attempted(Generic[T]):
    """How one run ended; `denied` says that the sandbox probably turned it down."""

    result: T
    denied: bool = False


Attempt = Callable[[SandboxedCommand], Awaitable[Attempted[T]]]


async def run_orchestrated(context: ToolContext, request: CommandRequest, attempt: Attempt[T]) -> Attempted[T]:
    """Runs a command as rules, approvals and sandbox allow, at most twice; what the last run gave.

    `attempt` starts what it is given. Raises `Rejected`, what `Sandbox.prepare` raises, and what `attempt` raises.
    """
    return await _Orchestration(context, request, attempt).run()


@define(eq=False)
class _Orchestration(Generic[T]):
    context: ToolContext
    request: CommandRequest
    attempt: Attempt[T]
    _approved: bool = attrs.field(default=False, init=False)

    async def run(self) -> Attempted[T]:
        requirement = await self._settled()
        first = await self._first(requirement)
        sandboxed = first.enforcement not in ("none", "external")
        outcome = await self._start(first)
        if not outcome.denied or not sandboxed or not escalates(self.context.approval_policy):
            return outcome
        if not self._approved:
            async with self._approvals.asking(self._key()):
                await self._ask(RETRY_REASON, requirement.amendment, sandboxed=False)
        return await self._start(self._unsandboxed())

    @property
    def _approvals(self) -> SessionApprovals:
        return self.context.permissions.session

    async def _settled(self) -> NeedsApproval | Skip:
        """What the rules require, once the user has agreed to what needs it. Raises `Rejected`."""
        requirement = await self._requirement()
        if isinstance(requirement, NeedsApproval):
            async with self._approvals.asking(self._key()):
                requirement = await self._requirement()  # the answer to a call beside this one may have settled it
                if isinstance(requirement, NeedsApproval):
                    reason = requirement.reason or self.request.justification
                    await self._ask(reason, requirement.amendment, sandboxed=self._stays_sandboxed())
        if isinstance(requirement, Forbidden):
            tell_decision("command", self.request.call_id, "denied", "config")
            raise Rejected(requirement.text)
        if isinstance(requirement, Skip):
            tell_decision("command", self.request.call_id, "approved", "config")
        return requirement

    async def _requirement(self) -> Requirement:
        context, request = self.context, self.request
        try:
            policy = await self._approvals.rules.policy(lambda text: context.emit(Warning(text)))
        except ConfigError as exc:
            refusal = f"the rules for commands can't be read, so none can run: {exc}"
            context.emit(Warning(refusal))  # the user can mend that, the model can't
            raise Rejected(refusal) from exc
        return evaluate(
            request.argv,
            policy=policy,
            approval_policy=context.approval_policy,
            profile=ProfileFacts.of(self._profile()),
            sandbox_permissions="use_default" if request.override.preapproved else request.override.kind,
            prefix_rule=request.prefix_rule,
        )

    def _profile(self) -> PermissionProfile:
        return self.context.permissions.effective(self.request.override.additional)

    async def _first(self, requirement: Requirement) -> SandboxedCommand:
        profile = self._profile()
        bypass = isinstance(requirement, Skip) and requirement.bypass_sandbox
        if bypass or self._escapes(profile):
            return self._unsandboxed()
        return await self.context.sandbox.prepare(
            self._argv(),
            file_system=file_system_of(profile),
            network=network_of(profile),
            policy_cwd=self.context.permissions.cwd,
            cwd=self.request.cwd,
            env=self.request.env,
            tty=bool(self.request.tty),
        )

    def _escapes(self, profile: PermissionProfile) -> bool:
        """Whether the call leaves the sandbox by its own wish: not where something may not be read."""
        return self.request.override.kind == "require_escalated" and not has_denied_read(file_system_of(profile))

    def _stays_sandboxed(self) -> bool:
        """Whether a sandbox will hold the command once the user has agreed to it."""
        profile = self._profile()
        return not self._escapes(profile) and needs_platform_sandbox(file_system_of(profile), network_of(profile))

    def _unsandboxed(self) -> SandboxedCommand:
        """The command without a sandbox. It hears what the policy says of the network all the same."""
        env = dict(self.request.env)
        if network_of(self._profile()) == "restricted":
            env[NETWORK_VARIABLE] = "1"
        return SandboxedCommand(self._argv(), env, "none")

    def _argv(self) -> tuple[str, ...]:
        """What is started; approvals and events show the command as it was given."""
        request = self.request
        return self.context.with_snapshot(request.argv, cwd=request.cwd, env=request.env)

    async def _start(self, command: SandboxedCommand) -> Attempted[T]:
        with command:
            return await self.attempt(command)

    async def _ask(self, reason: str | None, amendment: tuple[str, ...] | None, *, sandboxed: bool) -> None:
        """Returns once the user has agreed, now or for the session before. Raises `Rejected`."""
        context, request, override = self.context, self.request, self.request.override
        approvals, key = self._approvals, self._key()
        if not approvals.remembers(key):
            decision = await decide(
                context,
                CommandApproval(
                    call_id=request.call_id,
                    turn_id=context.turn_id,
                    command=request.argv,
                    cwd=request.cwd,
                    reason=reason,
                    sandboxed=sandboxed,
                    additional_permissions=override.additional,
                    proposed_amendment=amendment,
                ),
            )
            if not agreed(decision):
                raise Rejected("the approval timed out" if decision == "timed_out" else COMMAND_REJECTED)
            if decision == "approved_for_session":
                approvals.remember(key)
            elif isinstance(decision, ExecPolicyAmendment):
                await self._save(decision)
        else:
            tell_decision("command", request.call_id, "approved_for_session", "user")
        self._approved = True

    async def _save(self, amendment: ExecPolicyAmendment) -> None:
        context, prefix = self.context, amendment.prefix
        problem = await self._approvals.rules.agree(prefix)
        if problem is not None:
            context.emit(Warning(f"The rule could not be saved; it holds in this session only. {problem}"))
        context.tell_model(
            f"Commands that begin with {json.dumps(list(prefix))} may run without a question from now on."
        )

    def _key(self) -> str:
        request, override = self.request, self.request.override
        key: dict[str, object] = {
            "command": canonical_command(request.argv),
            "cwd": request.cwd,
            "sandbox_permissions": override.kind,
            "additional_permissions": None if override.additional is None else encode(override.additional),
        }
        return json.dumps(key if request.tty is None else {**key, "tty": request.tty}, sort_keys=True)


def escalates(policy: ApprovalPolicy, *, patch: bool = False) -> bool:
    """Whether what the sandbox turned down may be tried without it, if the user agrees."""
    if isinstance(policy, GranularApproval):
        return policy.sandbox_approval
    return policy in ("on-failure", "untrusted") or (patch and policy == "on-request")
