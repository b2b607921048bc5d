"""Verifies and repairs the names of threads, `<home>/session_index.jsonl`. Blocking.

Every line is kept that can be read, byte for byte and in order, and what can be read of the others; the file as it was
stays beside it. Other programs append to it without a lock: what they append meanwhile is carried over.
"""

from __future__ import annotations

import codecs
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from engine.errors import ConflictError, ProtocolError, StoreError
from engine.protocol.codec import json_value
from engine.records import frozen
from engine.rollout.scan import BLANK, Scan
from engine.thread_store.names import NAMES_FILE
from engine.thread_store.setting_aside import set_aside, sync_folder

__all__ = ["NamesRepair", "damaged_names", "repair_names"]


@frozen(kw_only=True)
class NamesRepair:
    """What was done to the file of names: see `FileRepair`."""

    path: str
    aside: str
    lines: int
    recovered: int
    lost: int


def damaged_names(home: Path) -> Iterator[str]:
    """A text for each line that costs a name, or may have."""
    path = home / NAMES_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as exc:
        yield f"{path} can't be read: {exc}"
        return
    for number, (start, end, kind) in enumerate(Scan(data).forward(), 1):
        if kind != BLANK and not _is_entry(data[start:end]):
            yield f"line {number} of {path} can't be read; readers skip it"


def repair_names(home: Path) -> NamesRepair | None:
    """Writes the names anew without damaged lines, in one step; `None` where nothing is damaged.

    Raises `StoreError`, and `ConflictError` where others write it at the same moment; then nothing has changed.
    """
    path = f"{home}/{NAMES_FILE}"
    try:
        data, before = _read(path)
        if data is None or not any(True for _ in damaged_names(home)):
            return None
        lines, recovered, lost = _mended(data)
        aside = _exchange(path, data, b"".join(line + b"\n" for line in lines), before)
    except OSError as exc:
        raise StoreError(f"failed to repair {path}: {exc}") from exc
    return NamesRepair(path=path, aside=aside, lines=len(lines), recovered=recovered, lost=lost)


def _read(path: str) -> tuple[bytes | None, tuple[int, int]]:
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            return file.read(), (found.st_dev, found.st_ino)
    except FileNotFoundError:
        return None, (0, 0)


def _is_entry(line: bytes) -> bool:
    """Whether a line is an object; what is in one of another version is its own business."""
    try:
        return isinstance(json_value(line), dict)
    except ProtocolError:
        return False


def _mended(data: bytes) -> tuple[list[bytes], int, int]:
    """The lines that stay, how many of them come from damaged ones, and how many of those hold nothing."""
    lines: list[bytes] = []
    recovered = lost = 0
    for start, end, kind in Scan(data).forward():
        line = data[start:end]
        if kind == BLANK:
            continue
        if _is_entry(line):
            lines.append(line)
            continue
        parts = list(_entries_in(line))
        lines += parts
        recovered += len(parts)
        lost += not parts
    return lines, recovered, lost


def _entries_in(line: bytes) -> Iterator[bytes]:
    """The whole entries in a damaged line: lines that were glued, bytes of nothing, an invalid byte in a name."""
    text = line.replace(b"\x00", b"").removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if isinstance(found.get("id"), str) and isinstance(found.get("thread_name"), str):
                yield text[at:end].encode()
        at = text.find("{", end)


def _exchange(path: str, data: bytes, mended: bytes, identity: tuple[int, int]) -> str:
    anew = f"{path}.repaired-{secrets.token_hex(4)}"
    try:
        with open(anew, "xb") as file:
            file.write(mended)
            file.flush()
            os.fsync(file.fileno())
        shutil.copystat(path, anew)
        found = os.stat(path)
        if (found.st_dev, found.st_ino, found.st_size) != (*identity, len(data)):
            raise ConflictError(f"{path} has changed while it was being repaired; try again")
        aside = set_aside(path)
        os.rename(anew, path)
    finally:
        if os.path.exists(anew):
            os.unlink(anew)
    sync_folder(path)
    _carry_over(aside, path, len(data))
    return aside


def _carry_over(aside: str, path: str, start: int) -> None:
    """What somebody who had opened the old file has appended to it since."""
    with open(aside, "rb") as old:
        old.seek(start)
        more = old.read()
    if more:
        with open(path, "ab") as file:
            file.write(more)
