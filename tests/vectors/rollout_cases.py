"""Runs one golden case of the rollout vectors and gives what it expects and what it got (the README beside them)."""

from __future__ import annotations

import functools
import json
import time
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import trio

from engine.errors import ConflictError, InvalidRequest, StoreError, ThreadNotFound
from engine.protocol.codec import decode_event, encode
from engine.protocol.events import EventMsg
from engine.protocol.ids import ThreadId
from engine.protocol.items import CompactionTrigger, Message, ResponseItem
from engine.protocol.rollout_items import (
    Compacted,
    EventLine,
    ResponseLine,
    RolloutItem,
    SessionMeta,
    TurnContext,
)
from engine.protocol.settings import TruncationPolicy
from engine.protocol.wire import UnknownVariant
from engine.rollout.fork_points import (
    cut_before_user_message,
    fork_turn_positions,
    last_turns_start,
    user_message_positions,
)
from engine.rollout.loading import LoadedRollout, load
from engine.rollout.names import parse_rollout_name, rollout_path
from engine.rollout.policy import PersistenceMode, is_persisted
from engine.rollout.reconstruction import Reconstruction, reconstruct
from engine.thread_store.appender import open_appender
from engine.thread_store.index import ThreadIndex
from engine.thread_store.index_rows import read_thread
from engine.thread_store.interface import CreateThread, ResumeThread
from engine.thread_store.live_thread import LiveThread
from engine.thread_store.local import LocalThreadStore

__all__ = ["OPERATIONS", "run_case", "run_recording"]

JsonObject = Mapping[str, object]
Outcome = tuple[object, object]

OPERATIONS = (
    "fork_before_nth_user_message",
    "fork_last_n_turns",
    "is_persisted",
    "live_thread",
    "parse_rollout_name",
    "reconstruct",
    "rollout_path",
)


def run_case(case: JsonObject, area: object, root: Path) -> Outcome:
    """Runs a case with an `op`; returns (expected, got) as JSON values. `root` is a fresh, empty directory.

    `area` is the list that the case stands in; no operation needs it, the parameter is there for uniformity.
    """
    given = _object(case["in"])
    expected = case["out"]
    match case["op"]:
        case "reconstruct":
            got: object = _reconstruct(given)
        case "is_persisted":
            got = _is_persisted(given)
        case "rollout_path":
            got = _rollout_path(given)
        case "parse_rollout_name":
            got = _parse_name(_text(given["name"]))
        case "fork_before_nth_user_message":
            items = _load(given).known_items()
            got = {
                "positions": user_message_positions(items),
                "kept_items": cut_before_user_message(items, _number(given["n"])),
            }
            expected = {name: value for name, value in _object(expected).items() if name != "note"}
        case "fork_last_n_turns":
            items = _load(given).known_items()
            got = {
                "positions": fork_turn_positions(items),
                "first_kept_item": last_turns_start(items, _number(given["n"])),
            }
        case "live_thread":
            got = trio.run(_live_thread, given, root)
        case other:
            raise NotImplementedError(f"no such operation: {other}")
    return expected, json.loads(json.dumps(got))


def run_recording(entry: JsonObject, folder: Path, root: Path) -> Outcome:
    """Replays a recorded file; `entry` is its row of `index.json`, which has `expected`. `root` is not needed."""
    loaded = load((folder / _text(entry["file"])).read_bytes())
    made = reconstruct(loaded.items, TruncationPolicy("bytes", 10_000))
    reference = made.reference_context_item
    got = {
        "thread_id": loaded.thread_id,
        "skipped_lines": loaded.skipped,
        "window_generation_if_resumed": loaded.generation,
        "previous_turn_settings": _settings(made),
        "reference_turn_id": None if reference is None else reference.turn_id,
        "history": [_abbreviated(encode(item)) for item in made.history],
    }
    return entry["expected"], json.loads(json.dumps(got))


# --- pure operations -----------------------------------------------------------------------------


def _load(given: JsonObject) -> LoadedRollout:
    return load("".join(f"{_text(line)}\n" for line in _list(given["lines"])).encode())


def _reconstruct(given: JsonObject) -> object:
    loaded = _load(given)
    policy = _object(given["truncation_policy"])
    mode = policy["mode"]
    assert mode in ("bytes", "tokens")
    made = reconstruct(
        loaded.items, TruncationPolicy("bytes" if mode == "bytes" else "tokens", _number(policy["limit"]))
    )
    reference = made.reference_context_item
    return {
        "history": [encode(item) for item in made.history],
        "previous_turn_settings": _settings(made),
        "reference_context_item": None if reference is None else encode(reference),
        "thread_id": loaded.thread_id,
        "skipped_lines": loaded.skipped,
        "window_generation": loaded.generation,
    }


def _settings(made: Reconstruction) -> object:
    previous = made.previous_turn_settings
    return None if previous is None else {"model": previous.model, "realtime_active": previous.realtime_active}


def _abbreviated(item: JsonObject) -> list[object]:
    """The item's type, its role or call id, and its first text."""
    texts = [_object(part).get("text") for part in _list(item.get("content", []))]
    return [item["type"], item.get("role", item.get("call_id")), texts[0] if texts else None]


def _is_persisted(given: JsonObject) -> object:
    line = _sample_line(given)
    return {mode: is_persisted(line, mode) for mode in ("limited", "extended")}


