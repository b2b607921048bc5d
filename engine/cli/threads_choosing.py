"""Finds the thread a person means: by id, the beginning of one, its name, or the path of its rollout."""

from __future__ import annotations

import os
import re
from pathlib import Path

from engine.cli.terminal import plain
from engine.errors import InvalidRequest, ThreadNotFound
from engine.protocol.ids import ThreadId
from engine.records import frozen
from engine.rollout.names import parse_rollout_name
from engine.thread_store.finding import rollouts
from engine.thread_store.names import ThreadNames
from engine.thread_store.places import is_archived

__all__ = ["Chosen", "choose"]

SHOWN = 5  # candidates a message names

_BEGINNING = re.compile(r"[0-9a-f]{4,8}(?:-[0-9a-f-]*)?")


@frozen
class Chosen:
    """A rollout that was found. `thread_id` is what its name says, `""` if it says nothing."""

    thread_id: ThreadId
    path: str
    archived: bool


def choose(home: Path, word: str) -> Chosen:
    """The one thread that `word` means; archived ones count. Raises `ThreadNotFound`, or `InvalidRequest` for several.

    An id wins over a name, a name over the beginning of an id.
    """
    if os.sep in word or word.endswith(".jsonl"):
        path = os.path.abspath(word)
        if not os.path.lexists(path):
            raise ThreadNotFound(f"there is no file {path}", thread=word)
        name = parse_rollout_name(os.path.basename(path))
        return Chosen(ThreadId("") if name is None else name.thread_id, path, is_archived(home, path))
    found = _all(home)
    exact = found.get(ThreadId(word.lower()))
    if exact is not None:
        return exact
    names = ThreadNames(home)
    names.refresh()
    named = [found[thread] for thread in sorted(names.having(word)) if thread in found]
    beginning = word.lower()
    begun = [each for thread, each in found.items() if thread.startswith(beginning)]
    candidates = named or (begun if _BEGINNING.match(beginning) else [])
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise ThreadNotFound(
            f"no thread has the id or the name {plain(word)!r}; `engine threads list` shows them", thread=word
        )
    shown = ", ".join(each.thread_id for each in candidates[:SHOWN])
    more = f" and {len(candidates) - SHOWN} more" if len(candidates) > SHOWN else ""
    what = "have the name" if named else "begin with"
    raise InvalidRequest(f"{len(candidates)} threads {what} {plain(word)!r}: {shown}{more}; give a whole id")


def _all(home: Path) -> dict[ThreadId, Chosen]:
    """Every thread by id; of two files of one, that which counts."""
    found: dict[ThreadId, Chosen] = {}
    for archived in (False, True):
        for path, name in rollouts(home, archived=archived):
            found.setdefault(name.thread_id, Chosen(name.thread_id, path, archived))
    return found
