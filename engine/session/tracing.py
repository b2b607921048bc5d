"""What one thread of a session tells its rollout trace bundle (extensibility.md 10); made only where one is wanted.

Its lifecycle, requests and tool calls are told where they happen; runs of commands and patches, turns and a few other
events as the session emits them. Nothing here waits or raises.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, final

import attrs

from engine.protocol.codec import encode
from engine.protocol.events import (
    ErrorEvent,
    Event,
    EventMsg,
    ExecCommandBegin,
    ExecCommandEnd,
    PatchApplyBegin,
    PatchApplyEnd,
    SessionConfigured,
    ShutdownComplete,
    TaskComplete,
    TaskStarted,
    ThreadRolledBack,
    TurnAborted,
    Warning,
)
from engine.protocol.items import CustomToolCall, FunctionCall, ResponseItem
from engine.protocol.wire import JsonObject
from engine.telemetry.bundles import Bundle, Bundles, Payload, PayloadKind

if TYPE_CHECKING:
    from engine.models.base import ModelRequest
    from engine.protocol.settings import TokenUsage
    from engine.session.core import SessionCore
    from engine.tools.registry import ToolCall

__all__ = ["CompactionRequestTrace", "CompactionTrace", "RequestTrace", "ThreadTrace", "trace_session"]

ROOT_PATH: Final = "/root"
PREVIEW: Final = 160  # characters of a call's input that stand in the event itself

Ended = Literal["completed", "failed", "cancelled"]
RolloutStatus = Literal["completed", "failed", "aborted"]

# The events that are wrapped as they are, under the names of the newer generation.
_WRAPPED: Final[dict[type, str]] = {
    SessionConfigured: "session_configured",
    TaskStarted: "turn_started",
    TaskComplete: "turn_complete",
    TurnAborted: "turn_aborted",
    ThreadRolledBack: "thread_rolled_back",
    ErrorEvent: "error",
    Warning: "warning",
    ShutdownComplete: "shutdown_complete",
}
_TOOL_KINDS: Final = {
    "exec_command": "exec_command",
    "shell_command": "exec_command",
    "write_stdin": "write_stdin",
    "apply_patch": "apply_patch",
}


def trace_session(core: SessionCore, bundles: Bundles) -> ThreadTrace:
    """Begins the bundle of a session that is nobody's child, with the events of its start."""
    trace = ThreadTrace(bundles.begin(core.thread_id), core.thread_id, ROOT_PATH, _metadata(core))
    core.hub.observe(trace.saw)
    return trace


def _metadata(core: SessionCore) -> JsonObject:
    configuration = core.configuration
    return {
        "session_source": encode(configuration.source),
        "cwd": configuration.cwd,
        "rollout_path": core.rollout_path,
        "model": core.model_slug(),
        "provider_name": configuration.config.provider.name or configuration.config.model_provider_id,
        "approval_policy": encode(configuration.approval_policy),
        "sandbox_policy": configuration.sandbox_policy.type,
    }


