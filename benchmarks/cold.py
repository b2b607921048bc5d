"""How long from typing a command until its session is there? Whole processes, started afresh each time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lab import Bench
from benchmarks.mock_server import answer

__all__ = ["run"]

PROMPT = ("--skip-git-repo-check", "say something")
WARM_UP = 1
PATIENCE = 60.0


def run(bench: Bench) -> None:
    """The rows `cold.*`."""
    rounds = bench.plan.size("cold_starts")
    script = Path(sys.executable).with_name("engine")
    module = (sys.executable, "-m", "engine")
    ours = {"": (str(script),), ".module": module} if script.is_file() else {".module": module}
    names = {"": "engine", ".module": "python -m engine"}
    peer = () if bench.peer is None else (str(bench.peer),)
    our_home, peer_home = bench.home(), bench.home()
    bench.results.note_machine("cold")
    with bench.progress.stage("cold starts", rounds + WARM_UP):
        for number in range(-WARM_UP, rounds):
            counts = number >= 0
            for suffix, command in ours.items():
                title = f"`{names[suffix]} exec`: start to thread.started"
                started, ended = _exec(bench, [*command, "exec", "--json", *PROMPT], our_home)
                helped = _whole(bench, [*command, "exec", "--help"], our_home)
                if counts:
                    bench.results.figure(f"cold.exec{suffix}", title).ours.append(started)
                    bench.results.figure(f"cold.turn{suffix}", "... to its end, one answer").ours.append(ended)
                    bench.results.figure(f"cold.help{suffix}", f"`{names[suffix]} exec --help`").ours.append(helped)
            if peer:
                started, ended = _exec(bench, [*peer, "exec", "--experimental-json", *PROMPT], peer_home)
                helped = _whole(bench, [*peer, "exec", "--help"], peer_home)
                for suffix in ours if counts else ():
                    bench.results.figures[f"cold.exec{suffix}"].peer.append(started)
                    bench.results.figures[f"cold.turn{suffix}"].peer.append(ended)
                    bench.results.figures[f"cold.help{suffix}"].peer.append(helped)
            bare = _whole(bench, [sys.executable, "-c", "pass"], our_home)
            if counts:
                bench.results.figure("cold.python", "the interpreter alone, `python -c pass`").ours.append(bare)
            bench.progress.step()


def _exec(bench: Bench, command: Sequence[str], home: Path) -> tuple[float, float]:
    """Milliseconds from starting the process to its line `thread.started`, and to its end."""
    bench.mock.script(answer())
    began = time.monotonic()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=bench.workspace,
        env=bench.environment(home),
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        started = (time.monotonic() - began) * 1000
        rest, errors = process.communicate(timeout=PATIENCE)
        ended = (time.monotonic() - began) * 1000
    if (
        process.returncode != 0
        or not line
        or json.loads(line)["type"] != "thread.started"
        or b"turn.completed" not in rest
    ):
        raise RuntimeError(
            f"{command[0]} exec ended with code {process.returncode} after {(line + rest).decode()[:500]!r}: "
            f"{errors.decode(errors='replace')[-1000:]}"
        )
    return started, ended


def _whole(bench: Bench, command: Sequence[str], home: Path) -> float:
    """Milliseconds of a process from start to end."""
    began = time.monotonic()
    subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd=bench.workspace,
        env=bench.environment(home),
        check=True,
        timeout=PATIENCE,
    )
    return (time.monotonic() - began) * 1000
