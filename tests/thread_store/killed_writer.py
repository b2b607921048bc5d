"""Run by `test_kill`: writes threads for ever and tells on stdout which items were acknowledged, until it is killed."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable

import trio

from engine.protocol.ids import ThreadId
from engine.thread_store.interface import ResumeThread
from engine.thread_store.live_thread import LiveThread
from engine.thread_store.local import open_local_store
from tests.thread_store.stories import create, telling


def telling_acknowledged(live: LiveThread) -> Callable[[int], None]:
    def tell(number: int) -> None:
        os.write(1, f"{live.thread_id} {number}\n".encode())

    return tell


async def main(home: str, durability: str, threads: list[str]) -> None:
    """`threads` are ids to create, or to resume where they are stored."""
    async with open_local_store(home, durability="fsync" if durability == "fsync" else "os") as store:
        told: dict[ThreadId, int] = {}
        lives: list[LiveThread] = []
        for thread in map(ThreadId, threads):
            if await store.find_thread(thread) is None:
                live = store.create(create(thread))
                told[thread] = 0
            else:
                resumed = await store.resume(ResumeThread(thread=thread))
                live = resumed.live
                told[thread] = len(resumed.history.items) - 1
            live.on_acknowledged(telling_acknowledged(live))
            lives.append(live)
        os.write(1, b"ready\n")
        while True:
            for live in lives:
                for _ in range(random.randrange(4)):
                    told[live.thread_id] += 1
                    live.append([telling(f"{told[live.thread_id]} " + "x" * random.randrange(3000))])
                await live.room()
            await trio.lowlevel.checkpoint()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3:])
