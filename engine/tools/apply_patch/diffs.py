"""Unified diffs of two texts, with a bound on the work that a pair of large, unlike files can cause.

Small and similar parts are compared by Myers' shortest edit script. Where that would take too long, lines that occur
once on both sides are matched first and the gaps between them compared on their own; what then still has nothing in
common is shown as replaced.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from math import isqrt

from engine.tools.apply_patch.content import split_keeping_ends

__all__ = ["matching_lines", "unified_diff"]

# Steps of Myers' search allowed: some in any case, more per line compared, and never more than half a million.
_FREE_STEPS = 4_000
_STEPS_PER_LINE = 8
_MOST_STEPS = 500_000


def unified_diff(old: str, new: str, context: int) -> str:
    """The hunks (`@@ -1,3 +1,3 @@` and lines, no file header) with `context` lines around; empty if nothing changed."""
    if old == new:
        return ""
    old_lines, new_lines = split_keeping_ends(old), split_keeping_ends(new)
    changes = _changes(matching_lines(old_lines, new_lines), len(old_lines), len(new_lines))
    parts: list[str] = []
    for group in _grouped(changes, context):
        parts += _hunk(old_lines, new_lines, group, context)
    return "".join(parts)


# --- from matches to hunks -----------------------------------------------------------------------------

_Change = tuple[int, int, int, int]  # old start, old end, new start, new end


def _changes(matches: Iterable[tuple[int, int]], old_size: int, new_size: int) -> list[_Change]:
    """The gaps between matching lines."""
    changes: list[_Change] = []
    old_at = new_at = 0
    for old, new in [*matches, (old_size, new_size)]:
        if old > old_at or new > new_at:
            changes.append((old_at, old, new_at, new))
        old_at, new_at = old + 1, new + 1
    return changes


def _grouped(changes: Sequence[_Change], context: int) -> list[list[_Change]]:
    """Changes whose context lines touch or overlap share a hunk."""
    groups: list[list[_Change]] = []
    for change in changes:
        if groups and change[0] - groups[-1][-1][1] <= 2 * context:
            groups[-1].append(change)
        else:
            groups.append([change])
    return groups


def _hunk(old: Sequence[str], new: Sequence[str], group: Sequence[_Change], context: int) -> list[str]:
    first, last = group[0], group[-1]
    old_from, new_from = max(0, first[0] - context), max(0, first[2] - context)
    old_to, new_to = min(len(old), last[1] + context), min(len(new), last[3] + context)
    parts = [f"@@ -{_range(old_from, old_to)} +{_range(new_from, new_to)} @@\n"]
    at = old_from
    for old_start, old_end, new_start, new_end in group:
        parts += [_line(" ", line) for line in old[at:old_start]]
        parts += [_line("-", line) for line in old[old_start:old_end]]
        parts += [_line("+", line) for line in new[new_start:new_end]]
        at = old_end
    return parts + [_line(" ", line) for line in old[at:old_to]]


def _range(start: int, end: int) -> str:
    """One-based `start,count`; the count 1 is left out, and an empty range names the line before it."""
    count = end - start
    return str(start + 1) if count == 1 else f"{start + 1 if count else start},{count}"


def _line(sign: str, line: str) -> str:
    return sign + line if line.endswith(("\n", "\r")) else f"{sign}{line}\n\\ No newline at end of file\n"


# --- from lines to matches -----------------------------------------------------------------------------


def matching_lines(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of indices of equal lines, both increasing: as many as can be found within the bound on work."""
    matches: list[tuple[int, int]] = []
    todo = [(0, len(old), 0, len(new))]
    while todo:
        old_from, old_to, new_from, new_to = todo.pop()
        while old_from < old_to and new_from < new_to and old[old_from] == new[new_from]:
            matches.append((old_from, new_from))
            old_from, new_from = old_from + 1, new_from + 1
        while old_from < old_to and new_from < new_to and old[old_to - 1] == new[new_to - 1]:
            old_to, new_to = old_to - 1, new_to - 1
            matches.append((old_to, new_to))
        if old_from == old_to or new_from == new_to:
            continue
        old_part, new_part = old[old_from:old_to], new[new_from:new_to]
        shortest = _shortest_edit(old_part, new_part)
        if shortest is not None:
            matches += [(old_from + i, new_from + j) for i, j in shortest]
            continue
        anchors = _common_unique_lines(old_part, new_part)
        ends = [*anchors, (old_to - old_from, new_to - new_from)] if anchors else []
        old_at, new_at = old_from, new_from
        for i, j in ends:
            todo.append((old_at, old_from + i, new_at, new_from + j))
            old_at, new_at = old_from + i + 1, new_from + j + 1
        matches += [(old_from + i, new_from + j) for i, j in anchors]
    return sorted(matches)