@final
class ThreadTrace:
    """One thread in a bundle: the root, or one that was started by it."""

    def __init__(
        self, bundle: Bundle, thread_id: str, path: str, metadata: JsonObject, *, parent: ThreadTrace | None = None
    ) -> None:
        self._bundle = bundle
        self._thread = thread_id
        self._parent = parent
        self._kinds: dict[str, str] = {}  # of the tool calls that run
        names = {"task_name": None, "nickname": None, "agent_role": None}
        told = {"thread_id": thread_id, "agent_path": path, **names, **metadata}
        started = {"thread_id": thread_id, "agent_path": path}
        self._tell("thread_started", {**started, "metadata_payload": Payload("session_metadata", lambda: told)})

    def child(self, thread_id: str, path: str, metadata: JsonObject) -> ThreadTrace:
        """The trace of a thread that this one started; it ends without ending the bundle."""
        return ThreadTrace(self._bundle, thread_id, path, metadata, parent=self)

    def ended(self, status: RolloutStatus) -> None:
        """The thread ended, and its bundle with it if it is the root."""
        self._tell("thread_ended", {"thread_id": self._thread, "status": status})
        if self._parent is None:
            self._tell("rollout_ended", {"status": status})

    def _tell(self, event: str, fields: dict[str, object], turn: str | None = None) -> None:
        self._bundle.tell(event, fields, thread=None if turn is None else self._thread, turn=turn)

    # --- events of the session -------------------------------------------------------------------

    def saw(self, event: Event) -> None:
        """The session emitted an event."""
        msg = event.msg
        match msg:
            case TaskStarted(turn_id=turn):
                self._tell("codex_turn_started", {"codex_turn_id": turn, "thread_id": self._thread}, turn)
            case TaskComplete(turn_id=turn):
                self._tell("codex_turn_ended", {"codex_turn_id": turn, "status": "completed"}, turn)
            case TurnAborted(turn_id=turn):
                turn = turn or event.id
                self._tell("codex_turn_ended", {"codex_turn_id": turn, "status": "cancelled"}, turn)
            case ExecCommandBegin() | ExecCommandEnd() if msg.source != "user_shell":
                self._runtime(msg, None if isinstance(msg, ExecCommandBegin) else msg.status)
            case PatchApplyBegin() | PatchApplyEnd():
                self._runtime(msg, None if isinstance(msg, PatchApplyBegin) else msg.status)
        if (name := _WRAPPED.get(type(msg))) is not None:
            self._wrap(name, msg)

    def _wrap(self, name: str, msg: EventMsg) -> None:
        self._tell("protocol_event_observed", {"event_type": name, "event_payload": _encoded("protocol_event", msg)})

    def _runtime(
        self, msg: ExecCommandBegin | ExecCommandEnd | PatchApplyBegin | PatchApplyEnd, status: str | None
    ) -> None:
        """What a tool call does: a command or a patch began (`status` is `None`) or ended."""
        payload = _encoded("tool_runtime_event", msg)
        patch = isinstance(msg, PatchApplyBegin | PatchApplyEnd)
        if patch and self._kinds.get(msg.call_id) == "exec_command":
            # Readers expect that what a command's call runs is a command; a patch in a script is none.
            self._wrap(msg.type, msg)
        elif status is None:
            self._tell(
                "tool_call_runtime_started", {"tool_call_id": msg.call_id, "runtime_payload": payload}, msg.turn_id
            )
        else:
            ended = {"tool_call_id": msg.call_id, "status": "completed" if status == "completed" else "failed"}
            self._tell("tool_call_runtime_ended", {**ended, "runtime_payload": payload}, msg.turn_id)

    # --- tool calls --------------------------------------------------------------------------------

    def tool_call_started(self, turn: str, call: ToolCall) -> None:
        """The model's call goes to its tool."""
        namespace = call.namespace if isinstance(call, FunctionCall) else None
        kind: JsonObject = {"type": "other", "name": call.name}
        if namespace is None and call.name in _TOOL_KINDS:
            kind = {"type": _TOOL_KINDS[call.name]}
        self._kinds[call.call_id] = str(kind["type"])
        text = call.input if isinstance(call, CustomToolCall) else call.arguments
        form = (
            {"type": "custom", "input": text}
            if isinstance(call, CustomToolCall)
            else {"type": "function", "arguments": text}
        )
        invocation = {"tool_name": call.name, "tool_namespace": namespace, "payload": form}
        summary = {"type": "generic", "label": call.name, "input_preview": text[:PREVIEW], "output_preview": None}
        self._tell(
            "tool_call_started",
            {
                "tool_call_id": call.call_id,
                "model_visible_call_id": call.call_id,
                "code_mode_runtime_tool_id": None,
                "requester": {"type": "model"},
                "kind": kind,
                "summary": summary,
                "invocation_payload": Payload("tool_invocation", lambda: invocation),
            },
            turn,
        )

    def tool_call_ended(self, turn: str, call: ToolCall, status: Ended, item: ResponseItem | None) -> None:
        """The call ended, with `item` for an answer where there is one."""
        self._kinds.pop(call.call_id, None)
        result = None if item is None else Payload("tool_result", functools.partial(_direct_response, item))
        self._tell("tool_call_ended", {"tool_call_id": call.call_id, "status": status, "result_payload": result}, turn)

    # --- requests ----------------------------------------------------------------------------------

    def request(self, turn: str, model: str, provider: str, request: ModelRequest) -> RequestTrace:
        """A request goes to the model."""
        call_id = str(uuid.uuid4())
        body = request.body
        self._tell(
            "inference_started",
            {
                "inference_call_id": call_id,
                "thread_id": self._thread,
                "codex_turn_id": turn,
                "model": model,
                "provider_name": provider,
                "request_payload": Payload("inference_request", lambda: body),
            },
            turn,
        )
        return RequestTrace(functools.partial(self._tell, turn=turn), call_id)

    def compaction(self, turn: str) -> CompactionTrace:
        """The server will be asked to compact."""
        return CompactionTrace(functools.partial(self._tell, turn=turn), self._thread, turn)


Tell = Callable[[str, dict[str, object]], None]


