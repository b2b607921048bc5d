"""What is asked of the supervisor: a command, its streams, and what `posix_spawn` has to do for them.

Also runs in the supervisor process, where every module costs start-up time: nothing but cheap built-in ones here.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False  # importing `typing` would cost more than this file
if TYPE_CHECKING:
    FileAction = tuple[int, int, int] | tuple[int, int, bytes, int, int]

FIRST_FREE_FD = 256  # commands can get fds up to this number


class Request:
    """What to start. `targets[i]` are the numbers that the i-th passed fd gets in the command, e.g. `b"1+2"`.

    After those, two fds are passed for each of `kept`, a name: a placeholder that is released when nothing of the
    command is left, and its folder. `sealed`: it is to see device files that can't be changed. `own_session`: it makes
    a session of its own, which is to control the terminal.
    """

    __slots__ = ("argv", "cwd", "env", "kept", "own_session", "sealed", "targets", "tty")

    def __init__(
        self,
        targets: list[bytes],
        tty: bytes,
        cwd: bytes,
        argv: list[bytes],
        env: list[bytes],
        kept: list[bytes] | None = None,
        sealed: bool = False,
        own_session: bool = False,
    ) -> None:
        self.targets = targets
        self.tty = tty  # name of the terminal that becomes the controlling one and fds 0-2; empty: none
        self.cwd = cwd
        self.argv = argv
        self.env = env  # NAME=value
        self.kept = kept or []
        self.sealed = sealed
        self.own_session = own_session

    def encode(self) -> bytes:
        # NUL can stand in no argument, path or variable, so it needs no escaping.
        counts = f"{len(self.argv)},{len(self.kept)},{self.sealed:d},{self.own_session:d}".encode()
        return b"\0".join([b",".join(self.targets), self.tty, self.cwd, counts, *self.argv, *self.kept, *self.env])

    def numbers(self) -> list[list[int]]:
        """The targets as numbers."""
        return [[int(number) for number in targets.split(b"+")] for targets in self.targets]

    @classmethod
    def decode(cls, payload: bytes) -> Request:
        targets, tty, cwd, counts, *rest = payload.split(b"\0")
        argc, kept, sealed, own_session = map(int, counts.split(b","))
        return cls(
            targets.split(b",") if targets else [],
            tty,
            cwd,
            rest[:argc],
            rest[argc + kept :],
            rest[argc : argc + kept],
            bool(sealed),
            bool(own_session),
        )


class Failure(Exception):
    """A command that could not be started: the error number and what it is about (the cwd or the program)."""

    def __init__(self, number: int, subject: bytes) -> None:
        super().__init__(number, subject)
        self.number = number
        self.subject = subject


def stream_actions(request: Request, fds: list[int]) -> tuple[list[FileAction], list[int]]:
    """What `posix_spawn` has to do for the command's streams and other fds; and fds to close after it."""
    actions: list[FileAction] = []
    numbers = request.numbers()
    given = {number for targets in numbers for number in targets}
    if request.tty:
        # Opening a terminal as the leader of a session without one makes it the controlling terminal.
        flags = os.O_RDWR | (os.O_NOCTTY if request.own_session else 0)
        actions.append((os.POSIX_SPAWN_OPEN, 0, request.tty, flags, 0))
        actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    elif 0 not in given:
        actions.append((os.POSIX_SPAWN_OPEN, 0, b"/dev/null", os.O_RDONLY, 0))
    moved: list[int] = []
    if max(given, default=0) >= min(fds, default=3):
        # One of them would be overwritten before it is copied.
        import fcntl

        fds = moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD) for fd in fds]
    for fd, targets in zip(fds, numbers, strict=True):
        actions += [(os.POSIX_SPAWN_DUP2, fd, target) for target in targets]
    return actions, moved


def find_program(program: bytes, path: bytes | None) -> bytes:
    """As execvp with the command's own PATH; relative entries mean its cwd. Raises `OSError`."""
    if b"/" in program:
        return program
    denied = False
    for folder in (b"/bin:/usr/bin" if path is None else path).split(b":"):
        candidate = (folder or b".") + b"/" + program
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            denied = True
    number = errno.EACCES if denied else errno.ENOENT
    raise OSError(number, os.strerror(number))
