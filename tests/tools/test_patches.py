"""Patches in a session: the freeform tool, patches in shell calls, approvals, interrupts, the diff of the turn."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.permissions.profiles import read_only
from engine.protocol.events import ApplyPatchApprovalRequest, ExecCommandBegin, ItemCompleted, ItemStarted
from engine.protocol.turn_items import AddChange, DeleteChange, FileChange, FileChangeItem, UpdateChange
from engine.tools import patches
from engine.tools.apply_patch import Patch, PatchResult, RealFileSystem
from engine.tools.apply_patch import apply_patch as really_apply
from engine.tools.approvals import PatchApproval
from engine.tools.base import ToolHandler, ToolOutput
from engine.tools.exec_command import ExecCommand
from engine.tools.patch_safety import READ_ONLY
from engine.tools.patches import ApplyPatch
from engine.tools.shell_command import ShellCommand

from .bench import Bench, still_bench
from .test_exec_command import text_of

APPLY = ApplyPatch()
EXEC = ExecCommand()
SHELL = ShellCommand()


def patch_of(*body: str) -> str:
    return "\n".join(["*** Begin Patch", *body, "*** End Patch"])


ADD = patch_of("*** Add File: notes.txt", "+alpha")


def in_shell(patch: str, before: str = "") -> str:
    return f"{before}apply_patch <<'EOF'\n{patch}\nEOF\n"


def items(bench: Bench) -> list[FileChangeItem]:
    found = [event.item for event in bench.events if isinstance(event, ItemStarted | ItemCompleted)]
    assert all(isinstance(item, FileChangeItem) for item in found)
    return [item for item in found if isinstance(item, FileChangeItem)]


def result(output: str, code: int = 0) -> str:
    metadata = {"exit_code": code, "duration_seconds": 0.0}
    return json.dumps({"output": output, "metadata": metadata}, separators=(",", ":"))


def quick(output: ToolOutput) -> str:
    """The reply, as if the disk were fast."""
    return re.sub(r'"duration_seconds":[\d.]+', '"duration_seconds":0.0', text_of(output))


async def test_a_patch_is_shown_applied_and_told(still: Bench) -> None:
    (still.cwd / "old.txt").write_text("a\nb\n")
    (still.cwd / "gone.txt").write_text("x\n")
    text = patch_of(
        *("*** Update File: old.txt", "*** Move to: sub/new.txt", "@@", " a", "-b", "+c"),
        *("*** Delete File: gone.txt", "*** Add File: notes.txt", "+alpha"),
    )
    output = await still.call(APPLY, text, "call-1")
    told = "Success. Updated the following files:\nA notes.txt\nM sub/new.txt\nD gone.txt\n"
    assert (quick(output), output.success) == (result(told), True)
    root = str(still.cwd)
    changes: dict[str, FileChange] = {
        f"{root}/gone.txt": DeleteChange("x\n"),
        f"{root}/notes.txt": AddChange("alpha\n"),
        f"{root}/old.txt": UpdateChange("@@ -1,2 +1,2 @@\n a\n-b\n+c\n", f"{root}/sub/new.txt"),
    }
    started, completed = items(still)
    assert started == FileChangeItem("call-1", changes, auto_approved=True)
    assert completed == FileChangeItem("call-1", changes, "completed", True, told, "")
    assert list(completed.changes) == sorted(changes)
    assert {path.name: path.read_text() for path in still.cwd.rglob("*.txt")} == {
        "new.txt": "a\nc\n",
        "notes.txt": "alpha\n",
    }
    diff = still.context.turn_diff.unified_diff()
    assert diff is not None
    assert "+++ b/notes.txt" in diff
    assert "--- a/old.txt" in diff


async def test_a_patch_that_fails_half_way_keeps_what_it_wrote(still: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (still.cwd / "folder").mkdir()
    output = await still.call(APPLY, patch_of("*** Add File: notes.txt", "+alpha", "*** Add File: folder", "+x"))
    message = f"Failed to write file {still.cwd}/folder\n"
    assert (quick(output), output.success) == (result(message, 1), False)
    completed = items(still)[1]
    assert (completed.status, completed.stdout, completed.stderr) == ("failed", "", message)
    assert (still.cwd / "notes.txt").read_text() == "alpha\n"
    assert still.context.turn_diff.exact is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "invalid patch: The first line of the patch must be '*** Begin Patch'"),
        ("", "invalid patch: The last line of the patch must be '*** End Patch'"),
        ("*** Begin Patch\nx", "invalid patch: The last line of the patch must be '*** End Patch'"),
        (
            patch_of("x"),
            "invalid hunk at line 2, 'x' is not a valid hunk header. Valid hunk headers: '*** Add File: {path}', "
            "'*** Delete File: {path}', '*** Update File: {path}'",
        ),
        (
            patch_of("*** Update File: missing", "@@", "-a"),
            "Failed to read file to update {root}/missing: No such file or directory (os error 2)",
        ),
        (patch_of("*** Delete File: missing"), "Failed to read {root}/missing: No such file or directory (os error 2)"),
    ],
)
async def test_a_patch_that_does_not_fit_is_refused_without_events(still: Bench, text: str, message: str) -> None:
    output = await still.call(APPLY, text)
    told = f"apply_patch verification failed: {message.replace('{root}', str(still.cwd))}"
    assert output == ToolOutput(told, success=False)
    assert still.events == []


async def test_an_empty_patch_is_refused(still: Bench) -> None:
    assert await still.call(APPLY, patch_of()) == ToolOutput("patch rejected: empty patch", success=False)


async def test_other_environment_is_unknown(still: Bench) -> None:
    output = await still.call(APPLY, patch_of("*** Environment ID: moon", "*** Add File: a", "+a"))
    assert output == ToolOutput("unknown turn environment id `moon`", success=False)


async def test_a_read_only_turn_writes_nothing(still: Bench) -> None:
    still.turn(profile=read_only())
    assert await still.call(APPLY, ADD) == ToolOutput(READ_ONLY, success=False)
    assert list(still.cwd.iterdir()) == []
    assert still.events == []


# --- in shell calls --------------------------------------------------------------------------------


async def test_exec_command_applies_a_patch_instead_of_running(still: Bench) -> None:
    output = await still.call(EXEC, {"cmd": in_shell(ADD)})
    told = result("Success. Updated the following files:\nA notes.txt\n")
    assert (quick(output), output.success) == (f"Wall time: 0.0000 seconds\nOutput:\n{told}", True)
    assert [item.status for item in items(still)] == [None, "completed"]
    assert still.of(ExecCommandBegin) == []


async def test_shell_command_applies_a_patch_instead_of_running(still: Bench) -> None:
    output = await still.call(SHELL, {"command": in_shell(ADD)})
    assert quick(output) == result("Success. Updated the following files:\nA notes.txt\n")
    assert still.of(ExecCommandBegin) == []


async def test_patch_in_a_shell_call_is_relative_to_workdir_and_cd(still: Bench) -> None:
    await still.call(EXEC, {"cmd": in_shell(ADD, "cd inner && "), "workdir": "sub"})
    assert (still.cwd / "sub" / "inner" / "notes.txt").read_text() == "alpha\n"
    await still.call(EXEC, {"cmd": in_shell(ADD, f"cd {still.cwd}/other && "), "workdir": "sub"})
    assert (still.cwd / "other" / "notes.txt").read_text() == "alpha\n"


@pytest.mark.parametrize(("handler", "name"), [(EXEC, "cmd"), (SHELL, "command")])
async def test_a_failed_patch_in_a_shell_call_is_its_bare_result(still: Bench, handler: ToolHandler, name: str) -> None:
    (still.cwd / "folder").mkdir()
    output = await still.call(handler, {name: in_shell(patch_of("*** Add File: folder", "+x"))})
    assert (quick(output), output.success) == (result(f"Failed to write file {still.cwd}/folder\n", 1), False)


@pytest.mark.parametrize(("handler", "name"), [(EXEC, "cmd"), (SHELL, "command")])
async def test_a_bad_or_bare_patch_in_a_shell_call_runs_nothing(still: Bench, handler: ToolHandler, name: str) -> None:
    output = await still.call(handler, {name: in_shell("*** Begin Patch\nx")})
    assert text_of(output).startswith("apply_patch verification failed: invalid patch: ")
    output = await still.call(handler, {name: ADD})
    assert output == ToolOutput(
        "apply_patch verification failed: patch detected without explicit call to apply_patch. "
        'Rerun as ["apply_patch", "<patch>"]',
        success=False,
    )
    assert still.events == []


async def test_more_than_a_patch_is_an_ordinary_command(bench: Bench) -> None:
    output = await bench.call(EXEC, {"cmd": in_shell(ADD) + "echo done", "login": False})
    assert "Process exited with code 0" in text_of(output)
    assert not (bench.cwd / "notes.txt").exists()


# --- approval --------------------------------------------------------------------------------------


async def test_untrusted_policy_asks_after_the_item_has_started(still: Bench) -> None:
    still.turn(approval_policy="untrusted")
    assert await still.call(APPLY, ADD) == ToolOutput("patch rejected by user", success=False)
    changes: dict[str, FileChange] = {f"{still.cwd}/notes.txt": AddChange("alpha\n")}
    assert still.approvals.asked == [PatchApproval(call_id="call", turn_id="turn-1", changes=changes)]
    kinds = [type(event) for event in still.events]
    assert kinds == [ItemStarted, ApplyPatchApprovalRequest, ItemCompleted]
    assert items(still)[1] == FileChangeItem("call", changes, "declined", False, "", "patch rejected by user")
    assert not (still.cwd / "notes.txt").exists()
    still.approvals.decision = "approved"
    assert (await still.call(APPLY, ADD)).success
    assert items(still)[-1].auto_approved is False


async def test_an_interrupt_while_asking_writes_nothing(still: Bench) -> None:
    still.turn(approval_policy="untrusted")
    with trio.CancelScope() as turn:
        still.approvals.meanwhile = turn.cancel
        await still.call(APPLY, ADD)
    assert turn.cancelled_caught
    last = items(still)[-1]
    assert (last.status, last.stderr) == ("failed", "aborted by user; nothing was written")
    assert not (still.cwd / "notes.txt").exists()


# --- interrupts while writing ----------------------------------------------------------------------


class SlowDisk:
    """Stands before every write: tells when it begins, and waits until it may."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may = threading.Event()

    def apply(self, patch: Patch, cwd: str, fs: RealFileSystem) -> PatchResult:
        self.begun.set()
        assert self.may.wait(10)
        return really_apply(patch, cwd, fs)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    disk = SlowDisk()
    monkeypatch.setattr(patches, "apply_patch", disk.apply)
    return disk


