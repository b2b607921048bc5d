"""One model request of a turn: streams the response, starts its tools, records what came, retries what failed.

session.md 4.4 (step 6), 4.5, 4.7 and 4.8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from engine.errors import ContextWindowExceeded, ModelError
from engine.models import responses
from engine.protocol.events import (
    AgentMessageContentDelta,
    AgentReasoningSectionBreak,
    ModelReroute,
    ModelVerification,
    ReasoningContentDelta,
    ReasoningRawContentDelta,
    Warning,
)
from engine.protocol.ids import new_item_id
from engine.protocol.items import (
    CustomToolCall,
    FunctionCall,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    ResponseItem,
    SummaryText,
    WebSearchCall,
    message_text,
)
from engine.protocol.settings import TokenUsage
from engine.protocol.turn_items import AgentMessageItem, AgentText, ReasoningItem, WebSearchItem
from engine.records import define
from engine.session.history import without_noise
from engine.session.request_telling import ask
from engine.session.retrying import Retries
from engine.session.tool_calls import ResponseCalls

if TYPE_CHECKING:
    from engine.session.turn import TurnRun

__all__ = ["SampleOutcome", "sample"]

_Shown = AgentMessageItem | ReasoningItem | WebSearchItem


@define
class SampleOutcome:
    """What one response brought. `follow_up`: the model wants another request."""

    follow_up: bool = False
    last_message: str | None = None


async def sample(turn: TurnRun) -> SampleOutcome:
    """Requests until one response completes. Raises `ModelError` when it can't, `FatalToolError` from a tool."""
    retries = Retries(turn, turn.provider.stream_max_retries)
    while True:
        try:
            return await _Response(turn).run()
        except ContextWindowExceeded:
            turn.fill_window()
            raise
        except ModelError as exc:
            pause = retries.after(exc)
        await trio.sleep(pause)


