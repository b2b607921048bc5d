"""Rollout trace bundles: what sessions did, event by event, in directories for whoever looks into it later.

extensibility.md 10. Telling an event only puts it into a queue; one thread per engine encodes payloads and writes. A
bundle is for looking into problems and never makes one: where it can't be written, or its thread can't keep up, it ends
where it is, with a line in the log. What was written until then has no gaps.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Literal, NamedTuple, final

import trio

from engine.protocol.codec import json_bytes
from engine.protocol.wire import JsonObject

__all__ = ["Bundle", "Bundles", "Payload", "PayloadKind"]

SCHEMA_VERSION: Final = 1
EVENTS: Final = "trace.jsonl"
PAYLOADS: Final = "payloads"
MOST_WAITING: Final = 1024  # events of all bundles; they hold what they tell of in memory
FINISH_BOUND: Final = 5.0  # seconds that the end of an engine waits for the disk

PayloadKind = Literal[
    "inference_request",
    "inference_response",
    "compaction_request",
    "compaction_checkpoint",
    "compaction_response",
    "tool_invocation",
    "tool_result",
    "tool_runtime_event",
    "terminal_runtime_event",
    "protocol_event",
    "session_metadata",
    "agent_result",
]

logger = logging.getLogger("engine.telemetry")


class Payload(NamedTuple):
    """What is too large for an event: a file of its own, that the event names. `value` is called in the thread."""

    kind: PayloadKind
    value: Callable[[], object]


class _Entry(NamedTuple):
    bundle: Bundle
    wall_ms: int
    thread: str | None
    turn: str | None
    payload: Mapping[str, object]


@final
class Bundle:
    """One bundle: of a root session, and of the threads it started. `Bundles.begin` makes one."""

    def __init__(self, bundles: Bundles, root_thread: str) -> None:
        self._bundles = bundles
        self._trace_id = str(uuid.uuid4())
        self._root = root_thread
        self._over = False
        self._written = 0
        self._payloads = 0
        self._events: int | None = None

    @property
    def over(self) -> bool:
        """Whether nothing is recorded any more."""
        return self._over

    @property
    def path(self) -> str:
        """Its directory; made by the first event."""
        return os.path.join(self._bundles.root, f"trace-{self._trace_id}-{self._root}")

    def tell(
        self, event: str, fields: Mapping[str, object], *, thread: str | None = None, turn: str | None = None
    ) -> None:
        """Adds an event; never raises.

        Values of `fields` are JSON or a `Payload`; they must not change afterwards.
        """
        if not self._over:
            self._bundles._put(_Entry(self, time.time_ns() // 1_000_000, thread, turn, {"type": event, **fields}))

    def begin(self) -> None:
        """Tells its first event."""
        self.tell("rollout_started", {"trace_id": self._trace_id, "root_thread_id": self._root})

    def end(self, problem: str | None = None) -> None:
        """Records nothing more: the log says so where there is a `problem`."""
        if not self._over:
            self._over = True
            if problem is not None:
                logger.warning("the rollout trace %s ends here: %s", self.path, problem)

    # --- in the thread ---------------------------------------------------------------------------

    def _write(self, entry: _Entry) -> None:
        """Writes the payloads of an event, then the event. Raises `OSError`, and whatever encoding raises."""
        if self._events is None:
            self._events = self._make(entry.wall_ms)
        payload = {
            name: self._write_payload(value) if isinstance(value, Payload) else value
            for name, value in entry.payload.items()
        }
        line: JsonObject = {
            "schema_version": SCHEMA_VERSION,
            "seq": self._written + 1,
            "wall_time_unix_ms": entry.wall_ms,
            "rollout_id": self._root,
            "thread_id": entry.thread,
            "codex_turn_id": entry.turn,
            "payload": payload,
        }
        _write_all(self._events, json_bytes(line) + b"\n")
        self._written += 1

    def _make(self, now_ms: int) -> int:
        os.makedirs(self._bundles.root, exist_ok=True)
        os.mkdir(self.path, 0o700)  # it holds all that the session holds
        os.mkdir(os.path.join(self.path, PAYLOADS), 0o700)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "trace_id": self._trace_id,
            "rollout_id": self._root,
            "root_thread_id": self._root,
            "started_at_unix_ms": now_ms,
            "raw_event_log": EVENTS,
            "payloads_dir": PAYLOADS,
        }
        _write_file(os.path.join(self.path, "manifest.json"), json_bytes(manifest))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return os.open(os.path.join(self.path, EVENTS), flags, 0o600)

    def _write_payload(self, payload: Payload) -> JsonObject:
        number = self._payloads + 1
        path = f"{PAYLOADS}/{number}.json"
        _write_file(os.path.join(self.path, path), json_bytes(payload.value()))
        self._payloads = number
        return {"raw_payload_id": f"raw_payload:{number}", "kind": {"type": payload.kind}, "path": path}

    def _close(self) -> None:
        self._over = True
        handle, self._events = self._events, None
        if handle is not None:
            with suppress(OSError):
                os.close(handle)


def _write_file(path: str, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_all(handle, data)
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


@final
class Bundles:
    """The bundles of an engine, below `root`. The thread starts with the first event and is joined by `aclose`."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def begin(self, root_thread: str) -> Bundle:
        """A bundle for a session that is nobody's child. Touches no disk here; never raises."""
        bundle = Bundle(self, root_thread)
        bundle.begin()
        return bundle

    async def aclose(self) -> None:
        """Writes what waits, for at most five seconds, then joins the thread; also when cancelled. Idempotent."""
        if self._closed:
            return
        self._closed = True
        thread = self._thread
        if thread is None:
            return
        self._queue.put(None)
        with trio.move_on_after(FINISH_BOUND) as scope:
            scope.shield = True
            await trio.to_thread.run_sync(thread.join, abandon_on_cancel=True)
        if scope.cancelled_caught:
            logger.warning("rollout traces below %s were not written whole within %s seconds", self.root, FINISH_BOUND)

    def _put(self, entry: _Entry) -> None:
        if self._closed:
            return
        if self._queue.qsize() >= MOST_WAITING:
            entry.bundle.end(f"more than {MOST_WAITING} events wait for the disk")
            return
        self._queue.put(entry)
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="rollout traces", daemon=True)
            try:
                thread.start()
            except RuntimeError as exc:  # the process may have no more threads
                entry.bundle.end(str(exc))
                return
            self._thread = thread

    def _run(self) -> None:
        opened: set[Bundle] = set()
        while (entry := self._queue.get()) is not None:
            bundle = entry.bundle
            if bundle._over and bundle not in opened:
                continue
            opened.add(bundle)
            try:
                bundle._write(entry)
            except Exception as exc:
                bundle.end(f"{type(exc).__name__}: {exc}")
                bundle._close()
                opened.discard(bundle)
            else:
                if entry.payload["type"] == "rollout_ended":
                    bundle._close()
                    opened.discard(bundle)
        for bundle in opened:
            bundle._close()
