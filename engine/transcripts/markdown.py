"""A transcript as Markdown: headings for turns, fences that nothing inside can end, tool calls folded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from engine.transcripts.entries import Called, Entry, Note, Opening, Said, Thought, TurnBegan
from engine.transcripts.images import Images, is_safe

__all__ = ["markdown"]

_WHO = {"user": "User", "assistant": "Assistant", "agent": "Another agent"}
_TICKS = re.compile(r"`+")


def markdown(entries: Iterable[Entry], *, title: str | None = None) -> Iterator[str]:
    """Pieces of the document, as they come. What the user and the model wrote is Markdown already and stays as is."""
    writer = _Markdown()
    if title is not None:
        yield f"# {_line(title)}\n\n"
    for entry in entries:
        yield writer.piece(entry)


class _Markdown:
    def __init__(self) -> None:
        self.images = Images()
        self.turns = 0

    def piece(self, entry: Entry) -> str:
        match entry:
            case Opening():
                rows = [("thread", entry.thread_id), ("started", entry.started), ("folder", entry.cwd)]
                rows.append(("written by", entry.originator))
                rows += [("provider", entry.model_provider)] if entry.model_provider else []
                rows += [("forked from", entry.forked_from)] if entry.forked_from else []
                return "".join(f"- {name}: {_code(value)}\n" for name, value in rows) + "\n"
            case TurnBegan(started_at=at):
                self.turns += 1
                return f"---\n\n## Turn {self.turns}{when(at)}\n\n"
            case Said(who=who, text=text, images=images):
                return f"### {_WHO[who]}\n\n{text.strip()}\n\n{self.shown(images)}"
            case Thought(text=text):
                quoted = "\n".join(f"> {line}".rstrip() for line in text.splitlines())
                return f"{quoted}\n\n"
            case Called():
                return self.call(entry)
            case Note(text=text, details=details):
                head = f"*{_line(text)}*\n\n"
                return head + (_folded("details", fence(details)) if details else "")

    def call(self, called: Called) -> str:
        inside = fence(called.input, called.language) if called.input else ""
        inside += "no result\n\n" if called.output is None else f"Result:\n\n{fence(called.output)}"
        return _folded(f"Tool: {called.name}", inside) + self.shown(called.images)

    def shown(self, images: tuple[str, ...]) -> str:
        made = ""
        for url in images:
            if not is_safe(url):
                made += f"(an image: {_code(url[:80])})\n\n"
                continue
            number, new = self.images.number(url)
            made += f"![image {number}][image-{number}]\n\n"
            made += f"[image-{number}]: {''.join(url.split())}\n\n" if new else ""
        return made


def when(unix: int | None) -> str:
    """` (2025-01-02 03:04:05 UTC)`, or nothing."""
    if unix is None:
        return ""
    try:
        return f" ({datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M:%S} UTC)"
    except (OverflowError, ValueError, OSError):
        return ""


def fence(text: str, language: str = "") -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in _TICKS.findall(text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text.rstrip(chr(10))}\n{ticks}\n\n"


def _code(text: str) -> str:
    text = " ".join(text.split())
    ticks = "`" * (max((len(run) for run in _TICKS.findall(text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _folded(summary: str, inside: str) -> str:
    escaped = _line(summary).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<details><summary>{escaped}</summary>\n\n{inside}</details>\n\n"


def _line(text: str) -> str:
    return " ".join(text.split())
