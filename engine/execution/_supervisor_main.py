"""The supervisor process: starts an engine's commands, reports their exits and kills their whole trees.

Run as `python -I -S _supervisor_main.py HOST_PID SCOPE` with the control socket as fd 0. It has one thread, imports
only cheap built-in modules (a start costs little more than the interpreter's own), and ends when the socket does: at
end of file, or when the host is gone, it kills every descendant until none is left. As a child subreaper it is the
parent of everything its commands leave behind, so `setsid` and double forks don't escape.

`Server` is the loop and speaks the wire (both ends use the functions below); a `Platform` knows how to start, reap and
find processes. `_spawner_thread` runs the same loop in a thread, for hosts that are no Python interpreter.
"""

from __future__ import annotations

import _socket  # not `socket`: it imports enum and selectors, 8 ms
import errno
import os
import select
import sys

TYPE_CHECKING = False  # importing `typing` would cost more than this file
if TYPE_CHECKING or __package__:
    from engine.execution._placeholder import release_placeholder
    from engine.execution._process_tree import Command, GroupPlatform, Platform, ReaperPlatform
    from engine.execution._request import Failure, Request
else:
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # as the supervisor process: no package, no site
    from _placeholder import release_placeholder
    from _process_tree import Command, GroupPlatform, Platform, ReaperPlatform
    from _request import Failure, Request

# host -> supervisor: length (4 bytes), operation (1), command id (4), payload
SPAWN, KILL = 1, 2
# supervisor -> host, framed alike
SPAWNED, FAILED, EXITED, GONE, FATAL = 11, 12, 13, 14, 15

_FIRST_RETRY_MS, _LAST_RETRY_MS = 2, 250  # between two rounds of killing


# --- the wire ----------------------------------------------------------------------------------


def encode_frame(operation: int, command_id: int, payload: bytes = b"") -> bytes:
    return (
        (5 + len(payload)).to_bytes(4, "big") + operation.to_bytes(1, "big") + command_id.to_bytes(4, "big") + payload
    )


def take_frames(buffer: bytearray) -> list[tuple[int, int, bytes]]:
    """Cut the whole frames off the front of `buffer`: (operation, command id, payload)."""
    frames = []
    start = 0
    while len(buffer) - start >= 4:
        end = start + 4 + int.from_bytes(buffer[start : start + 4], "big")
        if len(buffer) < end:
            break
        frames.append(
            (buffer[start + 4], int.from_bytes(buffer[start + 5 : start + 9], "big"), bytes(buffer[start + 9 : end]))
        )
        start = end
    del buffer[:start]
    return frames


# --- the loop ----------------------------------------------------------------------------------


