"""What stands in place of a history after it was compacted, and how one is made shorter to be compacted (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from engine.protocol.items import (
    CompactionItem,
    ContextCompactionItem,
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    LocalShellCall,
    Message,
    ResponseItem,
    ToolSearchCall,
    ToolSearchOutput,
    user_message,
)
from engine.protocol.settings import TruncationPolicy
from engine.protocol.truncation import approx_tokens, truncate_text
from engine.rollout.boundaries import is_contextual_user_message, user_text
from engine.session.compaction.estimate import history_tokens, inline_data
from engine.session.compaction.texts import is_summary

__all__ = [
    "USER_TOKENS",
    "after_local_summary",
    "after_remote",
    "retained",
    "with_context",
    "within_window",
    "without_oldest",
]

USER_TOKENS: Final = 20_000  # of what the user said; the newest of it
IMAGE_LEFT_OUT: Final = "[image left out when the conversation was compacted]"

_Call = FunctionCall | CustomToolCall | LocalShellCall | ToolSearchCall
_Output = FunctionCallOutput | CustomToolCallOutput | ToolSearchOutput


def after_local_summary(items: Iterable[ResponseItem], summary: str, budget: int = USER_TOKENS) -> list[ResponseItem]:
    """The newest user messages within `budget` tokens, the oldest of them cut to what is left; then the summary.

    Context, earlier summaries and images are left out.
    """
    newest_first: list[str] = []
    left = budget
    for text in reversed(_said_by_user(items)):
        tokens = approx_tokens(text)
        if tokens > left:
            if left > 0:
                newest_first.append(truncate_text(text, TruncationPolicy("tokens", left)))
            break
        newest_first.append(text)
        left -= tokens
    return [user_message(text) for text in (*reversed(newest_first), summary)]


def _said_by_user(items: Iterable[ResponseItem]) -> list[str]:
    texts: list[str] = []
    for item in items:
        if isinstance(item, Message) and item.role == "user" and not is_contextual_user_message(item):
            text = user_text(item)
            if text and not is_summary(text):
                texts.append(text)
    return texts


def after_remote(items: Sequence[ResponseItem], budget: int = USER_TOKENS) -> list[ResponseItem]:
    """Of what a server made of the history: what the user and the assistant said, and the opaque compactions.

    The server knows the images; they are not carried along (and stored) a second time. Nor is what the user said
    before the newest `budget` tokens of it, as it would be stored with each compaction again.
    """
    newest_first: list[ResponseItem] = []
    left = budget
    for item in reversed(items):
        if isinstance(item, CompactionItem | ContextCompactionItem):
            newest_first.append(item)
        elif isinstance(item, Message) and item.role == "assistant":
            newest_first.append(_without_inline_images(item))
        elif isinstance(item, Message) and item.role == "user" and not is_contextual_user_message(item) and left > 0:
            text = user_text(item)
            tokens = approx_tokens(text)
            cut = user_message(truncate_text(text, TruncationPolicy("tokens", left))) if tokens > left else item
            newest_first.append(_without_inline_images(cut))
            left -= tokens
    return newest_first[::-1]


def _without_inline_images(message: Message) -> Message:
    if not any(isinstance(part, InputImage) and inline_data(part) is not None for part in message.content):
        return message
    return attrs.evolve(
        message,
        content=tuple(
            InputText(IMAGE_LEFT_OUT) if isinstance(part, InputImage) and inline_data(part) is not None else part
            for part in message.content
        ),
    )


def retained(items: Iterable[ResponseItem]) -> list[ResponseItem]:
    """The messages that stay in front of an opaque compaction: all but the assistant's."""
    return [item for item in items if isinstance(item, Message) and item.role in ("user", "developer", "system")]


def with_context(history: Sequence[ResponseItem], context: Sequence[ResponseItem]) -> list[ResponseItem]:
    """The history with the turn's context in front of the last thing the user said; else of the summary, else of the
    last compaction, else at the end."""
    users = [at for at, item in enumerate(history) if isinstance(item, Message) and item.role == "user"]
    said = [at for at in users if not is_contextual_user_message(history[at]) and not _is_summary(history[at])]
    summaries = [at for at in users if _is_summary(history[at])]
    compactions = [at for at, item in enumerate(history) if isinstance(item, CompactionItem | ContextCompactionItem)]
    places = said or summaries or compactions or [len(history)]
    place = places[-1]
    return [*history[:place], *context, *history[place:]]


def _is_summary(item: ResponseItem) -> bool:
    return isinstance(item, Message) and is_summary(user_text(item))


def without_oldest(items: Sequence[ResponseItem], count: int = 1) -> list[ResponseItem]:
    """The history without its `count` oldest items, and without the calls and outputs that belong to them."""
    gone = {call_id for item in items[:count] if (call_id := _call_id(item)) is not None}
    return [item for item in items[count:] if _call_id(item) not in gone]


def _call_id(item: ResponseItem) -> str | None:
    return item.call_id if isinstance(item, _Call | _Output) else None


def within_window(items: Sequence[ResponseItem], window: int | None, instructions: str) -> list[ResponseItem]:
    """The history without tool outputs and developer messages at its end, as long as it is too long for `window`."""
    kept = list(items)
    while (
        window is not None
        and kept
        and (isinstance(kept[-1], _Output) or (isinstance(kept[-1], Message) and kept[-1].role == "developer"))
        and history_tokens(kept, instructions) > window
    ):
        kept.pop()
    return kept
