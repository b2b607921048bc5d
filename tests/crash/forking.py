"""Forks lives out of one warm process and kills them; a process, because it becomes the parent of what they leave.

Reads an order per line, `{"home", "lives": [{"kind", "seed", "acks", "delay"}]}`, and answers with a line: what each
life told, and which processes were still there ten seconds after it.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.crash.lives import live

__all__ = ["PR_SET_CHILD_SUBREAPER", "main", "orphans"]

PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 60.0  # seconds a life has for its acknowledgements; on a busy machine a start takes long
ORPHANS_END = 10.0  # seconds that what a killed engine started may take to end


def main() -> None:
    """Serves until stdin ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        told = _run(order["home"], order["lives"])
        print(json.dumps({"told": told, "orphans": orphans()}), flush=True)


def _run(home: str, lives: list[dict[str, Any]]) -> list[list[str]]:
    pids: dict[int, int] = {}
    buffers: dict[int, bytes] = {}
    due: dict[int, float] = {}
    now = time.monotonic()
    for wanted in lives:
        mine, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(mine)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            live(home, wanted["kind"], wanted["seed"], functools.partial(_tell, theirs))
        os.close(theirs)
        pids[mine], buffers[mine] = pid, b""
        due[mine] = now + (PATIENCE if wanted["acks"] else wanted["delay"])
    wanted_of = dict(zip(pids, lives, strict=True))
    open_ends = set(pids)
    alive = set(pids)
    while open_ends:
        waits = [max(0.0, due[end] - time.monotonic()) for end in alive]
        ready, _, _ = select.select(open_ends, (), (), min(waits) if waits else None)
        for end in ready:
            data = os.read(end, 1 << 16)
            buffers[end] += data
            if not data:
                open_ends.discard(end)
            acks = wanted_of[end]["acks"]
            if acks and buffers[end].count(b"\n") >= acks:
                wanted_of[end]["acks"] = 0
                due[end] = time.monotonic() + wanted_of[end]["delay"]
        for end in [end for end in alive if time.monotonic() >= due[end]]:
            os.kill(pids[end], signal.SIGKILL)
            alive.discard(end)
        alive &= open_ends
    for end, pid in pids.items():
        os.close(end)
        os.waitpid(pid, 0)
    # A last line without its end was not told.
    return [buffers[end].decode().split("\n")[:-1] for end in pids]


def _tell(end: int, text: str) -> None:
    os.write(end, text.replace("\n", " ").encode() + b"\n")


def orphans() -> list[str]:
    """What the killed ones left that does not end by itself. It has become ours; it is ended here."""
    deadline = time.monotonic() + ORPHANS_END
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return []
        if pid == 0:
            select.select((), (), (), 0.002)
    left: list[str] = []
    for name in os.listdir("/proc"):
        try:
            status = Path(f"/proc/{name}/stat").read_text() if name.isdigit() else ""
        except OSError:
            continue
        if status and int(status.rsplit(")", 1)[1].split()[1]) == os.getpid():
            left.append(status[:60])
            os.kill(int(name), signal.SIGKILL)
    return left


if __name__ == "__main__":
    main()
