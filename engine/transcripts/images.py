"""Numbers images, so that a transcript holds each of them once; and says which URLs may stand in one."""

from __future__ import annotations

import hashlib
import re
from typing import final

__all__ = ["Images", "is_safe"]

# What a browser may load or show by itself. SVG is left out: opened alone, it is a document with scripts.
_SAFE = re.compile(
    r"https?://[^\s\"'<>]+|data:image/(?:png|jpe?g|gif|webp|bmp|avif);base64,[A-Za-z0-9+/=\s]*", re.IGNORECASE
)


def is_safe(url: str) -> bool:
    """Whether a URL is that of an image and nothing else."""
    return _SAFE.fullmatch(url) is not None


@final
class Images:
    """The images that were shown so far, by what they are."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def number(self, url: str) -> tuple[int, bool]:
        """The number of an image, from 1, and whether it is new."""
        key = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        known = self._numbers.get(key)
        if known is not None:
            return known, False
        self._numbers[key] = len(self._numbers) + 1
        return len(self._numbers), True
