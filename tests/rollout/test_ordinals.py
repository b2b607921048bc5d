"""Lines that are numbered go on being numbered; nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.events import AgentMessage, TaskStarted, UserMessage
from engine.protocol.ids import ThreadId, new_thread_id
from engine.protocol.rollout_items import EventLine, RolloutItem
from engine.rollout.blocks import FIRST_BLOCK, MemorySource
from engine.rollout.lines import encode_rollout_line
from engine.rollout.ordinals import next_ordinal
from engine.thread_store.interface import ForkThread, Interrupted, MetadataPatch, ResumeThread
from engine.thread_store.local import open_local_store
from tests.thread_store.stories import create, meta, telling

TIME = "2025-01-02T03:04:05.678Z"


def line(number: int | None, text: str = "x") -> bytes:
    return encode_rollout_line(telling(text), TIME, number)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", None),
        (line(None), None),
        (line(0), 1),
        (line(3) + line(4), 5),
        (line(4) + line(None), 6),
        (line(4) + line(5)[:30], 5),
        (line(4)[:-1], 5),
        (line(4, "y" * (3 * FIRST_BLOCK)), 5),
        (line(4) + line(5, "y" * FIRST_BLOCK) + b"\n", 7),
        (b'{"timestamp":"t","type":"x","payload":{"ordinal":9}}\n', None),
        (b'{"timestamp":"t","type":"x","payload":"\\n{\\"timestamp\\":\\"t\\",\\"ordinal\\":9}"}\n', None),
    ],
)
def test_the_next_number(data: bytes, expected: int | None) -> None:
    assert next_ordinal(MemorySource(data)) == expected


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    assert next_ordinal(MemorySource(data)) is None


def numbers(path: str | Path) -> list[int | None]:
    return [json.loads(each).get("ordinal") for each in Path(path).read_bytes().splitlines()]


async def test_whoever_appends_goes_on_counting(tmp_path: Path) -> None:
    thread = ThreadId(new_thread_id())
    path = tmp_path / "sessions/2025/01/02" / f"rollout-2025-01-02T03-04-05-{thread}.jsonl"
    path.parent.mkdir(parents=True)
    items: list[RolloutItem] = [meta(thread), EventLine(TaskStarted("t")), EventLine(UserMessage("hello"))]
    path.write_bytes(b"".join(encode_rollout_line(item, TIME, number) for number, item in enumerate(items)))
    async with open_local_store(tmp_path) as store:
        resumed = await store.resume(ResumeThread(thread=thread))
        resumed.live.append([telling("three"), telling("four")])
        resumed.live.append([telling("five")])
        await resumed.live.shutdown()
        assert numbers(path) == [0, 1, 2, 3, 4, 5]
        await store.update_metadata(thread, MetadataPatch(memory_mode="disabled"))
        assert numbers(path) == [0, 1, 2, 3, 4, 5, 6]
        copy = await store.fork(ForkThread(source=thread, meta=meta(), snapshot=Interrupted()))
        copy.append([telling("more")])
        await copy.shutdown()
        assert copy.rollout_path is not None
        assert numbers(copy.rollout_path) == [None, 0, 1, 2, 3, 4, 5, 6, 7, 8]
        path.unlink()
        again = await store.resume(ResumeThread(thread=Path(copy.rollout_path)))
        Path(copy.rollout_path).unlink()
        again.live.on_lost(lambda: [EventLine(AgentMessage("from memory"))])
        again.live.append([telling("nine")])
        await again.live.shutdown()
        found = numbers(copy.rollout_path)
        assert found[0] is None
        assert found[1] == 1
        assert all(number is not None for number in found[1:])
        assert found[1:] == sorted(found[1:], key=lambda number: number or 0)


async def test_our_own_threads_have_no_numbers(tmp_path: Path) -> None:
    async with open_local_store(tmp_path) as store:
        live = store.create(create())
        live.append([telling("one")])
        await live.shutdown()
        assert live.rollout_path is not None
        assert numbers(live.rollout_path) == [None, None]
