"""Patches in a session: the freeform tool `apply_patch`, and patches found in shell calls (tools.md 2.5 to 2.8).

Files are read and written in worker threads. A write that has begun is never cut off: an interrupt waits for it, so
that what is told about the files is what stands in them.
"""

from __future__ import annotations

import json
import posixpath
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from engine.protocol import turn_items
from engine.protocol.profiles import (
    AdditionalFileSystem,
    AdditionalPermissionProfile,
    FileSystemEntry,
    LiteralPath,
)
from engine.protocol.truncation import formatted_truncate
from engine.protocol.turn_items import FileChangeItem
from engine.protocol.wire import JsonObject
from engine.records import define, frozen
from engine.tools.apply_patch import (
    EMPTY_PATCH_REJECTION,
    TOOL_DESCRIPTION,
    TOOL_NAME,
    AddChange,
    ApplyPatchError,
    DeleteChange,
    FileChange,
    FileSystem,
    Intercepted,
    ModelError,
    Patch,
    PatchDelta,
    PatchResult,
    RealFileSystem,
    VerifiedPatch,
    apply_patch,
    model_result,
    parse_patch,
    patch_grammar,
    recognise,
    verify_patch,
)
from engine.tools.apply_patch.applying import absolute_path
from engine.tools.approvals import PatchApproval, agreed, decide
from engine.tools.base import ToolContext, ToolError, ToolInvocation, ToolOutput
from engine.tools.command_requests import LOCAL_ENVIRONMENT, check_environment
from engine.tools.guarded_files import guarded_files
from engine.tools.orchestrator import RETRY_REASON, escalates
from engine.tools.patch_safety import assess_patch
from engine.tools.telling import tell_decision

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ApplyPatch", "PatchOutcome", "intercept"]

PATCH_REJECTED = "patch rejected by user"
WRITE_GRACE_S = 5.0  # how long an interrupt waits for a write; local disks take milliseconds
_NOT_WRITTEN = "aborted by user; nothing was written"
_UNCERTAIN = "aborted by user while files were being written; some of the changes may have been made"


@frozen
class PatchOutcome:
    """What the model reads about a patch that was applied, or failed while it was."""

    text: str
    success: bool


@frozen(eq=False)
class ApplyPatch:
    """Serves the freeform tool `apply_patch`."""

    name: str = TOOL_NAME
    namespace: None = None
    kind: Literal["custom"] = "custom"
    parallel: bool = False

    def spec(self) -> JsonObject:
        """What the model is told."""
        return {
            "type": "custom",
            "name": self.name,
            "description": TOOL_DESCRIPTION,
            "format": {"type": "grammar", "syntax": "lark", "definition": patch_grammar()},
        }

    async def call(self, invocation: ToolInvocation) -> ToolOutput:
        """Verifies the patch, asks where the policy says so, and applies it."""
        context = invocation.context
        text, cwd = invocation.input, context.cwd

        def verify() -> VerifiedPatch:
            return _verified(context, parse_patch(text), cwd)

        outcome = await _run(context, invocation.call_id, verify)
        return ToolOutput(outcome.text, outcome.success)


async def intercept(context: ToolContext, call_id: str, argv: Sequence[str], cwd: str) -> PatchOutcome | None:
    """Applies the patch that the command line of a command tool amounts to; `None` if it is an ordinary command.

    Raises `ToolError` for a patch that is refused.
    """
    found = recognise(argv)
    match found:
        case ModelError(text):
            raise ToolError(text)
        case Intercepted(patch=patch, workdir=workdir):
            folder = cwd if workdir is None else absolute_path(workdir, cwd)
            return await _run(context, call_id, lambda: _verified(context, patch, folder))
    return None


def _verified(context: ToolContext, patch: Patch, cwd: str) -> VerifiedPatch:
    check_environment(patch.environment_id)
    return verify_patch(patch, cwd, guarded_files(context.permissions) or RealFileSystem())


async def _run(context: ToolContext, call_id: str, verify: Callable[[], VerifiedPatch]) -> PatchOutcome:
    """One patch at a time in a turn: each is verified against, and shown with, the files as the last one left them."""
    async with context.patching:
        try:
            verified = await trio.to_thread.run_sync(verify, abandon_on_cancel=True)
        except ApplyPatchError as exc:
            raise ToolError(exc.verification_text()) from exc
        if not verified.files:
            raise ToolError(EMPTY_PATCH_REJECTION)
        return await _Application(context, call_id, verified).run()


