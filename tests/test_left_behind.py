"""The check of what tests leave behind finds what is wrong, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.thread_store.local import open_local_store
from tests.left_behind import claims_sound_homes, stores_noted, wrong_in
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
    assert wrong_in({str(tmp_path / "nowhere"): None}) == []


def test_damage_is_no_secret(request: pytest.FixtureRequest) -> None:
    assert not claims_sound_homes(request.node)
