"""`engine threads export`: a thread as a readable file, or on stdout, written piece by piece."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from engine.errors import EngineError, InvalidRequest, ProtocolError, StoreError
from engine.protocol.rollout_items import RolloutItem
from engine.rollout.blocks import blocks
from engine.rollout.lines import decode_rollout_line
from engine.rollout.scan import BLANK, Scan
from engine.thread_store.rollout_bytes import RolloutBytes
from engine.transcripts.entries import entries
from engine.transcripts.html import html
from engine.transcripts.markdown import markdown

__all__ = ["export"]

Progress = Callable[[int, int], None]  # bytes read, of how many


def export(path: str, title: str, *, output: str | None, as_html: bool, force: bool, progress: Progress) -> int:
    """Writes the rollout at `path`; how many of its lines can't be read and are left out.

    Raises `InvalidRequest` if `output` is there and `force` is not set, `StoreError` where it can't be read or written.
    """
    if output is not None and not force and os.path.lexists(output):
        raise InvalidRequest(f"{output} is there already; --force overwrites it")
    reading = _Reading(path, progress)
    told = entries(reading.items())
    pieces = html(told, title=title) if as_html else markdown(told, title=title)
    try:
        if output is None:
            _write_to(sys.stdout.buffer, pieces)
        else:
            _write_file(output, pieces, force)
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise StoreError(f"failed to write {output or 'the transcript'}: {exc.strerror or exc}") from exc
    return reading.damaged


class _Reading:
    """The items of a rollout, a block at a time."""

    def __init__(self, path: str, progress: Progress) -> None:
        self._source = RolloutBytes(Path(path))
        self._progress = progress
        self.damaged = 0

    def items(self) -> Iterator[RolloutItem]:
        source = self._source
        for offset, data in blocks(source, 0, source.size):
            self._progress(offset, source.size)
            for start, end, kind in Scan(data).forward():
                if kind == BLANK:
                    continue
                try:
                    item = decode_rollout_line(data[start:end])
                except ProtocolError:
                    self.damaged += 1
                    continue
                if item is not None:
                    yield item


def _write_to(file: IO[bytes], pieces: Iterator[str]) -> None:
    for piece in pieces:
        file.write(piece.encode("utf-8", "replace"))
    file.flush()


def _write_file(output: str, pieces: Iterator[str], force: bool) -> None:
    """Whole or not at all: beside its place first, then there in one step."""
    if force and os.path.exists(output) and not stat.S_ISREG(os.stat(output).st_mode):
        with open(output, "wb") as file:  # a pipe or a device; a folder is refused by the system
            _write_to(file, pieces)
        return
    folder, name = os.path.split(os.path.abspath(output))
    partial = f"{folder}/.{name}.{secrets.token_hex(4)}.partial"
    try:
        with open(partial, "xb") as file:
            _write_to(file, pieces)
        if force:
            os.replace(partial, output)
        else:
            _put(partial, output)
    finally:
        if os.path.lexists(partial):
            os.unlink(partial)


def _put(partial: str, output: str) -> None:
    """Gives a finished file its name, unless somebody has taken it meanwhile."""
    try:
        os.link(partial, output)
    except FileExistsError:
        raise InvalidRequest(f"{output} is there already; --force overwrites it") from None
    except OSError as exc:
        if os.path.lexists(output):
            raise EngineError(f"{output} is there already; --force overwrites it") from exc
        os.rename(partial, output)  # a file system without links
