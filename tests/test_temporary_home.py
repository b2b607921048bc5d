"""No test ever sees the user's home; tests/demo says the same of the demo."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

import engine
from engine.config.loading import find_home

REAL_HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)


def is_temporary(path: Path) -> bool:
    return path.resolve().is_relative_to(Path(tempfile.gettempdir()).resolve())


def test_the_home_of_every_test_is_temporary() -> None:
    assert is_temporary(find_home())
    assert is_temporary(Path.home())
    assert not find_home().is_relative_to(REAL_HOME / ".codex")


async def test_an_engine_without_a_home_takes_it_from_the_environment() -> None:
    async with engine.open_engine(model=engine.ScriptedModel(["hello"])) as host, host.session() as session:
        await session.run("hi")
    assert host.home == find_home()
    assert session.rollout_path is not None
    assert is_temporary(Path(session.rollout_path))
