"""Image files as data URLs, checked by what they contain rather than by their name."""

from __future__ import annotations

import base64
import errno
import os
import stat
from typing import TYPE_CHECKING

from engine.tools.base import ToolError

if TYPE_CHECKING:
    from engine.tools.guarded_files import GuardedFileSystem

__all__ = ["image_data_url"]

MAX_IMAGE_BYTES = 20 * 1024 * 1024  # what hosted models accept at most, before base64

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def image_data_url(path: str, files: GuardedFileSystem | None = None) -> str:
    """The image at `path` as a `data:` URL. Blocking. Raises `ToolError` with the texts of tools.md 1.10.

    `files` says what may be read; None means everything.
    """
    if files is not None and not files.may_read(path):
        raise ToolError(f"unable to locate image at `{path}`: {os.strerror(errno.EACCES)}")
    try:
        found = os.stat(path)
    except OSError as exc:
        raise ToolError(f"unable to locate image at `{path}`: {exc.strerror}") from exc
    except ValueError as exc:  # a NUL, or what is no text
        raise ToolError(f"unable to locate image at `{path}`: {exc}") from exc
    if not stat.S_ISREG(found.st_mode):
        raise ToolError(f"image path `{path}` is not a file")
    if found.st_size > MAX_IMAGE_BYTES:
        raise ToolError(
            f"unable to process image at `{path}`: {found.st_size} bytes is more than the limit of {MAX_IMAGE_BYTES}"
        )
    try:
        content = _content(path) if files is None else files.read_bytes(path)
    except OSError as exc:
        raise ToolError(f"unable to read image at `{path}`: {exc.strerror}") from exc
    kind = _kind(content)
    if kind is None:
        raise ToolError(f"unable to process image at `{path}`: it is not a PNG, JPEG, GIF or WebP image")
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _kind(content: bytes) -> str | None:
    for magic, kind in _MAGIC:
        if content.startswith(magic):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return None
