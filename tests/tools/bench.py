"""A turn for tools to run in: real processes and files, recorded events, and an approver that says what it is told."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, cast

import attrs
import trio

from engine.exec_policy.in_force import RulesInForce
from engine.execution.sandbox.launcher import Sandbox
from engine.execution.shells import Shell, ShellKind
from engine.execution.supervisor import Supervisor
from engine.execution.terminals import TerminalManager
from engine.permissions.view import DiskView
from engine.protocol.events import EventMsg
from engine.protocol.ids import ThreadId, TurnId
from engine.protocol.items import CustomToolCall, FunctionCall
from engine.protocol.profiles import DisabledProfile, PermissionProfile
from engine.protocol.settings import ApprovalPolicy, TruncationPolicy
from engine.tools.apply_patch import TurnDiffTracker
from engine.tools.approvals import ApprovalRequest, Approver, Decision
from engine.tools.base import ToolContext, ToolHandler, ToolOutput
from engine.tools.registry import ToolRegistry, dispatch
from engine.tools.turn_permissions import SessionApprovals, TurnPermissions

E = TypeVar("E")

BASH = Shell(ShellKind.BASH, "/bin/bash")
NOW_MS = 1_700_000_000_000


@attrs.define(eq=False)
class Approvals:
    """An approver: answers with `decision`, and keeps what it was asked. `meanwhile` runs before the answer."""

    decision: Decision = "denied"
    asked: list[ApprovalRequest] = attrs.field(factory=list)
    meanwhile: Callable[[], object] = lambda: None

    async def __call__(self, request: ApprovalRequest, /) -> Decision:
        self.asked.append(request)
        self.meanwhile()
        await trio.lowlevel.checkpoint()
        return self.decision


@attrs.define(eq=False, slots=False)
class Bench:
    """One turn. `events` are those of the turn (dropped once `open` is False), `later` those that may outlive it."""

    cwd: Path
    supervisor: Supervisor
    terminals: TerminalManager
    env: Mapping[str, str]
    approvals: Approvals = attrs.field(factory=Approvals)
    events: list[EventMsg] = attrs.field(factory=list)
    later: list[EventMsg] = attrs.field(factory=list)
    told: list[str] = attrs.field(factory=list)
    open: bool = True
    interrupts: int = 0
    _news: trio.Event = attrs.field(factory=trio.Event)
    _context: ToolContext | None = None

    @functools.cached_property
    def session(self) -> SessionApprovals:
        """What the user agreed to; the home of its rules is beside the folder of the turn."""
        home = str(self.cwd.parent / "home")
        return SessionApprovals(RulesInForce(home, (home,)))

    def turn(
        self,
        *,
        approval_policy: ApprovalPolicy = "never",
        truncation: TruncationPolicy | None = None,
        profile: PermissionProfile | None = None,
        features: Mapping[str, bool] | None = None,
        allow_login_shell: bool = True,
        model_sees_images: bool = True,
        model_sees_original_detail: bool = False,
        approve: Approver | None = None,
    ) -> ToolContext:
        """Makes the context of the turn anew."""
        self._context = ToolContext(
            thread_id=ThreadId("0198f7a2-0000-7000-8000-000000000001"),
            turn_id=TurnId("turn-1"),
            cwd=str(self.cwd),
            truncation=truncation or TruncationPolicy("tokens", 10_000),
            permissions=TurnPermissions(profile or DisabledProfile(), str(self.cwd), DiskView(), self.session),
            sandbox=Sandbox(self.supervisor, environment=self.env),
            features=features or {},
            tell_model=self.told.append,
            approval_policy=approval_policy,
            approve=approve or self.approvals,
            environment=self.env,
            shell=BASH,
            allow_login_shell=allow_login_shell,
            model_sees_images=model_sees_images,
            model_sees_original_detail=model_sees_original_detail,
            supervisor=self.supervisor,
            terminals=self.terminals,
            turn_diff=TurnDiffTracker(self.cwd),
            emit=self._emit,
            emit_later=self._emit_later,
            request_interrupt=self._interrupt,
            now_ms=lambda: NOW_MS,
        )
        return self._context

    @property
    def context(self) -> ToolContext:
        """The turn's; one without special settings unless `turn` made it."""
        return self._context or self.turn()

    async def call(
        self, handler: ToolHandler, arguments: Mapping[str, object] | str, call_id: str = "call"
    ) -> ToolOutput:
        """Calls a tool as the session does: with arguments, or with text for a freeform tool."""
        made: FunctionCall | CustomToolCall
        if handler.kind == "custom":
            assert isinstance(arguments, str)
            made = CustomToolCall(call_id=call_id, name=handler.name, input=arguments)
        else:
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            made = FunctionCall(handler.name, arguments=text, call_id=call_id)
        return await dispatch(ToolRegistry([handler]), made, self.context)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind, those that may outlive the turn included."""
        return [event for event in (*self.events, *self.later) if isinstance(event, kind)]

    async def seen(self, kind: type[E], count: int = 1) -> list[E]:
        """Waits for the first `count` events of a kind; fails after 10 s."""
        with trio.fail_after(10):
            while len(self.of(kind)) < count:
                self._news = trio.Event()
                await self._news.wait()
        return self.of(kind)

    def _emit(self, msg: EventMsg) -> None:
        if self.open:
            self.events.append(msg)
            self._news.set()

    def _emit_later(self, msg: EventMsg) -> None:
        self.later.append(msg)
        self._news.set()

    def _interrupt(self) -> None:
        self.interrupts += 1


def still_bench(cwd: Path) -> Bench:
    """A bench without processes, for tools that start none: touching them is an `AttributeError`."""
    nothing = cast(Supervisor, None)
    return Bench(cwd, nothing, cast(TerminalManager, None), {})
