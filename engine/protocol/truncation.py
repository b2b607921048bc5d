"""Cuts tool outputs to what the model may see: a head, a marker, a tail (tools.md 1.9, rollout.md 5.5).

Budgets are bytes of UTF-8, or tokens of four bytes. All functions return their argument itself when it fits.
"""

from __future__ import annotations

import math

from engine.protocol.items import InputImage, InputText, OutputContent
from engine.protocol.settings import TruncationPolicy
from engine.protocol.wire import UnknownVariant

__all__ = ["approx_tokens", "formatted_truncate", "scaled", "truncate_output", "truncate_text"]

BYTES_PER_TOKEN = 4


def approx_tokens(text: str) -> int:
    """The estimated number of tokens of `text`: one per four bytes, rounded up."""
    return -(-_size(text) // BYTES_PER_TOKEN)


def scaled(policy: TruncationPolicy, factor: float) -> TruncationPolicy:
    """The policy with its limit times `factor`, rounded up; outputs enter the history with 1.2 times the budget."""
    return TruncationPolicy(policy.mode, math.ceil(policy.limit * factor))


def truncate_text(text: str, policy: TruncationPolicy) -> str:
    """`text` within the budget, its middle replaced by `…N tokens truncated…` or `…N chars truncated…` if need be.

    The head has half of the budget, the tail the rest, both cut inwards at characters. The marker comes on top of
    the budget. N is the tokens over the budget, or the characters taken out.
    """
    budget = policy.byte_budget
    if len(text) * 4 <= budget:
        return text
    data = _utf8(text)
    if len(data) <= budget:
        return text
    half = budget // 2
    head = _whole_characters_before(data, half)
    tail = _whole_characters_after(data, len(data) - (budget - half))
    if policy.mode == "tokens":
        marker = f"…{-(-(len(data) - budget) // BYTES_PER_TOKEN)} tokens truncated…"
    else:
        marker = f"…{_characters(data[head:tail])} chars truncated…"
    return data[:head].decode("utf-8", "surrogatepass") + marker + data[tail:].decode("utf-8", "surrogatepass")


def formatted_truncate(text: str, policy: TruncationPolicy) -> str:
    """As `truncate_text`, but a cut text begins with its number of lines: commands, patches, user shell."""
    cut = truncate_text(text, policy)
    if cut is text:
        return text
    lines = text.count("\n") + (not text.endswith("\n"))
    return f"Total output lines: {lines}\n\n{cut}"


def truncate_output(content: OutputContent, policy: TruncationPolicy) -> OutputContent:
    """A tool output within the budget. Text parts use it up in order, images are free.

    The text part that does not fit is cut to what is left, later ones are left out and counted in one last note.
    """
    if isinstance(content, str):
        return truncate_text(content, policy)
    left = policy.limit
    omitted = 0
    changed = False
    kept: list[InputText | InputImage | UnknownVariant] = []
    for part in content:
        if not isinstance(part, InputText):
            kept.append(part)
            continue
        if left == 0:
            omitted += 1
            continue
        cost = _size(part.text) if policy.mode == "bytes" else approx_tokens(part.text)
        if cost <= left:
            kept.append(part)
            left -= cost
        else:
            kept.append(InputText(truncate_text(part.text, TruncationPolicy(policy.mode, left))))
            changed = True
            left = 0
    if omitted:
        kept.append(InputText(f"[omitted {omitted} text items ...]"))
    return tuple(kept) if omitted or changed else content


def _utf8(text: str) -> bytes:
    # Output of commands may hold lone surrogates; they must not make a budget fail.
    return text.encode("utf-8", "surrogatepass")


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(_utf8(text))


def _whole_characters_before(data: bytes, position: int) -> int:
    """`position`, moved back to the start of a character."""
    while 0 < position < len(data) and data[position] & 0xC0 == 0x80:
        position -= 1
    return position


def _whole_characters_after(data: bytes, position: int) -> int:
    """`position`, moved on to the start of a character."""
    while position < len(data) and data[position] & 0xC0 == 0x80:
        position += 1
    return position


def _characters(data: bytes) -> int:
    return sum(1 for byte in data if byte & 0xC0 != 0x80) if not data.isascii() else len(data)
