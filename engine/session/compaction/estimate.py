"""How many tokens a history takes, as far as that can be told without asking the model (session.md 4.9).

Four bytes of JSON are a token. Encrypted content and inline images take what they are worth to a model, not their size.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from engine.protocol.codec import encode, json_bytes
from engine.protocol.items import (
    CompactionItem,
    ContextCompactionItem,
    CustomToolCallOutput,
    FunctionCallOutput,
    InputImage,
    Message,
    Reasoning,
    ResponseItem,
    ToolSearchOutput,
)
from engine.protocol.truncation import BYTES_PER_TOKEN, approx_tokens
from engine.rollout.boundaries import is_user_turn_boundary

__all__ = ["active_tokens", "history_tokens", "item_tokens"]

IMAGE_BYTES: Final = 7373  # an inline image that the server scales down
PATCH: Final = 32  # pixels; images in original size are counted in squares of this side
MOST_PATCHES: Final = 10_000
ENCRYPTION_OVERHEAD: Final = 650  # bytes


def item_tokens(item: ResponseItem) -> int:
    """The estimate for one item."""
    if isinstance(item, Reasoning | CompactionItem | ContextCompactionItem) and item.encrypted_content:
        return _tokens(max(0, len(item.encrypted_content) * 3 // 4 - ENCRYPTION_OVERHEAD))
    size = len(json_bytes(encode(item)))
    for image in _images(item):
        data = inline_data(image)
        if data is not None:
            size += _image_bytes(image, data) - len(data)
    return _tokens(size)


def history_tokens(items: Iterable[ResponseItem], instructions: str) -> int:
    """The estimate for a whole history and the base instructions."""
    return approx_tokens(instructions) + sum(map(item_tokens, items))


def active_tokens(items: Sequence[ResponseItem], last_total: int, *, reasoning_included: bool) -> int:
    """What the next request takes: the last response's total, and what came since.

    `reasoning_included`: the server counts the encrypted reasoning of earlier turns itself.
    """
    since = len(items)
    for position in range(len(items) - 1, -1, -1):
        if _is_of_model(items[position]):
            since = position + 1
            break
    total = last_total + sum(item_tokens(items[position]) for position in range(since, len(items)))
    return total if reasoning_included else total + _earlier_reasoning(items)


def inline_data(image: InputImage) -> str | None:
    """The base64 data of an image that is carried along; `None` for one that is somewhere else."""
    head, comma, data = image.image_url.partition(",")
    return data if comma and head.startswith("data:") and head.endswith(";base64") else None


def _tokens(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)


def _images(item: ResponseItem) -> Iterator[InputImage]:
    if isinstance(item, Message):
        yield from (part for part in item.content if isinstance(part, InputImage))
    elif isinstance(item, FunctionCallOutput | CustomToolCallOutput) and not isinstance(item.output, str):
        yield from (part for part in item.output if isinstance(part, InputImage))


def _image_bytes(image: InputImage, data: str) -> int:
    if image.detail != "original":
        return IMAGE_BYTES
    width, height = _size_of(data) or (PATCH * MOST_PATCHES, PATCH)
    patches = -(-width // PATCH) * -(-height // PATCH)
    return min(patches, MOST_PATCHES) * BYTES_PER_TOKEN


def _size_of(data: str) -> tuple[int, int] | None:
    """Width and height that the head of a PNG or GIF names."""
    try:
        head = base64.b64decode(data[:32], validate=True)
    except (binascii.Error, ValueError):
        return None
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) == 24:
        width, height = struct.unpack(">II", head[16:24])
    elif head.startswith((b"GIF87a", b"GIF89a")) and len(head) >= 10:
        width, height = struct.unpack("<HH", head[6:10])
    else:
        return None
    return (width, height) if width and height else None


def _is_of_model(item: ResponseItem) -> bool:
    if isinstance(item, Message):
        return item.role == "assistant"
    return not isinstance(item, FunctionCallOutput | CustomToolCallOutput | ToolSearchOutput)


def _earlier_reasoning(items: Sequence[ResponseItem]) -> int:
    """The encrypted reasoning before the last user turn, which servers leave out of their count."""
    boundary = next((at for at in range(len(items) - 1, -1, -1) if is_user_turn_boundary(items[at])), 0)
    return sum(
        item_tokens(items[at])
        for at in range(boundary)
        if isinstance(item := items[at], Reasoning) and item.encrypted_content
    )
