"""Killed at any line of a start, or after any part of the time a command takes, an engine leaves no process and a home
that is sound; the next start works."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import pytest

from engine.thread_store.verifying import verify_home
from tests.sweeps.places import Stored, stored_threads

ROOT = Path(__file__).parents[2]
SOAK = os.environ.get("ENGINE_TEST_PROFILE") == "soak"
OFTEN = ("everything", "everything forked", "uncounted", "locked")
KINDS = (*OFTEN, "everything resumed", "writing", "last") if SOAK else OFTEN
SAMPLE = 150 if SOAK else 6  # lines per kind
TIMES = 60 if SOAK else 4  # kills of the command

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@final
class Server:
    """The process that starts and kills."""

    def __init__(self, user_home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.starting"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(user_home)},
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def do(self, **order: object) -> dict[str, Any]:
        """What came of an order. Nothing of it runs any more."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert answer["orphans"] == [], "processes outlived the engine that started them"
        return answer

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("user"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return stored_threads(tmp_path_factory.mktemp("stored"))


def check_home(home: Path, before: dict[str, bytes]) -> None:
    """Nothing is damaged, and nothing that was there has changed, but for what came behind."""
    report = verify_home(home)
    assert report.index.problems == ()
    for file in report.files:
        assert file.clean or file.only_cut_off, (file.path, file.problems, file.rollout)
    for name, content in before.items():
        assert (home / name).read_bytes().startswith(content)


def rollouts(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("rollout-*.jsonl")}


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_a_line(kind: str, server: Server, stored: Stored, tmp_path: Path) -> None:
    def start(number: int, line: list[str] | None, *, watch: bool = False) -> dict[str, Any]:
        folder = tmp_path / str(number)
        home = folder / "home"
        if not home.exists():
            folder.mkdir()
            stored.copy(folder)
        place = {"home": str(home), "cwd": str(stored.cwd), "thread": stored.thread}
        return server.do(**place, kind=kind, line=line, watch=watch)

    start(0, None)  # imports; the lines of that are no points of ours
    survey = start(0, None, watch=True)
    assert survey["outcome"] == "fine"
    lines = survey["lines"]
    assert len(lines) > 300, "all that runs is seen"
    chosen = random.Random(kind).sample(lines, SAMPLE)
    killed = 0
    for number, line in enumerate(chosen, 1):
        answer = start(number, line)
        if answer["outcome"] == "fine":
            continue  # not reached this time: what a thread does first varies
        assert answer["outcome"] == "killed", f"at {line}: {answer['outcome']}"
        killed += 1
        home = tmp_path / str(number) / "home"
        check_home(home, rollouts(stored.home))
        assert start(number, None)["outcome"] == "fine", f"after {line}"
        check_home(home, rollouts(stored.home))
    print(f"{kind}: {len(lines)} lines, {len(chosen)} tried, {killed} killed")
    assert killed >= 0.9 * len(chosen)


def test_a_command_is_killed_while_it_starts(server: Server, stored: Stored, tmp_path: Path) -> None:
    argv = [sys.executable, "-P", "-m", "engine", "exec", "--json", "--skip-git-repo-check"]
    script = tmp_path / "script.toml"
    script.write_text('[[responses]]\nshell = "sleep 1000 >/dev/null 2>&1 & echo out"\n[[responses]]\ntext = "fine"\n')
    argv += ["--sandbox", "danger-full-access", "--model-provider", "scripted", "--script", str(script), "go"]

    def run(home: Path, delay: float | None) -> dict[str, Any]:
        environment = {**os.environ, "CODEX_HOME": str(home), "PYTHONPATH": str(ROOT)}
        return server.do(argv=argv, environment=environment, delay=delay)

    (tmp_path / "whole").mkdir()
    whole = run(stored.copy(tmp_path / "whole"), None)
    assert whole["outcome"] == "0", whole["output"]
    killed = 0
    for number in range(TIMES):
        folder = tmp_path / str(number)
        folder.mkdir()
        home = stored.copy(folder)
        answer = run(home, whole["seconds"] * (number + 0.5) / TIMES)
        killed += answer["outcome"] == "killed"
        check_home(home, rollouts(stored.home))
        if SOAK or number == TIMES // 2:
            again = run(home, None)
            assert again["outcome"] == "0", again["output"]
            check_home(home, rollouts(stored.home))
    assert killed >= TIMES // 2
