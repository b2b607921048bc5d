"""The supervisor's loop in a thread of the host, for hosts whose `sys.executable` is no Python interpreter.

One long-lived thread starts all commands, because the kernel's parent-death signal follows the forking thread. A host
must not become a subreaper, so trees are found by a mark in the environment: `ENGINE_SCOPE=SCOPE.NUMBER`. Other than
the supervisor process, a thread can do nothing about a host that is killed with SIGKILL.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable

from engine.execution import _process_tree as tree
from engine.execution import _procfs
from engine.execution import _supervisor_main as wire
from engine.execution._request import Failure, Request, find_program, stream_actions

__all__ = ["ThreadPlatform", "run"]

_POLL_MS = 20  # where there are no pidfds
_EXEC_S = 0.02  # longer than a process is between two programs
_CHANGE_FOLDER = 'cd -- "$1" && shift && exec "$@"'
# The leader of a session without terminal gets the first one that it opens; `Popen` itself opens none.
_OPEN_TERMINAL = 'tty=$1; shift; exec "$@" <"$tty" >"$tty" 2>&1'


class ThreadPlatform(tree.Platform):
    """Processes of a host that keeps its other children to itself."""

    def __init__(self, scope: int) -> None:
        self._scope = scope
        self._me = os.getpid()
        # Processes that have no environment for good, such as kernel threads; none of them is ours.
        self._bare = {pid for pid in _procfs.all_pids() if _procfs.environment_of(pid) == _procfs.NO_ENVIRONMENT}
        self._running: dict[int, tuple[subprocess.Popen[bytes] | None, int | None]] = {}

    def watched(self) -> list[int]:
        return [pidfd for _, pidfd in self._running.values() if pidfd is not None]

    def interval_ms(self) -> int | None:
        return _POLL_MS if len(self.watched()) < len(self._running) else None

    def spawn(self, request: Request, fds: list[int], number: int) -> tree.Command:
        env = dict(line.split(b"=", 1) for line in request.env)
        env[b"ENGINE_SCOPE"] = f"{self._scope}.{number}".encode()
        if any(number > 2 for targets in request.numbers() for number in targets):
            process, pid = None, self._spawn_with_fds(request, fds, env)
        else:
            process = self._popen(request, fds, env)
            pid = process.pid
        try:
            pidfd: int | None = os.pidfd_open(pid)
        except (AttributeError, OSError):
            pidfd = None
        self._running[pid] = (process, pidfd)
        return tree.Command(number, pid, 0)

    def _popen(self, request: Request, fds: list[int], env: dict[bytes, bytes]) -> subprocess.Popen[bytes]:
        streams = dict.fromkeys(range(3), subprocess.DEVNULL)
        for fd, targets in zip(fds, request.numbers(), strict=True):
            streams.update(dict.fromkeys(targets, fd))
        argv = request.argv
        terminal = None
        try:
            if request.tty:
                argv = [b"/bin/sh", b"-c", _OPEN_TERMINAL.encode(), b"sh", request.tty, *argv]
                # Held until the shell opens it again, or reading would end before.
                streams[0] = terminal = os.open(request.tty, os.O_RDWR | os.O_NOCTTY)
            return subprocess.Popen(
                argv,
                cwd=request.cwd,
                env=env,
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                start_new_session=True,
            )
        except OSError as exc:
            subject = request.cwd if exc.filename in (request.cwd, os.fsdecode(request.cwd)) else request.argv[0]
            raise Failure(exc.errno or errno.EIO, subject) from None
        finally:
            if terminal is not None:
                os.close(terminal)

    def _spawn_with_fds(self, request: Request, fds: list[int], env: dict[bytes, bytes]) -> int:
        """`Popen` passes fds under the numbers they have; `posix_spawn` renames them, but can't change the cwd."""
        moved: list[int] = []
        try:
            if not os.path.isdir(request.cwd):
                raise Failure(errno.ENOTDIR if os.path.exists(request.cwd) else errno.ENOENT, request.cwd)
            program = find_program(request.argv[0], env.get(b"PATH"))
            if not os.access(os.path.join(request.cwd, program), os.X_OK):
                missing = not os.path.exists(os.path.join(request.cwd, program))
                raise Failure(errno.ENOENT if missing else errno.EACCES, request.argv[0])
            inheritable = [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable_fds()]
            actions, moved = stream_actions(request, fds)
            return os.posix_spawn(
                b"/bin/sh",
                [b"/bin/sh", b"-c", _CHANGE_FOLDER.encode(), b"sh", request.cwd, program, *request.argv[1:]],
                env,
                file_actions=[*inheritable, *actions],
                setsid=True,
                setsigmask=(),
            )
        except OSError as exc:
            raise Failure(exc.errno or errno.EIO, request.argv[0]) from None
        finally:
            for fd in moved:
                os.close(fd)

    def reap(self) -> list[tuple[int, int]]:
        ended = []
        for pid, (process, pidfd) in list(self._running.items()):
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found == 0:
                    continue
                code = os.waitstatus_to_exitcode(status)
            except ChildProcessError:
                code = tree.UNKNOWN_EXIT  # the host ignores SIGCHLD, or reaps all children
            if process is not None:
                process.returncode = code
            del self._running[pid]
            if pidfd is not None:
                os.close(pidfd)
            ended.append((pid, code))
        return ended

    def members(self, command: tree.Command, roots: set[int]) -> list[int]:
        if sys.platform != "linux":
            (group,) = command.sessions
            return [group] if command.pid or _procfs.kill_group(group, 0) else []
        return self._find(self._mark(command.id) + b"\0", command.sessions)

    def kill_members(self, command: tree.Command, pids: list[int]) -> None:
        if sys.platform != "linux":
            _procfs.kill_group(*command.sessions)
        else:
            super().kill_members(command, pids)

    def kill_everything(self, commands: Iterable[tree.Command]) -> bool:
        left = False
        for command in list(commands):
            if members := self.members(command, set()):
                self.kill_members(command, members)
                left = True
        for pid in self._find(self._mark(None), set()):
            _procfs.kill(pid)
            left = True
        return not left

    def _find(self, mark: bytes, sessions: set[int]) -> list[int]:
        """Pids with this mark in their environment, or of one of the sessions."""
        # One look without a result proves nothing: a process may fork and end while we look, and while it is between
        # two programs it has no environment.
        patience = time.monotonic() + _EXEC_S
        looks = 0
        while looks < 2:
            seen = {pid: _procfs.environment_of(pid) for pid in _procfs.all_pids()}
            found = []
            unclear = set()
            for pid, environment in seen.items():
                state, _, session = _procfs.state_of(pid)
                if state == b"Z" or pid == self._me:
                    continue
                if mark in environment or session in sessions:
                    found.append(pid)
                elif environment == _procfs.NO_ENVIRONMENT and pid not in self._bare:
                    unclear.add(pid)
            if found:
                return found
            self._bare &= seen.keys()
            if unclear and time.monotonic() < patience:
                time.sleep(_EXEC_S / 20)
                continue
            self._bare |= unclear
            looks += 1
        return []

    def _mark(self, number: int | None) -> bytes:
        """As it stands in an environment, up to the NUL behind it; without a number: of any command."""
        return f"\0ENGINE_SCOPE={self._scope}.{'' if number is None else number}".encode()


def _inheritable_fds() -> list[int]:
    """What the host left open for its own children."""
    found = []
    for name in os.listdir("/dev/fd"):
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            continue  # that of the listing itself
    return found


def run(control: socket.socket, platform: ThreadPlatform) -> None:
    """The thread: serve until the socket ends and nothing is left. Closing the socket is its last act."""
    with control:
        wire.serve(wire.Server(control, platform))
