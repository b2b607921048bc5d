"""Pages of stored turns: from either end, with and without the index, however the file changes meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import InvalidRequest, ThreadNotFound
from engine.protocol.events import AgentMessage, TaskComplete, TaskStarted, ThreadRolledBack, UserMessage
from engine.protocol.ids import ThreadId
from engine.protocol.rollout_items import EventLine, RolloutItem, SessionMeta
from engine.rollout.lines import encode_rollout_line
from engine.thread_store.index import ThreadIndex
from engine.thread_store.interface import Direction, ListTurns, ThreadStore, TurnPage
from engine.thread_store.item_pages import ListItems, StoredItem, item_page
from engine.thread_store.local import LocalThreadStore, open_local_store
from engine.thread_store.memory import InMemoryThreadStore
from engine.thread_store.rollout_bytes import RolloutBytes

STAMP = "2025-01-02T03:04:05.000Z"
THREAD = ThreadId("01900000-0000-7000-8000-000000000001")
META = SessionMeta(
    id=THREAD, timestamp=STAMP, cwd="/", originator="tests", cli_version="0", source="cli", model_provider="scripted"
)


def turn(number: int, text: str = "said") -> list[RolloutItem]:
    msgs = (TaskStarted(f"t{number}"), UserMessage(text), AgentMessage(f"re {number}"), TaskComplete(f"t{number}"))
    return [EventLine(msg) for msg in msgs]


def lines(*items: RolloutItem) -> bytes:
    return b"".join(encode_rollout_line(item, STAMP) for item in items)


@pytest.fixture
def rollout(tmp_path: Path) -> Path:
    folder = tmp_path / "sessions/2025/01/02"
    folder.mkdir(parents=True)
    path = folder / f"rollout-2025-01-02T03-04-05-{THREAD}.jsonl"
    path.write_bytes(lines(META, *(item for number in range(7) for item in turn(number))))
    return path


def ids(page: TurnPage) -> list[str]:
    return [shown.id for shown in page.turns]


async def pages(store: ThreadStore, query: ListTurns) -> list[list[str]]:
    found: list[list[str]] = []
    while True:
        page = await store.list_turns(THREAD, query)
        found.append(ids(page))
        if page.next_cursor is None:
            return found
        query = ListTurns(limit=query.limit, direction=query.direction, cursor=page.next_cursor)


@pytest.mark.parametrize("index", [True, False])
async def test_pages_from_either_end_and_back(tmp_path: Path, rollout: Path, index: bool) -> None:
    async with open_local_store(tmp_path, index=index) as store:
        assert await pages(store, ListTurns(limit=3)) == [["t6", "t5", "t4"], ["t3", "t2", "t1"], ["t0"]]
        assert await pages(store, ListTurns(limit=4, direction="asc")) == [["t0", "t1", "t2", "t3"], ["t4", "t5", "t6"]]
        first = await store.list_turns(THREAD, ListTurns(limit=2))
        with rollout.open("ab") as file:
            file.write(lines(*turn(7)))
        back = await store.list_turns(THREAD, ListTurns(cursor=first.backwards_cursor, direction="asc"))
        assert ids(back) == ["t6", "t7"]
        assert ids(await store.list_turns(THREAD, ListTurns(turn_id="t3"))) == ["t3"]
        assert ids(await store.list_turns(rollout, ListTurns(limit=1))) == ["t7"]
        with pytest.raises(InvalidRequest, match="invalid cursor: x"):
            await store.list_turns(THREAD, ListTurns(cursor="x"))
        with pytest.raises(ThreadNotFound):
            await store.list_turns(ThreadId("01900000-0000-7000-8000-000000000002"), ListTurns())


async def test_the_views_of_a_turn(tmp_path: Path, rollout: Path) -> None:
    rollout.write_bytes(lines(META, *turn(0)[:3], EventLine(AgentMessage("last")), *turn(0)[3:]))
    async with open_local_store(tmp_path) as store:
        shown = {
            view: [item.id for item in (await store.list_turns(THREAD, ListTurns(view=view))).turns[0].items]
            for view in ("full", "summary", "notLoaded")
        }
    assert shown == {
        "full": ["t0-user_message-1", "t0-agent_message-1", "t0-agent_message-2"],
        "summary": ["t0-user_message-1", "t0-agent_message-2"],
        "notLoaded": [],
    }


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted = [0]
    read = RolloutBytes.read

    def counting(self: RolloutBytes, start: int, end: int) -> bytes:
        counted[0] += end - start
        return read(self, start, end)

    monkeypatch.setattr(RolloutBytes, "read", counting)
    return counted


async def test_a_known_file_is_read_only_where_the_page_lies(
    tmp_path: Path, rollout: Path, read_bytes: list[int]
) -> None:
    with rollout.open("ab") as file:
        file.write(lines(*turn(7, "x" * 3_000_000), *turn(8)))
    async with open_local_store(tmp_path) as store:
        await store.list_turns(THREAD, ListTurns(limit=1))
    async with open_local_store(tmp_path) as store:  # the next one finds the table
        read_bytes[0] = 0
        for direction in ("asc", "desc"):
            await store.list_turns(THREAD, ListTurns(limit=1, direction=direction))
        assert read_bytes[0] < 3000
        with rollout.open("ab") as file:
            file.write(lines(*turn(9)))
        assert ids(await store.list_turns(THREAD, ListTurns(limit=2))) == ["t9", "t8"]
        assert read_bytes[0] < 6000


@pytest.mark.parametrize("how", ["replaced", "cut", "in place", "no index", "broken index", "archived"])
async def test_a_table_that_does_not_fit_is_made_anew(tmp_path: Path, rollout: Path, how: str) -> None:
    other = lines(META, *turn(10), *turn(11))
    async with open_local_store(tmp_path) as store:
        await store.list_turns(THREAD, ListTurns())
        match how:
            case "replaced":
                (tmp_path / "new").write_bytes(other)
                os.rename(tmp_path / "new", rollout)
            case "cut":
                os.truncate(rollout, len(lines(META, *turn(0))))
            case "in place":
                rollout.write_bytes(other + b"\n" * rollout.stat().st_size)
            case "no index":
                (tmp_path / "engine_index.sqlite").unlink()
            case "broken index":
                for path in tmp_path.glob("engine_index.sqlite*"):
                    path.write_bytes(b"x" * 8192)
            case "archived":
                await store.archive(THREAD)
        expected = {"replaced": ["t11", "t10"], "in place": ["t11", "t10"], "cut": ["t0"]}
        found = ids(await store.list_turns(THREAD, ListTurns()))
    assert found == expected.get(how, [f"t{number}" for number in range(6, -1, -1)])


async def test_a_rollback_takes_turns_from_a_table_that_knew_them(tmp_path: Path, rollout: Path) -> None:
    async with open_local_store(tmp_path) as store:
        page = await store.list_turns(THREAD, ListTurns(limit=2))
        with rollout.open("ab") as file:
            file.write(lines(EventLine(ThreadRolledBack(3)), *turn(7)))
        assert ids(await store.list_turns(THREAD, ListTurns(limit=3))) == ["t7", "t3", "t2"]
        assert ids(await store.list_turns(THREAD, ListTurns(limit=2, cursor=page.next_cursor))) == ["t3", "t2"]


async def test_a_last_line_without_its_end_counts_and_is_not_remembered(tmp_path: Path, rollout: Path) -> None:
    whole = lines(*turn(7))
    with rollout.open("ab") as file:
        file.write(whole[:-1])
    async with open_local_store(tmp_path) as store:
        assert ids(await store.list_turns(THREAD, ListTurns(limit=1))) == ["t7"]
        with rollout.open("ab") as file:
            file.write(b"\n" + lines(*turn(8)))
        assert ids(await store.list_turns(THREAD, ListTurns(limit=2))) == ["t8", "t7"]
        assert [shown.status for shown in (await store.list_turns(THREAD, ListTurns())).turns] == ["completed"] * 9


async def test_two_processes_page_one_file(tmp_path: Path, rollout: Path) -> None:
    async with open_local_store(tmp_path) as one, open_local_store(tmp_path) as other:
        for number in range(7, 12):
            with rollout.open("ab") as file:
                file.write(lines(*turn(number)))
            for store in (one, other):
                assert ids(await store.list_turns(THREAD, ListTurns(limit=2))) == [f"t{number}", f"t{number - 1}"]


async def test_stores_without_files_have_turns_too() -> None:
    store = InMemoryThreadStore()
    store._store(THREAD, [META, *(item for number in range(5) for item in turn(number))])
    assert await pages(store, ListTurns(limit=3)) == [["t4", "t3", "t2"], ["t1", "t0"]]
    with pytest.raises(InvalidRequest, match="invalid cursor"):
        await store.list_turns(THREAD, ListTurns(cursor="-1"))


async def test_the_index_of_a_thread_that_is_deleted_forgets_its_turns(tmp_path: Path, rollout: Path) -> None:
    async with open_local_store(tmp_path) as store:
        assert isinstance(store, LocalThreadStore)
        assert isinstance(store.index, ThreadIndex)
        await store.list_turns(THREAD, ListTurns())
        await store.delete(THREAD)
        left = await store.index.run(lambda connection: connection.execute("SELECT count(*) FROM turns").fetchone()[0])
    assert left == 0


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_items_are_paged_across_turns(tmp_path: Path, rollout: Path, direction: Direction) -> None:
    async with open_local_store(tmp_path) as store:
        whole = await item_page(store, THREAD, ListItems(limit=100, direction=direction))
        assert [placed.item.id for placed in whole.items][:2] == {
            "asc": ["t0-user_message-1", "t0-agent_message-1"],
            "desc": ["t6-agent_message-1", "t6-user_message-1"],
        }[direction]
        assert (len(whole.items), whole.next_cursor) == (14, None)
        found: list[StoredItem] = []
        cursor: str | None = None
        while True:
            page = await item_page(store, THREAD, ListItems(limit=3, direction=direction, cursor=cursor))
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        assert tuple(found) == whole.items
        other: Direction = "asc" if direction == "desc" else "desc"
        back = await item_page(store, THREAD, ListItems(limit=100, direction=other, cursor=page.backwards_cursor))
        assert back.items == tuple(reversed(found[: -len(page.items) + 1 or None]))
        one = await item_page(store, THREAD, ListItems(turn_id="t3"))
        assert [placed.turn_id for placed in one.items] == ["t3", "t3"]
        with pytest.raises(InvalidRequest, match="invalid cursor"):
            await item_page(store, THREAD, ListItems(cursor="1"))