class Server:
    """Serves one control socket until it ends; then kills everything, and returns when nothing is left."""

    def __init__(self, control: _socket.socket, platform: Platform, host_pidfd: int | None = None) -> None:
        self.control = control
        self.platform = platform
        self.host_pidfd = host_pidfd
        self.commands: dict[int, Command] = {}
        self.dying: set[int] = set()
        self.ending = False
        self.retry_ms = _FIRST_RETRY_MS
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._fds: list[int] = []

    def run(self) -> None:
        control_fd = self.control.fileno()
        self.control.setblocking(False)
        while True:
            poller = select.poll()
            for fd in self.platform.watched():
                poller.register(fd, select.POLLIN)
            if not self.ending:
                poller.register(control_fd, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
                if self.host_pidfd is not None:
                    poller.register(self.host_pidfd, select.POLLIN)
            timeout = self.retry_ms if self.ending or self.dying else self.platform.interval_ms()
            ready = {fd for fd, _ in poller.poll(timeout)}
            self._note_exits()
            if not self.ending and self.host_pidfd in ready:
                # A fork of the host may keep our socket open; the host itself is gone all the same.
                self.ending = True
            if not self.ending and control_fd in ready:
                self._receive()
            if self.ending:
                self._slow_down()
                if self.platform.kill_everything(self.commands.values()) and not self._roots():
                    for command_id in list(self.commands):
                        self._forget(command_id)
                    return
            elif self.dying:
                self._kill_dying()
            if not self.ending:
                self._flush()

    def _roots(self) -> set[int]:
        return {command.pid for command in self.commands.values() if command.pid}

    def _send(self, operation: int, command_id: int, payload: bytes = b"") -> None:
        self._outgoing += encode_frame(operation, command_id, payload)

    def _flush(self) -> None:
        try:
            while self._outgoing:
                del self._outgoing[: self.control.send(self._outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            self.ending = True

    def _note_exits(self) -> None:
        ended = dict(self.platform.reap())
        if not ended:
            return
        self.retry_ms = _FIRST_RETRY_MS
        exited = [command for command in self.commands.values() if command.pid in ended]
        for command in exited:
            code = ended[command.pid]
            command.pid = 0
            alone = not self.ending and not self.platform.members(command, self._roots())
            self._send(EXITED, command.id, code.to_bytes(4, "big", signed=True) + bytes([alone]))
            if alone:
                self._forget(command.id)

    def _forget(self, command_id: int) -> None:
        self.dying.discard(command_id)
        _release(self.commands.pop(command_id).kept)

    def _receive(self) -> None:
        try:
            data, ancillary, flags, _ = self.control.recvmsg(65536, 1024)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary, flags = b"", [], 0
        for level, kind, value in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                for start in range(0, len(value) - len(value) % 4, 4):
                    fd = int.from_bytes(value[start : start + 4], sys.byteorder)
                    os.set_inheritable(fd, False)
                    self._fds.append(fd)
        if flags & _socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, "file descriptors were lost: the limit of open files is reached")
        if not data:
            self.ending = True
            return
        self._incoming += data
        for operation, command_id, payload in take_frames(self._incoming):
            if operation == SPAWN:
                self._spawn(command_id, Request.decode(payload))
            elif command_id in self.commands:
                self.dying.add(command_id)
                self.retry_ms = _FIRST_RETRY_MS
            else:
                self._send(GONE, command_id)

    def _spawn(self, command_id: int, request: Request) -> None:
        # Sent with the first byte of their frame, so they are here already.
        count = len(request.targets)
        fds, kept_fds = self._fds[:count], self._fds[count : count + 2 * len(request.kept)]
        del self._fds[: count + 2 * len(request.kept)]
        kept = list(zip(kept_fds[::2], kept_fds[1::2], request.kept, strict=True))
        try:
            command = self.platform.spawn(request, fds, command_id)
        except Failure as failure:
            _release(kept)
            self._send(FAILED, command_id, failure.number.to_bytes(4, "big") + failure.subject)
        else:
            command.kept = kept
            self.commands[command_id] = command
            self._send(SPAWNED, command_id, command.pid.to_bytes(4, "big"))
        finally:
            for fd in fds:
                os.close(fd)

    def _slow_down(self) -> None:
        self.retry_ms = min(self.retry_ms * 2, _LAST_RETRY_MS)

    def _kill_dying(self) -> None:
        self._slow_down()
        for command_id in list(self.dying):
            command = self.commands[command_id]
            members = self.platform.members(command, self._roots())
            if members:
                self.platform.kill_members(command, members)
            elif command.pid == 0:  # else its exit is not reported yet
                self._send(GONE, command_id)
                self._forget(command_id)


def _release(kept: list[tuple[int, int, bytes]]) -> None:
    for fd, folder_fd, name in kept:
        release_placeholder(fd, folder_fd, name)


def serve(server: Server) -> None:
    """Run to the end, also after an error of our own, which is reported and raised when nothing is left."""
    try:
        server.run()
    except BaseException as exc:
        try:
            server.control.send(encode_frame(FATAL, 0, repr(exc).encode()))
        except OSError:
            pass  # the host is gone too
        server.ending = True
        server.run()
        raise


def main() -> None:
    host_pid, scope = int(sys.argv[1]), int(sys.argv[2])
    os.closerange(3, 1 << 20)  # what the host left inheritable would live as long as we do
    os.chdir("/")
    control = _socket.socket(fileno=0)
    host_pidfd = None
    try:
        host_pidfd = os.pidfd_open(host_pid)
    except (AttributeError, OSError):
        pass  # not Linux, or the host is gone: then the socket has ended too
    platform = ReaperPlatform(scope) if sys.platform == "linux" else GroupPlatform(scope)
    serve(Server(control, platform, host_pidfd))


if __name__ == "__main__":
    main()
