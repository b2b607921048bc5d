"""Repairs what `verifying` finds: rollouts without their damage, everything of it kept aside. Blocking.

Nothing that can be read is lost, and a line may hold more than its reader can: an invalid byte, bytes of nothing in
front, two lines glued into one. A file that somebody writes is left alone.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from engine import __version__
from engine.errors import ConflictError, EngineError, ProtocolError, StoreError
from engine.protocol.codec import json_value
from engine.protocol.rollout_items import RolloutItem, SessionMeta, TurnContext, UnknownLine
from engine.records import frozen
from engine.rollout.blocks import blocks
from engine.rollout.lines import decode_rollout_line, encode_rollout_line
from engine.rollout.names import RolloutName, parse_rollout_name
from engine.rollout.scan import BLANK, Scan
from engine.thread_store.index import INDEX_FILE
from engine.thread_store.locks import LOCK_SUFFIX, LOCKS_DIRECTORY, RolloutLocks
from engine.thread_store.rollout_bytes import RolloutBytes
from engine.thread_store.setting_aside import set_aside, sync_folder
from engine.thread_store.verifying import FileReport, stale_locks, verify_file

__all__ = ["FileRepair", "InUse", "drop_index", "drop_stale_locks", "recovered", "repair_file"]

OLD_PROOF: Final = 60.0  # seconds; a younger proof may belong to a process that is just about to lock it

_START: Final = re.compile(r'\{\s*"timestamp"\s*:')


class InUse(ConflictError):
    """Other programs have the rollout open for writing; `holders` says which ones."""

    def __init__(self, path: str, holders: tuple[str, ...]) -> None:
        self.path = path
        self.holders = holders
        super().__init__(f"{path} is being written by {', '.join(holders)}; end it there, then try again")


@frozen(kw_only=True)
class FileRepair:
    """What was done to one rollout.

    - `aside`: where everything stands as it was; `None` if nothing had to be done
    - `lines` that are in the file now; `recovered` of them were parts of damaged ones; `lost` can't be read at all
    - `made_meta`: a new first line was made, from the name and the turns of the file
    - `gone`: nothing could be read, so there is no thread any more
    """

    path: str
    aside: str | None = None
    lines: int = 0
    recovered: int = 0
    lost: int = 0
    made_meta: bool = False
    gone: bool = False


def repair_file(path: str, locks: RolloutLocks, progress: Callable[[int], None] = lambda position: None) -> FileRepair:
    """Writes a rollout anew without its damage, in one step; the old file stays beside it.

    It is read twice: `progress` is told how many bytes of the two times its size are done.
    Raises `ThreadLocked` or `InUse` where somebody writes it, `StoreError` where it can't be read or written; then
    nothing has changed.
    """
    lock = locks.take(path)
    try:
        if holders := writers_of(path):
            raise InUse(path, holders)
        report = verify_file(path, RolloutLocks(locks.home), progress)
        if report.rollout is None:
            raise StoreError(report.problems[0])
        if not report.rollout.damaged and report.rollout.thread_id is not None:
            return FileRepair(path=path, lines=report.rollout.lines)
        return _write_anew(path, report, lambda position: progress(report.size + position))
    except OSError as exc:
        raise StoreError(f"failed to repair {path}: {exc}") from exc
    finally:
        lock.release()


def _write_anew(path: str, report: FileReport, progress: Callable[[int], None]) -> FileRepair:
    source = RolloutBytes(Path(path))
    token = secrets.token_hex(4)
    body, whole = f"{path}.repairing-{token}", f"{path}.repaired-{token}"
    try:
        with open(body, "xb") as file:
            written = _Body(file)
            written.write(source, progress)
        made = None
        if not written.has_meta and written.lines:
            made = _meta(parse_rollout_name(os.path.basename(path)), written)
        if written.lines and (written.has_meta or made is not None):
            with open(whole, "xb") as file:
                file.write(made or b"")
                with open(body, "rb") as rest:
                    shutil.copyfileobj(rest, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            shutil.copystat(path, whole)
        else:
            whole = ""
        found = os.stat(path)
        if (found.st_dev, found.st_ino) != source.identity or found.st_size != source.size:
            raise ConflictError(f"{path} has changed while it was being repaired; end what writes it, then try again")
        aside = set_aside(path)
        if whole:
            os.rename(whole, path)
        else:
            os.unlink(path)
        sync_folder(path)
    finally:
        for left in (body, whole):
            if left and os.path.exists(left):
                os.unlink(left)
    return FileRepair(
        path=path,
        aside=aside,
        lines=written.lines + (made is not None),
        recovered=written.recovered,
        lost=written.lost,
        made_meta=made is not None,
        gone=not whole,
    )


class _Body:
    """Everything readable of a rollout, written to another file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.lines = self.recovered = self.lost = 0
        self.has_meta = False
        self.first_time: str | None = None
        self.cwd: str | None = None

    def write(self, source: RolloutBytes, progress: Callable[[int], None]) -> None:
        for offset, data in blocks(source, 0, source.size):
            for start, end, kind in Scan(data).forward():
                if kind != BLANK:
                    self._take(data[start:end])
            progress(offset + len(data))

    def _take(self, line: bytes) -> None:
        try:
            item = decode_rollout_line(line)
        except ProtocolError:
            parts = list(recovered(line))
            self.recovered += len(parts)
            self.lost += not parts
            for part, each in parts:
                self._put(part, each)
        else:
            self._put(line, item)

    def _put(self, line: bytes, item: RolloutItem | None) -> None:
        self._file.write(line + b"\n")
        self.lines += 1
        self.has_meta = self.has_meta or isinstance(item, SessionMeta)
        if isinstance(item, TurnContext):
            self.cwd = self.cwd or item.cwd
        if self.first_time is None:
            self.first_time = json_value(line)["timestamp"]


