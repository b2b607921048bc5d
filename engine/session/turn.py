"""One turn, from input to its last event (session.md 4.4): context, user message, requests until the model is done."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from engine.errors import (
    ConfigError,
    EngineError,
    ModelError,
    SessionClosed,
    SessionCrashed,
    TurnFailed,
    TurnInterrupted,
)
from engine.protocol.events import (
    ErrorEvent,
    EventMsg,
    ItemCompleted,
    ItemStarted,
    TaskComplete,
    TaskStarted,
    TokenCount,
    TurnDiff,
    Warning,
)
from engine.protocol.ids import ThreadId, TurnId, new_item_id
from engine.protocol.inputs import ImageInput, LocalImageInput, TextInput, UserInput
from engine.protocol.items import ContentPart, InputImage, InputText, Message, ResponseItem
from engine.protocol.rollout_items import TurnContext
from engine.protocol.settings import TokenUsage, TokenUsageInfo
from engine.protocol.turn_items import TurnItem, UserMessageItem
from engine.protocol.wire import JsonObject
from engine.records import define
from engine.session.compaction.compacting import compact
from engine.session.compaction.triggers import compact_before_turn, compact_within_turn
from engine.session.context import TurnFacts, context_items, tells_permissions, turn_context
from engine.session.history import History
from engine.session.permission_text import asks_by_parameters
from engine.session.request import RequestFacts, build_request
from engine.session.sampling import sample
from engine.session.settings import TurnResult
from engine.session.submissions import Reply
from engine.session.telling import tell_input, telling
from engine.tools.base import FatalToolError, ToolContext
from engine.tools.images import image_data_url
from engine.tools.registry import ToolRegistry

if TYPE_CHECKING:
    from engine.config.providers import ProviderInfo
    from engine.exec_policy.rules import PrefixRule
    from engine.models.base import ModelRequest, ModelSession
    from engine.models.catalogue import ModelInfo
    from engine.session.core import SessionCore
    from engine.session.delivery import EventHub

__all__ = ["Fence", "TurnRun"]


@define(eq=False)
class Fence:
    """What a turn emits passes here; once it is closed, late events and items of the turn are dropped."""

    hub: EventHub
    turn_id: TurnId
    open: bool = True

    def emit(self, msg: EventMsg) -> None:
        """Emits an event of the turn while the fence is open."""
        if self.open:
            self.hub.emit(self.turn_id, msg)

    def emit_always(self, msg: EventMsg) -> None:
        """Emits an event that may come after the turn, e.g. the end of a background terminal."""
        self.hub.emit(self.turn_id, msg)


@define(eq=False, kw_only=True)
class TurnRun:
    """A running turn. Everything it emits and records goes through its fence."""

    core: SessionCore
    id: TurnId
    kind: Literal["regular", "compact", "user_shell"]
    facts: TurnFacts
    fence: Fence
    model: ModelSession
    model_info: ModelInfo
    registry: ToolRegistry
    tool_context: ToolContext
    input: tuple[UserInput, ...]
    output_schema: JsonObject | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    finished: trio.Event = attrs.field(factory=trio.Event)
    result: Reply[TurnResult] = attrs.field(factory=Reply)
    over: bool = False
    pending: deque[tuple[UserInput, ...] | Message] = attrs.field(factory=deque)
    started_at: float = attrs.field(factory=time.time)
    installation_id: str = ""
    reasoning_counted: bool = False
    """Whether the server said that its totals include the reasoning of earlier turns."""
    _began: float = attrs.field(factory=time.perf_counter)
    tool_calls: int = 0
    """How many calls its responses brought."""
    _first_token: float | None = None
    _first_message: float | None = None
    _last_message: str | None = None
    _error: TurnFailed | None = None
    _seen: set[str] = attrs.field(factory=set)
    _turn_state: str | None = None
    _usage: TokenUsage = attrs.field(factory=TokenUsage)
    _shown_diff: str | None = None

    # --- what sampling and tools use -----------------------------------------------------------

    @property
    def thread_id(self) -> ThreadId:
        """The thread the turn belongs to."""
        return self.core.thread_id

    @property
    def provider(self) -> ProviderInfo:
        """The provider of the model."""
        return self.model.provider

    @property
    def hide_reasoning(self) -> bool:
        """Whether reasoning is kept from subscribers."""
        return self.facts.configuration.config.hide_agent_reasoning

    @property
    def show_raw_reasoning(self) -> bool:
        """Whether raw reasoning may be shown."""
        return self.facts.configuration.config.show_raw_agent_reasoning

    @property
    def open(self) -> bool:
        """Whether the turn may still emit and record."""
        return self.fence.open

    def emit(self, msg: EventMsg) -> None:
        """Emits an event of this turn."""
        self.fence.emit(msg)

    def item_started(self, item: TurnItem) -> None:
        """A turn item is there."""
        self.emit(ItemStarted(self.thread_id, self.id, item, started_at_ms=_now_ms()))

    def item_completed(self, item: TurnItem) -> None:
        """A turn item is finished."""
        self.emit(ItemCompleted(self.thread_id, self.id, item, completed_at_ms=_now_ms()))

    def record(self, items: Sequence[ResponseItem]) -> None:
        """Adds items to history and rollout, and announces them."""
        if self.open and items:
            self.core.history.record(items, self.facts.truncation)
            self.core.hub.record(self.id, items)

    def build_request(self) -> ModelRequest:
        """The request for the history as it is now."""
        return self._request(self.core.history.for_request(images="image" in self.model_info.input_modalities))

    def request_for(
        self, items: Sequence[ResponseItem], model: ModelInfo, *, tools: list[JsonObject] | None = None
    ) -> ModelRequest:
        """A request of `model` about another history, without an output schema. `tools`: default the turn's."""
        history = History()
        history.replace(items)
        specs = self.registry.specs() if tools is None else tools
        shown = history.for_request(images="image" in model.input_modalities)
        return build_request(self._request_facts(model, None), shown, specs, self._turn_state)

    async def warm_request(self) -> ModelRequest:
        """A request with nothing to answer."""
        self.installation_id = await self.core.services.installation_id()
        return self._request([])

    def _request(self, items: list[JsonObject]) -> ModelRequest:
        facts = self._request_facts(self.model_info, self.output_schema)
        return build_request(facts, items, self.registry.specs(), self._turn_state)

    def _request_facts(self, model: ModelInfo, output_schema: JsonObject | None) -> RequestFacts:
        return RequestFacts(
            thread_id=self.thread_id,
            session_id=self.core.session_id,
            turn_id=self.id,
            generation=self.core.generation,
            installation_id=self.installation_id,
            configuration=self.facts.configuration,
            model=model,
            instructions=self.core.base_instructions,
            effort=self.facts.effort,
            summary=self.facts.summary,
            output_schema=output_schema,
            started_at_ms=int(self.started_at * 1000),
        )

    def note_response_headers(self, headers: Mapping[str, str]) -> None:
        """Keeps what the server wants to see again within this turn; the first value wins."""
        if self._turn_state is None:
            self._turn_state = headers.get("x-codex-turn-state")

    def note_first_token(self) -> None:
        """The model said something."""
        if self._first_token is None:
            self._first_token = time.perf_counter()

    def note_first_message(self) -> None:
        """The model began to say something to the user."""
        if self._first_message is None:
            self._first_message = time.perf_counter()

    def first_time(self, key: str) -> bool:
        """Whether this is the first call with `key` in this turn."""
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def note_rate_limits(self, snapshot: JsonObject) -> None:
        """Keeps rate limits for the next `token_count`."""
        self.core.rate_limits = snapshot

    def count_tokens(self, usage: TokenUsage | None) -> None:
        """Adds the usage of a response and tells the totals."""
        if usage is not None:
            self._usage += usage
            before = self.core.usage.total_token_usage if self.core.usage is not None else TokenUsage()
            self.core.usage = TokenUsageInfo(before + usage, usage, self.model_info.effective_context_window)
        self.emit(TokenCount(self.core.usage, self.core.rate_limits))

    def fill_window(self) -> None:
        """The server says the context is full: so does the usage from now on."""
        window = self.model_info.effective_context_window
        full = TokenUsage(total_tokens=window or 0)
        self.core.usage = TokenUsageInfo(full, full, window)
        self.emit(TokenCount(self.core.usage, self.core.rate_limits))

    def estimate_tokens(self) -> None:
        """The history is another one: the usage of the window is what that is estimated at; the totals stay."""
        self.core.estimate_usage(self.model_info.effective_context_window)
        self.emit(TokenCount(self.core.usage, self.core.rate_limits))

    def emit_diff(self) -> None:
        """Tells the net change of the turn's patches, when it changed."""
        diff = self.tool_context.turn_diff.unified_diff()
        if diff is not None and diff != (self._shown_diff or ""):
            self._shown_diff = diff
            self.emit(TurnDiff(diff))

    # --- the turn itself -----------------------------------------------------------------------

    async def run(self) -> None:
        """Runs to the end; an abort cancels `scope`, and whoever aborted says how the turn ended."""
        try:
            with self.scope, telling(self):
                try:
                    await self._body()
                except EngineError as exc:
                    self._fail(exc)
                await self._end()
        finally:
            self.finished.set()

    async def _body(self) -> None:
        self.emit(
            TaskStarted(
                self.id,
                started_at=int(self.started_at),
                model_context_window=self.model_info.effective_context_window,
                collaboration_mode_kind=self.facts.configuration.collaboration.mode,
            )
        )
        await self.core.use_prewarm(self.provider.websocket_connect_timeout_ms / 1000)
        self.installation_id = await self.core.services.installation_id()
        await self.core.settle_past()
        await self.core.generation_counted()
        if self.kind == "compact":
            await compact(self, "manual")
            return
        await compact_before_turn(self)
        await self._record_context()
        await self._record_user_input(self.input)
        self.core.previous_model = self.model_info.slug
        while True:
            await self.core.hub.room()
            outcome = await sample(self)
            if outcome.last_message is not None:
                self._last_message = outcome.last_message
            if not outcome.follow_up and not self.pending:
                return
            # The model goes on where it was first: what is pending waits for the request after that.
            if not await compact_within_turn(self) or not outcome.follow_up:
                await self._drain_pending()

    async def _record_context(self) -> None:
        core = self.core
        self.record(await self.context_after(core.reference))
        if self.open:
            core.reference = turn_context(self.facts)
            core.hub.persist([core.reference])

    async def context_after(self, reference: TurnContext | None) -> list[ResponseItem]:
        """What is told of the turn's settings to a model that knows `reference`; without one, all of it."""
        now = turn_context(self.facts)
        allowed = await self._allowed_commands() if tells_permissions(self.facts, now, reference) else ()
        return context_items(self.facts, now, reference, self.core.previous_model, allowed)

    async def _allowed_commands(self) -> Sequence[PrefixRule]:
        """The rules that allow commands, where the model is told about them; a broken file tells nothing here."""
        if not asks_by_parameters(self.facts.configuration.approval_policy):
            return ()
        try:
            policy = await self.core.resources().approvals.rules.policy(lambda text: self.emit(Warning(text)))
        except ConfigError:
            return ()  # each command that can't run for it says so
        return [rule for rule in policy.prefix_rules if rule.decision == "allow"]

    async def _record_user_input(self, items: tuple[UserInput, ...]) -> None:
        tell_input(self, items)
        content = await _content(items)
        shown = UserMessageItem(new_item_id(), items)
        self.record([Message(role="user", content=content)])
        self.item_started(shown)
        self.item_completed(shown)

    async def _drain_pending(self) -> None:
        while self.pending:
            entry = self.pending.popleft()
            if isinstance(entry, Message):
                self.record([entry])
            else:
                await self._record_user_input(entry)

    def _fail(self, exc: EngineError) -> None:
        info: str | JsonObject | None = "other"
        message = str(exc)
        if isinstance(exc, ModelError):
            info, message = exc.info, exc.message
        elif isinstance(exc, FatalToolError):
            message = f"Fatal error: {exc}"
        self._error = TurnFailed(message, info=info)
        self._error.__cause__ = exc
        self._last_message = None
        self.emit(ErrorEvent(message, info))

    async def _end(self) -> None:
        await self._drain_pending()
        problem = await self.core.flush_quietly()
        await self._drain_pending()  # what came meanwhile has steered this turn: recorded now, answered by the next
        if problem is not None:
            self.emit(
                Warning(f"Failed to save the conversation transcript; Codex will continue retrying. Error: {problem}")
            )
        if self.open:
            self._complete()

    @trio.lowlevel.enable_ki_protection  # Ctrl-C finds the turn going on or over, and nothing in between
    def _complete(self) -> None:
        self.emit(
            TaskComplete(
                self.id,
                self._last_message,
                completed_at=int(time.time()),
                duration_ms=self.duration_ms(),
                time_to_first_token_ms=self.first_token_ms(),
            )
        )
        if self._error is not None:
            self.conclude(self._error)
        else:
            self.conclude_ok()

    def conclude_ok(self) -> None:
        """The turn completed."""
        usage = self.core.usage
        self.conclude(
            TurnResult(
                id=self.id,
                final_message=self._last_message,
                usage=self._usage,
                total_usage=usage.total_token_usage if usage is not None else TokenUsage(),
                duration_ms=self.duration_ms(),
            )
        )

    def duration_ms(self) -> int:
        """Milliseconds since the turn began."""
        return int((time.perf_counter() - self._began) * 1000)

    def first_token_ms(self) -> int | None:
        """Milliseconds until the model said something; `None` while it has not."""
        return None if self._first_token is None else int((self._first_token - self._began) * 1000)

    def first_message_ms(self) -> int | None:
        """Milliseconds until the model spoke to the user; `None` while it has not."""
        return None if self._first_message is None else int((self._first_message - self._began) * 1000)

    @property
    def tokens_used(self) -> TokenUsage:
        """What the responses of this turn used so far."""
        return self._usage

    def conclude(self, outcome: TurnResult | TurnFailed | TurnInterrupted | SessionCrashed | SessionClosed) -> None:
        """The turn is over: closes the fence; who waits for the result hears it after the turn's last event."""
        self.fence.open = False
        self.over = True
        self.core.turn_over(self)
        if isinstance(outcome, TurnResult):
            self.core.hub.then(functools.partial(self.result.answer, outcome))
        else:
            self.core.hub.then(functools.partial(self.result.fail, outcome))


async def _content(items: tuple[UserInput, ...]) -> tuple[ContentPart, ...]:
    """What the model sees of user input; images on disk are read in a worker thread."""
    parts: list[ContentPart] = []
    for item in items:
        match item:
            case TextInput():
                parts.append(InputText(item.text))
            case ImageInput():
                parts.append(InputImage(item.image_url, detail=item.detail))
            case LocalImageInput():
                try:
                    url = await trio.to_thread.run_sync(image_data_url, item.path)
                except EngineError as exc:
                    parts.append(InputText(f"The local image could not be attached: {exc}"))
                else:
                    parts.append(InputImage(url, detail=item.detail))
            case _:
                pass  # mentions of skills and apps have no text of their own
    return tuple(parts)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
