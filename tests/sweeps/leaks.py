"""What a process and an engine hold on to, as a snapshot; two snapshots compared say what leaked."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

import attrs
import trio
import trio.testing
from trio._core._thread_cache import THREAD_CACHE  # private: who is idle; see `_busy_workers`

import engine
from engine.execution._link import Link
from tests.sweeps.services import RUNNING

__all__ = ["OF_THE_ENGINE", "Snapshot", "differences", "index_is_idle", "inside", "outside"]

OF_THE_ENGINE = (
    "rollout writer",
    "rollout sync",
    "thread index",
    "thread index sweep",
    "engine.execution._link.Link.run",
)  # ended with the engine
INDEX = "engine_index"
TEMPORARY: list[str] = []  # folders for temporary files, where they are nobody else's
THREAD_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
POLL_S = 0.0005
OS_PATIENCE_S = 5.0  # worker threads and dying processes end by themselves; nothing of ours tells when


@attrs.frozen
class Snapshot:
    """What is there at one moment. Inside a Trio run also the tasks below the main task and what an engine knows."""

    threads: Counter[str]
    descriptors: Counter[str]
    processes: frozenset[int]
    listening: frozenset[str]
    files: Mapping[str, str]
    temporary: frozenset[str]
    rows: frozenset[str]
    services: Counter[str]
    tasks: Counter[str] = attrs.field(factory=Counter)
    live: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()
    connections: int = 0


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """What is there now and was not before, or the other way round; in words, for people."""
    found: list[str] = []
    for field in attrs.fields(Snapshot):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old == new:
            continue
        if isinstance(old, Counter):
            found += [f"{field.name}: more: {_listed((new - old).elements())}"] if new - old else []
            found += [f"{field.name}: fewer: {_listed((old - new).elements())}"] if old - new else []
        elif isinstance(old, Mapping):
            found += [f"{field.name}: new: {name}" for name in sorted(new.keys() - old.keys())]
            found += [f"{field.name}: gone: {name}" for name in sorted(old.keys() - new.keys())]
            found += [f"{field.name}: changed: {name}" for name in sorted(old.keys() & new) if old[name] != new[name]]
        elif isinstance(old, frozenset):
            found += [f"{field.name}: more: {_listed(new - old)}"] if new - old else []
            found += [f"{field.name}: fewer: {_listed(old - new)}"] if old - new else []
        else:
            found.append(f"{field.name}: {old} before, {new} now")
    return found


def _listed(names: Iterable[object]) -> str:
    return ", ".join(sorted(_described(name) for name in names))


def _described(name: object) -> str:
    if not isinstance(name, int):
        return str(name)
    try:
        command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        command = "(gone)"
    return f"{name} {command.strip()}"


def outside(*folders: Path) -> Snapshot:
    """What the process holds, outside of any Trio run, and the files below `folders`."""
    deadline = time.monotonic() + OS_PATIENCE_S
    while _busy_workers() and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return _of_the_process(folders)


async def inside(opened: engine.Engine, *folders: Path) -> Snapshot:
    """What the process and an engine hold, from inside its Trio run, once abandoned worker threads are through.

    What an engine starts on first use and keeps until it ends is left out; `outside` sees that.
    """
    with trio.CancelScope(shield=True):
        with trio.move_on_after(OS_PATIENCE_S):
            # Those that were abandoned too, so `wait_all_threads_completed` is not enough.
            while _busy_workers():  # noqa: ASYNC110
                await trio.sleep(POLL_S)
            await index_is_idle(opened)
        await trio.testing.wait_all_tasks_blocked()
    process = _of_the_process(folders)
    tasks = Counter(_tasks(_main_task()))
    for name in OF_THE_ENGINE:
        process.threads.pop(name, None)
        tasks.pop(name, None)
    link = opened._services.supervisor._running_link()
    return attrs.evolve(
        process,
        descriptors=_without_index(process.descriptors - Counter(_of_the_supervisor(link))),
        processes=process.processes - ({link.end.pid} if link is not None else set()),
        tasks=tasks,
        live=frozenset(map(str, opened._services.store.live_threads())),  # type: ignore[attr-defined]
        sessions=frozenset(str(session.thread_id) for session in opened.sessions()),
        connections=_connections(opened),
    )


async def index_is_idle(opened: engine.Engine) -> None:
    """Returns once the thread of the index has looked at all it was told of: meanwhile it has rollouts open."""
    index = getattr(opened._services.store, "index", None)
    if index is not None and index._database.started:
        await index._sweep._wait()
        await index.run(lambda _: None)  # its turn comes after what was handed in before


def _of_the_process(folders: Iterable[Path]) -> Snapshot:
    return Snapshot(
        threads=Counter(thread.name for thread in threading.enumerate() if _worker(thread) is None),
        descriptors=_descriptors(),
        processes=frozenset(_descendants()),
        listening=frozenset(_listening()),
        files=dict(_files(folders)),
        temporary=frozenset(name for folder in TEMPORARY for name in os.listdir(folder)),
        rows=frozenset(_rows(folders)),
        services=Counter(RUNNING),
    )


# --- threads -------------------------------------------------------------------------------------------


def _worker(thread: threading.Thread) -> object:
    """The worker of Trio's cache behind a thread, if it is one; they live on for 10 s and are no leak."""
    worker = getattr(getattr(thread, "_target", None), "__self__", None)
    return worker if type(worker).__name__ == "WorkerThread" else None


