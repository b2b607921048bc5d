"""Starts sessions in forked processes that kill themselves at one line of our code; and kills commands after a while.

A process of its own, because it becomes the parent of what they leave. Reads an order per line and answers with one:

- `{"home", "cwd", "thread", "kind", "line": [file, line] | null, "watch"}`: a start of that kind
  (`tests.sweeps.places.KINDS`) and a turn, killed at that line; answers `{"outcome", "lines", "orphans"}`. With
  `watch`, `lines` are those that were passed until the session was up. What a start imports, later ones find there
- `{"argv", "environment", "delay", "number"}`: a command that gets a signal after `delay` seconds (`null`: never);
  answers `{"outcome", "output", "seconds", "orphans"}`
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import trio

import engine
from tests.crash.forking import PR_SET_CHILD_SUBREAPER, orphans
from tests.sweeps.lines import Lines
from tests.sweeps.places import KINDS, PATIENCE_S, Stored
from tests.sweeps.points import Point

__all__ = ["main"]


def main() -> None:
    """Serves until stdin ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    print("ready", flush=True)
    for text in sys.stdin:
        order = json.loads(text)
        answer = _command(**order) if "argv" in order else _start(**order)
        print(json.dumps({**answer, "orphans": orphans()}), flush=True)


def _start(home: str, cwd: str, thread: str, kind: str, line: tuple[str, str] | None, watch: bool) -> dict[str, Any]:
    mine, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(mine)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        stored = Stored(Path(home), Path(cwd), engine.ThreadId(thread))
        os.write(theirs, json.dumps(_live(stored, kind, line, watch)).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(mine, "rb") as stream:
        told = stream.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return {"outcome": "killed", "lines": []}
    answer: dict[str, Any] = json.loads(told)
    for module in answer.pop("modules"):
        importlib.import_module(module)
    return answer


def _live(stored: Stored, name: str, line: tuple[str, str] | None, watch: bool) -> dict[str, Any]:
    """The life of the forked process."""
    (kind,) = [kind for kind in KINDS if kind.name == name]
    target = None if line is None else Point((line[0], line[1]), 0, "before")
    lines = Lines(target, threads=True)

    async def start() -> str | None:
        with trio.fail_after(PATIENCE_S):
            async with kind.open(stored.home) as opened:
                session = await kind(opened, stored)
                lines.disarm()
                return (await session.run("go on")).final_message

    if watch or line is not None:
        lines.arm(lambda: os.kill(os.getpid(), signal.SIGKILL))
    try:
        outcome = trio.run(start)
    except BaseException:
        outcome = traceback.format_exc()
    lines.disarm()
    modules = [name for name, module in sys.modules.items() if getattr(module, "__spec__", None) is not None]
    return {"outcome": outcome, "lines": sorted(point.path for point in lines.seen), "modules": modules}


def _command(argv: list[str], environment: dict[str, str], delay: float | None, number: int) -> dict[str, Any]:
    began = time.monotonic()
    with subprocess.Popen(
        argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            output, _ = process.communicate(timeout=delay)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            output, _ = process.communicate()
        seconds = time.monotonic() - began
    outcome = "killed" if process.returncode == -signal.SIGKILL else str(process.returncode)
    return {"outcome": outcome, "output": output.decode(), "seconds": seconds}


if __name__ == "__main__":
    main()
