"""Commands with difficult offspring, and waiting for the end of processes that are not our children."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable

import trio

from engine.execution import _procfs
from engine.execution.process import ExitStatus, OutputStream, Process
from engine.execution.supervisor import Supervisor

_MARK = f"ENGINE_TEST_MARK={uuid.uuid4().hex}"

# Four processes, each line is the pid of one: a child, one in a session of its own, and a daemon (forked twice, in a
# session of its own, without a living parent), then the shell itself, which becomes `sleep`.
FAMILY = """
sleep 1000 & echo $!
setsid sh -c 'echo $$; exec sleep 1000' &
(setsid sh -c 'setsid sleep 1000 & echo $!' &)
echo $$
exec sleep 1000
"""
FAMILY_SIZE = 4


def environment(**more: str) -> dict[str, str]:
    """The test's own, plus a mark by which left-over processes are found."""
    name, _, value = _MARK.partition("=")
    return {**os.environ, name: value, **more}


def marked_processes() -> list[int]:
    return [
        pid
        for pid in _procfs.all_pids()
        if f"\0{_MARK}\0".encode() in _procfs.environment_of(pid) and not _procfs.is_zombie(pid) and pid != os.getpid()
    ]


async def read_all(stream: OutputStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def read_pids(stream: OutputStream, count: int = FAMILY_SIZE) -> list[int]:
    """The first `count` lines of output, as numbers."""
    text = b""
    with trio.fail_after(10):
        while text.count(b"\n") < count:
            data = await stream.receive_some()
            assert data, text
            text += data
    return [int(line) for line in text.split()]


async def start_family(supervisor: Supervisor) -> tuple[Process, list[int]]:
    process = await supervisor.spawn(["sh", "-c", FAMILY], cwd="/", env=environment())
    return process, await read_pids(process.stdout)


async def output_of(supervisor: Supervisor, *argv: str, **env: str) -> str:
    async with await supervisor.spawn(argv, cwd="/", env=environment(**env)) as running:
        output = await read_all(running.stdout)
        assert await running.wait() == ExitStatus(code=0)
    return output.decode()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is somebody else's
    return not _procfs.is_zombie(pid)


async def wait_ended(pids: Iterable[int], within: float = 10) -> None:
    """Wait until none of them runs any more; fails after `within` seconds."""
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            with trio.fail_after(within):
                await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