@final
class RequestTrace:
    """One request and what is heard of its response; it ends once."""

    def __init__(self, tell: Tell, call_id: str) -> None:
        self._tell = tell
        self._call_id = call_id
        self._items: list[ResponseItem] = []
        self._over = False
        self.upstream_id: str | None = None

    def item(self, item: ResponseItem) -> None:
        """An item of the response is complete."""
        self._items.append(item)

    def completed(self, response_id: str | None, usage: TokenUsage | None) -> None:
        """The response is complete."""
        told = {"response_id": response_id, "upstream_request_id": self.upstream_id}
        self._end("inference_completed", {**told, "response_payload": self._response(response_id, usage)})

    def failed(self, error: str) -> None:
        """There was no response, or it broke off."""
        self._end("inference_failed", {"error": error, **self._partial()})

    def cancelled(self, reason: str) -> None:
        """Nobody wanted the rest of the response."""
        self._end("inference_cancelled", {"reason": reason, **self._partial()})

    def _end(self, event: str, fields: dict[str, object]) -> None:
        if not self._over:
            self._over = True
            self._tell(event, {"inference_call_id": self._call_id, **fields})

    def _partial(self) -> dict[str, object]:
        partial = self._response(None, None) if self._items else None
        return {"upstream_request_id": self.upstream_id, "partial_response_payload": partial}

    def _response(self, response_id: str | None, usage: TokenUsage | None) -> Payload:
        told = {"response_id": response_id, "upstream_request_id": self.upstream_id}
        items = tuple(self._items)
        return Payload(
            "inference_response",
            lambda: {
                **told,
                "token_usage": None if usage is None else encode(usage),
                "output_items": [encode(item) for item in items],
            },
        )


@final
class CompactionTrace:
    """One compaction by the server: its requests, and the history that it left."""

    def __init__(self, tell: Tell, thread: str, turn: str) -> None:
        self._tell = tell
        self._about = {"thread_id": thread, "codex_turn_id": turn}
        self._id = str(uuid.uuid4())

    def request(self, model: str, provider: str, request: ModelRequest) -> CompactionRequestTrace:
        """A request goes to the server."""
        ids = {"compaction_id": self._id, "compaction_request_id": str(uuid.uuid4())}
        body = request.body
        self._tell(
            "compaction_request_started",
            {
                **ids,
                **self._about,
                "model": model,
                "provider_name": provider,
                "request_payload": Payload("compaction_request", lambda: body),
            },
        )
        return CompactionRequestTrace(self._tell, ids)

    def installed(self, before: Sequence[ResponseItem], after: Sequence[ResponseItem]) -> None:
        """The history is another one now."""
        was, now = tuple(before), tuple(after)
        payload = Payload(
            "compaction_checkpoint",
            lambda: {
                "input_history": [encode(item) for item in was],
                "replacement_history": [encode(item) for item in now],
            },
        )
        self._tell("compaction_installed", {"compaction_id": self._id, "checkpoint_payload": payload})


@final
class CompactionRequestTrace:
    """One request to compact; it ends once. What streams is heard like a `RequestTrace`."""

    def __init__(self, tell: Tell, ids: dict[str, str]) -> None:
        self._tell = tell
        self._ids = ids
        self._items: list[ResponseItem] = []
        self._over = False
        self.upstream_id: str | None = None

    def item(self, item: ResponseItem) -> None:
        """An item of the response is complete."""
        self._items.append(item)

    def completed(self, response_id: str | None, usage: TokenUsage | None) -> None:
        """The response is complete."""
        items = tuple(self._items)
        self._answered(lambda: [encode(item) for item in items])

    def answered(self, output: Sequence[object]) -> None:
        """The server answered at once with `output`, as JSON."""
        self._answered(lambda: list(output))

    def failed(self, error: str) -> None:
        """The server did not answer, or the answer broke off."""
        self._end("compaction_request_failed", {"error": error})

    def cancelled(self, reason: str) -> None:
        """Nobody wanted the answer any more."""
        self.failed(reason)

    def _answered(self, output: Callable[[], list[object]]) -> None:
        payload = Payload("compaction_response", lambda: {"output_items": output()})
        self._end("compaction_request_completed", {"response_payload": payload})

    def _end(self, event: str, fields: dict[str, object]) -> None:
        if not self._over:
            self._over = True
            self._tell(event, {**self._ids, **fields})


def _encoded(kind: PayloadKind, msg: EventMsg) -> Payload:
    if isinstance(msg, SessionConfigured):
        msg = attrs.evolve(msg, initial_messages=None)  # the history is in the rollout, whose path is told
    return Payload(kind, lambda: encode(msg))


def _direct_response(item: ResponseItem) -> JsonObject:
    return {"type": "direct_response", "response_item": encode(item)}
