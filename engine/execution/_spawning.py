"""What starting a command takes on our side: the request to the supervisor, and the ends of its streams."""

from __future__ import annotations

import errno
import os
import termios
from collections.abc import Mapping, Sequence
from typing import Final, Literal, final

import trio

from engine.errors import ProcessError
from engine.execution._request import FIRST_FREE_FD, Request
from engine.execution.process import ExtraFiles, InputStream, OutputStream, Process, SpawnError, TerminalSize

__all__ = ["Streams", "kept_fds", "request_of"]

MAX_EXTRA_FDS: Final = 240  # the kernel passes 253 at once


def kept_fds(files: ExtraFiles) -> list[int]:
    """The descriptors that the supervisor keeps for the command."""
    return [fd for kept in files.kept for fd in kept[:2]]


def request_of(argv: Sequence[str], cwd: str, env: Mapping[str, str], files: ExtraFiles) -> Request:
    """What the supervisor is told. Raises `SpawnError` for what no command can be started with."""
    if not argv:
        raise SpawnError("(empty command)", errno.EINVAL)
    for name in env:
        if not name or "=" in name:
            raise SpawnError(argv[0], errno.EINVAL, f"{name!r} is no name for an environment variable")
    if not all(0 <= number < FIRST_FREE_FD for number in files.fds):
        raise SpawnError(argv[0], errno.EBADF, f"extra file descriptors can be numbers 0 to {FIRST_FREE_FD - 1}")
    if len(files.fds) + 2 * len(files.kept) > MAX_EXTRA_FDS:
        raise SpawnError(argv[0], errno.EMFILE, f"more than {MAX_EXTRA_FDS} extra file descriptors")
    try:
        request = Request(
            targets=[],
            tty=b"",
            cwd=os.fsencode(cwd),
            argv=[os.fsencode(argument) for argument in argv],
            env=[os.fsencode(f"{name}={value}") for name, value in env.items()],
            kept=[os.fsencode(name) for *_, name in files.kept],
            sealed=files.sealed_devices,
            own_session=files.own_session,
        )
    except UnicodeEncodeError as exc:
        raise SpawnError(argv[0], errno.EILSEQ, f"not encodable: {exc.reason}") from None
    if any(b"\0" in text for text in (request.cwd, *request.argv, *request.env, *request.kept)):
        raise SpawnError(argv[0], errno.EINVAL, "an argument, variable or cwd contains a NUL byte")
    return request


@final
class Streams:
    """The ends of the pipes or the terminal: ours become the process's streams, the others go to the command."""

    def __init__(
        self,
        request: Request,
        process: Process,
        *,
        stdin: Literal["null", "pipe"],
        stderr: Literal["pipe", "stdout"],
        tty: TerminalSize | None,
    ) -> None:
        self.for_command: list[int] = []
        self._keep_open: list[int] = []
        ours: list[int] = []
        try:
            if tty is not None:
                master, slave = os.openpty()
                ours.append(master)
                self._keep_open.append(slave)  # else reading ends before the command has opened it
                termios.tcsetwinsize(slave, (tty.rows, tty.columns))
                request.tty = os.fsencode(os.ttyname(slave))
            else:
                if stdin == "pipe":
                    self._pipe(request, b"0", ours, reads=True)
                self._pipe(request, b"1" if stderr == "pipe" else b"1+2", ours, reads=False)
                if stderr == "pipe":
                    self._pipe(request, b"2", ours, reads=False)
            streams = [trio.lowlevel.FdStream(fd) for fd in ours]
        except OSError as exc:
            for fd in ours:
                os.close(fd)
            self.close_for_command()
            raise ProcessError(f"no pipe or terminal for a command: {exc.strerror}") from exc
        if tty is not None:
            process.stdin = InputStream(streams[0], terminal=True)
        elif stdin == "pipe":
            process.stdin = InputStream(streams.pop(0), terminal=False)
        process.stdout = OutputStream(streams[0])
        if len(streams) > 1:
            process.stderr = OutputStream(streams[1])

    def _pipe(self, request: Request, targets: bytes, ours: list[int], *, reads: bool) -> None:
        """`reads`: the command does, and we write."""
        read, write = os.pipe()
        ours.append(write if reads else read)
        self.for_command.append(read if reads else write)
        request.targets.append(targets)

    def close_for_command(self) -> None:
        """Closes what the command has by now."""
        for fd in (*self.for_command, *self._keep_open):
            os.close(fd)
        self.for_command, self._keep_open = [], []
