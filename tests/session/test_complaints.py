"""What users of other engines complain of, one test each: what long conversations cost, and where they end.

Numbers are the rows of the list that the project keeps of such complaints; others are in `tests/thread_store`.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Sequence
from pathlib import Path

import engine
from engine.models.script_requests import ScriptedRequest
from engine.models.scripts import ScriptedResponse, failed, reply, response, script
from engine.protocol.thread_items import ShownUserMessage
from engine.session.compaction.texts import SUMMARIZE, SUMMARY_PREFIX
from tests.mock_responses import Reply, message_reply, serve_responses
from tests.session.conftest import Lab, texts

HISTORY = 20_000 * 4 + 5000  # bytes of a replacement history at most: what the user said, and what surrounds it
OVERFLOW = response(failed("context_length_exceeded", "too long"))


def image(number: int, size: int = 20_000) -> str:
    """An inline image like no other."""
    return "data:image/png;base64," + base64.b64encode(random.Random(number).randbytes(size)).decode()


def said(number: int) -> list[engine.TextInput | engine.ImageInput]:
    return [engine.TextInput(f"message {number} " + "x" * 4000), engine.ImageInput(image(number))]


async def conversation(session: engine.Session, length: int, *, compacting: bool) -> Path:
    """So many messages with images; the rollout."""
    for number in range(length):
        await session.run(said(number))
        if compacting:
            await session.compact()
    await session.flush()
    assert session.rollout_path is not None
    return Path(session.rollout_path)


def histories(rollout: Path) -> list[str]:
    """The lines that compactions have written."""
    return [line for line in rollout.read_text().splitlines() if json.loads(line)["type"] == "compacted"]


def check_growth(rollout: Path, new: int, times: int) -> None:
    """The file holds what is new, `new` bytes, and short histories; each image stands in it once."""
    text, compacted = rollout.read_text(), histories(rollout)
    assert len(compacted) == times
    assert max(map(len, compacted)) <= HISTORY
    assert len(text) - sum(map(len, compacted)) <= 1.3 * new
    assert [text.count(image(number)) for number in range(times)] == [1] * times


async def check_that_nothing_is_missing(home: Path, thread: engine.ThreadId, messages: Sequence[int]) -> None:
    """The images of the stored thread are shown as they were sent."""
    async with engine.open_threads(home=home) as threads:
        page = await threads.turns(thread, engine.ListTurns(limit=200, direction="asc", view="full"))
    shown = [item for turn in page.turns for item in turn.items if isinstance(item, ShownUserMessage)]
    assert [item.content[1]["url"] for item in shown] == [image(number) for number in messages]


async def test_2_compactions_do_not_copy_the_history(lab: Lab) -> None:
    times, answer = 50, "answer " * 4000
    async with lab.session(*[reply(answer)] * times) as session:
        new = (await conversation(session, times, compacting=False)).stat().st_size
    answers = [each for _ in range(times) for each in (reply(answer), reply("the note"))]
    async with lab.session(*answers) as session:
        rollout = await conversation(session, times, compacting=True)
    check_growth(rollout, new, times)
    await check_that_nothing_is_missing(lab.home, session.thread_id, range(times))
    # Whoever goes on reads the last history alone, and what followed.
    async with lab.open(reply("still here")) as host:
        resumed = await host.resume_session(session.thread_id, settings=lab.settings())
        assert (await resumed.run("and now")).final_message == "still here"
    assert len(json.dumps(lab.input())) < HISTORY + 20_000
    assert image(0)[-100:] not in json.dumps(lab.input())


async def test_2_nor_do_those_of_the_provider(lab: Lab) -> None:
    times, answer = 8, "answer " * 4000
    done = {"type": "response.output_item.done", "item": {"type": "compaction", "encrypted_content": "sealed"}}
    sealed = Reply(events=(done, {"type": "response.completed", "response": {"id": "r"}}))
    answers = [message_reply(answer, number=number) for number in range(2 * times)]
    with serve_responses([*answers[:times], *(each for one in answers[times:] for each in (one, sealed))]) as mock:
        config: dict[str, object] = {
            "model_provider": "mock",
            "model_providers.mock": {"name": "OpenAI", "base_url": mock.base_url},
            "features.remote_compaction_v2": True,
        }
        async with engine.open_engine(home=lab.home, config=config) as host:
            async with host.session(lab.settings()) as session:
                new = (await conversation(session, times, compacting=False)).stat().st_size
            async with host.session(lab.settings()) as session:
                rollout = await conversation(session, times, compacting=True)
    check_growth(rollout, new, times)
    await check_that_nothing_is_missing(lab.home, session.thread_id, range(times))


async def test_11_a_compaction_that_does_not_fit_leaves_no_thread_stuck(lab: Lab) -> None:
    """What the model says is too long for its window, for that of a summary too; no request for one ever succeeds."""

    def answer(request: ScriptedRequest) -> ScriptedResponse:
        conversation = request.all_texts.count("answer")
        if conversation > 1000 or request.user_texts[-1] == SUMMARIZE:
            return OVERFLOW
        return reply("answer " * 400)

    lab.model = engine.ScriptedModel(script(answer))
    ends: list[str] = []
    async with engine.open_engine(home=lab.home, model=lab.model) as host:
        settings = lab.settings(config={"model_context_window": 10_000})
        session = await host.start_session(settings)
        for number in range(12):
            try:
                ends.append((await session.run(f"message {number}")).final_message or "")
            except engine.TurnFailed as exc:
                ends.append(str(exc))
        await session.aclose()
    failures = [number for number, end in enumerate(ends) if "ran out of room" in end]
    assert failures[:1] == [3]
    assert len(failures) + sum(end.startswith("answer") for end in ends) == len(ends)
    # The turn that was too long, and the compaction before the next one: then it goes on, again and again.
    assert failures == [3, 4, 8, 9]
    async with lab.open(reply("and after a restart")) as host:
        resumed = await host.resume_session(session.thread_id, settings=settings)
        assert (await resumed.run("message 12")).final_message == "and after a restart"
    assert any(text.startswith(SUMMARY_PREFIX) for text in texts(lab.input()))