async def test_an_interrupt_waits_for_a_write_that_has_begun_and_its_result_is_told(
    still: Bench, slow: SlowDisk
) -> None:
    outputs: list[ToolOutput] = []

    async def call() -> None:
        outputs.append(await still.call(APPLY, ADD))

    async with trio.open_nursery() as turn:
        turn.start_soon(call)
        await trio.to_thread.run_sync(slow.begun.wait, 10)
        turn.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            assert [item.status for item in items(still)] == [None]
            slow.may.set()
    assert [output.success for output in outputs] == [True]
    assert items(still)[-1].status == "completed"
    assert (still.cwd / "notes.txt").read_text() == "alpha\n"
    assert "notes.txt" in (still.context.turn_diff.unified_diff() or "")


async def test_a_write_that_does_not_end_is_left_alone_and_called_uncertain(
    still: Bench, slow: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patches, "WRITE_GRACE_S", 0.02)
    async with trio.open_nursery() as turn:
        turn.start_soon(still.call, APPLY, ADD)
        await trio.to_thread.run_sync(slow.begun.wait, 10)
        turn.cancel_scope.cancel()
    last = items(still)[-1]
    assert (last.status, last.stdout) == ("failed", "")
    assert last.stderr is not None
    assert "some of the changes may have been made" in last.stderr
    assert still.context.turn_diff.exact is False
    slow.may.set()
    while not (still.cwd / "notes.txt").exists():
        await trio.lowlevel.checkpoint()


