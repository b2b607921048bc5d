"""What a listing shows of a rollout, read from its first and its last lines (rollout.md 3, 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import ProtocolError
from engine.protocol.events import UserMessage
from engine.protocol.rollout_items import EventLine, RolloutItem, SessionMeta, TurnContext
from engine.records import frozen
from engine.rollout.lines import decode_rollout_line
from engine.rollout.scan import BLANK, EVENT_MSG, SESSION_META, TURN_CONTEXT, Scan

if TYPE_CHECKING:
    from engine.rollout.scan import Source

__all__ = ["RolloutHead", "latest_turn_context", "preview_of", "read_head"]

HEAD_LINES = 10  # looked at in any case
PREVIEW_LINES = 200  # looked at beyond those while there is no preview
REQUEST_MARKER = "## My request for Codex:"
IMAGE_PREVIEW = "[Image]"


@frozen
class RolloutHead:
    """What the first lines tell. `complete`: looking at more lines would change nothing."""

    meta: SessionMeta | None
    preview: str | None
    complete: bool


def preview_of(message: UserMessage) -> str | None:
    """What a listing shows of a user message: the request in it, or that it is an image; `None` if it is empty."""
    _, marker, request = message.message.partition(REQUEST_MARKER)
    text = (request if marker else message.message).strip()
    if text:
        return text
    return IMAGE_PREVIEW if message.images or message.local_images else None


def read_head(data: Source, *, whole: bool) -> RolloutHead:
    """Meta and preview from the first lines of a rollout. `whole`: there are no more lines than those in `data`."""
    meta: SessionMeta | None = None
    preview: str | None = None
    view = memoryview(data)
    lines = 0
    for start, end, kind in Scan(data).forward():
        if kind == BLANK:
            continue
        lines += 1
        item = _decoded(view, start, end) if kind in (SESSION_META, EVENT_MSG) else None
        if isinstance(item, SessionMeta):
            meta = meta or item
        elif preview is None and isinstance(item, EventLine) and isinstance(item.msg, UserMessage):
            preview = preview_of(item.msg)
        if lines >= HEAD_LINES and (preview is not None or lines >= HEAD_LINES + PREVIEW_LINES):
            return RolloutHead(meta, preview, complete=True)
    return RolloutHead(meta, preview, complete=whole or (meta is not None and preview is not None))


def latest_turn_context(data: Source, *, whole: bool) -> TurnContext | None:
    """The last turn context at the end of a rollout. Unless `whole`, the first line in `data` may be a rest."""
    view = memoryview(data)
    for start, end, kind in Scan(data).backward():
        if start == 0 and not whole:
            return None
        if kind == TURN_CONTEXT:
            item = _decoded(view, start, end)
            if isinstance(item, TurnContext):
                return item
    return None


def _decoded(view: memoryview, start: int, end: int) -> RolloutItem | None:
    try:
        return decode_rollout_line(bytes(view[start:end]))
    except ProtocolError:
        return None
