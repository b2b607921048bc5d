"""Every backend of the store behaves as the one in memory, under any sequence of calls, full disks and crashes.

Written against the interface: what a call returns or raises must be the same on both sides, and so must what can be
read afterwards. Further backends go into `backends`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from typing import ClassVar, Literal, TypeVar

import attrs
import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from engine.errors import ConflictError, EngineError, InvalidRequest, StoreError, ThreadNotFound
from engine.protocol.events import (
    ErrorEvent,
    TaskComplete,
    TaskStarted,
    ThreadRolledBack,
    TurnAborted,
    UserMessage,
    Warning,
)
from engine.protocol.ids import ThreadId
from engine.protocol.items import InputImage, Message, user_message
from engine.protocol.profiles import ReadOnly
from engine.protocol.rollout_items import (
    Compacted,
    EventLine,
    ResponseLine,
    RolloutItem,
    SessionMeta,
    TurnContext,
    UnknownLine,
)
from engine.protocol.settings import GitInfo, TruncationPolicy
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
    StoredThread,
    ThreadQuery,
    ThroughTurn,
)
from engine.thread_store.live_thread import LiveThread
from engine.thread_store.memory import InMemoryThreadStore
from tests.proofs import tried
from tests.thread_store.backends import BACKENDS, Backend, MemoryBackend
from tests.thread_store.stories import said, telling

T = TypeVar("T")
Mode = Literal["limited", "extended"]
Step = tuple[str, object, object]

IDS = [ThreadId(f"01900000-0000-7000-8000-00000000000{number}") for number in range(6)]
CWDS = ("/one", "/two")
SOURCES = ("exec", "cli", {"subagent": {"thread_spawn": {"parent_thread_id": IDS[0], "depth": 1}}}, {"internal": "x"})
PICTURE = "data:image/png;base64," + "A" * 500
ITEMS: dict[str, RolloutItem] = {
    "told": telling("told"),
    "said": said("said"),
    "said more": said("said more"),
    "asks": ResponseLine(user_message("asks")),
    "begins 1": EventLine(TaskStarted("turn 1")),
    "begins 2": EventLine(TaskStarted("turn 2")),
    "ends 1": EventLine(TaskComplete("turn 1")),
    "aborted 2": EventLine(TurnAborted("turn 2")),
    "rolled back": EventLine(ThreadRolledBack(1)),
    "error": EventLine(ErrorEvent("only extended threads keep this")),
    "warning": EventLine(Warning("no thread keeps this")),
    "compacted": Compacted("summary"),
    "pictured": ResponseLine(Message(role="user", content=(InputImage(PICTURE),))),
    "shows it": EventLine(UserMessage("", images=(PICTURE,))),
    "foreign": UnknownLine("world_state", {"a": [1, 2]}),
    "moved": TurnContext(
        cwd="/moved", approval_policy="never", sandbox_policy=ReadOnly(), model="m2", effort="low", summary="auto"
    ),
}
SNAPSHOTS: list[Snapshot] = [
    BeforeUserMessage(0),
    BeforeUserMessage(1),
    BeforeUserMessage(2**31),
    Interrupted(),
    Interrupted(user_message("<turn_aborted>x</turn_aborted>")),
    LastTurns(0),
    LastTurns(1),
    LastTurns(9),
    ThroughTurn("turn 1"),
]
PATCHES = [
    MetadataPatch(),
    MetadataPatch(git=GitPatch()),
    MetadataPatch(git=GitPatch(branch=" ")),
    MetadataPatch(git=GitPatch(branch="main")),
    MetadataPatch(git=GitPatch(branch=None, commit_hash="abc"), memory_mode="disabled"),
    MetadataPatch(memory_mode="enabled"),
]

modes = st.sampled_from(["limited", "extended"])
numbers = st.integers(0, len(IDS) - 1)
item_names = st.lists(st.sampled_from(sorted(ITEMS)), max_size=5)
queries = st.builds(
    ListThreads,
    limit=st.integers(1, 3),
    direction=st.sampled_from(["desc", "asc"]),
    archived=st.booleans(),
    source_kinds=st.sampled_from([None, (), ("cli",), ("exec", "subAgent")]),
    cwds=st.sampled_from([None, None, ("/one",), ("/one", "/two"), ("/nowhere",)]),
    model_providers=st.sampled_from([None, ("scripted",), ("other",)]),
    search=st.sampled_from([None, None, "said", "SAID", "name"]),
    excluded=st.sampled_from([(), (IDS[0],)]),
)


def first_line(number: int) -> SessionMeta:
    """Threads 0 and 1 were created in the same millisecond."""
    return SessionMeta(
        id=IDS[number],
        timestamp=f"2025-01-02T03:04:05.{max(1, number)}00Z",
        cwd=CWDS[number % 2],
        originator="tests",
        cli_version="0.1.0",
        source=SOURCES[number % 4],
        model_provider="scripted",
        dynamic_tools=({"name": f"tool {number}"},) if number % 2 else (),
        git=GitInfo(branch="old") if number == 2 else None,
    )


def shown(thread: StoredThread | None) -> object:
    """What both sides must agree on: not where it is stored, and when."""
    return thread and attrs.evolve(thread, path=None, updated_at=0.0)


def told(items: tuple[RolloutItem, ...]) -> list[object]:
    """Items, told apart; what the store adds itself included."""
    known = {repr(item): name for name, item in ITEMS.items()}
    return [known.get(repr(item), item) for item in items]


class Side:
    """One backend, and the live threads its calls gave."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.live: dict[int, LiveThread] = {}
        self.broken = False

    async def step(self, step: Step) -> object:
        """What a call came to."""
        try:
            return await self._call(*step)
        except (ConflictError, InvalidRequest, ThreadNotFound) as exc:
            return type(exc).__name__, str(exc)
        except EngineError as exc:
            return type(exc).__name__

    async def _call(self, verb: str, subject: object, argument: object) -> object:
        store = self.backend.store
        if verb in ("break", "mend", "crash"):
            await self._befall(verb)
            return None
        if verb == "list":
            assert isinstance(subject, ListThreads)
            return await self._whole_listing(subject)
        if verb == "latest":
            assert subject is None or isinstance(subject, str)
            return await store.latest_thread(ThreadQuery(cwd=subject)) is not None
        if verb in ("fork", "edge"):
            assert isinstance(subject, tuple)
            one, two = subject
            if verb == "edge":
                edge = SpawnEdge(parent=IDS[one], child=IDS[two], status="closed" if argument == "closed" else "open")
                await store.set_spawn_edge(edge)
                return None
            assert isinstance(argument, BeforeUserMessage | Interrupted | LastTurns | ThroughTurn)
            if await store.find_thread(IDS[two]) is not None:
                return "ids are never given twice"
            self.live[two] = await store.fork(
                ForkThread(source=IDS[one], meta=first_line(two), snapshot=argument, mode="limited")
            )
            history = await store.load_history(IDS[two])
            return told(history.items), history.generation
        assert isinstance(subject, int)
        return await self._call_on(verb, subject, argument)

    async def _call_on(self, verb: str, number: int, argument: object) -> object:
        store, thread_id = self.backend.store, IDS[number]
        mode: Mode = "extended" if argument == "extended" else "limited"
        match verb:
            case "create":
                if await store.find_thread(thread_id) is not None:
                    return "ids are never given twice"
                self.live[number] = store.create(CreateThread(meta=first_line(number), mode=mode))
                return None
            case "resume":
                resumed = await store.resume(ResumeThread(thread=thread_id, mode=mode))
                self.live[number] = resumed.live
                return told(resumed.history.items), resumed.history.generation
            case "load":
                history = await store.load_history(thread_id)
                return told(history.items), history.generation, history.skipped, history.cwd
            case "tail":
                tail = await store.load_tail(thread_id)
                generation = await store.count_generation(tail)
                policy = TruncationPolicy("bytes", 1000)
                left, events = tail.rolled_back(1, policy), tuple(tail.events)
                made = tail.reconstruct(policy)
                tail.close()
                return generation, made, left, events, tail.cwd, tail.thread_id
            case "find":
                return shown(await store.find_thread(thread_id))
            case "turns":
                return await self._all_turns(thread_id, str(argument))
            case "tools":
                return await store.dynamic_tools(thread_id)
            case "spawned":
                return await store.spawned(thread_id)
            case "archive":
                return await store.archive(thread_id)
            case "unarchive":
                return shown(await store.unarchive(thread_id))
            case "delete":
                await store.delete(thread_id)
                return None
            case "name":
                await store.set_name(thread_id, str(argument))
                return None
            case "patch":
                assert isinstance(argument, MetadataPatch)
                return shown(await store.update_metadata(thread_id, argument))
        live = self.live.get(number)
        if live is None:
            return "no such live thread"
        return await self._call_live(live, verb, argument)

    async def _all_turns(self, thread_id: ThreadId, direction: str) -> object:
        """The turns of all pages, one after the other; and back again from the last one."""
        store = self.backend.store
        query = ListTurns(limit=2, direction="asc" if direction == "asc" else "desc", view="full", active="turn 2")
        turns: list[object] = []
        last: str | None = None
        while True:
            page = await store.list_turns(thread_id, query)
            turns.append(page.turns)
            last = page.backwards_cursor or last
            if page.next_cursor is None:
                break
            query = attrs.evolve(query, cursor=page.next_cursor)
        back = attrs.evolve(query, cursor=last, limit=100, direction="desc" if query.direction == "asc" else "asc")
        return turns, (await store.list_turns(thread_id, back)).turns if last is not None else None

    async def _call_live(self, live: LiveThread, verb: str, argument: object) -> object:
        if verb == "append":
            assert isinstance(argument, list)
            submitted = live.append([ITEMS[name] for name in argument])
            if not live.closed:
                with pytest.raises(StoreError) if self.broken and live.submitted > live.written else trio.CancelScope():
                    await live.flush()
            return submitted, live.acknowledged, live.written, live.last_error is None
        if verb == "forget":
            live.forget()
            return None
        call: Callable[[], Awaitable[None]] = getattr(live, verb)
        await call()
        return None

    async def _befall(self, verb: str) -> None:
        if verb == "crash":
            await self.backend.crash()
            self.live.clear()
        elif verb == "break":
            self.backend.break_down()
            self.broken = True
        else:
            self.backend.mend()
            self.broken = False

    async def _whole_listing(self, query: ListThreads) -> object:
        """All pages, one after the other; and back again from the last one."""
        pages: list[list[object]] = []
        cursor: str | None = None
        last: str | None = None
        while not pages or cursor is not None:
            page = await self.backend.store.list_threads(attrs.evolve(query, cursor=cursor))
            pages.append([shown(thread) for thread in page.threads])
            cursor, last = page.next_cursor, page.backwards_cursor or last
        back = attrs.evolve(query, cursor=last, direction="asc" if query.direction == "desc" else "desc", limit=100)
        returned = await self.backend.store.list_threads(back) if last is not None else None
        return pages, returned and [shown(thread) for thread in returned.threads]


