"""How commands come to run: rules, approvals, the sandbox, the retry; real commands in real sandboxes."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest
import trio

from engine.execution.sandbox.capability import Capability
from engine.permissions.profiles import materialize_profile, workspace_write
from engine.permissions.view import DiskView
from engine.protocol.events import ExecApprovalRequest, ExecCommandBegin, ExecCommandEnd, Warning
from engine.protocol.profiles import (
    AdditionalFileSystem,
    AdditionalPermissionProfile,
    DisabledProfile,
    FileSystemEntry,
    LiteralPath,
    ManagedProfile,
    PermissionProfile,
    RestrictedFileSystem,
)
from engine.protocol.settings import ApprovalPolicy, GranularApproval
from engine.tools.approvals import CommandApproval, Decision, ExecPolicyAmendment, PatchApproval, PermissionGrant
from engine.tools.exec_command import ExecCommand
from engine.tools.patches import ApplyPatch
from engine.tools.request_permissions import RequestPermissions
from engine.tools.shell_command import ShellCommand

from .bench import Bench
from .test_exec_command import text_of

EXEC, SHELL, APPLY = ExecCommand(), ShellCommand(), ApplyPatch()


@pytest.fixture
def outside(bench: Bench) -> Path:
    """A folder that the sandbox keeps read-only, and a workspace beside it that `bench` works in."""
    folder = bench.cwd / "outside"
    folder.mkdir()
    bench.cwd = bench.cwd / "work"
    bench.cwd.mkdir()
    return folder


def workspace(bench: Bench) -> PermissionProfile:
    symbolic = workspace_write(exclude_tmpdir_env_var=True, exclude_slash_tmp=True, view=DiskView())
    return materialize_profile(symbolic, [str(bench.cwd)])


def turn(bench: Bench, policy: ApprovalPolicy = "on-request", **features: bool) -> None:
    bench.turn(approval_policy=policy, profile=workspace(bench), features=features)


async def run(bench: Bench, command: str, **more: object) -> str:
    return text_of(await bench.call(EXEC, {"cmd": command, "login": False, **more}))


def commands_asked(bench: Bench) -> list[CommandApproval]:
    return [request for request in bench.approvals.asked if isinstance(request, CommandApproval)]


async def test_a_sandboxed_command_writes_in_the_workspace_alone(bench: Bench, outside: Path) -> None:
    turn(bench)
    assert "code 0" in await run(bench, "touch here")
    assert (bench.cwd / "here").exists()
    denied = await run(bench, f"touch {outside}/there")
    assert "Read-only file system" in denied
    assert "Wall time: 0.0000 seconds\nProcess exited with code 1" in denied
    assert not (outside / "there").exists()
    assert bench.approvals.asked == []  # the model may ask; a failure asks nothing under this policy


async def test_a_session_that_is_not_asked_for_a_sandbox_has_none(bench: Bench, outside: Path) -> None:
    bench.turn(profile=DisabledProfile())
    assert "code 0" in await run(bench, f"touch {outside}/there")


async def test_escalation_asks_first_and_runs_without_the_sandbox(bench: Bench, outside: Path) -> None:
    turn(bench)
    arguments = {"sandbox_permissions": "require_escalated", "justification": "may I?"}
    assert "exec command rejected by user" in await run(bench, f"touch {outside}/there", **arguments)
    bench.approvals.decision = "approved"
    assert "code 0" in await run(bench, f"touch {outside}/there", **arguments)
    assert (outside / "there").exists()
    asked = commands_asked(bench)
    assert [request.reason for request in asked] == ["may I?"] * 2
    assert not asked[0].sandboxed
    (told, _) = bench.of(ExecApprovalRequest)
    assert told.available_decisions == (
        "approved",
        {"approved_execpolicy_amendment": {"proposed_execpolicy_amendment": ["touch", f"{outside}/there"]}},
        "abort",
    )


async def test_the_user_is_told_whether_the_sandbox_will_hold_the_command(bench: Bench, outside: Path) -> None:
    bench.approvals.decision = "approved"
    turn(bench)
    assert "code 0" in await run(bench, "rm -f nothing")
    bench.turn(approval_policy="on-request", profile=DisabledProfile())
    assert "code 0" in await run(bench, f"rm -f {outside}/nothing")

    secret = outside / "secret"
    secret.write_text("secret")
    hidden = FileSystemEntry(LiteralPath(str(secret)), "none")
    profile = workspace(bench)
    assert isinstance(profile, ManagedProfile)
    assert isinstance(profile.file_system, RestrictedFileSystem)
    entries = (*profile.file_system.entries, hidden)
    hiding = attrs.evolve(profile, file_system=attrs.evolve(profile.file_system, entries=entries))
    bench.turn(approval_policy="on-request", profile=hiding)
    assert "Permission denied" in await run(bench, f"cat {secret}", sandbox_permissions="require_escalated")
    assert [request.sandboxed for request in commands_asked(bench)] == [True, False, True]


@pytest.mark.parametrize("policy", ["never", "on-failure", "untrusted"])
@pytest.mark.parametrize(("tool", "verb"), [(EXEC, "cannot"), (SHELL, "should not")])
async def test_escalation_is_for_on_request_alone(
    bench: Bench, outside: Path, policy: str, tool: ExecCommand | ShellCommand, verb: str
) -> None:
    turn(bench, policy)
    name = {"never": "Never", "on-failure": "OnFailure", "untrusted": "UnlessTrusted"}[policy]
    arguments = {"cmd": "touch here", "command": "touch here", "sandbox_permissions": "require_escalated"}
    del arguments["command" if tool is EXEC else "cmd"]
    refused = await bench.call(tool, arguments)
    assert text_of(refused) == (
        f"approval policy is {name}; reject command — you {verb} ask for escalated permissions if the approval policy "
        f"is {name}"
    )
    assert (bench.approvals.asked, bench.events) == ([], [])
    assert not (bench.cwd / "here").exists()


async def test_a_failure_asks_again_under_on_failure(bench: Bench, outside: Path) -> None:
    turn(bench, "on-failure")
    denied = await run(bench, f"touch {outside}/there")
    assert "exec command rejected by user" in denied
    bench.approvals.decision = "approved"
    assert "code 0" in await run(bench, f"touch {outside}/there")
    assert (outside / "there").exists()
    assert [request.reason for request in commands_asked(bench)] == ["command failed; retry without sandbox?"] * 2
    # One command to whoever listens: it began once and ended once.
    assert len(bench.of(ExecCommandBegin)) == len(bench.of(ExecCommandEnd)) == 2
    assert [end.exit_code for end in bench.of(ExecCommandEnd)] == [1, 0]


async def test_an_approval_before_covers_the_retry(bench: Bench, outside: Path) -> None:
    turn(bench, "untrusted")
    bench.approvals.decision = "approved"
    assert "code 0" in await run(bench, f"touch {outside}/there")
    assert len(bench.approvals.asked) == 1


async def test_known_safe_commands_run_sandboxed_under_untrusted(bench: Bench, outside: Path) -> None:
    turn(bench, "untrusted")
    assert "code 0" in await run(bench, "cat /dev/null")
    assert bench.approvals.asked == []
    assert "rejected by user" in await run(bench, "cat /dev/null > made")
    assert len(bench.approvals.asked) == 1


async def test_dangerous_commands_are_refused_under_never_unless_nothing_holds_them(
    bench: Bench, outside: Path
) -> None:
    (bench.cwd / "x").mkdir()
    turn(bench, "never")
    assert "`/bin/bash -c 'rm -rf x'` rejected: " in await run(bench, "rm -rf x")
    assert (bench.cwd / "x").exists()
    bench.turn(approval_policy="never", profile=DisabledProfile())
    assert "code 0" in await run(bench, "rm -rf x")
    assert not (bench.cwd / "x").exists()


async def test_an_approval_for_the_session_is_not_asked_again(bench: Bench, outside: Path) -> None:
    turn(bench, "untrusted")
    bench.approvals.decision = "approved_for_session"
    for shell in ("/bin/bash", "/bin/sh", "/bin/bash"):
        await run(bench, "touch here", shell=shell)
    assert len(bench.approvals.asked) == 1
    (bench.cwd / "sub").mkdir()
    await run(bench, "touch here", workdir="sub")
    await run(bench, "touch here", tty=True)
    assert len(bench.approvals.asked) == 3  # other folder, other kind of terminal
    await bench.call(SHELL, {"command": "touch here", "login": False})
    assert len(bench.approvals.asked) == 4  # the tools do not share what they remember


@pytest.mark.parametrize(
    ("decision", "questions"), [("approved", 3), ("approved_for_session", 1), (ExecPolicyAmendment(("touch",)), 1)]
)
async def test_calls_side_by_side_ask_once_where_one_answer_settles_them(
    bench: Bench, outside: Path, decision: Decision, questions: int
) -> None:
    (bench.cwd.parent / "home").mkdir()
    turn(bench, "untrusted")
    bench.approvals.decision = decision
    outputs: list[str] = []

    async def call() -> None:
        outputs.append(await run(bench, "touch here"))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(call)
    assert ["code 0" in output for output in outputs] == [True] * 3
    assert len(bench.approvals.asked) == questions


async def test_a_question_that_is_given_up_does_not_hold_up_the_next(bench: Bench, outside: Path) -> None:
    turn(bench, "untrusted")
    with trio.CancelScope() as scope:
        bench.approvals.meanwhile = scope.cancel
        await run(bench, "touch here")
    assert scope.cancelled_caught
    bench.approvals.meanwhile = lambda: None
    bench.approvals.decision = "approved"
    assert "code 0" in await run(bench, "touch here")


async def test_an_amendment_is_saved_and_holds_at_once(bench: Bench, outside: Path) -> None:
    turn(bench)
    (bench.cwd.parent / "home").mkdir()
    command = f"touch {outside}/there"
    bench.approvals.decision = ExecPolicyAmendment(("touch",))
    assert "code 0" in await run(bench, command, sandbox_permissions="require_escalated", prefix_rule=["touch"])
    assert commands_asked(bench)[0].proposed_amendment == ("touch",)
    rules = bench.cwd.parent / "home" / "rules" / "default.rules"
    assert rules.read_text() == 'prefix_rule(pattern=["touch"], decision="allow")\n'
    assert bench.told == ['Commands that begin with ["touch"] may run without a question from now on.']
    bench.approvals.decision = "denied"
    assert "code 0" in await run(bench, f"touch {outside}/again")  # outside of the sandbox, by the rule
    assert (outside / "again").exists()
    # A rule for one part of a script is none for the rest.
    assert "Read-only file system" in await run(bench, f"touch {outside}/a && ln -s x {outside}/b")
    assert len(bench.approvals.asked) == 1


async def test_an_amendment_that_can_not_be_saved_holds_in_the_session(bench: Bench, outside: Path) -> None:
    (bench.cwd.parent / "home" / "rules" / "default.rules").mkdir(parents=True)
    turn(bench)
    bench.approvals.decision = ExecPolicyAmendment(("touch",))
    assert "code 0" in await run(bench, f"touch {outside}/a", sandbox_permissions="require_escalated")
    (warning,) = bench.of(Warning)
    assert "default.rules" in warning.message
    assert "code 0" in await run(bench, f"touch {outside}/b")
    assert len(bench.approvals.asked) == 1


def rules(bench: Bench, text: str) -> Path:
    folder = bench.cwd.parent / "home" / "rules"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.rules").write_text(text)
    return folder


async def test_rules_forbid_and_ask(bench: Bench, outside: Path) -> None:
    rules(
        bench,
        'prefix_rule(pattern=["touch"], decision="forbidden", justification="use a patch")\n'
        'prefix_rule(pattern=["true"], decision="prompt", justification="just to be sure")\n',
    )
    turn(bench)
    assert "`/bin/bash -c 'touch here'` rejected: use a patch" in await run(bench, "touch here")
    await run(bench, "true", justification="please")
    assert [request.reason for request in commands_asked(bench)] == [
        "`/bin/bash -c true` requires approval: just to be sure"
    ]
    turn(bench, GranularApproval(sandbox_approval=True, rules=False, mcp_elicitations=False))
    assert "approval required by policy rule, but AskForApproval::Granular.rules is false" in await run(bench, "true")


async def test_rules_that_change_hold_for_the_next_command(bench: Bench, outside: Path) -> None:
    rules(bench, 'prefix_rule(pattern=["true"], decision="forbidden")\n')
    turn(bench)
    assert "policy forbids commands starting with `true`" in await run(bench, "true")
    rules(bench, "")
    assert "code 0" in await run(bench, "true")


async def test_a_broken_file_is_told_once_and_loses_only_itself(bench: Bench, outside: Path) -> None:
    folder = rules(bench, 'prefix_rule(pattern=["true"], decision="forbidden")\n')
    (folder / "a-broken.rules").write_text("prefix_rule(\n")
    turn(bench)
    for _ in range(2):
        assert "policy forbids commands starting with `true`" in await run(bench, "true")
    (warning,) = bench.of(Warning)
    assert "a-broken.rules" in warning.message


async def test_rules_that_can_not_be_read_are_told_and_nothing_runs(bench: Bench, outside: Path) -> None:
    home = bench.cwd.parent / "home"
    home.mkdir()
    (home / "rules").write_text("no folder")
    turn(bench)
    assert "the rules for commands can't be read" in await run(bench, "touch here")
    (warning,) = bench.of(Warning)
    assert str(home / "rules") in warning.message
    assert not (bench.cwd / "here").exists()


async def test_additional_permissions_stay_in_the_sandbox(bench: Bench, outside: Path) -> None:
    wanted = {"file_system": {"write": [str(outside)]}}
    arguments = {"sandbox_permissions": "with_additional_permissions", "additional_permissions": wanted}
    turn(bench)
    assert "features.exec_permission_approvals" in await run(bench, "true", **arguments)
    turn(bench, exec_permission_approvals=True)
    other = bench.cwd.parent / "other"
    other.mkdir()
    bench.approvals.decision = "approved"
    output = await run(bench, f"touch {outside}/there; touch {other}/there", **arguments)
    assert "Read-only file system" in output
    assert ((outside / "there").exists(), (other / "there").exists()) == (True, False)
    (asked,) = commands_asked(bench)
    assert asked.available_decisions == ("approved", "abort")
    for broken, problem in (
        ({"sandbox_permissions": "with_additional_permissions"}, "missing `additional_permissions`"),
        ({"additional_permissions": wanted}, "requires `sandbox_permissions`"),
        ({**arguments, "additional_permissions": {}}, "at least one"),
        ({**arguments, "additional_permissions": {"file_system": {"write": ["relative"]}}}, "failed to parse"),
    ):
        assert problem in await run(bench, "true", **broken)


async def test_granted_permissions_hold_for_the_turn_or_the_session(bench: Bench, outside: Path) -> None:
    request = RequestPermissions()
    wanted = {"permissions": {"file_system": {"write": [str(outside)]}}, "reason": "to save it"}
    turn(bench, "never")
    assert json.loads(text_of(await bench.call(request, wanted))) == {
        "permissions": {"network": None, "file_system": None},
        "scope": "turn",
    }
    turn(bench)
    bench.approvals.decision = "denied"
    assert json.loads(text_of(await bench.call(request, wanted)))["permissions"]["file_system"] is None
    bench.approvals.decision = "approved"
    assert json.loads(text_of(await bench.call(request, wanted)))["scope"] == "turn"
    assert "code 0" in await run(bench, f"touch {outside}/there")
    turn(bench)
    assert "Read-only file system" in await run(bench, f"touch {outside}/later")
    bench.approvals.decision = "approved_for_session"
    assert json.loads(text_of(await bench.call(request, wanted)))["scope"] == "session"
    turn(bench)
    assert "code 0" in await run(bench, f"touch {outside}/later")
    assert "at least one permission" in text_of(await bench.call(request, {"permissions": {}}))


@pytest.mark.parametrize("asks", [True, False])
async def test_granular_says_whether_permissions_can_be_asked_for(bench: Bench, outside: Path, asks: bool) -> None:
    turn(bench, GranularApproval(True, True, True, request_permissions=asks))
    bench.approvals.decision = "approved"
    wanted = {"permissions": {"file_system": {"write": [str(outside)]}}}
    answer = json.loads(text_of(await bench.call(RequestPermissions(), wanted)))
    assert (answer["permissions"]["file_system"] is not None) is asks
    assert len(bench.approvals.asked) == len(bench.events) == int(asks)


async def test_nobody_is_granted_more_than_was_asked_for(bench: Bench, outside: Path) -> None:
    turn(bench)
    whole = AdditionalPermissionProfile(
        None, AdditionalFileSystem((FileSystemEntry(LiteralPath(str(outside.parent)), "write"),))
    )
    bench.approvals.decision = PermissionGrant(whole, "session")
    wanted = {"permissions": {"file_system": {"write": [str(outside)]}}}
    answer = json.loads(text_of(await bench.call(RequestPermissions(), wanted)))
    assert answer["scope"] == "session"
    assert str(outside.parent) not in json.dumps(answer["permissions"]).replace(str(outside), "")
    other = bench.cwd.parent / "other"
    other.mkdir()
    assert "Read-only file system" in await run(bench, f"touch {other}/x")


def patch_at(path: Path) -> str:
    return f"*** Begin Patch\n*** Add File: {path}\n+x\n*** End Patch\n"


async def test_patches_outside_of_the_workspace_need_a_yes(bench: Bench, outside: Path) -> None:
    turn(bench)
    assert text_of(await bench.call(APPLY, patch_at(outside / "a"))) == "patch rejected by user"
    bench.approvals.decision = "approved"
    assert (await bench.call(APPLY, patch_at(outside / "a"))).success
    assert (outside / "a").read_text() == "x\n"
    assert (await bench.call(APPLY, patch_at(bench.cwd / "b"))).success
    assert len(bench.approvals.asked) == 2
    turn(bench, "never")
    refused = text_of(await bench.call(APPLY, patch_at(outside / "c")))
    assert refused == "patch rejected: writing outside of the project; rejected by user approval settings"


async def test_a_patch_through_a_link_is_asked_about_or_fails(bench: Bench, outside: Path) -> None:
    (bench.cwd / "link").symlink_to(outside)
    turn(bench, "never")
    assert "Failed to write file" in text_of(await bench.call(APPLY, patch_at(bench.cwd / "link" / "a")))
    assert list(outside.iterdir()) == []
    turn(bench)
    assert text_of(await bench.call(APPLY, patch_at(bench.cwd / "link" / "a"))) == "patch rejected by user"
    (asked,) = bench.approvals.asked
    assert isinstance(asked, PatchApproval)
    assert asked.reason == "command failed; retry without sandbox?"
    assert list(outside.iterdir()) == []


async def test_patches_approved_for_the_session_are_not_asked_about_again(bench: Bench, outside: Path) -> None:
    turn(bench, "untrusted")
    bench.approvals.decision = "approved_for_session"
    for name in ("a", "a", "b"):
        assert (await bench.call(APPLY, patch_at(bench.cwd / name))).success
    assert len(bench.approvals.asked) == 2


async def test_patches_of_granted_places_are_not_asked_about(bench: Bench, outside: Path) -> None:
    turn(bench, "untrusted")
    bench.approvals.decision = "approved"
    await bench.call(RequestPermissions(), {"permissions": {"file_system": {"write": [str(outside)]}}})
    bench.approvals.decision = "denied"
    assert (await bench.call(APPLY, patch_at(outside / "a"))).success
    assert text_of(await bench.call(APPLY, patch_at(bench.cwd / "b"))) == "patch rejected by user"
    (asked,) = [request for request in bench.approvals.asked if isinstance(request, PatchApproval)]
    assert list(asked.changes) == [f"{bench.cwd}/b"]


async def test_a_command_hears_of_the_network_policy_with_and_without_a_sandbox(bench: Bench, outside: Path) -> None:
    turn(bench)
    bench.approvals.decision = "approved"
    for more in ({}, {"sandbox_permissions": "require_escalated"}):
        assert "\n1\n" in await run(bench, "echo; echo $CODEX_SANDBOX_NETWORK_DISABLED", **more)
    assert len(bench.approvals.asked) == 1
    bench.turn(profile=DisabledProfile())
    assert "\n1\n" not in await run(bench, "echo; echo $CODEX_SANDBOX_NETWORK_DISABLED")


@pytest.mark.parametrize("policy", ["on-request", "on-failure", "untrusted", "never"])
@pytest.mark.parametrize("tool", [EXEC, SHELL])
async def test_where_nothing_can_enforce_the_policy_nothing_runs(
    bench: Bench, outside: Path, policy: str, tool: ExecCommand | ShellCommand
) -> None:
    turn(bench, policy)
    found = await bench.context.sandbox.capability()
    bench.context.sandbox._capability = Capability(found.system, found.machine)
    bench.approvals.decision = "approved"
    arguments = {"cmd": "touch here", "command": "touch here", "login": False}
    del arguments["command" if tool is EXEC else "cmd"]
    refused = await bench.call(tool, arguments)
    assert not refused.success
    assert "bubblewrap is not installed" in text_of(refused)
    assert not (bench.cwd / "here").exists()
    assert len(bench.approvals.asked) == (1 if policy == "untrusted" else 0)  # no retry without a sandbox is offered
    if policy == "on-request":
        assert (await bench.call(tool, {**arguments, "sandbox_permissions": "require_escalated"})).success
        assert (bench.cwd / "here").exists()


async def test_an_interrupt_while_the_retry_is_asked_about_ends_the_command(bench: Bench, outside: Path) -> None:
    turn(bench, "on-failure")
    with trio.CancelScope() as scope:
        bench.approvals.meanwhile = scope.cancel
        await run(bench, f"touch {outside}/there")
    assert scope.cancelled_caught
    assert [end.exit_code for end in bench.of(ExecCommandEnd)] == [1]
    assert not (outside / "there").exists()


async def test_shell_command_shows_a_refusal_as_declined(bench: Bench, outside: Path) -> None:
    turn(bench, "untrusted")
    refused = await bench.call(SHELL, {"command": "touch here", "login": False})
    assert text_of(refused) == "exec command rejected by user"
    (end,) = bench.of(ExecCommandEnd)
    assert (end.status, end.exit_code, end.stderr) == ("declined", -1, "exec command rejected by user")