def _shortest_edit(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]] | None:
    """The matches of a shortest edit script (Myers 1986, greedy), None when that takes more steps than allowed."""
    old_size, new_size = len(old), len(new)
    steps = min(_MOST_STEPS, _FREE_STEPS + _STEPS_PER_LINE * (old_size + new_size))
    limit = min(old_size + new_size, isqrt(2 * steps))
    # reach[limit + 1 + k] is how far into `old` the best path on diagonal k (old index - new index) has come.
    middle = limit + 1
    reach = array("q", [0]) * (2 * limit + 3)
    rounds: list[array[int]] = []
    for edits in range(limit + 1):
        rounds.append(reach[middle - edits - 1 : middle + edits + 2])
        for k in range(-edits, edits + 1, 2):
            at = middle + k
            x = reach[at + 1] if _goes_down(reach, at, k, edits) else reach[at - 1] + 1
            start, y = x, x - k
            while x < old_size and y < new_size and old[x] == new[y]:
                x, y = x + 1, y + 1
            reach[at] = x
            if x == old_size and y == new_size:
                return _walk_back(rounds, old_size, new_size)
            steps -= 1 + x - start
        if steps < 0:
            break
    return None


def _goes_down(reach: Sequence[int], at: int, k: int, edits: int) -> bool:
    """Whether the best path to diagonal `k` comes from the one above it, by an insertion."""
    return k == -edits or (k != edits and reach[at - 1] < reach[at + 1])


def _walk_back(rounds: Sequence[Sequence[int]], x: int, y: int) -> list[tuple[int, int]]:
    matches: list[tuple[int, int]] = []
    for edits in range(len(rounds) - 1, -1, -1):
        before, at = rounds[edits], x - y + edits + 1
        # Round 0 starts at the origin; any other one step right or down from the round before.
        step = 0 if edits == 0 else 1 if _goes_down(before, at, x - y, edits) else -1
        from_x = before[at + step] if edits else 0
        from_y = from_x - (x - y + step)
        while x > from_x and y > from_y:
            x, y = x - 1, y - 1
            matches.append((x, y))
        x, y = from_x, from_y
    return matches


def _common_unique_lines(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """The longest increasing run of lines that stand exactly once on each side."""
    once = {line for line, count in Counter(old).items() if count == 1}
    once &= {line for line, count in Counter(new).items() if count == 1}
    places = {line: j for j, line in enumerate(new) if line in once}
    pairs = [(i, places[line]) for i, line in enumerate(old) if line in once]
    # Patience sorting: tops[n] is the smallest end of an increasing run of length n + 1, previous links the runs.
    tops: list[int] = []
    ends: list[int] = []
    previous: list[int] = []
    for index, (_, j) in enumerate(pairs):
        length = bisect_left(tops, j)
        previous.append(ends[length - 1] if length else -1)
        tops[length : length + 1] = [j]
        ends[length : length + 1] = [index]
    run: list[tuple[int, int]] = []
    index = ends[-1] if ends else -1
    while index >= 0:
        run.append(pairs[index])
        index = previous[index]
    return run[::-1]