class Portal:
    """A Trio run in a thread of its own, for callers that are not asynchronous."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._stop = trio.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,))
        self._thread.start()
        self._ready.wait()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._ready.set()
        await self._stop.wait()

    def call(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        return trio.from_thread.run(function, *args, trio_token=self._token)

    def close(self) -> None:
        self._token.run_sync_soon(self._stop.set)
        self._thread.join()


class StoreMachine(RuleBasedStateMachine):
    """The same calls on the reference and on a backend; those that make sense more often than those that don't."""

    open_backend: ClassVar[Callable[[], Awaitable[Backend]]]

    def __init__(self) -> None:
        super().__init__()
        tried(stories=1)
        self.portal = Portal()
        try:
            other = self.portal.call(type(self).open_backend)
        except BaseException:
            self.portal.close()
            raise
        self.sides = (Side(MemoryBackend()), Side(other))

    def do(self, verb: str, subject: object = None, argument: object = None) -> None:
        tried(calls=1)
        one, other = self.sides
        step = (verb, subject, argument)
        assert self.portal.call(one.step, step) == self.portal.call(other.step, step), step
        assert set(one.backend.live_threads()) == set(other.backend.live_threads()), step

    @property
    def memory(self) -> InMemoryThreadStore:
        store = self.sides[0].backend.store
        assert isinstance(store, InMemoryThreadStore)
        return store

    def live(self) -> list[int]:
        return sorted(IDS.index(thread_id) for thread_id in self.memory.live_threads())

    def stored(self) -> list[int]:
        return [number for number, thread_id in enumerate(IDS) if self.memory.items(thread_id)]

    def free(self) -> list[int]:
        return [number for number in range(len(IDS)) if number not in self.live() and number not in self.stored()]

    @precondition(lambda self: self.free())
    @rule(data=st.data(), mode=modes, names=item_names)
    def create(self, data: st.DataObject, mode: str, names: list[str]) -> None:
        number = data.draw(st.sampled_from(self.free()))
        self.do("create", number, mode)
        if names:
            self.do("append", number, names)

    @precondition(lambda self: self.stored())
    @rule(data=st.data(), mode=modes)
    def resume(self, data: st.DataObject, mode: str) -> None:
        self.do("resume", data.draw(st.sampled_from(self.stored())), mode)

    @precondition(lambda self: self.live())
    @rule(data=st.data(), names=item_names)
    def append(self, data: st.DataObject, names: list[str]) -> None:
        self.do("append", data.draw(st.sampled_from(self.live())), names)

    @precondition(lambda self: self.live())
    @rule(
        data=st.data(),
        verb=st.sampled_from(["persist", "flush", "shutdown", "shutdown", "discard", "abandon", "forget"]),
    )
    def end(self, data: st.DataObject, verb: str) -> None:
        self.do(verb, data.draw(st.sampled_from(self.live())))

    @precondition(lambda self: self.stored() and self.free())
    @rule(data=st.data(), snapshot=st.sampled_from(SNAPSHOTS))
    def fork(self, data: st.DataObject, snapshot: Snapshot) -> None:
        source = data.draw(st.sampled_from(sorted({*self.stored(), *self.live()})))
        self.do("fork", (source, data.draw(st.sampled_from(self.free()))), snapshot)

    @precondition(lambda self: self.stored())
    @rule(
        data=st.data(),
        verb=st.sampled_from(["load", "tail", "find", "tools", "spawned", "archive", "unarchive", "delete", "turns"]),
    )
    def ask(self, data: st.DataObject, verb: str) -> None:
        self.do(verb, data.draw(st.sampled_from(self.stored())))

    @precondition(lambda self: self.stored() or self.live())
    @rule(data=st.data(), patch=st.sampled_from(PATCHES), name=st.sampled_from(["a name", " another name ", "  "]))
    def change(self, data: st.DataObject, patch: MetadataPatch, name: str) -> None:
        number = data.draw(st.sampled_from(sorted({*self.stored(), *self.live()})))
        self.do("patch", number, patch)
        self.do("name", number, name)

    @precondition(lambda self: self.stored())
    @rule(data=st.data(), parent=numbers, status=st.sampled_from(["open", "closed"]))
    def edge(self, data: st.DataObject, parent: int, status: str) -> None:
        self.do("edge", (parent, data.draw(st.sampled_from(self.stored()))), status)

    @rule(query=queries, cwd=st.sampled_from([None, *CWDS, "/moved"]))
    def list(self, query: ListThreads, cwd: str | None) -> None:
        self.do("list", query)
        self.do("latest", cwd)

    @rule(
        verb=st.sampled_from(
            ["resume", "load", "tail", "find", "tools", "spawned", "archive", "unarchive", "delete", "flush", "create"]
        ),
        number=numbers,
    )
    def anything(self, verb: str, number: int) -> None:
        self.do(verb, number, "limited")

    @rule(verb=st.sampled_from(["break", "mend", "mend", "crash"]))
    def befall(self, verb: str) -> None:
        self.do(verb)

    def teardown(self) -> None:
        try:
            for number in range(len(IDS)):
                for verb in ("load", "find", "spawned"):
                    self.do(verb, number)
        finally:
            for side in self.sides:
                self.portal.call(side.backend.aclose)
            self.portal.close()


SOAK = os.environ.get("ENGINE_TEST_PROFILE") == "soak"


@pytest.mark.proof
@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_behaves_as_memory_does(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    class Machine(StoreMachine):
        open_backend = staticmethod(lambda: BACKENDS[name](tmp_path_factory.mktemp("home")))

    run_state_machine_as_test(
        Machine,
        settings=settings(
            suppress_health_check=list(HealthCheck),
            max_examples=1000 if SOAK else 25,
            stateful_step_count=50 if SOAK else 30,
            deadline=None,
        ),
    )
