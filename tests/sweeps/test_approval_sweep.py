"""A turn that asks: a command in its sandbox, a question, the same command without, a patch; cancelled anywhere.

Whatever is cut off leaves no process, no question, no placeholder of the sandbox, and the thread goes on.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import trio

import engine
from engine.models.scripts import When, call, custom, response, say
from tests.sweeps.leaks import differences, inside
from tests.sweeps.leaks import outside as leaks_outside
from tests.sweeps.places import PATIENCE_S
from tests.sweeps.sweeping import Places, sizes, sweep
from tests.sweeps.turns import check_history, check_request

CONFIG = {"sandbox_workspace_write": {"exclude_slash_tmp": True, "exclude_tmpdir_env_var": True}}


@attrs.define
class Asked:
    """An approver that agrees after a moment; counts the questions that are open."""

    open: int = 0
    all: int = 0

    async def __call__(self, request: engine.ApprovalRequest, /) -> engine.Decision:
        self.open += 1
        self.all += 1
        try:
            await trio.lowlevel.checkpoint()
            return "approved"
        finally:
            self.open -= 1


def case(points: Places, folder: Path) -> str:
    home, cwd, other = folder / "home", folder / "work", folder / "other"
    for made in (home, cwd, other):
        made.mkdir()
    before = leaks_outside()
    outcome = trio.run(_main, points, home, cwd, other)
    assert differences(before, leaks_outside()) == []
    assert {path.name for path in cwd.iterdir()} <= {"inside"}, "placeholders are gone with their command"
    assert {path.name for path in other.iterdir()} <= {"a", "b"}
    return outcome


async def _main(points: Places, home: Path, cwd: Path, other: Path) -> str:
    command = f"touch inside; sleep 1000 >/dev/null 2>&1 & touch {other}/a"
    patch = f"*** Begin Patch\n*** Add File: {other}/b\n+b\n*** End Patch\n"
    model = engine.ScriptedModel(
        [
            response(say("fine", phase="final_answer"), when=When(user_text="next"), repeat=None),
            response(call("shell_command", command=command, login=False), custom("apply_patch", patch)),
            response(say("done", phase="final_answer"), repeat=None),
        ]
    )
    asked = Asked()
    settings = engine.SessionSettings(cwd=cwd, sandbox="workspace-write", approval_policy="untrusted")
    with trio.fail_after(PATIENCE_S):
        async with engine.open_engine(home=home, model=model, config=CONFIG, grace=5) as opened:
            await opened.threads.list()  # opens the index, which stays open
            before = await inside(opened)
            session = await opened.start_session(settings, approve=asked)
            outcome = "cancelled"
            with trio.CancelScope() as scope:
                points.arm(scope.cancel, trio.lowlevel.current_task())
                try:
                    await session.run("go")
                    outcome = "done"
                finally:
                    points.disarm()
            assert scope.cancelled_caught == (outcome == "cancelled")
            assert asked.open == 0
            with trio.fail_after(5):  # at once, unless the turn was slow to let go and was fenced off
                while opened._services.supervisor.statistics().live:  # noqa: ASYNC110
                    await trio.sleep(0.001)
            if outcome == "done":
                assert asked.all == 2, "the yes to the command covers its second run"
                assert {path.name for path in other.iterdir()} == {"a", "b"}
            assert (await session.run("next")).final_message == "fine"
            check_request(model.requests[-1].body)
            await session.aclose()
            await check_history(opened, session)
            assert differences(before, await inside(opened)) == []
            return outcome


@sizes(20)
def test_a_turn_that_asks_is_cancelled_anywhere(size: int, tmp_path: Path) -> None:
    result = sweep(case, tmp_path, size)
    result.check()
    assert result.outcomes["cancelled"] > 0
