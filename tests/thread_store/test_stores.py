"""What every store does, said plainly: forks, spawned threads, tools, metadata, removal, in one life and the next.

`test_store_machine` finds where two stores differ; this says what both must do. Backends are those of `backends`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import attrs
import pytest

from engine.errors import ConflictError, InvalidRequest, StoreError, ThreadNotFound
from engine.protocol.events import TaskComplete, TaskStarted, TurnAborted, UserMessage
from engine.protocol.ids import ThreadId, new_thread_id
from engine.protocol.items import InputImage, InputText, Message, message_text, user_message
from engine.protocol.rollout_items import EventLine, ResponseLine, RolloutItem, SessionMeta
from engine.protocol.settings import TruncationPolicy
from engine.protocol.thread_items import ShownUserMessage
from engine.protocol.wire import JsonObject
from engine.thread_store.interface import (
    BeforeUserMessage,
    CreateThread,
    ForkThread,
    GitPatch,
    Interrupted,
    LastTurns,
    ListThreads,
    ListTurns,
    MetadataPatch,
    ResumeThread,
    Snapshot,
    SpawnEdge,
    ThroughTurn,
)
from tests.thread_store.backends import BACKENDS, Backend, MemoryBackend
from tests.thread_store.stories import kept, meta, said, telling

MARKER = user_message("<turn_aborted>\nstopped\n</turn_aborted>")


@pytest.fixture(params=["memory", *BACKENDS])
async def backend(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    home = tmp_path / "home"
    made: Backend = MemoryBackend() if request.param == "memory" else await BACKENDS[request.param](home)
    yield made
    await made.aclose()


async def stored(
    backend: Backend, items: Iterable[RolloutItem] = (said("hello"),), *, first: SessionMeta | None = None
) -> ThreadId:
    """A thread that nobody writes any more."""
    first = first or meta()
    live = backend.store.create(CreateThread(meta=first))
    live.append(list(items))
    await live.shutdown()
    return first.id


def turn(number: int, *, over: bool = True) -> list[RolloutItem]:
    """A turn of the user, as a session stores it."""
    begun: list[RolloutItem] = [EventLine(TaskStarted(f"turn {number}")), ResponseLine(user_message(f"said {number}"))]
    shown = [said(f"said {number}"), telling(f"answer {number}")]
    return [*begun, *shown, *([EventLine(TaskComplete(f"turn {number}"))] if over else [])]


def told(items: Iterable[RolloutItem]) -> list[str]:
    """Turns by their number, `+` behind those that have ended, `!` behind those that were aborted; and the marker."""
    found: list[str] = []
    for item in items:
        match item:
            case EventLine(msg=TaskStarted(turn_id=turn_id)):
                found.append(turn_id.removeprefix("turn "))
            case EventLine(msg=TaskComplete()):
                found[-1] += "+"
            case EventLine(msg=TurnAborted(turn_id=turn_id, reason="interrupted")):
                assert turn_id is not None
                found.append(turn_id.removeprefix("turn ") + "!")
            case ResponseLine(item=Message() as message) if message == MARKER:
                found.append("marker")
    return found


# --- forks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("snapshot", "copied"),
    [
        (BeforeUserMessage(0), ["1"]),  # the cut is before what was said, behind where its turn begins
        (BeforeUserMessage(1), ["1+", "2"]),
        (BeforeUserMessage(2), ["1+", "2+", "3"]),
        (BeforeUserMessage(99), ["1+", "2+"]),
        (ThroughTurn("turn 1"), ["1+"]),
        (ThroughTurn("turn 2"), ["1+", "2+"]),
        (LastTurns(0), []),
        (LastTurns(9), ["1+", "2+", "3"]),
        (Interrupted(), ["1+", "2+", "3", "3!"]),
        (Interrupted(MARKER), ["1+", "2+", "3", "marker", "3!"]),
    ],
    ids=str,
)
async def test_a_fork_in_the_middle_of_a_turn(backend: Backend, snapshot: Snapshot, copied: list[str]) -> None:
    source = await stored(backend, [*turn(1), *turn(2), *turn(3, over=False)])
    first = meta()
    live = await backend.store.fork(ForkThread(source=source, meta=first, snapshot=snapshot))
    assert told((await backend.store.load_history(first.id)).items) == copied
    live.append([telling("goes on")])
    await live.shutdown()
    await backend.crash()
    history = await backend.store.load_history(first.id)
    assert told(history.items) == copied
    assert kept(history.items)[-1] == "goes on"
    assert (history.meta.id, history.meta.forked_from_id) == (first.id, source)
    assert told((await backend.store.load_history(source)).items) == ["1+", "2+", "3"]


async def test_a_fork_of_a_turn_that_is_over_has_no_marker(backend: Backend) -> None:
    source = await stored(backend, [*turn(1), *turn(2)])
    first = meta()
    live = await backend.store.fork(ForkThread(source=source, meta=first, snapshot=Interrupted(MARKER)))
    await live.shutdown()
    assert told((await backend.store.load_history(first.id)).items) == ["1+", "2+"]


async def test_a_fork_of_the_last_turn(backend: Backend) -> None:
    source = await stored(backend, [*turn(1), *turn(2), *turn(3)])
    first = meta()
    live = await backend.store.fork(ForkThread(source=source, meta=first, snapshot=LastTurns(1)))
    await live.shutdown()
    assert kept((await backend.store.load_history(first.id)).items)[-2:] == ["said 3", "answer 3"]
    assert "said 2" not in kept((await backend.store.load_history(first.id)).items)


async def test_forks_that_can_not_be_made_leave_nothing(backend: Backend) -> None:
    source = await stored(backend, turn(1))
    first = meta()
    with pytest.raises(InvalidRequest, match="no turn nowhere"):
        await backend.store.fork(ForkThread(source=source, meta=first, snapshot=ThroughTurn("nowhere")))
    with pytest.raises(ThreadNotFound):
        await backend.store.fork(ForkThread(source=new_thread_id(), meta=first, snapshot=Interrupted()))
    assert await backend.store.find_thread(first.id) is None
    assert backend.live_threads() == ()


async def test_an_image_is_stored_once_and_shown(backend: Backend) -> None:
    url = "data:image/png;base64," + "A" * 1000
    pictured = ResponseLine(Message(role="user", content=(InputText("look"), InputImage(url))))
    shown = EventLine(UserMessage("look", images=(url,)))
    source = await stored(backend, [EventLine(TaskStarted("turn 1")), pictured, shown])
    first = meta()
    live = await backend.store.fork(ForkThread(source=source, meta=first, snapshot=Interrupted()))
    await live.shutdown()
    for thread in (source, first.id):
        items = (await backend.store.load_history(thread)).items
        assert str(items).count(url) == 1
        [page] = (await backend.store.list_turns(thread, ListTurns(view="full"))).turns
        [message] = [item for item in page.items if isinstance(item, ShownUserMessage)]
        assert message.content[1]["url"] == url
        tail = await backend.store.load_tail(thread)
        assert shown.msg in tail.events
        tail.close()


async def test_what_a_rollback_would_leave(backend: Backend) -> None:
    thread = await stored(backend, [*turn(1), *turn(2), *turn(3)])
    tail = await backend.store.load_tail(thread)
    for turns, left in ((1, ["said 1", "said 2"]), (2, ["said 1"]), (9, [])):
        made = tail.rolled_back(turns, TruncationPolicy("bytes", 1000))
        assert [message_text(item) for item in made.left.history if isinstance(item, Message)] == left
        assert not made.restored
    tail.close()


# --- spawned threads -------------------------------------------------------------------------------


async def family(backend: Backend) -> list[ThreadId]:
    """A thread, one it spawned, one that this one spawned, and another one of the first, which was closed."""
    one, two, three, four = [await stored(backend, [said(str(number))]) for number in range(4)]
    for parent, child in ((one, two), (two, three), (one, four)):
        await backend.store.set_spawn_edge(SpawnEdge(parent=parent, child=child, status="open"))
    await backend.store.set_spawn_edge(SpawnEdge(parent=one, child=four, status="closed"))
    return [one, two, three, four]


async def test_edges_say_who_spawned_whom_and_how_they_stand(backend: Backend) -> None:
    one, two, three, four = await family(backend)
    await backend.crash()
    edges = [SpawnEdge(parent=one, child=two, status="open"), SpawnEdge(parent=one, child=four, status="closed")]
    assert list(await backend.store.spawned(one)) == sorted(edges, key=lambda edge: edge.child)
    assert await backend.store.spawned(two) == (SpawnEdge(parent=two, child=three, status="open"),)
    assert await backend.store.spawned(three) == ()
    with pytest.raises(ThreadNotFound):
        await backend.store.set_spawn_edge(SpawnEdge(parent=one, child=new_thread_id(), status="open"))


async def test_what_it_spawned_is_archived_along_and_comes_back(backend: Backend) -> None:
    one, two, three, four = await family(backend)
    other = await stored(backend)
    archived = await backend.store.archive(one)
    assert archived[0] == one
    assert set(archived) == {one, two, three, four}
    await backend.crash()
    assert await listed(backend) == {other}
    assert await listed(backend, archived=True) == {one, two, three, four}
    with pytest.raises(InvalidRequest):
        await backend.store.load_history(two)
    assert not (await backend.store.unarchive(one)).archived
    assert await listed(backend) == {one, two, three, four, other}
    assert set(await backend.store.archive(two)) == {two, three}
    assert await listed(backend) == {one, four, other}


async def listed(backend: Backend, *, archived: bool = False) -> set[ThreadId]:
    page = await backend.store.list_threads(ListThreads(limit=100, archived=archived))
    return {thread.thread_id for thread in page.threads}


# --- tools and metadata ----------------------------------------------------------------------------


async def test_tools_of_the_host_are_kept_in_order(backend: Backend) -> None:
    tools: tuple[JsonObject, ...] = (
        {"name": "b", "description": "second", "input_schema": {"type": "object"}, "defer_loading": True},
        {"name": "a", "description": "first", "input_schema": {}, "namespace": "n"},
    )
    thread, without = await stored(backend, first=attrs.evolve(meta(), dynamic_tools=tools)), await stored(backend)
    assert await backend.store.dynamic_tools(thread) == tools
    await backend.crash()
    assert await backend.store.dynamic_tools(thread) == tools
    assert await backend.store.dynamic_tools(without) == ()
    with pytest.raises(ThreadNotFound):
        await backend.store.dynamic_tools(new_thread_id())


async def test_git_facts_are_changed_one_by_one(backend: Backend) -> None:
    thread = await stored(backend)
    await backend.store.update_metadata(thread, MetadataPatch(git=GitPatch(branch="main", commit_hash="abc")))
    changed = await backend.store.update_metadata(thread, MetadataPatch(git=GitPatch(branch=None, repository_url="u")))
    await backend.crash()
    for found in (changed, await backend.store.find_thread(thread)):
        assert found is not None
        assert found.git is not None
        assert (found.git.branch, found.git.commit_hash, found.git.repository_url) == (None, "abc", "u")
    for wrong in (MetadataPatch(), MetadataPatch(git=GitPatch(branch="  "))):
        with pytest.raises(InvalidRequest):
            await backend.store.update_metadata(thread, wrong)
    with pytest.raises(ThreadNotFound):
        await backend.store.update_metadata(new_thread_id(), MetadataPatch(memory_mode="disabled"))


async def test_the_memory_mode_is_changed_and_kept(backend: Backend) -> None:
    thread = await stored(backend)
    born = await stored(backend, first=attrs.evolve(meta(), memory_mode="disabled"))
    changed = await backend.store.update_metadata(thread, MetadataPatch(memory_mode="disabled"))
    assert changed.memory_mode == "disabled"
    await backend.crash()
    for each in (thread, born):
        found = await backend.store.find_thread(each)
        assert found is not None
        assert found.memory_mode == "disabled"
    assert (await backend.store.update_metadata(born, MetadataPatch(memory_mode="enabled"))).memory_mode == "enabled"


async def test_a_live_thread_is_changed_between_its_items(backend: Backend) -> None:
    live = backend.store.create(CreateThread(meta=meta()))
    live.append([said("one")])
    await backend.store.update_metadata(live.thread_id, MetadataPatch(git=GitPatch(branch="main")))
    await backend.store.set_name(live.thread_id, " a name ")
    live.append([telling("two")])
    await live.shutdown()
    await backend.crash()
    found = await backend.store.find_thread(live.thread_id)
    assert found is not None
    assert found.git is not None
    assert (found.git.branch, found.preview) == ("main", "one")
    items = (await backend.store.load_history(live.thread_id)).items
    assert [text for text in kept(items) if text != "meta"] == ["one", "two"]
    assert isinstance(items[0], SessionMeta)


async def test_what_can_not_be_written_is_not_changed(backend: Backend) -> None:
    thread = await stored(backend)
    backend.break_down()
    with pytest.raises(StoreError):
        await backend.store.update_metadata(thread, MetadataPatch(memory_mode="disabled"))
    backend.mend()
    found = await backend.store.find_thread(thread)
    assert found is not None
    assert found.memory_mode == "enabled"


# --- removal ---------------------------------------------------------------------------------------


async def test_what_is_deleted_is_gone_for_good(backend: Backend) -> None:
    thread, other = await stored(backend), await stored(backend)
    await backend.store.delete(thread)
    for _ in range(2):
        assert await backend.store.find_thread(thread) is None
        assert await listed(backend) == {other}
        with pytest.raises(ThreadNotFound):
            await backend.store.load_history(thread)
        with pytest.raises(ThreadNotFound):
            await backend.store.delete(thread)
        with pytest.raises(ThreadNotFound):
            await backend.store.list_turns(thread, ListTurns())
        await backend.crash()


async def test_archived_threads_are_deleted_too_and_running_ones_are_not(backend: Backend) -> None:
    thread = await stored(backend)
    await backend.store.archive(thread)
    await backend.store.delete(thread)
    assert await backend.store.find_thread(thread) is None
    live = (await backend.store.resume(ResumeThread(thread=await stored(backend)))).live
    with pytest.raises(ConflictError, match="running"):
        await backend.store.delete(live.thread_id)
    live.append([telling("still there")])
    await live.shutdown()
    await backend.store.delete(live.thread_id)
    assert await listed(backend) == set()