async def test_an_interrupt_before_the_write_begins_leaves_the_files_alone(still: Bench) -> None:
    limiter = trio.to_thread.current_default_thread_limiter()
    tokens = [object() for _ in range(limiter.total_tokens if isinstance(limiter.total_tokens, int) else 40)]

    def take_all_threads() -> None:
        for token in tokens:
            limiter.acquire_on_behalf_of_nowait(token)

    still.turn(approval_policy="untrusted")
    still.approvals.decision = "approved"
    still.approvals.meanwhile = take_all_threads
    async with trio.open_nursery() as turn:
        turn.start_soon(still.call, APPLY, ADD)
        await still.seen(ApplyPatchApprovalRequest)
        await trio.testing.wait_all_tasks_blocked()
        turn.cancel_scope.cancel()
    for token in tokens:
        limiter.release_on_behalf_of(token)
    last = items(still)[-1]
    assert (last.status, last.stderr) == ("failed", "aborted by user; nothing was written")
    assert not (still.cwd / "notes.txt").exists()


async def test_a_defect_while_applying_is_told_as_such(still: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> PatchResult:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(patches, "apply_patch", broken)
    output = await still.call(APPLY, ADD)
    assert output == ToolOutput("apply_patch failed: RuntimeError: no such luck", success=False)
    last = items(still)[-1]
    assert (last.status, last.stderr) == ("failed", "the patch could not be applied: no such luck")


# --- several at once -------------------------------------------------------------------------------


async def test_patches_of_parallel_shell_calls_see_what_the_others_wrote(still: Bench) -> None:
    (still.cwd / "counter.txt").write_text("0\n")

    async def count(number: int) -> None:
        step = patch_of("*** Update File: counter.txt", "@@", f"-{number}", f"+{number + 1}")
        output = await still.call(EXEC, {"cmd": in_shell(step)}, f"call-{number}")
        outputs[number] = output.success

    outputs: dict[int, bool] = {}
    for number in range(5):  # started one after the other, so they take the lock in this order
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count, number)
    assert outputs == dict.fromkeys(range(5), True)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(still.call, EXEC, {"cmd": in_shell(patch_of("*** Add File: same.txt", "+x"))})
    assert (still.cwd / "counter.txt").read_text() == "5\n"
    kinds = [type(event) for event in still.events]
    assert kinds == [ItemStarted, ItemCompleted] * 9


@given(text=st.text() | st.text().map(lambda text: patch_of(text)) | st.text().map(lambda x: f"{ADD}{x}"))
async def test_any_text_gets_an_answer(text: str, tmp_path: Path) -> None:
    bench = still_bench(tmp_path)
    bench.turn(approval_policy="untrusted")
    output = await bench.call(APPLY, text)
    assert not output.success
    assert list(tmp_path.iterdir()) == []
