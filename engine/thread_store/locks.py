"""One writer per rollout, across processes: advisory locks that name their holder and die with it.

A lock is a symbolic link `<rollout>.lock` beside the file. It leads to the holder's own file in `<home>/engine_locks`,
which says who that is (pid, host, program) and which the holder keeps flocked as long as it lives; the link itself says
since when. So a thousand locked rollouts cost one descriptor, a lock is taken in one atomic step, and the lock of a
holder that was killed is recognised (nobody has the flock any more) and taken over.

Locks are advisory: other programs don't look at them, and where a file system can do no links or no flock, there are
none.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import final

from engine.errors import ConflictError
from engine.records import frozen
from engine.rollout.lines import format_timestamp

__all__ = ["LOCKS_DIRECTORY", "LOCK_SUFFIX", "LockHolder", "RolloutLock", "RolloutLocks", "ThreadLocked"]

LOCKS_DIRECTORY = "engine_locks"
LOCK_SUFFIX = ".lock"
TRIES = 100  # against others who come and go at the same moment

# Where locks can't be had: no links, no flock, nothing may be written.
NO_LOCKS = (
    errno.EPERM,
    errno.EACCES,
    errno.EROFS,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.ENOLCK,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENAMETOOLONG,
)

log = logging.getLogger(__name__)


@frozen
class LockHolder:
    """Who writes a rollout: a process, its host, and since when (UTC, `2025-01-02T03:04:05.678Z`)."""

    pid: int | None
    host: str | None
    since: str

    def __str__(self) -> str:
        if self.pid is None:
            return f"another process, since {self.since}"
        mine = " (this process)" if (self.pid, self.host) == (os.getpid(), socket.gethostname()) else ""
        return f"process {self.pid}{mine} on {self.host}, since {self.since}"


class ThreadLocked(ConflictError):
    """Another engine has a live writer on the rollout; `holder` says which one."""

    def __init__(self, path: str, holder: LockHolder) -> None:
        self.path = path
        self.holder = holder
        super().__init__(
            f"the thread in {path} is being written by {holder}; close it there, then try again "
            f"(lock: {path}{LOCK_SUFFIX})"
        )


@final
class RolloutLocks:
    """The locks of one store. Methods may be called from any thread and block for a moment at most.

    While none is held, nothing of it is on the disk and no descriptor is open.
    """

    def __init__(self, home: Path | str) -> None:
        self.home = Path(home)
        self._root = os.path.abspath(home)
        self._directory = f"{self._root}/{LOCKS_DIRECTORY}"
        self._mutex = threading.Lock()
        self._held: set[str] = set()
        self._proof: _Proof | None = None

    def take(self, path: str) -> RolloutLock:
        """Locks the rollout at `path` (the file need not exist, its folder must). Raises `ThreadLocked`."""
        lock = RolloutLock(self, path)
        lock.take()
        return lock

    def holder(self, path: str) -> LockHolder | None:
        """Who has a rollout locked now, this store included."""
        link = path + LOCK_SUFFIX
        with self._mutex:
            try:
                proof = os.path.join(os.path.dirname(link), os.readlink(link))
                return _read_holder(proof, link) if link in self._held or _is_alive(proof) else None
            except OSError:
                return None

    def close(self) -> None:
        """Releases whatever is still held."""
        with self._mutex:
            for link in self._held:
                try:
                    os.unlink(link)
                except OSError:
                    pass
            self._held.clear()
            self._drop_unused()

    def abandon(self) -> None:
        """What the system does to a process that is killed: the flock goes, the links stay. For tests of crashes."""
        with self._mutex:
            if self._proof is not None:
                self._proof.close()
            self._proof = None
            self._held.clear()

    def _take(self, path: str) -> bool:
        link = path + LOCK_SUFFIX
        with self._mutex:
            if link in self._held:
                raise ThreadLocked(path, _read_holder(self._proof.path if self._proof else "", link))
            try:
                if self._proof is None:
                    self._proof = _Proof.make(self._directory)
                self._link(path, link, self._proof.path)
            except OSError as exc:
                if exc.errno not in NO_LOCKS:
                    raise
                log.debug("%s can't be locked: %s", path, exc)
                self._drop_unused()
                return False
            except ThreadLocked:
                self._drop_unused()
                raise
            self._held.add(link)
            return True

    def _link(self, path: str, link: str, proof: str) -> None:
        target = self._target(link, proof)
        for _ in range(TRIES):
            try:
                os.symlink(target, link)
                return
            except FileExistsError:
                pass
            with _TakingOver(self._directory):
                try:
                    found = os.path.join(os.path.dirname(link), os.readlink(link))
                except FileNotFoundError:
                    continue  # released meanwhile
                except OSError:
                    raise OSError(errno.EPERM, "something else stands where the lock should be") from None
                if _is_alive(found):
                    raise ThreadLocked(path, _read_holder(found, link))
                # Its holder is dead. Only one at a time gets here, and a living holder's link is never touched.
                fresh = f"{link}-{os.urandom(4).hex()}"
                os.symlink(target, fresh)
                os.rename(fresh, link)
                return
        raise OSError(errno.EPERM, "others took and released the lock all the time")

    def _target(self, link: str, proof: str) -> str:
        """Relative inside the home, so that the home may be mounted elsewhere for another reader."""
        folder = os.path.dirname(link)
        return os.path.relpath(proof, folder) if folder.startswith(self._root + os.sep) else proof

    def _release(self, path: str) -> None:
        link = path + LOCK_SUFFIX
        with self._mutex:
            if link not in self._held:
                return
            self._held.discard(link)
            try:
                os.unlink(link)
            except OSError:
                pass  # it was removed together with its folder
            self._drop_unused()

    def _drop_unused(self) -> None:
        if not self._held and self._proof is not None:
            self._proof.remove()
            self._proof = None


@final
class RolloutLock:
    """The lock of one rollout, held or not. Taking and releasing are idempotent."""

    __slots__ = ("_held", "_locks", "path")

    def __init__(self, locks: RolloutLocks, path: str) -> None:
        self._locks = locks
        self._held = False
        self.path = path

    def take(self) -> None:
        """Raises `ThreadLocked` if another writer has it, `OSError` if there is no folder for it."""
        if not self._held:
            self._held = self._locks._take(self.path)

    def release(self) -> None:
        """Lets others write. Raises nothing."""
        if self._held:
            self._held = False
            self._locks._release(self.path)


# --- the holder's own file -----------------------------------------------------------------------


class _Proof:
    """A file that is flocked as long as its process lives, and says which process that is."""

    def __init__(self, path: str, handle: int) -> None:
        self.path = path
        self._handle = handle

    @classmethod
    def make(cls, directory: str) -> _Proof:
        import json  # with the first rollout, not with the first session

        path = f"{directory}/{os.getpid()}-{os.urandom(6).hex()}.json"
        for _ in range(TRIES):
            try:
                _make_folder(directory)
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                continue  # another process removed the empty folder just now
            break
        else:
            raise OSError(errno.EPERM, "the folder of the locks does not stay")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            facts = {"pid": os.getpid(), "host": socket.gethostname(), "program": "session-engine"}
            os.write(handle, json.dumps(facts).encode())
        except OSError:
            os.close(handle)
            os.unlink(path)
            raise
        return cls(path, handle)

    def remove(self) -> None:
        try:
            os.unlink(self.path)
        except OSError:
            pass
        self.close()
        try:
            os.rmdir(os.path.dirname(self.path))
        except OSError:
            pass  # others are there

    def close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __del__(self) -> None:
        self.close()


def _make_folder(path: str) -> None:
    """Makes the folder of the locks, unless it is there. Raises `FileNotFoundError` where it comes and goes."""
    try:
        os.makedirs(path, exist_ok=True)
    except FileExistsError:
        if os.path.lexists(path) and not os.path.isdir(path):
            raise
        # `makedirs` has looked whether it is a folder once it was gone again.
        raise FileNotFoundError(errno.ENOENT, "it was removed right now", path) from None


def _is_alive(proof: str) -> bool:
    """Whether somebody has the flock of a proof. Where that can't be told, yes: better refused than written twice."""
    try:
        handle = os.open(proof, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _read_holder(proof: str, link: str) -> LockHolder:
    import json

    pid = host = None
    try:
        with open(proof, "rb") as file:
            facts = json.loads(file.read())
        pid, host = int(facts["pid"]), str(facts["host"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        since = os.lstat(link).st_mtime_ns
    except OSError:
        since = time.time_ns()
    return LockHolder(pid, host, format_timestamp(since))


class _TakingOver:
    """Held while a dead holder's lock is examined and taken over: one process at a time."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._handle = -1

    def __enter__(self) -> None:
        for _ in range(TRIES):
            try:
                _make_folder(self._directory)
                handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                here = os.stat(self._directory).st_ino == os.fstat(handle).st_ino
            except FileNotFoundError:
                here = False
            if here:
                self._handle = handle
                return
            os.close(handle)  # the folder was removed and made again; that is another mutex
        raise OSError(errno.EPERM, "the folder of the locks does not stay")

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)