def _sample_line(given: JsonObject) -> RolloutItem:
    match given:
        case {"type": "event_msg", "event": str(event)}:
            return EventLine(_sample_event(event))
        case {"type": "response_item", "item": str(item)}:
            return ResponseLine(_sample_item(item))
        case {"type": "compacted"}:
            return Compacted("")
        case {"type": "session_meta"}:
            return _meta(ThreadId("00000000-0000-7000-8000-000000000000"))
        case {"type": "turn_context"}:
            return TurnContext(
                cwd="/", approval_policy="never", sandbox_policy=UnknownVariant({}), model="m", summary="auto"
            )
    raise NotImplementedError(f"no such line: {given}")


def _sample_event(name: str) -> EventMsg:
    return cast(EventMsg, UnknownVariant({"type": name}))


def _sample_item(name: str) -> ResponseItem:
    if name == CompactionTrigger.type:
        return CompactionTrigger()
    # The policy only asks whether the type is known; which of the known ones it is makes no difference.
    known = {member.type for member in typing.get_args(ResponseItem) if member is not UnknownVariant}
    return Message("user", ()) if name in known else UnknownVariant({"type": name})


def _rollout_path(given: JsonObject) -> str:
    year, month, day, hour, minute, second = (_number(part) for part in _list(given["local_time"]))
    local = time.struct_time((year, month, day, hour, minute, second, 0, 0, -1))
    return rollout_path(_text(given["home"]), ThreadId(_text(given["id"])), local)


def _parse_name(name: str) -> object:
    parsed = parse_rollout_name(name)
    return None if parsed is None else {"id": parsed.thread_id, "time": parsed.time.strftime("%Y-%m-%dT%H:%M:%SZ")}


# --- live threads --------------------------------------------------------------------------------


async def _live_thread(given: JsonObject, home: Path) -> object:
    """Does the calls on one thread. The row is that of the index, which must agree with what the files say."""
    mode: PersistenceMode = "extended" if given["mode"] == "extended" else "limited"
    thread_id = ThreadId("01900000-0000-7000-8000-000000000001")
    results: list[str] = []
    live: LiveThread | None = None
    async with open_appender() as appender:
        store = LocalThreadStore(home, appender, index=functools.partial(ThreadIndex, home))
        for call in _list(given["calls"]):
            name, *arguments = _list(call)
            try:
                if name == "create":
                    live = store.create(CreateThread(meta=_meta(thread_id), mode=mode))
                elif name == "resume":
                    live = (await store.resume(ResumeThread(thread=thread_id, mode=mode))).live
                else:
                    assert live is not None
                    await _call(live, _text(name), arguments)
            except (ConflictError, InvalidRequest):
                results.append("invalid_request")
            except ThreadNotFound:
                results.append("error" if name == "resume" else "not_found")
            except StoreError:
                results.append("error")
            else:
                results.append("ok")
        live_at_end = bool(store.live_threads())
        found = await store.find_thread(thread_id)
        assert store.index is not None
        row = await store.index.run(lambda connection: read_thread(connection, thread_id=thread_id))
        assert (row is None) == (found is None)
        await store.aclose()
    files = sorted(home.rglob("*.jsonl"))
    return {
        "results": results,
        "file_exists": bool(files),
        "lines": [_line_kind(line) for path in files for line in path.read_bytes().splitlines()],
        "database_row": row is not None,
        "live_at_end": live_at_end,
    }


async def _call(live: LiveThread, name: str, arguments: Sequence[object]) -> None:
    match name:
        case "append":
            live.append([EventLine(_minimal_event(_text(event))) for event in _list(arguments[0])])
            if not live.closed:
                await live.flush()
        case "persist":
            await live.persist()
        case "flush":
            await live.flush()
        case "shutdown":
            await live.shutdown()
        case "discard":
            await live.discard()
        case _:
            raise NotImplementedError(f"no such call: {name}")


_MINIMAL: Mapping[str, JsonObject] = {
    "user_message": {"message": "hello"},
    "agent_message": {"message": "hello"},
    "task_started": {"turn_id": "t"},
    "task_complete": {"turn_id": "t"},
    "turn_aborted": {"turn_id": "t", "reason": "interrupted"},
    "thread_rolled_back": {"num_turns": 1},
    "view_image_tool_call": {"call_id": "c", "path": "/x.png"},
    "error": {"message": "bad"},
    "warning": {"message": "careful"},
    "turn_diff": {"unified_diff": ""},
    "exec_command_end": {
        "call_id": "c",
        "turn_id": "t",
        "completed_at_ms": 0,
        "command": [],
        "cwd": "/",
        "exit_code": 0,
        "duration": {"secs": 0, "nanos": 0},
        "status": "completed",
    },
}


def _minimal_event(name: str) -> EventMsg:
    return (
        decode_event({"type": name, **_MINIMAL.get(name, {})})
        if name in _WITHOUT_FIELDS or name in _MINIMAL
        else (_sample_event(name))
    )


_WITHOUT_FIELDS = frozenset({"token_count", "context_compacted", "shutdown_complete"})


def _meta(thread_id: ThreadId) -> SessionMeta:
    return SessionMeta(
        id=thread_id,
        timestamp="2025-01-02T03:04:05.678Z",
        cwd="/",
        originator="vectors",
        cli_version="0",
        source="exec",
    )


def _line_kind(line: bytes) -> object:
    value = json.loads(line)
    return value["payload"]["type"] if value["type"] == "event_msg" else value["type"]


# --- reading JSON --------------------------------------------------------------------------------


def _object(value: object) -> JsonObject:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, got {value!r}")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r}")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a number, got {value!r}")
    return value