def _busy_workers() -> bool:
    """Whether a worker has something to do, though nobody may be waiting for it any more."""
    workers = [worker for thread in threading.enumerate() if (worker := _worker(thread)) is not None]
    return any(worker not in THREAD_CACHE._idle_workers for worker in workers)


# --- descriptors, sockets, processes, files --------------------------------------------------------------


def _descriptors() -> Counter[str]:
    return Counter(target for _, target in _open_descriptors())


def _open_descriptors() -> Iterable[tuple[int, str]]:
    for name in os.listdir("/proc/self/fd"):
        try:
            yield int(name), os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # the one `listdir` used


def _listening() -> Iterable[str]:
    """Our sockets that listen."""
    for descriptor, target in _open_descriptors():
        if target.startswith("socket:"):
            with socket.socket(fileno=os.dup(descriptor)) as same:
                if same.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    yield f"{target} at {same.getsockname()!r}"


def _descendants() -> set[int]:
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        parent = waiting.pop()
        for task in _listdir(f"/proc/{parent}/task"):
            try:
                children = Path(f"/proc/{parent}/task/{task}/children").read_text().split()
            except OSError:
                continue
            new = set(map(int, children)) - found
            found |= new
            waiting += new
    return found


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _files(folders: Iterable[Path]) -> Iterable[tuple[str, str]]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            name = f"{folder.name}/{path.relative_to(folder)}"
            if INDEX in path.name:
                continue  # a cache; what counts are its rows
            if path.is_dir():
                yield name, "a directory"
            else:
                yield name, hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


def _rows(folders: Iterable[Path]) -> Iterable[str]:
    """Threads that an index of threads knows, whatever its tables are."""
    for folder in folders:
        for path in folder.glob(f"{INDEX}.sqlite"):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
                tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
                for (table,) in tables:
                    for row in database.execute(f'select * from "{table}"'):
                        yield from (f"{table}: {value}" for value in row if THREAD_ID.fullmatch(str(value)))


# --- what only the run and the engine know -----------------------------------------------------------------


def _main_task() -> trio.lowlevel.Task:
    task = trio.lowlevel.current_task()
    while task.parent_nursery is not None and task.parent_nursery.parent_task is not trio.lowlevel.current_root_task():
        task = task.parent_nursery.parent_task
    return task


def _tasks(task: trio.lowlevel.Task) -> Iterable[str]:
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield child.name
            yield from _tasks(child)


def _of_the_supervisor(link: Link | None) -> Iterable[str]:
    """The descriptors an engine keeps for its supervisor, once that was started."""
    if link is None:
        return
    numbers = (link.control.fileno(), getattr(link.end, "_pidfd", None), getattr(link.end, "_stderr", None))
    for number in numbers:
        if number is not None:
            yield os.readlink(f"/proc/self/fd/{number}")


def _without_index(descriptors: Counter[str]) -> Counter[str]:
    """The index opens its database some time after the first write it was told of, and keeps it like its thread."""
    return Counter({target: number for target, number in descriptors.items() if INDEX not in target})


def _connections(opened: engine.Engine) -> int:
    """Connections to Responses servers that a request still holds; idle ones are kept on purpose."""
    transports = [client._transport for client in opened._services.models.http._clients.values()]
    connections = [connection for transport in transports for connection in transport._pool.connections]  # type: ignore[attr-defined]
    return sum(not connection.is_idle() for connection in connections)
