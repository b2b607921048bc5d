"""What has to happen before a command runs: a table of policies, rules and heuristics."""

from __future__ import annotations

import pytest

from engine.exec_policy.policy import EMPTY_POLICY, Policy
from engine.exec_policy.requirement import (
    Forbidden,
    NeedsApproval,
    ProfileFacts,
    Requirement,
    SandboxPermissions,
    Skip,
    evaluate,
)
from engine.exec_policy.rules import PrefixRule
from engine.protocol.settings import ApprovalPolicy, GranularApproval

RM = ("rm", "-rf", "x")
MANAGED = ProfileFacts()
UNMANAGED = ProfileFacts("disabled", False)
GRANULAR = GranularApproval(sandbox_approval=False, rules=False, mcp_elicitations=True)


def required(
    *argv: str,
    policy: Policy = EMPTY_POLICY,
    approvals: ApprovalPolicy = "on-request",
    profile: ProfileFacts = MANAGED,
    permissions: SandboxPermissions = "use_default",
    prefix: tuple[str, ...] = (),
) -> Requirement:
    """What an argv requires."""
    return evaluate(
        argv,
        policy=policy,
        approval_policy=approvals,
        profile=profile,
        sandbox_permissions=permissions,
        prefix_rule=prefix,
    )


def rules(*made: PrefixRule) -> Policy:
    """A policy of these rules."""
    return Policy(made)


@pytest.mark.parametrize(
    ("argv", "approvals", "profile", "expected"),
    [
        (("ls",), "untrusted", ProfileFacts(), Skip(False, ("ls",))),
        (("make",), "untrusted", ProfileFacts(), NeedsApproval(None, ("make",))),
        (("make",), "on-request", ProfileFacts(), Skip(False, ("make",))),
        (("make",), "on-failure", ProfileFacts(), Skip(False, ("make",))),
        (("make",), "never", ProfileFacts(), Skip(False, ("make",))),
        (RM, "on-request", ProfileFacts(), NeedsApproval(None, RM)),
        (RM, "never", UNMANAGED, Skip(False, RM)),
        (("python3",), "untrusted", ProfileFacts(), NeedsApproval(None, None)),
        (("a-policy",), "of-the-future", ProfileFacts(), NeedsApproval(None, ("a-policy",))),
    ],
)
def test_without_rules_the_heuristics_decide(
    argv: tuple[str, ...], approvals: ApprovalPolicy, profile: ProfileFacts, expected: Requirement
) -> None:
    assert required(*argv, approvals=approvals, profile=profile) == expected


def test_what_nobody_can_be_asked_about_is_forbidden() -> None:
    dangerous = required(*RM, approvals="never")
    assert dangerous == Forbidden("`rm -rf x` rejected: rm -f style commands are not permitted. Use a safer approach")
    by_rule = rules(PrefixRule.for_words(("make",), "prompt"))
    assert required("make", policy=by_rule, approvals="never") == Forbidden(
        "approval required by policy, but AskForApproval is set to Never"
    )
    assert required("make", policy=by_rule, approvals=GRANULAR) == Forbidden(
        "approval required by policy rule, but AskForApproval::Granular.rules is false"
    )
    assert required(*RM, approvals=GRANULAR) == Forbidden(
        "approval required by policy, but AskForApproval::Granular.sandbox_approval is false"
    )


def test_rules_say_why() -> None:
    asks = rules(
        PrefixRule.for_words(("git",), "prompt"), PrefixRule.for_words(("git", "push"), "prompt", "look first")
    )
    assert required("git", "push", policy=asks) == NeedsApproval("`git push` requires approval: look first", None)
    assert required("git", "log", policy=asks) == NeedsApproval("`git log` requires approval by policy", None)
    refuses = rules(PrefixRule.for_words(("curl",), "forbidden"))
    assert required("curl", "x", policy=refuses) == Forbidden(
        "`curl x` rejected: policy forbids commands starting with `curl`"
    )


def test_what_rules_allow_throughout_needs_no_sandbox() -> None:
    allows = rules(PrefixRule.for_words(("make",), "allow"))
    assert required("bash", "-lc", "make a && make b", policy=allows) == Skip(True, None)
    assert required("bash", "-lc", "make a && ls", policy=allows) == Skip(False, None)
    assert required("bash", "-lc", "make a > x", policy=allows).__class__ is Skip
    assert required(*("bash", "-lc", "make a > x"), policy=allows) != Skip(True, None)


def test_the_strictest_part_of_a_script_decides() -> None:
    mixed = rules(PrefixRule.for_words(("make",), "allow"), PrefixRule.for_words(("curl",), "forbidden"))
    assert isinstance(required("bash", "-lc", "make && curl x", policy=mixed), Forbidden)
    assert isinstance(required("bash", "-lc", "make && rm -rf /", policy=mixed), NeedsApproval)


def test_asking_for_more_asks_the_user_where_files_are_restricted() -> None:
    assert isinstance(required("make", permissions="require_escalated"), NeedsApproval)
    assert isinstance(required("make", permissions="require_escalated", profile=UNMANAGED), Skip)


@pytest.mark.parametrize(
    ("prefix", "offered"),
    [
        (("npm",), ("npm",)),
        (("npm", "run"), ("npm", "run")),
        (("yarn",), ("npm", "run", "x")),
        (("bash", "-lc"), ("npm", "run", "x")),
        ((), ("npm", "run", "x")),
    ],
)
def test_a_models_prefix_is_offered_if_it_covers_the_command(prefix: tuple[str, ...], offered: tuple[str, ...]) -> None:
    found = required("bash", "-lc", "npm run x", permissions="require_escalated", prefix=prefix)
    assert found == NeedsApproval(None, offered)


def test_a_command_with_a_document_is_never_offered_nor_known_safe() -> None:
    found = required("bash", "-lc", "cat <<'E'\nx\nE\n", approvals="untrusted", prefix=("cat",))
    assert found == NeedsApproval(None, None)
