"""What a tool is to the rest of the engine: its spec, its invocation, its output, its errors (tools.md 1).

A tool never sees a session: it gets a `ToolContext` with just what tools need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import attrs
import trio

from engine.errors import EngineError, ProtocolError
from engine.protocol.codec import decode, json_value
from engine.protocol.events import EventMsg, ItemCompleted, ItemStarted
from engine.protocol.ids import ThreadId, TurnId
from engine.protocol.items import InputImage, InputText
from engine.protocol.settings import ApprovalPolicy, TruncationPolicy
from engine.protocol.turn_items import TurnItem
from engine.protocol.wire import JsonObject, Wire
from engine.records import frozen

if TYPE_CHECKING:
    from engine.execution.sandbox.launcher import Sandbox
    from engine.execution.shell_snapshot import ShellSnapshots
    from engine.execution.shells import Shell
    from engine.execution.supervisor import Supervisor
    from engine.execution.terminals import TerminalManager
    from engine.tools.apply_patch import TurnDiffTracker
    from engine.tools.approvals import Approver
    from engine.tools.turn_permissions import TurnPermissions

__all__ = [
    "FatalToolError",
    "ToolContext",
    "ToolError",
    "ToolHandler",
    "ToolInvocation",
    "ToolOutput",
    "parse_arguments",
]

W = TypeVar("W", bound=Wire)


class ToolError(EngineError):
    """Goes back to the model as a failed output; the turn goes on."""


class FatalToolError(EngineError):
    """Ends the turn: the call can't be answered at all."""


@frozen
class ToolOutput:
    """What goes back to the model: plain text, or parts. `success` never crosses the wire."""

    content: str | tuple[InputText | InputImage, ...]
    success: bool = True


@frozen(eq=False)
class ToolContext:
    """What one turn lends to its tools. Everything in it lives at least as long as the turn."""

    thread_id: ThreadId
    turn_id: TurnId
    cwd: str
    truncation: TruncationPolicy
    permissions: TurnPermissions
    """What commands and patches may touch."""
    sandbox: Sandbox
    """What holds commands to that."""
    approval_policy: ApprovalPolicy
    approve: Approver
    """Asks the user; runs in the tool's task."""
    features: Mapping[str, bool]
    environment: Mapping[str, str]
    shell: Shell
    allow_login_shell: bool
    model_sees_images: bool
    model_sees_original_detail: bool
    supervisor: Supervisor
    terminals: TerminalManager
    turn_diff: TurnDiffTracker
    emit: Callable[[EventMsg], None]
    """Persists and queues an event of the turn; never waits. After an interrupt it drops what comes late."""
    emit_later: Callable[[EventMsg], None]
    """The same for events that may come after the turn, e.g. the end of a background terminal."""
    tell_model: Callable[[str], None]
    """Adds a developer message to the history, before the output of the call."""
    request_interrupt: Callable[[], None]
    """Asks for an interrupt of the turn (decision `abort`); the calling tool is cancelled soon after."""
    now_ms: Callable[[], int]
    """Unix milliseconds."""
    snapshots: Callable[[], ShellSnapshots | None] = lambda: None
    """What commands load in place of the user's profile; made for the first one."""
    patching: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """Held by the one patch of the turn that is being verified, approved or written."""

    def with_snapshot(self, argv: Sequence[str], *, cwd: str, env: Mapping[str, str]) -> tuple[str, ...]:
        """The command line to start in place of `argv`, which is what people are shown; the same without a snapshot."""
        snapshots = self.snapshots()
        if snapshots is None:
            return tuple(argv)
        return snapshots.wrapped(argv, cwd=cwd, session_cwd=self.cwd, env=env, guarded=self.permissions.guards)

    def item_started(self, item: TurnItem) -> None:
        """Tells that a turn item is there."""
        self.emit(ItemStarted(self.thread_id, self.turn_id, item, started_at_ms=self.now_ms()))

    def item_completed(self, item: TurnItem) -> None:
        """Tells that a turn item is finished."""
        self.emit(ItemCompleted(self.thread_id, self.turn_id, item, completed_at_ms=self.now_ms()))


@frozen(eq=False)
class ToolInvocation:
    """One call. `input` is JSON text for a function tool, raw text for a freeform one."""

    call_id: str
    name: str
    input: str
    context: ToolContext
    namespace: str | None = None


class ToolHandler(Protocol):
    """A tool the model may call.

    `parallel` tools of one response share the turn; the others run alone (tools.md 8.1). `call` runs as a child of the
    turn and is cancelled by an interrupt; it raises `ToolError` for the model and `FatalToolError` for the turn.
    """

    @property
    def name(self) -> str: ...
    @property
    def namespace(self) -> str | None: ...
    @property
    def kind(self) -> Literal["function", "custom"]: ...
    @property
    def parallel(self) -> bool: ...
    def spec(self) -> JsonObject | None:
        """What the model is told; `None` for a tool that is served without being offered."""
        ...

    async def call(self, invocation: ToolInvocation) -> ToolOutput: ...


def parse_arguments(invocation: ToolInvocation, kind: type[W]) -> W:
    """The arguments of a function call as `kind`. Raises `ToolError` with the text the model gets."""
    try:
        return decode(kind, json_value(invocation.input or "{}"))
    except ProtocolError as exc:
        raise ToolError(f"failed to parse function arguments: {exc}") from exc