@define(eq=False)
class _Response:
    """The state of one response while it streams."""

    turn: TurnRun
    outcome: SampleOutcome = attrs.field(factory=SampleOutcome, init=False)
    completed: bool = attrs.field(default=False, init=False)
    usage: TokenUsage | None = attrs.field(default=None, init=False)
    limits_seen: bool = attrs.field(default=False, init=False)
    shown: dict[str, str] = attrs.field(factory=dict, init=False)  # wire item id -> the id it was shown under
    active: str | None = attrs.field(default=None, init=False)

    async def run(self) -> SampleOutcome:
        turn = self.turn
        error: Exception | None = None
        calls: ResponseCalls | None = None
        try:
            async with trio.open_nursery() as nursery:
                calls = ResponseCalls(turn.registry, turn.tool_context, nursery, turn.core.trace)
                try:
                    async with ask(turn, turn.build_request()) as stream:
                        turn.note_response_headers(stream.headers)
                        async for event in stream:
                            self._handle(event, calls)
                except Exception as exc:  # must not cross the nursery: tools that run finish first
                    error = exc
        finally:
            # Also on the way out of an interrupt: what tools answered so far belongs into the history.
            if calls is not None:
                turn.tool_calls += len(calls)
                turn.record(calls.take_outputs())
                if self.completed or self.limits_seen:
                    turn.count_tokens(self.usage if self.completed else None)
        if calls.fatal is not None:
            raise calls.fatal
        if error is not None:
            raise error
        turn.emit_diff()
        return self.outcome

    def _handle(self, event: responses.ResponseEvent, calls: ResponseCalls) -> None:
        turn = self.turn
        match event:
            case responses.TextDelta():
                if (item_id := self._item(event.item_id)) is not None:
                    turn.note_first_token()
                    turn.emit(AgentMessageContentDelta(turn.thread_id, turn.id, item_id, event.delta))
            case responses.ReasoningSummaryDelta():
                if (item_id := self._item(event.item_id)) is not None and not turn.hide_reasoning:
                    turn.emit(ReasoningContentDelta(turn.thread_id, turn.id, item_id, event.delta, event.summary_index))
            case responses.ReasoningTextDelta():
                if (item_id := self._item(event.item_id)) is not None and turn.show_raw_reasoning:
                    turn.emit(
                        ReasoningRawContentDelta(turn.thread_id, turn.id, item_id, event.delta, event.content_index)
                    )
            case responses.ReasoningSummaryPartAdded():
                if (item_id := self._item(event.item_id)) is not None and not turn.hide_reasoning:
                    turn.emit(AgentReasoningSectionBreak(item_id, event.summary_index))
            case responses.ItemAdded():
                self._added(event.item)
            case responses.ItemDone():
                self._done(event.item, calls)
            case responses.Completed():
                self.completed = True
                self.usage = event.usage
                if event.end_turn is False:
                    self.outcome.follow_up = True
            case responses.ReasoningIncluded():
                turn.reasoning_counted = True
            case responses.RateLimits():
                self.limits_seen = True
                turn.note_rate_limits(event.snapshot)
            case responses.ServerModel():
                self._rerouted(event.model)
            case responses.VerificationRequested():
                if turn.first_time("model_verification"):
                    turn.emit(ModelVerification(event.verifications))
            case responses.ModelsEtag():
                turn.core.services.models.note_etag(turn.model.provider, event.etag)
            case _:
                pass  # created, custom tool input: nothing to tell or record

    def _item(self, wire_id: str) -> str | None:
        """The id a delta belongs to: its own item, else the one that is open."""
        return self.shown.get(wire_id, self.active)

    def _added(self, item: ResponseItem) -> None:
        turn = self.turn
        shown = _turn_item(item, turn.show_raw_reasoning)
        if shown is None or (isinstance(item, Reasoning) and turn.hide_reasoning):
            return
        if isinstance(shown, AgentMessageItem):
            turn.note_first_message()
        self.active = shown.id
        wire_id = getattr(item, "id", None)
        if isinstance(wire_id, str):
            self.shown[wire_id] = shown.id
        turn.item_started(shown)

    def _done(self, item: ResponseItem, calls: ResponseCalls) -> None:
        turn = self.turn
        item = without_noise(item)
        if isinstance(item, FunctionCall | CustomToolCall):
            turn.record([item])
            turn.note_first_token()
            self.outcome.follow_up = True
            calls.start(item)
            return
        self._show_done(item)
        if isinstance(item, Message) and item.role == "assistant":
            self.outcome.last_message = message_text(item)
            turn.note_first_token()
            turn.note_first_message()
        turn.record([item])

    def _show_done(self, item: ResponseItem) -> None:
        wire_id = getattr(item, "id", None)
        known = self.shown.pop(wire_id, None) if isinstance(wire_id, str) else None
        if known is None and self.active is not None and wire_id is None:
            known = self.active
        shown = _turn_item(item, self.turn.show_raw_reasoning, known)
        if shown is None or (isinstance(item, Reasoning) and self.turn.hide_reasoning):
            return
        if known is None:
            self.turn.item_started(shown)
        self.turn.item_completed(shown)
        self.active = None

    def _rerouted(self, model: str) -> None:
        turn = self.turn
        wanted = turn.model_info.slug
        if model.lower() == wanted.lower() or not turn.first_time("model_reroute"):
            return
        turn.emit(ModelReroute(wanted, model, "high_risk_cyber_activity"))
        turn.emit(
            Warning(
                f"The server answered with the model `{model}` instead of `{wanted}`, because it sees a raised "
                "cybersecurity risk in this request. "
                "Apply for trusted access at https://chatgpt.com/cyber; more at https://developers.openai.com/codex/concepts/cyber-safety"
            )
        )


def _turn_item(item: ResponseItem, raw_reasoning: bool, item_id: str | None = None) -> _Shown | None:
    """What people see of a response item; `None` where there is nothing to see."""
    match item:
        case Message(role="assistant"):
            texts = [part.text for part in item.content if isinstance(part, OutputText)]
            content = tuple(map(AgentText, texts))
            return AgentMessageItem(item_id or item.id or new_item_id(), content, phase=item.phase)
        case Reasoning():
            raw = tuple(part.text for part in item.content or () if isinstance(part, ReasoningText))
            return ReasoningItem(
                item_id or item.id or new_item_id(),
                tuple(part.text for part in item.summary if isinstance(part, SummaryText)),
                raw if raw_reasoning else (),
            )
        case WebSearchCall():
            action = item.action or {}
            query = action.get("query")
            return WebSearchItem(
                item_id or item.id or new_item_id(), query if isinstance(query, str) else "", item.action
            )
    return None
