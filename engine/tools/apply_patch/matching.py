"""Find the place of each chunk in a file and make the new text (tools.md 2.3, content rules of 2.9). Knows no disk.

A search tries four readings of a line - exact, without trailing white space, without white space around, and that
with typographic dashes, quotes and spaces as ASCII - each over the whole rest of the file before the next. A reading
of the file is one string searched by `str.find`, whose cost is linear: a patch of many chunks walks a large file
once, not once per chunk.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby

from engine.records import frozen
from engine.tools.apply_patch.content import TextLines, split_text
from engine.tools.apply_patch.errors import ContextNotFound, LinesNotFound
from engine.tools.apply_patch.parser import WHITE_SPACE
from engine.tools.apply_patch.patch import Chunk, ChunkLine, LineKind

__all__ = ["LineFinder", "updated_text"]

_ASCII = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u2018\u2019\u201a\u201b", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f", '"'),
        **dict.fromkeys("\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "),
    }
)


def _exact(line: str) -> str:
    return line


def _without_tail(line: str) -> str:
    return line.rstrip(WHITE_SPACE)


def _trimmed(line: str) -> str:
    return line.strip(WHITE_SPACE)


def _plain(line: str) -> str:
    return line.strip(WHITE_SPACE).translate(_ASCII)


_READINGS: tuple[Callable[[str], str], ...] = (_exact, _without_tail, _trimmed, _plain)


class _Reading:
    """The whole file under one reading: a string in which every line stands between two newlines."""

    def __init__(self, lines: Sequence[str], read: Callable[[str], str]) -> None:
        self._read = read
        self._lines = lines if read is _exact else [read(line) for line in lines]
        self._text = "\n" + "".join(f"{line}\n" for line in self._lines)
        # _starts[i] is the newline before line i; the extra last entry is the newline after the last line.
        self._starts = array("q", accumulate((len(line) + 1 for line in self._lines), initial=0))

    def find(self, pattern: Sequence[str], start: int) -> int | None:
        wanted = "\n" + "".join(f"{self._read(line)}\n" for line in pattern)
        at = self._text.find(wanted, self._starts[start])
        return None if at < 0 else bisect_left(self._starts, at)

    def stands_at(self, pattern: Sequence[str], index: int) -> bool:
        return self._lines[index : index + len(pattern)] == [self._read(line) for line in pattern]


class LineFinder:
    """Searches blocks of lines in one file. The looser readings are made when first needed and kept."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._made: list[_Reading] = []

    def find(self, pattern: Sequence[str], start: int, *, at_end: bool = False) -> int | None:
        """Index of the first line of `pattern` at or after line `start`, None if it isn't there.

        With `at_end` the pattern must be the last lines of the file. An empty pattern stands at `start`.
        """
        last = len(self._lines) - len(pattern)
        if last < start:
            return None
        if not pattern:
            return start
        for level in range(len(_READINGS)):
            if at_end:
                if self._reading(level).stands_at(pattern, last):
                    return last
            elif (found := self._reading(level).find(pattern, start)) is not None:
                return found
        return None

    def _reading(self, level: int) -> _Reading:
        while len(self._made) <= level:
            self._made.append(_Reading(self._lines, _READINGS[len(self._made)]))
        return self._made[level]


@frozen
class _Edit:
    """`removed` lines of the file, from line `start` on, give way to `added`."""

    start: int
    removed: int
    added: list[str]


def updated_text(path: str, text: str, chunks: Sequence[Chunk]) -> str:
    """The text of a file after an update.

    Context lines and everything outside the chunks keep the file's own text and line endings; added lines take
    the ending of the file's first line; the last line gets one if it has none. `path` is for the errors:
    `ContextNotFound` and `LinesNotFound`.
    """
    lines = split_text(text)
    finder = LineFinder(lines.texts)
    edits: list[_Edit] = []
    cursor = 0
    for chunk in chunks:
        if chunk.context is not None:
            found = finder.find([chunk.context], cursor)
            if found is None:
                raise ContextNotFound(chunk.context, path)
            cursor = found + 1
        old = chunk.old_lines
        if not old:
            # A pure addition goes to the end of the file; its context has only moved the cursor.
            edits.append(_Edit(len(lines.texts), 0, chunk.new_lines))
            continue
        body: Sequence[ChunkLine] = chunk.lines
        start = finder.find(old, cursor, at_end=chunk.end_of_file)
        if start is None and old[-1] == "":
            body = _without_blank_tail(chunk.lines)
            start = finder.find(old[:-1], cursor, at_end=chunk.end_of_file)
        if start is None:
            raise LinesNotFound(old, path)
        cursor = _edits_of(body, start, edits)
    return _edited(lines, sorted(edits, key=lambda edit: edit.start))


def _edits_of(body: Sequence[ChunkLine], at: int, edits: list[_Edit]) -> int:
    """One edit per run of removed and added lines of a chunk found at line `at`; returns the line after the chunk."""
    for is_context, run in groupby(body, key=lambda line: line.kind is LineKind.CONTEXT):
        lines = list(run)
        if is_context:
            at += len(lines)
        else:
            added = [line.text for line in lines if line.kind is LineKind.ADD]
            removed = len(lines) - len(added)
            edits.append(_Edit(at, removed, added))
            at += removed
    return at


def _edited(lines: TextLines, edits: Sequence[_Edit]) -> str:
    parts: list[str] = []
    done = 0
    for edit in edits:
        parts += lines.raw[done : edit.start]
        parts += [line + lines.newline for line in edit.added]
        done = edit.start + edit.removed
    parts += lines.raw[done:]
    return "".join(parts)


def _without_blank_tail(body: Sequence[ChunkLine]) -> list[ChunkLine]:
    """The chunk without its last old line, which is blank, and without its last new line where that is blank too."""
    old = max(i for i, line in enumerate(body) if line.kind is not LineKind.ADD)
    new = max((i for i, line in enumerate(body) if line.kind is not LineKind.REMOVE), default=-1)
    if new >= 0 and body[new].text:
        new = -1
    shorter: list[ChunkLine] = []
    for i, line in enumerate(body):
        in_old = line.kind is not LineKind.ADD and i != old
        in_new = line.kind is not LineKind.REMOVE and i != new
        if in_old or in_new:
            kind = LineKind.CONTEXT if in_old and in_new else LineKind.REMOVE if in_old else LineKind.ADD
            shorter.append(ChunkLine(kind, line.text))
    return shorter
