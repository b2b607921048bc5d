"""Asking: what counts as a yes, and that no approver can harm the session."""

from __future__ import annotations

import pytest
import trio

from engine.protocol.events import ApplyPatchApprovalRequest, ExecApprovalRequest
from engine.protocol.profiles import AdditionalPermissionProfile
from engine.protocol.turn_items import AddChange
from engine.tools.approvals import (
    ApprovalRequest,
    CommandApproval,
    Decision,
    ExecPolicyAmendment,
    PatchApproval,
    PermissionGrant,
    PermissionsApproval,
    ToolApproval,
    agreed,
    decide,
    refuse,
)
from engine.tools.base import ToolContext

from .bench import NOW_MS, Bench

COMMAND = CommandApproval(call_id="call", turn_id="turn-1", command=("ls", "-l"), cwd="/", reason="why")
PATCH = PatchApproval(call_id="call", turn_id="turn-1", changes={"/a": AddChange("a")})
NOTHING = AdditionalPermissionProfile()
MORE = PermissionsApproval(call_id="call", turn_id="turn-1", permissions=NOTHING, cwd="/")
TOOL = ToolApproval(call_id="call", turn_id="turn-1", tool="deploy", arguments={"to": "moon"})


async def ask(context: ToolContext, request: ApprovalRequest) -> bool:
    """Whether it came to a yes."""
    return agreed(await decide(context, request))


@pytest.mark.parametrize(
    ("decision", "yes"),
    [("approved", True), ("approved_for_session", True), ("denied", False), ("timed_out", False)],
)
async def test_only_approvals_are_a_yes(still: Bench, decision: Decision, yes: bool) -> None:
    still.approvals.decision = decision
    assert await ask(still.context, COMMAND) is yes
    assert still.approvals.asked == [COMMAND]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (COMMAND, None),
        (COMMAND, True),
        (COMMAND, "yes"),
        (COMMAND, {"decision": "approved"}),
        (COMMAND, ExecPolicyAmendment(())),
        (COMMAND, PermissionGrant(NOTHING)),
        (PATCH, ExecPolicyAmendment(("rm",))),
        (TOOL, ExecPolicyAmendment(("rm",))),
        (MORE, ExecPolicyAmendment(("rm",))),
        (MORE, PermissionGrant(NOTHING, "forever")),  # type: ignore[arg-type]
    ],
)
async def test_what_is_no_decision_about_the_request_is_a_refusal(
    still: Bench, caplog: pytest.LogCaptureFixture, request_: ApprovalRequest, answer: object
) -> None:
    still.approvals.decision = answer  # type: ignore[assignment]
    assert await ask(still.context, request_) is False
    assert f"is no decision about a {type(request_).__name__}; the request counts as refused" in caplog.text


@pytest.mark.parametrize(
    ("request_", "answer"), [(COMMAND, ExecPolicyAmendment(("ls",))), (MORE, PermissionGrant(NOTHING, "session"))]
)
async def test_some_requests_have_answers_of_their_own(
    still: Bench, request_: ApprovalRequest, answer: Decision
) -> None:
    still.approvals.decision = answer
    assert await ask(still.context, request_) is True


async def test_the_default_refuses() -> None:
    assert await refuse(COMMAND) == "denied"


async def test_questions_about_commands_and_patches_are_told(still: Bench) -> None:
    for request in (COMMAND, PATCH, TOOL):
        await ask(still.context, request)
    assert still.events == [
        ExecApprovalRequest(
            "call",
            "turn-1",
            NOW_MS,
            command=("ls", "-l"),
            cwd="/",
            reason="why",
            available_decisions=("approved", "abort"),
            parsed_cmd=({"type": "list_files", "cmd": "ls -l", "path": None},),
        ),
        ApplyPatchApprovalRequest("call", "turn-1", NOW_MS, changes={"/a": AddChange("a")}),
    ]


async def test_an_approver_that_fails_has_refused(still: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("no screen")

    still.approvals.meanwhile = fail
    assert await ask(still.context, COMMAND) is False
    assert "the approver failed; the request counts as refused" in caplog.text


async def test_abort_interrupts_and_does_not_return(still: Bench) -> None:
    still.approvals.decision = "abort"
    async with trio.open_nursery() as turn:
        turn.start_soon(ask, still.context, COMMAND)
        await trio.testing.wait_all_tasks_blocked()
        assert still.interrupts == 1
        turn.cancel_scope.cancel()


async def test_a_human_may_take_as_long_as_the_turn_lives(still: Bench) -> None:
    cancelled = False

    async def think(request: ApprovalRequest, /) -> Decision:
        nonlocal cancelled
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled = True
            raise
        raise AssertionError("unreachable")

    async with trio.open_nursery() as turn:
        turn.start_soon(ask, still.turn(approve=think), COMMAND)
        await trio.testing.wait_all_tasks_blocked()
        turn.cancel_scope.cancel()
    assert cancelled
