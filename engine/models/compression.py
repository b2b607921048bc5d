"""Compression of request bodies; the library is loaded by the first request that is compressed (session.md 4.6)."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["compressed", "decompressed"]

LEVEL: Final = 3


def compressed(body: bytes) -> bytes:
    """`body` as Zstandard. Blocks: some milliseconds per megabyte, and the first time the import."""
    if sys.version_info >= (3, 14):
        from compression.zstd import compress
    else:
        from backports.zstd import compress
    return compress(body, LEVEL)


def decompressed(data: bytes, limit: int) -> bytes:
    """What a Zstandard body holds. Blocks as `compressed` does. Raises `ValueError`, also beyond `limit` bytes."""
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor, ZstdError
    else:
        from backports.zstd import ZstdDecompressor, ZstdError
    reader = ZstdDecompressor()
    try:
        body = reader.decompress(data, limit)
    except ZstdError as exc:
        raise ValueError(str(exc)) from None
    if not reader.eof:
        raise ValueError("cut off, or too large")
    return body
