"""Whatever was said, compacted, interrupted and rolled back: a resumed thread is the thread that was left."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import engine
from engine.models.script_requests import ScriptedRequest
from engine.models.scripts import ScriptedResponse, call, failed, reply, response, say, script, usage, wait
from engine.protocol.items import Message
from engine.rollout.boundaries import is_user_turn_boundary, user_text
from engine.session.compaction.texts import SUMMARIZE, is_summary
from engine.session.core import SessionCore
from engine.thread_store.memory import InMemoryThreadStore

SOAK = os.environ.get("ENGINE_TEST_PROFILE") == "soak"
FULL = 1000
CONFIG = {"model_context_window": 10_000, "model_auto_compact_token_limit": 900}
# Words of a story: turns (of which some fill the window, at their end or in their middle), compactions, rollbacks.
WORDS = [
    "said",
    "filled",
    "tools",
    "tools filled",
    "image",
    "compact",
    "compact fails",
    "compact stopped",
    "back 1",
    "back 2",
]

words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9)


class Model:
    """Answers by what was asked last."""

    def __init__(self) -> None:
        self.fails = False
        self.holds = False
        self.calls = 0
        self.answers = 0
        self.asked = trio.Event()

    def answer(self, request: ScriptedRequest) -> ScriptedResponse:
        self.answers += 1
        last = request.user_texts[-1] if request.user_texts else ""
        if last == SUMMARIZE:
            self.asked.set()
            if self.fails:
                return response(failed("insufficient_quota"))
            return response(wait()) if self.holds else reply(f"note {self.answers}")
        full = usage(FULL if "filled" in request.all_texts.splitlines()[-1] or "filled" in last else 10, 1)
        if self.calls:
            self.calls -= 1
            return response(call("look", at="it"), full)
        return response(say(f"answer {self.answers}"), full)


@engine.tool()
async def look(at: str) -> str:
    """Looks at something."""
    return f"seen {at}"


async def act(session: engine.Session, model: Model, word: str, number: int) -> None:
    """One word of the story."""
    model.fails, model.holds, model.calls = word == "compact fails", word == "compact stopped", 0
    match word.split():
        case ["back", turns]:
            await session.rollback(int(turns))
        case ["compact"]:
            await session.compact()
        case ["compact", "fails"]:
            with pytest.raises(engine.TurnFailed):
                await session.compact()
        case ["compact", "stopped"]:
            model.asked = trio.Event()
            turn = await session.start_compaction()
            await model.asked.wait()
            await turn.interrupt()
            with pytest.raises(engine.TurnInterrupted):
                await turn.result()
        case ["image"]:
            await session.run([engine.TextInput(f"image {number}"), engine.ImageInput("data:image/png;base64,AAAA")])
        case _:
            model.calls = 2 if "tools" in word else 0
            await session.run(f"{word} {number}")


def state(core: SessionCore) -> tuple[object, ...]:
    """What later turns depend on."""
    return (
        core.history.for_request(images=True),
        core.reference,
        core.previous_model,
        core.usage,
        core.generation,
    )


def said(core: SessionCore) -> list[str]:
    """What the user said, as far as the model sees it."""
    messages = [item for item in core.history.items if isinstance(item, Message) and item.role == "user"]
    return [user_text(item) for item in messages if is_user_turn_boundary(item) and not is_summary(user_text(item))]


async def tell(story: list[str], home: Path, store: InMemoryThreadStore | None) -> None:
    model = Model()
    scripted = engine.ScriptedModel(script(model.answer))
    work = engine.SessionSettings(cwd=home, sandbox="danger-full-access", config=CONFIG)
    async with engine.open_engine(home=home, model=scripted, store=store) as opened:
        session = await opened.start_session(work, tools=(look,))
        await session.run("first")
        kept = ["first"]
        for number, word in enumerate(story):
            await act(session, model, word, number)
            match word.split():
                case ["back", turns]:
                    del kept[-int(turns) :]
                case ["compact", *_]:
                    pass
                case _:
                    kept.append(f"{word} {number}")
            assert said(session._core) == kept
        await session.aclose()
        left = state(session._core)
        resumed = await opened.resume_session(session.thread_id, settings=work, tools=(look,))
        core = resumed._core
        await core.settle_past()
        await core.generation_counted()
        assert state(core) == left
        model.fails = model.holds = False
        model.calls = 0
        await resumed.run("last")


@settings(max_examples=1000 if SOAK else 25)
@given(words)
def test_in_memory(story: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(tell, story, Path(folder), InMemoryThreadStore())


@settings(max_examples=300 if SOAK else 15)
@given(words)
def test_in_rollouts(story: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(tell, story, Path(folder), None)
