"""Starting, finding and killing processes, for the supervisor: the platform's side of it.

Imported by the supervisor process, where every module costs start-up time: nothing but cheap built-in ones here.

Whose an orphan is: each command is started with a label in its soft `RLIMIT_LOCKS`. Linux has ignored that limit since
2.4.25, but it is inherited through fork and exec and anyone may read it in `/proc/PID/limits`, also of setuid programs
whose environment is closed. A process that resets its limits is still found through its parents and its session; one
that manages to escape all three dies with the engine.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod

TYPE_CHECKING = False  # importing `typing` would cost more than this file
if TYPE_CHECKING or __package__:
    from engine.execution._procfs import children_of, kill, kill_group, label_of, scan_children, session_of
    from engine.execution._request import Failure, Request, find_program, stream_actions
    from engine.execution._sealed_devices import SealedDevices
else:  # as the supervisor process
    from _procfs import children_of, kill, kill_group, label_of, scan_children, session_of
    from _request import Failure, Request, find_program, stream_actions
    from _sealed_devices import SealedDevices
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine.execution._request import FileAction

RLIMIT_LOCKS = 10  # has no name in `resource`
UNKNOWN_EXIT = 1 << 30  # no exit code: somebody else reaped the process
LABELS_PER_SCOPE = 1 << 24  # a scope is a multiple of this, a command's label lies in the range that begins there


class Command:
    """A started command. `pid` is 0 once the process it was started as has been reaped."""

    __slots__ = ("id", "kept", "labels", "pid", "sessions")

    def __init__(self, command_id: int, pid: int, label: int) -> None:
        self.id = command_id
        self.pid = pid
        self.kept: list[tuple[int, int, bytes]] = []  # placeholders: fd, fd of the folder, name in it
        self.labels = {label} if label else set[int]()
        self.sessions = {pid}


class Platform(ABC):
    """How processes are started, reaped and found."""

    @abstractmethod
    def watched(self) -> list[int]:
        """fds whose readability means that it is worth to call `reap`."""

    def interval_ms(self) -> int | None:
        """How often to call `reap` where there is nothing to watch."""
        return None

    @abstractmethod
    def spawn(self, request: Request, fds: list[int], number: int) -> Command:
        """Start a command; `fds` go with `request.targets`. Raises `Failure`."""

    @abstractmethod
    def reap(self) -> list[tuple[int, int]]:
        """(pid, exit code or negative signal) of the children that ended since the last call."""

    @abstractmethod
    def members(self, command: Command, roots: set[int]) -> list[int]:
        """Pids of what is left of a command's tree. `roots` are the unreaped first processes of all commands."""

    def kill_members(self, command: Command, pids: list[int]) -> None:
        """SIGKILL to all of `pids`, the command's process group first."""
        if command.pid:  # only while unreaped: after that the number may be somebody else's
            kill_group(command.pid)  # atomic against a fork in progress
        for pid in pids:
            kill(pid)

    @abstractmethod
    def kill_everything(self, commands: Iterable[Command]) -> bool:
        """SIGKILL to all that is left of all commands. True when nothing was."""


