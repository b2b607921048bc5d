"""Reads a rollout from end to end and says which lines can't be read, and why: the full count that a resume spares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from engine.errors import ProtocolError
from engine.protocol.codec import json_value
from engine.protocol.ids import ThreadId
from engine.protocol.rollout_items import SessionMeta
from engine.records import frozen
from engine.rollout.blocks import ByteSource, blocks
from engine.rollout.lines import decode_rollout_line
from engine.rollout.policy import is_known
from engine.rollout.scan import BLANK, COMPACTED, Scan

__all__ = ["PROBLEMS_KEPT", "LineProblem", "RolloutReport", "verify"]

PROBLEMS_KEPT: Final = 1000  # of a file that is damaged throughout, the first ones say enough


@frozen
class LineProblem:
    """A line that is lost: its number, counted from 1, its first and last offset in the file, and what is wrong."""

    number: int
    start: int
    end: int
    text: str


@frozen
class RolloutReport:
    """What a rollout holds.

    - `lines` that are not blank; `damaged` of them can't be read, `foreign` are of types of other versions
    - `problems`: the first `PROBLEMS_KEPT` damaged lines
    - `generation`: how many lines are compactions, as a resume counts them
    - `thread_id`: that of the first readable `session_meta`; a rollout without one is no thread
    - `torn`: the last line is a part of one, as a crash leaves it; it is among the damaged
    """

    thread_id: ThreadId | None
    lines: int
    damaged: int
    foreign: int
    generation: int
    torn: bool
    problems: tuple[LineProblem, ...]

    @property
    def clean(self) -> bool:
        """Whether it is a thread without damage."""
        return self.thread_id is not None and not self.damaged


def verify(source: ByteSource, progress: Callable[[int], None] = lambda position: None) -> RolloutReport:
    """Decodes every line; `progress` is told the offset reached, each megabyte or so. Raises what the source raises."""
    thread_id: ThreadId | None = None
    number = lines = damaged = foreign = generation = 0
    torn = False
    problems: list[LineProblem] = []
    for offset, data in blocks(source, 0, source.size):
        for start, end, kind in Scan(data).forward():
            number += 1
            if kind == BLANK:
                continue
            lines += 1
            generation += kind == COMPACTED
            line = data[start:end]
            try:
                item = decode_rollout_line(line)
            except ProtocolError as exc:
                damaged += 1
                torn = offset + len(data) == source.size and end == len(data) and not _is_json(line)
                if len(problems) < PROBLEMS_KEPT:
                    problems.append(LineProblem(number, offset + start, offset + end, _described(exc, torn=torn)))
                continue
            if isinstance(item, SessionMeta):
                thread_id = thread_id or item.id
            elif item is not None and not is_known(item):
                foreign += 1
        progress(offset + len(data))
    return RolloutReport(thread_id, lines, damaged, foreign, generation, torn, tuple(problems))


def _described(exc: ProtocolError, *, torn: bool) -> str:
    return f"torn: it ends in the middle ({exc})" if torn else str(exc)


def _is_json(line: bytes) -> bool:
    try:
        json_value(line)
    except ProtocolError:
        return False
    return True
