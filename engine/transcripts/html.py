"""A transcript as one HTML file that needs nothing else: everything escaped, no script, tool calls folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from engine.transcripts.entries import Called, Entry, Note, Opening, Said, Thought, TurnBegan
from engine.transcripts.images import Images, is_safe
from engine.transcripts.markdown import when

__all__ = ["html"]

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h2 { border-top: 1px solid #8884; padding-top: 1rem; font-size: 1.1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; } dt { opacity: .7; } dd { margin: 0; }
.text, pre { white-space: pre-wrap; overflow-wrap: anywhere; }
pre { font: 13px/1.4 ui-monospace, monospace; background: #8881; padding: .6rem; border-radius: 6px; }
.said { border-left: 4px solid #8886; padding-left: .8rem; margin: 1rem 0; }
.user { border-color: #28c; } .assistant { border-color: #2a7; } .who { font-weight: 600; }
.thought, .note { opacity: .75; font-style: italic; } summary { cursor: pointer; } img { max-width: 100%; }
"""
# No script, no style but ours, no picture but those that are inside or on the web.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data: http: https:"
_WHO = {"user": "User", "assistant": "Assistant", "agent": "Another agent"}


def html(entries: Iterable[Entry], *, title: str = "Transcript") -> Iterator[str]:
    """Pieces of the document, as they come."""
    yield (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="referrer" content="no-referrer">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escaped(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escaped(title)}</h1>\n"
    )
    writer = _Html()
    for entry in entries:
        yield writer.piece(entry)
    yield "</body>\n</html>\n"


def escaped(text: str) -> str:
    """Text that no character of which is markup; what HTML can't hold is replaced."""
    kept = "".join(char if char in "\n\t" or ord(char) >= 32 else "\N{REPLACEMENT CHARACTER}" for char in text)
    return escape(kept.encode("utf-8", "replace").decode())


class _Html:
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
                return "<dl>" + "".join(f"<dt>{name}</dt><dd>{escaped(value)}</dd>" for name, value in rows) + "</dl>\n"
            case TurnBegan(started_at=at):
                self.turns += 1
                return f'<h2 id="turn-{self.turns}">Turn {self.turns}{when(at)}</h2>\n'
            case Said(who=who, text=text, images=images):
                head = f'<div class="said {who}"><div class="who">{_WHO[who]}</div>'
                return f'{head}<div class="text">{escaped(text.strip())}</div>{self.shown(images)}</div>\n'
            case Thought(text=text):
                return f'<div class="thought text">{escaped(text)}</div>\n'
            case Called():
                return self.call(entry)
            case Note(text=text, details=details):
                more = f"<details><summary>details</summary>{_pre(details)}</details>" if details else ""
                return f'<div class="note">{escaped(text)}{more}</div>\n'

    def call(self, called: Called) -> str:
        inside = _pre(called.input) if called.input else ""
        inside += "<p>no result</p>" if called.output is None else f"<p>Result</p>{_pre(called.output)}"
        head = f'<details class="call"><summary>Tool: {escaped(called.name)}</summary>'
        return f"{head}{inside}</details>{self.shown(called.images)}\n"

    def shown(self, images: tuple[str, ...]) -> str:
        made = ""
        for url in images:
            if not is_safe(url):
                made += f"<p>(an image: {escaped(url[:80])})</p>"
                continue
            number, new = self.images.number(url)
            if new:
                made += f'<p><img id="image-{number}" alt="image {number}" src="{escaped("".join(url.split()))}"></p>'
            else:
                made += f'<p><a href="#image-{number}">image {number}</a>, as above</p>'
        return made


def _pre(text: str) -> str:
    return f"<pre>{escaped(text)}</pre>"
