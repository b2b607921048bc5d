"""The local store against the one in memory: the same calls on both come to the same, step by step."""

from __future__ import annotations

import errno
from typing import Literal

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import ConflictError, EngineError, InvalidRequest, StoreError, ThreadNotFound
from engine.protocol.events import ErrorEvent, Warning
from engine.protocol.ids import ThreadId
from engine.protocol.rollout_items import Compacted, EventLine, RolloutItem
from engine.thread_store.appender import Appender, InlineAppender
from engine.thread_store.interface import CreateThread, ResumeThread, ThreadQuery
from engine.thread_store.live_thread import LiveThread
from engine.thread_store.local import LocalThreadStore
from engine.thread_store.memory import InMemoryThreadStore
from tests.thread_store.faults import FaultyFiles
from tests.thread_store.stories import kept, meta, said, telling

Store = LocalThreadStore | InMemoryThreadStore
Step = tuple[str, int, object]

IDS = [ThreadId(f"01900000-0000-7000-8000-00000000000{number}") for number in range(3)]
CWDS = ("/one", "/two")
ITEMS: dict[str, RolloutItem] = {
    "told": telling("told"),
    "said": said("said"),
    "error": EventLine(ErrorEvent("only extended threads keep this")),
    "warning": EventLine(Warning("no thread keeps this")),
    "compacted": Compacted("summary"),
}

verbs = st.sampled_from(
    ["create", "resume", "persist", "flush", "shutdown", "discard", "abandon", "forget", "load", "find"]
)
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(verbs, st.integers(0, 2), st.sampled_from(["limited", "extended"])),
    st.tuples(st.just("append"), st.integers(0, 2), st.lists(st.sampled_from(sorted(ITEMS)), max_size=4)),
    st.tuples(st.just("latest"), st.just(0), st.sampled_from([None, *CWDS, "/nowhere"])),
    st.tuples(st.just("break"), st.just(0), st.booleans()),
)


class Side:
    """One store, and the live threads its calls gave."""

    def __init__(self, store: Store, files: FaultyFiles | None) -> None:
        self.store = store
        self.files = files
        self.live: dict[int, LiveThread] = {}

    async def step(self, step: Step) -> object:
        """What a call came to, as far as both stores must agree."""
        try:
            return await self._call(*step)
        except (ConflictError, InvalidRequest, ThreadNotFound) as exc:
            return type(exc).__name__, str(exc)
        except EngineError as exc:
            return type(exc).__name__

    async def _call(self, verb: str, number: int, argument: object) -> object:
        thread_id = IDS[number]
        mode: Literal["limited", "extended"] = "extended" if argument == "extended" else "limited"
        match verb:
            case "create":
                first = meta(thread_id, cwd=CWDS[number % 2])
                self.live[number] = self.store.create(CreateThread(meta=first, mode=mode))
                return None
            case "resume":
                resumed = await self.store.resume(ResumeThread(thread=thread_id, mode=mode))
                self.live[number] = resumed.live
                return kept(resumed.history.items), resumed.history.generation
            case "load":
                history = await self.store.load_history(thread_id)
                return kept(history.items), history.generation, history.skipped, history.cwd
            case "find":
                found = await self.store.find_thread(thread_id)
                return found and (found.thread_id, found.latest_cwd, found.preview)
            case "latest":
                newest = await self.store.latest_thread(
                    ThreadQuery(cwd=argument if isinstance(argument, str) else None)
                )
                return newest is not None
            case "break":
                self._break(bool(argument))
                return None
        live = self.live.get(number)
        if live is None:
            return "no such live thread"
        if verb == "append":
            assert isinstance(argument, list)
            submitted = live.append([ITEMS[name] for name in argument])
            if not live.closed:
                with (
                    pytest.raises(StoreError) if self._broken and live.submitted > live.written else trio.CancelScope()
                ):
                    await live.flush()
            return submitted, live.acknowledged, live.written, live.last_error is None
        if verb == "forget":
            live.forget()
            return None
        await getattr(live, verb)()
        return None

    @property
    def _broken(self) -> bool:
        return self.files.broken != 0 if self.files is not None else self._memory.failure is not None

    @property
    def _memory(self) -> InMemoryThreadStore:
        assert isinstance(self.store, InMemoryThreadStore)
        return self.store

    def _break(self, broken: bool) -> None:
        if self.files is not None:
            self.files.broken = errno.ENOSPC if broken else 0
        else:
            self._memory.failure = StoreError("full") if broken else None


@pytest.mark.parametrize("inline", [True, False])
@given(st.lists(steps, max_size=25))
@example(
    [
        ("break", 0, True),
        ("create", 0, "limited"),
        ("append", 0, ["compacted"]),
        ("discard", 0, "limited"),
        ("append", 0, []),
    ]
)
def test_both_stores_agree(tmp_path_factory: pytest.TempPathFactory, inline: bool, story: list[Step]) -> None:
    async def tell() -> None:
        files = FaultyFiles()
        appender = InlineAppender(files=files) if inline else Appender(files=files)
        home = tmp_path_factory.mktemp("home")
        local, memory = Side(LocalThreadStore(home, appender), files), Side(InMemoryThreadStore(), None)
        for step in story:
            assert await local.step(step) == await memory.step(step), step
            assert set(local.store.live_threads()) == set(memory.store.live_threads())
        files.broken = 0
        await appender.aclose()
        assert files.open_handles == set()

    trio.run(tell)
