"""What has to happen before a command may run: nothing, a question, or a refusal (tools.md 4.1). Pure.

The orchestrator asks here once per command, before it chooses a sandbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from engine.exec_policy.command_safety.dangerous import DANGEROUS_REASON, is_dangerous
from engine.exec_policy.command_safety.known_safe import is_known_safe
from engine.exec_policy.policy import Evaluation, Policy
from engine.exec_policy.proposals import derived_proposal, requested_proposal
from engine.exec_policy.rules import Decision, PrefixMatch
from engine.exec_policy.scripts import Command, segments
from engine.exec_policy.words import join_words
from engine.permissions.profiles import enforcement_of, file_system_of
from engine.protocol.profiles import PermissionProfile, SandboxEnforcement
from engine.protocol.settings import ApprovalPolicy, GranularApproval
from engine.records import frozen

__all__ = ["Forbidden", "NeedsApproval", "ProfileFacts", "Requirement", "SandboxPermissions", "Skip", "evaluate"]

SandboxPermissions = Literal["use_default", "require_escalated", "with_additional_permissions"]


@frozen
class ProfileFacts:
    """What matters of a permission profile here: who enforces it, and whether files are restricted at all."""

    enforcement: SandboxEnforcement = "managed"
    restricted: bool = True

    @classmethod
    def of(cls, profile: PermissionProfile) -> ProfileFacts:
        """The facts of a profile."""
        return cls(enforcement_of(profile), file_system_of(profile).kind == "restricted")


@frozen
class Skip:
    """Runs without a question. `bypass_sandbox`: every command in it is allowed by a rule, so also without a sandbox.

    `amendment` is the prefix to offer for saving if the sandbox turns the command down and the user is asked then.
    """

    bypass_sandbox: bool = False
    amendment: Command | None = None


@frozen
class NeedsApproval:
    """Somebody has to agree. `reason` is what a rule says; `amendment` the prefix to offer for saving."""

    reason: str | None = None
    amendment: Command | None = None


@frozen
class Forbidden:
    """Does not run; `text` goes to the model."""

    text: str


Requirement = Skip | NeedsApproval | Forbidden


def evaluate(
    argv: Sequence[str],
    *,
    policy: Policy,
    approval_policy: ApprovalPolicy,
    profile: ProfileFacts,
    sandbox_permissions: SandboxPermissions = "use_default",
    prefix_rule: Sequence[str] = (),
) -> Requirement:
    """What the rules and, where none speaks, the heuristics require for an argv.

    `sandbox_permissions` and `prefix_rule` are parameters of the model's call. A policy nobody knows asks about
    everything.
    """
    found = segments(argv)

    def unmatched(command: Sequence[str]) -> Decision:
        return _unmatched(command, found.heredoc, approval_policy, profile, sandbox_permissions)

    evaluation = policy.check(found.commands, resolve_host_executables=True, unmatched=unmatched)
    if evaluation.decision == "forbidden":
        return Forbidden(f"`{join_words(argv)}` rejected: {_forbidden_reason(evaluation)}")
    amendment = None if found.heredoc else derived_proposal(evaluation)
    if evaluation.decision == "prompt":
        refusal = _refusal(approval_policy, by_rule=bool(evaluation.by_rule("prompt")))
        if refusal is not None:
            return Forbidden(refusal)
        requested = None
        if not found.heredoc:
            requested = requested_proposal(prefix_rule, evaluation, policy, found.commands, unmatched)
        return NeedsApproval(_prompt_reason(argv, evaluation), requested or amendment)
    return Skip(all(isinstance(match, PrefixMatch) for match in evaluation.matches), amendment)


def _unmatched(
    command: Sequence[str],
    heredoc: bool,
    approval_policy: ApprovalPolicy,
    profile: ProfileFacts,
    sandbox_permissions: SandboxPermissions,
) -> Decision:
    """The heuristics for one command."""
    asks_about_all = approval_policy not in ("on-failure", "on-request", "never") and not isinstance(
        approval_policy, GranularApproval
    )
    if asks_about_all and not heredoc and is_known_safe(command):
        return "allow"
    if is_dangerous(command):
        if approval_policy == "never":
            return "forbidden" if profile.enforcement == "managed" else "allow"
        return "prompt"
    if asks_about_all:
        return "prompt"
    if approval_policy in ("never", "on-failure"):
        return "allow"
    return "prompt" if profile.restricted and sandbox_permissions != "use_default" else "allow"


def _forbidden_reason(evaluation: Evaluation) -> str:
    match = _longest(evaluation.by_rule("forbidden"))
    if match is None:
        return DANGEROUS_REASON  # the only thing the heuristics forbid
    if match.justification is not None:
        return match.justification
    return f"policy forbids commands starting with `{join_words(match.matched_prefix)}`"


def _prompt_reason(argv: Sequence[str], evaluation: Evaluation) -> str | None:
    match = _longest(evaluation.by_rule("prompt"))
    if match is None:
        return None
    if match.justification is not None:
        return f"`{join_words(argv)}` requires approval: {match.justification}"
    return f"`{join_words(argv)}` requires approval by policy"


def _longest(matches: Sequence[PrefixMatch]) -> PrefixMatch | None:
    """The most specific match; of equally long ones the last."""
    return max(reversed(matches), key=lambda match: len(match.matched_prefix), default=None)


def _refusal(approval_policy: ApprovalPolicy, *, by_rule: bool) -> str | None:
    """Why the question can't be asked under this policy, as the model reads it."""
    if approval_policy == "never":
        return "approval required by policy, but AskForApproval is set to Never"
    if isinstance(approval_policy, GranularApproval):
        if by_rule and not approval_policy.rules:
            return "approval required by policy rule, but AskForApproval::Granular.rules is false"
        if not by_rule and not approval_policy.sandbox_approval:
            return "approval required by policy, but AskForApproval::Granular.sandbox_approval is false"
    return None
