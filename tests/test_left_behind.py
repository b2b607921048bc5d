"""The check of what tests leave behind finds what is wrong, and only that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.thread_store.local import open_local_store
from tests.left_behind import allowed, stores_noted, wrong_in
from tests.thread_store.stories import create, said

pytestmark = pytest.mark.damages_home


async def test_damage_is_found(tmp_path: Path) -> None:
    homes: dict[str, None] = {}
    with stores_noted(homes):
        async with open_local_store(tmp_path / "home") as store:
            live = store.create(create())
            live.append([said("hello")])
            await live.shutdown()
    assert homes == {str(tmp_path / "home"): None}
    assert wrong_in(homes) == []
    [path] = tmp_path.rglob("*.jsonl")
    with path.open("ab") as file:
        file.write(b"nonsense\n")
    [problem] = wrong_in(homes)
    assert f"{path}: line 3: " in problem
    assert wrong_in(homes, "a cut off line") == [problem]
    assert wrong_in(homes, "anything") == []
    os.truncate(path, path.stat().st_size - 2)
    assert len(wrong_in(homes)) == 1
    assert wrong_in(homes, "a cut off line") == []
    (tmp_path / "home/session_index.jsonl").write_text("nonsense\n")
    assert "session_index.jsonl" in wrong_in(homes, "a cut off line")[0]
    assert wrong_in({str(tmp_path / "nowhere"): None}) == []


def test_damage_is_no_secret(request: pytest.FixtureRequest) -> None:
    assert allowed(request.node) == "anything"


@pytest.mark.damages_home("by a kill")
def test_nor_is_a_kill(request: pytest.FixtureRequest) -> None:
    assert allowed(request.node) == "a cut off line"
