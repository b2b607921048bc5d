"""The `ordinal` that later writers give each line (rollout.md 9). They refuse a thread whose last line has none.

Where the lines of a file are numbered, whoever appends to it goes on counting; files that are not stay as they are.
"""

from __future__ import annotations

import re
from typing import Final

from engine.rollout.blocks import FIRST_BLOCK, ByteSource

__all__ = ["next_ordinal"]

_NUMBERED: Final = re.compile(
    rb'^[ \t]*\{\s*"timestamp"\s*:\s*"[^"\\\n]*"\s*,\s*"ordinal"\s*:\s*([0-9]{1,18})\s*[,}]', re.MULTILINE
)


def next_ordinal(source: ByteSource) -> int | None:
    """The number of the next line of a rollout; `None` where lines have none. Looks at its last lines only.

    Raises what the source raises.
    """
    size = FIRST_BLOCK
    while True:
        start = max(0, source.size - size)
        data = source.read(start, source.size)
        begin = data.find(b"\n") + 1 if start else 0
        if start and not (begin and data[begin:].strip()):
            size *= 2  # the last line is longer
            continue
        found = list(_NUMBERED.finditer(data, begin))
        return int(found[-1][1]) + max(1, data.count(b"\n", found[-1].start())) if found else None
