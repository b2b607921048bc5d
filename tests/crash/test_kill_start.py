"""Killed at any line of a start, or stopped after any part of the time a command takes, an engine leaves no process and
a home that is sound; the next start works."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from engine.thread_store.verifying import verify_home
from tests.crash.killer import Killer
from tests.proofs import tried
from tests.sweeps.places import Stored, stored_threads

ROOT = Path(__file__).parents[2]
SOAK = os.environ.get("ENGINE_TEST_PROFILE") == "soak"
OFTEN = ("everything", "everything forked", "uncounted", "locked")
KINDS = (*OFTEN, "everything resumed", "writing", "last") if SOAK else OFTEN
SAMPLE = 150 if SOAK else 6  # lines per kind
TIMES = 60 if SOAK else 4  # kills of the command

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.damages_home("by a kill"),
    pytest.mark.proof,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    made = Killer("tests.crash.starting", tmp_path_factory.mktemp("user"))
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
def test_killed_at_a_line(kind: str, server: Killer, stored: Stored, tmp_path: Path) -> None:
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
    tried(lines=len(lines), lines_tried=len(chosen), kills=killed, not_reached=len(chosen) - killed)
    assert killed >= 0.9 * len(chosen)


@attrs.define
class Command:
    """`engine exec` as a real process, with a command in its turn; `seconds`: how long it takes undisturbed."""

    server: Killer
    argv: list[str]
    seconds: float = 0.0

    def run(self, home: Path, delay: float | None = None, number: int = signal.SIGKILL) -> dict[str, Any]:
        """Runs it; after `delay` seconds it gets a signal."""
        environment = {**os.environ, "CODEX_HOME": str(home), "PYTHONPATH": str(ROOT)}
        return self.server.do(argv=self.argv, environment=environment, delay=delay, number=number)


@pytest.fixture(scope="module")
def command(server: Killer, stored: Stored, tmp_path_factory: pytest.TempPathFactory) -> Command:
    folder = tmp_path_factory.mktemp("command")
    script = folder / "script.toml"
    script.write_text('[[responses]]\nshell = "sleep 1000 >/dev/null 2>&1 & echo out"\n[[responses]]\ntext = "fine"\n')
    argv = [sys.executable, "-P", "-m", "engine", "exec", "--json", "--skip-git-repo-check"]
    argv += ["--sandbox", "danger-full-access", "--model-provider", "scripted", "--script", str(script), "go"]
    made = Command(server, argv)
    whole = made.run(stored.copy(folder))
    assert whole["outcome"] == "0", whole["output"]
    made.seconds = whole["seconds"]
    return made


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_command_is_stopped_while_it_starts(
    number: signal.Signals, command: Command, stored: Stored, tmp_path: Path
) -> None:
    outcomes: list[str] = []
    for case in range(TIMES):
        folder = tmp_path / str(case)
        folder.mkdir()
        home = stored.copy(folder)
        answer = command.run(home, command.seconds * (case + 0.5) / TIMES, number)
        output = answer["output"]
        outcomes.append(answer["outcome"])
        check_home(home, rollouts(stored.home))
        if number == signal.SIGINT:
            # Nobody can keep the interpreter from dying loudly before it has come to us.
            theirs = "init_import_site" in output or answer["outcome"] == str(-signal.SIGINT)
            ours = not theirs or "engine/cli/main.py" in output
            assert not ours or answer["outcome"] in ("0", "1"), output
            assert not ours or "Traceback" not in output, output
            assert all(file.clean for file in verify_home(home).files)
        if SOAK or case == TIMES // 2:
            again = command.run(home)
            assert again["outcome"] == "0", again["output"]
            check_home(home, rollouts(stored.home))
    tried(commands_stopped=len(outcomes), **{f"by_{number.name}": len(outcomes)})
    # How far it is by then depends on what else the machine does.
    assert set(outcomes) != {"0"}, "all had ended before they were stopped"
    if SOAK:
        assert outcomes.count("killed" if number == signal.SIGKILL else "1") >= TIMES // 4
