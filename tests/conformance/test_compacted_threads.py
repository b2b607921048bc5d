"""The real program goes on with threads that were compacted and rolled back here, with just what is left of them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import trio

import engine
from benchmarks.peer import find_peer
from engine.models.scripts import reply, script
from engine.session.compaction.texts import SUMMARY_PREFIX
from tests.cli.running import make_repository
from tests.mock_responses import message_reply, serve_responses
from tests.session.conftest import texts

pytestmark = pytest.mark.conformance

SUMMARY = f"{SUMMARY_PREFIX}\nthe note"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)


@pytest.fixture
def peer() -> Path:
    """The real binary."""
    found = find_peer(None)
    if found is None:
        if os.environ.get("ENGINE_REQUIRE_CONFORMANCE"):
            pytest.fail("the package openai-codex-cli-bin is not installed")
        pytest.skip("the package openai-codex-cli-bin (extra `conformance`) is not installed")
    return found


def compacted_here(home: Path, project: Path) -> str:
    """A thread with an image, two compactions and a turn that was rolled back."""

    async def main() -> str:
        answers = [reply("seen"), reply("first note"), reply("a"), reply("the note"), reply("b"), reply("c")]
        async with engine.open_engine(home=home, model=engine.ScriptedModel(script(*answers))) as opened:
            session = await opened.start_session(engine.SessionSettings(cwd=project, sandbox="danger-full-access"))
            await session.run([engine.TextInput("look at this"), engine.ImageInput(PIXEL)])
            await session.compact()
            await session.run("first question")
            await session.compact()
            await session.run("second question")
            await session.run("taken back")
            await session.rollback()
            await session.aclose()
            return session.thread_id

    return trio.run(main)


def their_turn(peer: Path, project: Path, thread: str, text: str) -> str:
    """The real program goes on with the thread; what it prints."""
    words = ["exec", "--json", "--skip-git-repo-check", "-s", "danger-full-access", "resume", thread, text]
    done = subprocess.run(
        [str(peer), *words], cwd=project, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, (done.stdout.decode(), done.stderr.decode())
    return done.stdout.decode()


def test_it_goes_on_where_a_compaction_left_off(peer: Path, tmp_path: Path) -> None:
    home, project = Path(os.environ["CODEX_HOME"]), make_repository(tmp_path / "project")
    thread = compacted_here(home, project)
    with serve_responses([message_reply("from there", number=number) for number in range(3)]) as mock:
        (home / "config.toml").write_text(
            'model = "gpt-5.5"\nmodel_provider = "served"\n'
            f'[model_providers.served]\nname = "served"\nbase_url = "{mock.base_url}"\nstream_max_retries = 0\n'
        )
        shown = their_turn(peer, project, thread, "and now")
        sent = mock.requests[-1]["input"]
    said = texts(sent)
    at = said.index("look at this")  # behind the instructions
    assert said[at : at + 3] == ["look at this", "first question", SUMMARY]
    assert {"second question", "b", "and now"} <= set(said)
    assert "taken back" not in said
    assert "first note" not in json.dumps(sent)
    assert PIXEL not in json.dumps(sent)
    assert "from there" in shown
    assert _goes_on_here(home, project, thread)[:3] == ["look at this", "first question", SUMMARY]


def _goes_on_here(home: Path, project: Path, thread: str) -> list[str]:
    async def main() -> list[str]:
        model = engine.ScriptedModel(script(reply("back home")))
        async with engine.open_engine(home=home, model=model) as opened:
            settings = engine.SessionSettings(cwd=project, sandbox="danger-full-access")
            session = await opened.resume_session(engine.ThreadId(thread), settings=settings)
            await session.run("once more")
            assert session._core.generation == 2
        items = model.requests[-1].body["input"]
        assert isinstance(items, list)
        said = texts(items)
        assert "from there" in said
        return said

    return trio.run(main)


def test_a_summary_of_its_own_is_known_as_one(peer: Path, tmp_path: Path) -> None:
    """It compacts a thread of ours by itself; our next compaction replaces its summary."""
    home, project = Path(os.environ["CODEX_HOME"]), make_repository(tmp_path / "project")
    thread = compacted_here(home, project)
    usage = {"input_tokens": 9_000, "output_tokens": 20}
    replies = [
        message_reply("full", usage=usage, number=1),
        message_reply("its note", number=2),
        message_reply("after", number=3),
    ]
    with serve_responses(replies) as mock:
        (home / "config.toml").write_text(
            'model = "gpt-5.5"\nmodel_provider = "served"\nmodel_auto_compact_token_limit = 8000\n'
            f'[model_providers.served]\nname = "served"\nbase_url = "{mock.base_url}"\nstream_max_retries = 0\n'
        )
        for text in ("fill it", "go on"):
            their_turn(peer, project, thread, text)
    (rollout,) = home.rglob(f"rollout-*{thread}.jsonl")
    assert "its note" in rollout.read_text()

    async def main() -> list[str]:
        model = engine.ScriptedModel(script(reply("our note"), reply("end")))
        async with engine.open_engine(home=home, model=model, ignore_user_config=True) as opened:
            settings = engine.SessionSettings(cwd=project, sandbox="danger-full-access")
            session = await opened.resume_session(engine.ThreadId(thread), settings=settings)
            await session.compact()
            await session.run("the end")
        asked, items = (request.body["input"] for request in model.requests)
        assert isinstance(asked, list)
        assert isinstance(items, list)
        assert any(text.endswith("\nits note") for text in texts(asked))
        return texts(items)

    said = trio.run(main)
    assert not any("its note" in text for text in said)
    assert {"fill it", "go on"} <= set(said)
    assert f"{SUMMARY_PREFIX}\nour note" in said