@define(eq=False)
class _Application:
    """A verified patch on its way to the disk, and its turn item."""

    context: ToolContext
    call_id: str
    verified: VerifiedPatch
    _status: str = attrs.field(default="failed", init=False)
    _stdout: str = attrs.field(default="", init=False)
    _stderr: str = attrs.field(default=_NOT_WRITTEN, init=False)

    async def run(self) -> PatchOutcome:
        """Asks if need be, then writes. Raises `ToolError` for a refusal. Once it has started, the item completes."""
        context = self.context
        changes = _wire_changes(self.verified)
        asks = self._must_ask()
        context.item_started(FileChangeItem(self.call_id, changes, auto_approved=not asks))
        try:
            files = await self._allowed_files(changes, asks)
            began = time.perf_counter()
            result = await self._write(files)
            seconds = time.perf_counter() - began
            self._status = "completed" if result.exit_code == 0 else "failed"
            self._stdout, self._stderr = result.stdout, result.stderr
            context.turn_diff.record(result.delta)
        finally:
            context.item_completed(
                FileChangeItem(
                    self.call_id,
                    changes,
                    status=self._status,
                    auto_approved=not asks,
                    stdout=self._stdout,
                    stderr=self._stderr,
                )
            )
        shown = formatted_truncate(result.output, context.truncation)
        return PatchOutcome(model_result(shown, result.exit_code, seconds), result.exit_code == 0)

    def _must_ask(self) -> bool:
        """Whether the user has to agree first. Raises `ToolError` where the policy refuses without asking."""
        permissions = self.context.permissions
        entries = permissions.file_system().entries
        assessed = assess_patch(
            self.verified.touched_paths,
            approval_policy=self.context.approval_policy,
            can_write=permissions.compiled().can_write,
            writable_roots=any(entry.access == "write" for entry in entries),
        )
        if assessed not in ("write", "ask"):
            tell_decision("patch", self.call_id, "denied", "config")
            raise ToolError(assessed)
        if assessed == "write":
            tell_decision("patch", self.call_id, "approved", "config")
        return assessed == "ask"

    async def _allowed_files(self, changes: dict[str, turn_items.FileChange], asks: bool) -> FileSystem:
        """The disk with what the patch may write, after all questions. Raises `ToolError` for a no."""
        context, paths = self.context, self.verified.touched_paths
        if asks:
            await self._ask(changes)
        files = guarded_files(context.permissions, _folders_of(paths) if asks else None)
        if files is None:
            return RealFileSystem()
        refused = await trio.to_thread.run_sync(files.refused, paths, abandon_on_cancel=True)
        if not refused or not escalates(context.approval_policy, patch=True):
            return files  # what it does not allow fails as it would for a command
        if not asks:
            await self._ask(changes, RETRY_REASON)
        return RealFileSystem()

    async def _ask(self, changes: dict[str, turn_items.FileChange], reason: str | None = None) -> None:
        permissions = self.context.permissions
        approvals = permissions.session
        keys = [json.dumps({"environment_id": LOCAL_ENVIRONMENT, "path": path}) for path in self.verified.touched_paths]
        known = approvals.remembers(*keys) or permissions.grants_writing(self.verified.touched_paths)
        if known and reason is None:
            tell_decision("patch", self.call_id, "approved_for_session", "user")
            return
        request = PatchApproval(call_id=self.call_id, turn_id=self.context.turn_id, changes=changes, reason=reason)
        decision = await decide(self.context, request)
        if not agreed(decision):
            self._status, self._stderr = "declined", PATCH_REJECTED
            raise ToolError(PATCH_REJECTED)
        if decision == "approved_for_session":
            for key in keys:
                approvals.remember(key)

    async def _write(self, files: FileSystem) -> PatchResult:
        """Applies the patch in a thread. Cancelled before the first write, it writes nothing.

        Cancelled later, it still returns the result: it is true, and the next checkpoint is cancelled anyway. Only a
        disk that does not answer within the grace is left alone, and then the diff of the turn is given up.
        """
        claim = threading.Lock()  # whoever takes it first decides whether anything is written
        written: list[PatchResult] = []
        ended = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def write() -> None:
            if not claim.acquire(blocking=False):
                return
            try:
                written.append(apply_patch(self.verified.patch, self.verified.cwd, files))
            finally:
                try:
                    token.run_sync_soon(ended.set)
                except trio.RunFinishedError:
                    pass  # the host gave up on us meanwhile

        try:
            await trio.to_thread.run_sync(write, abandon_on_cancel=True)
        except trio.Cancelled:
            if claim.acquire(blocking=False):
                raise
            self._stderr = _UNCERTAIN
            with trio.move_on_after(WRITE_GRACE_S, shield=True):
                await ended.wait()
            if not written:
                self.context.turn_diff.record(PatchDelta(exact=False))
                raise
        except Exception as exc:  # a defect of ours; what it left behind is unknown
            self._stderr = f"the patch could not be applied: {exc}"
            self.context.turn_diff.record(PatchDelta(exact=False))
            raise
        return written[0]


def _folders_of(paths: Sequence[str]) -> AdditionalPermissionProfile:
    """Leave to write in the folders of these files, for a patch that the user agreed to."""
    folders = dict.fromkeys(posixpath.dirname(path) for path in paths)
    entries = tuple(FileSystemEntry(LiteralPath(folder), "write") for folder in folders)
    return AdditionalPermissionProfile(None, AdditionalFileSystem(entries))


def _wire_changes(verified: VerifiedPatch) -> dict[str, turn_items.FileChange]:
    changes = verified.changes
    return {path: _wire_change(changes[path]) for path in sorted(changes)}


def _wire_change(change: FileChange) -> turn_items.FileChange:
    match change:
        case AddChange(content=content):
            return turn_items.AddChange(content)
        case DeleteChange(content=content):
            return turn_items.DeleteChange(content)
        case _:
            return turn_items.UpdateChange(change.unified_diff, change.move_path)
