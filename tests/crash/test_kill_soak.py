"""Killed at any moment, in whatever it does, an engine leaves a home where nothing acknowledged is missing.

Each seed is a home that goes through five kills, two of them of two engines at once. Ten seeds by default, two hundred
with `make soak`: then it is a thousand kills and more.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from engine.errors import ThreadNotFound
from engine.protocol.events import AgentMessage, TaskComplete, TaskStarted, UserMessage
from engine.protocol.ids import ThreadId
from engine.protocol.items import Message, message_text
from engine.protocol.rollout_items import Compacted, EventLine, ResponseLine
from engine.protocol.settings import TruncationPolicy
from engine.rollout.reconstruction import reconstruct
from engine.runtime import open_engine
from engine.session.compaction.texts import summary_text
from engine.thread_store.interface import ListThreads, StoredHistory
from engine.thread_store.threads import Threads
from engine.thread_store.verifying import HomeReport, verify_home
from tests.crash.killer import Killer
from tests.crash.lives import LIVES, model
from tests.proofs import tried
from tests.thread_store.stories import create, said, telling

ROOT = Path(__file__).parents[2]
SUMMARY = summary_text("the note")
SOAK = os.environ.get("ENGINE_TEST_PROFILE") == "soak"
SEEDS = 200 if SOAK else 10
TOGETHER = (
    ("turn", "archive"),
    ("fork", "turn"),
    ("start", "list"),
    ("turn", "list"),
    ("archive", "fork"),
    ("compact", "fork"),
)
# What each kind of life acknowledges, in this order; after the last one it begins again.
ACKNOWLEDGES = {
    "start": ("durable",),
    "turn": ("answered", "complete"),
    "fork": ("forked",),
    "archive": ("moved",),
    "compact": ("complete", "compacted"),
    "list": ("listed",),
}

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.damages_home("by a kill"),
    pytest.mark.proof,
]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    made = Killer("tests.crash.forking", tmp_path_factory.mktemp("user"))
    yield made
    made.close()


@attrs.define
class Promised:
    """What was acknowledged so far, over all lives of a home."""

    threads: set[ThreadId] = attrs.field(factory=set)
    complete: dict[ThreadId, dict[str, int]] = attrs.field(factory=dict)
    answered: dict[ThreadId, set[str]] = attrs.field(factory=dict)
    copies: dict[ThreadId, ThreadId] = attrs.field(factory=dict)
    compacted: dict[ThreadId, int] = attrs.field(factory=dict)

    def take(self, line: str) -> None:
        kind, *words = line.split()
        match kind:
            case "durable" | "moved":
                self.threads.add(ThreadId(words[0]))
            case "answered":
                self.answered.setdefault(ThreadId(words[0]), set()).add(words[1])
            case "complete":
                self.complete.setdefault(ThreadId(words[0]), {})[words[1]] = int(words[2])
            case "forked":
                self.threads.add(ThreadId(words[0]))
                self.copies[ThreadId(words[0])] = ThreadId(words[1])
            case "compacted":
                self.compacted[ThreadId(words[0])] = int(words[1])
            case "listed":
                pass
            case _:
                pytest.fail(f"an engine complained: {line}")

    def known(self) -> set[ThreadId]:
        return self.threads | self.complete.keys() | self.answered.keys()


def plan(seed: int) -> list[list[dict[str, Any]]]:
    """The lives of a home: those of a round are killed together, each at its moment."""
    chance = random.Random(seed)
    rounds: list[list[dict[str, Any]]] = []
    for number in range(5):
        kinds = [LIVES[(seed + number) % 5]] if number < 3 else list(chance.choice(TOGETHER))
        rounds.append([_a_life(kind, f"{seed}-{number}-{kind}", chance) for kind in kinds])
    return rounds


def test_the_seeds_wait_for_every_kind_of_acknowledgement() -> None:
    lives = [life for seed in range(10) for together in plan(seed) for life in together]
    awaited = {word for life in lives for word in ACKNOWLEDGES[life["kind"]][: life["acks"]]}
    assert awaited == {word for words in ACKNOWLEDGES.values() for word in words}
    assert ACKNOWLEDGES.keys() == set(LIVES)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_nothing_acknowledged_is_lost(forks: Killer, tmp_path: Path, seed: int) -> None:
    home = tmp_path / "home"
    promised = Promised()
    await _furnish(home, promised)
    for lives in plan(seed):
        for life, told in zip(lives, forks.do(home=str(home), lives=lives)["told"], strict=True):
            for line in told:
                promised.take(line)
            tried(kills=1, acknowledgements=len(told), **{f"by_{life['kind']}": len(told)})
            assert len(told) >= life["acks"], f"{life} came no further than {told}"
        _check_home(verify_home(home))
        await _check_threads(home, promised)
    await _go_on(home)


def _a_life(kind: str, seed: str, chance: random.Random) -> dict[str, Any]:
    """Some are killed while they start, most while they are at it."""
    acks = chance.choice((0, 1, 1, 2, 3, 6))
    delay = chance.random() * (0.02 if acks else 0.4)
    return {"kind": kind, "seed": seed, "acks": acks, "delay": delay}


async def _furnish(home: Path, promised: Promised) -> None:
    """Two threads that were there before."""
    home.mkdir()
    async with open_engine(home=home, model=model()) as host:
        for _ in range(2):
            params = create()
            live = host._services.store.create(params)
            live.append([said("before"), telling("all of it")])
            await live.shutdown()
            promised.threads.add(params.meta.id)


def _check_home(report: HomeReport) -> None:
    assert report.index.problems == ()
    for file in report.files:
        assert file.clean or file.only_cut_off, (file.path, file.problems, file.rollout)
    assert report.names == ()


async def _check_threads(home: Path, promised: Promised) -> None:
    async with open_engine(home=home, model=model()) as host:
        for thread in promised.known():
            history = await _history(host.threads, thread)
            _check_turns(history, promised.complete.get(thread, {}), promised.answered.get(thread, set()))
            _check_compactions(history, promised.compacted.get(thread, 0), promised.complete.get(thread, {}))
            if (source := promised.copies.get(thread)) is not None:
                assert history.meta.forked_from_id == source


async def _history(threads: Threads, thread: ThreadId) -> StoredHistory:
    try:
        return await threads.history(thread)
    except ThreadNotFound:
        pytest.fail(f"the thread {thread} was acknowledged and is gone")


def _check_turns(history: StoredHistory, complete: dict[str, int], answered: set[str]) -> None:
    """Each acknowledged turn stands in its thread once, with its question and its answer."""
    questions: dict[str, str] = {}
    answers: set[str] = set()
    ended: list[str] = []
    turn = ""
    for item in history.items:
        match item:
            case EventLine(msg=TaskStarted(turn_id=turn)):
                pass
            case EventLine(msg=UserMessage(message=text)):
                questions[turn] = text
            case EventLine(msg=AgentMessage()):
                answers.add(turn)
            case EventLine(msg=TaskComplete(turn_id=turn_id)):
                ended.append(turn_id)
            case _:
                pass
    assert {turn: questions.get(turn) for turn in complete} == {
        turn: f"question {number}" for turn, number in complete.items()
    }
    assert answered <= answers
    assert len(ended) == len(set(ended))
    assert complete.keys() <= set(ended)


def _check_compactions(history: StoredHistory, compacted: int, complete: dict[str, int]) -> None:
    """All that were acknowledged are there, and one that was cut off has taken nothing away."""
    assert sum(isinstance(item, Compacted) for item in history.items) >= compacted
    if compacted:
        left = reconstruct(history.items, TruncationPolicy("bytes", 10_000)).history
        said = {message_text(item) for item in left if isinstance(item, Message)}
        assert {f"question {number}" for number in complete.values()} <= said
        assert SUMMARY in said


async def _go_on(home: Path) -> None:
    """Every thread opens and takes another turn; then nothing is wrong any more, but for starts that were cut off."""
    async with open_engine(home=home, model=model()) as host:
        for archived in (True, False):
            page = await host.threads.list(ListThreads(limit=1000, archived=archived))
            for thread in page.threads:
                if archived:
                    await host.threads.unarchive(thread.thread_id)
        page = await host.threads.list(ListThreads(limit=1000))
        assert len(page.threads) >= 2
        for thread in page.threads[:3]:
            session = await host.resume_session(thread.thread_id)
            result = await session.run("go on")
            assert result.final_message == "answer"
            await session.aclose()
            history = await host.threads.history(thread.thread_id)
            assert any(isinstance(item, ResponseLine) for item in history.items[-5:])
    for file in verify_home(home).files:
        assert file.clean or file.only_cut_off
        if any(thread.path == file.path for thread in page.threads[:3]):
            assert file.clean