class ReaperPlatform(Platform):
    """Linux, in the supervisor process: what ends up without a parent becomes a child of ours."""

    def __init__(self, scope: int) -> None:
        import _signal  # type: ignore[import-not-found]  # not `signal`: it imports enum

        self.scope = scope
        self.me = os.getpid()
        # Ours are ignored below and would stay ignored in the commands, so all go back to default there.
        kept = (_signal.SIGKILL, _signal.SIGSTOP)
        self.default_signals = [number for number in _signal.valid_signals() if number not in kept]
        self.wakeup, write_end = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(write_end, False)
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGPIPE", "SIGUSR1", "SIGUSR2", "SIGTSTP", "SIGTTOU"):
            _signal.signal(getattr(_signal, name), _signal.SIG_IGN)  # `pkill python` by a command must not end us
        _signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        self.set_label = self._become_subreaper()
        self.devices = SealedDevices()
        has_lists = os.path.exists(f"/proc/{self.me}/task/{self.me}/children")
        self.children = children_of if has_lists else scan_children

    def _become_subreaper(self) -> Callable[[int], None] | None:
        """Adopt the orphans of descendants. Returns a function that sets our own label, if there can be labels."""
        import ctypes
        import resource

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(36, 1, 0, 0, 0) != 0:  # PR_SET_CHILD_SUBREAPER
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        hard = resource.getrlimit(RLIMIT_LOCKS)[1]

        def set_label(label: int) -> None:
            resource.setrlimit(RLIMIT_LOCKS, (label, hard))

        try:
            set_label(self.scope)
        except (OSError, ValueError):
            return None  # a kernel that imitates Linux: sessions and parents have to do
        return set_label

    def watched(self) -> list[int]:
        return [self.wakeup]

    def spawn(self, request: Request, fds: list[int], number: int) -> Command:
        label = self.scope + number % LABELS_PER_SCOPE if self.set_label else 0
        actions, moved = stream_actions(request, fds)
        if request.sealed:
            self.devices.enter()
        try:
            return self._spawn_in(request, actions, number, label)
        finally:
            if request.sealed:
                self.devices.leave()
            for fd in moved:
                os.close(fd)

    def _spawn_in(self, request: Request, actions: list[FileAction], number: int, label: int) -> Command:
        try:
            os.chdir(request.cwd)  # one thread: nobody else sees it
        except OSError as exc:
            raise Failure(exc.errno or errno.EIO, request.cwd) from None
        try:
            if self.set_label:
                self.set_label(label)
            pid = self._exec(request, actions)
        except OSError as exc:
            raise Failure(exc.errno or errno.EIO, request.argv[0]) from None
        finally:
            os.chdir("/")
            if self.set_label:
                self.set_label(self.scope)
        return Command(number, pid, label)

    def _exec(self, request: Request, actions: list[FileAction]) -> int:
        env = dict(line.split(b"=", 1) for line in request.env)
        program = find_program(request.argv[0], env.get(b"PATH"))
        signals = self.default_signals
        try:
            return os.posix_spawn(
                program, request.argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=signals
            )
        except OSError as exc:
            if exc.errno != errno.ENOEXEC:
                raise
            argv = [b"/bin/sh", program, *request.argv[1:]]  # a script without `#!`, as execvp has it
            return os.posix_spawn(
                argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=signals
            )

    def reap(self) -> list[tuple[int, int]]:
        try:
            while os.read(self.wakeup, 4096):
                pass
        except BlockingIOError:
            pass
        ended: list[tuple[int, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            ended.append((pid, os.waitstatus_to_exitcode(status)))

    def members(self, command: Command, roots: set[int]) -> list[int]:
        # Every ancestor of a member is one, up to a child of ours: the command itself, or an orphan with its marks.
        waiting = [
            pid
            for pid in self.children(self.me)
            if pid == command.pid or (pid not in roots and self._belongs(pid, command))
        ]
        members = []
        while waiting:
            pid = waiting.pop()
            members.append(pid)
            # Note its marks: it may be an orphan with other ones than the command's at the next look.
            if label := label_of(pid):
                command.labels.add(label)
            command.sessions.add(session_of(pid) or pid)
            waiting += self.children(pid)
        return members

    def _belongs(self, pid: int, command: Command) -> bool:
        return label_of(pid) in command.labels or session_of(pid) in command.sessions

    def kill_everything(self, commands: Iterable[Command]) -> bool:
        for command in commands:
            self.kill_members(command, [])
        waiting = self.children(self.me)
        if not waiting:
            return True
        while waiting:
            pid = waiting.pop()
            waiting += self.children(pid)
            kill(pid)
        return False


class GroupPlatform(ReaperPlatform):
    """macOS, in the supervisor process: no subreaper and no /proc, so a tree is its process group."""

    def _become_subreaper(self) -> None:
        return None

    def members(self, command: Command, roots: set[int]) -> list[int]:
        (group,) = command.sessions
        return [group] if command.pid or kill_group(group, 0) else []

    def kill_members(self, command: Command, pids: list[int]) -> None:
        for group in command.sessions:
            kill_group(group)

    def kill_everything(self, commands: Iterable[Command]) -> bool:
        left = [command for command in commands if self.members(command, set())]
        for command in left:
            self.kill_members(command, [])
        return not left