def recovered(line: bytes) -> Iterator[tuple[bytes, RolloutItem]]:
    """The lines that are in a damaged one, by mending what can be mended; only of types this version knows."""
    text = line.replace(b"\x00", b"").removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    decoder = json.JSONDecoder()
    at = 0
    while (found := _START.search(text, at)) is not None:
        at = found.end()
        try:
            _, end = decoder.raw_decode(text, found.start())
            part = text[found.start() : end].encode()
            item = decode_rollout_line(part)
        except (ValueError, RecursionError, EngineError):
            continue
        if item is not None and not isinstance(item, UnknownLine):
            yield part, item
            at = end


def _meta(name: RolloutName | None, written: _Body) -> bytes | None:
    """A first line for a thread that has lost its own. Where it worked is known from its turns."""
    if name is None:
        return None
    timestamp = written.first_time or f"{name.time:%Y-%m-%dT%H:%M:%S}.000Z"
    meta = SessionMeta(
        id=name.thread_id,
        timestamp=timestamp,
        cwd=written.cwd or str(Path.home()),
        originator="engine_threads_repair",
        cli_version=__version__,
        source="unknown",
    )
    return encode_rollout_line(meta, timestamp)


def writers_of(path: str) -> tuple[str, ...]:
    """Other processes of ours that have a file open for writing, also those that take no locks (Linux only)."""
    try:
        wanted = os.stat(path)
        processes = [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    except OSError:
        return ()
    found: list[str] = []
    for process in processes:
        try:
            handles = os.listdir(f"/proc/{process}/fd")
        except OSError:
            continue  # it has ended, or is somebody else's
        if any(_writes(process, handle, wanted) for handle in handles):
            found.append(f"process {process} ({_program(process)})")
    return tuple(found)


def _writes(process: str, handle: str, wanted: os.stat_result) -> bool:
    try:
        there = os.stat(f"/proc/{process}/fd/{handle}")
        if (there.st_dev, there.st_ino) != (wanted.st_dev, wanted.st_ino):
            return False
        facts = Path(f"/proc/{process}/fdinfo/{handle}").read_text()
    except OSError:
        return False
    flags = re.search(r"^flags:\s*([0-7]+)", facts, re.MULTILINE)
    return flags is not None and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY


def _program(process: str) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return "?"


# --- what lies around ----------------------------------------------------------------------------


def drop_index(home: Path) -> None:
    """Removes the index, which is only a cache; who uses it next builds it anew. Raises `StoreError`."""
    for suffix in ("", "-wal", "-shm"):
        try:
            os.unlink(f"{home}/{INDEX_FILE}{suffix}")
        except FileNotFoundError:
            pass
        except OSError as exc:
            raise StoreError(f"failed to remove the index: {exc}") from exc


def drop_stale_locks(home: Path) -> int:
    """Removes the locks of writers that were killed, and what they say about themselves; how many locks."""
    locks = RolloutLocks(home)
    dropped = 0
    for link in stale_locks(home, locks):
        try:
            locks.take(link.removesuffix(LOCK_SUFFIX)).release()
        except (OSError, EngineError):
            continue  # somebody has it by now
        dropped += 1
    _drop_proofs(home / LOCKS_DIRECTORY)
    return dropped


def _drop_proofs(folder: Path) -> None:
    import fcntl

    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        path = folder / name
        try:
            if time.time() - path.stat().st_mtime < OLD_PROOF:
                continue
            with open(path, "rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except OSError:
            continue  # its process lives
