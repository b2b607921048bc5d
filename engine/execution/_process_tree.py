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

TYPE_CHECKING = False  # importing `typing` would cost more than this file
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    FileAction = tuple[int, int, int] | tuple[int, int, bytes, int, int]

SIGKILL = 9
RLIMIT_LOCKS = 10  # has no name in `resource`
UNKNOWN_EXIT = 1 << 30  # no exit code: somebody else reaped the process
NO_ENVIRONMENT = b"\0"  # what `environment_of` gives for a kernel thread, or while a process is between two programs
FIRST_FREE_FD = 256  # commands can get fds up to this number
LABELS_PER_SCOPE = 1 << 24  # a scope is a multiple of this, a command's label lies in the range that begins there


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


# --- looking at /proc --------------------------------------------------------------------------


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = os.read(fd, 65536)
        while len(data) % 65536 == 0 and (more := os.read(fd, 65536)):
            data += more
        return data
    except OSError:
        return b""  # the process ended between open and read
    finally:
        os.close(fd)


def state_of(pid: int) -> tuple[bytes, int, int]:
    """State letter, parent and session from `/proc/PID/stat`; a zombie without either when the process is gone."""
    # The second field is the program's name in brackets and may itself hold brackets and blanks.
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (fields[0], int(fields[1]), int(fields[3])) if len(fields) > 3 else (b"Z", 0, 0)


def session_of(pid: int) -> int:
    return state_of(pid)[2]


def is_zombie(pid: int) -> bool:
    return state_of(pid)[0] == b"Z"


def label_of(pid: int) -> int:
    """The soft `RLIMIT_LOCKS` of a process; 0 when it has none or is gone."""
    _, found, rest = _read(f"/proc/{pid}/limits").partition(b"Max file locks")
    value = rest.split(None, 1)[0] if found else b""
    return int(value) if value.isdigit() else 0


def environment_of(pid: int) -> bytes:
    """As the process was started with: NAME=value, each between two NULs. Empty when closed to us."""
    return b"\0" + _read(f"/proc/{pid}/environ")


def all_pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def children_of(pid: int) -> list[int]:
    """Direct children of a process, of all its threads."""
    children: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return children
    for thread in threads:
        children += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return children


def scan_children(pid: int) -> list[int]:
    """`children_of` for a kernel without `CONFIG_PROC_CHILDREN`."""
    return [other for other in all_pids() if state_of(other)[1] == pid]


def kill(pid: int) -> None:
    try:
        os.kill(pid, SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # gone; or of another user (sudo): its end is waited for as long as the host waits


def kill_group(group: int, number: int = SIGKILL) -> bool:
    """False when there is no such group (any more)."""
    try:
        os.killpg(group, number)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True


# --- starting, reaping and finding processes ---------------------------------------------------


class Command:
    """A started command. `pid` is 0 once the process it was started as has been reaped."""

    __slots__ = ("id", "kept", "labels", "pid", "sessions")

    def __init__(self, command_id: int, pid: int, label: int) -> None:
        self.id = command_id
        self.pid = pid
        self.kept: list[tuple[int, int, bytes]] = []  # placeholders: fd, fd of the folder, name in it
        self.labels = {label} if label else set[int]()
        self.sessions = {pid}


class Platform:
    """How processes are started, reaped and found."""

    def watched(self) -> list[int]:
        """fds whose readability means that it is worth to call `reap`."""
        raise NotImplementedError

    def interval_ms(self) -> int | None:
        """How often to call `reap` where there is nothing to watch."""
        return None

    def spawn(self, request: Request, fds: list[int], number: int) -> Command:
        """Start a command; `fds` go with `request.targets`. Raises `Failure`."""
        raise NotImplementedError

    def reap(self) -> list[tuple[int, int]]:
        """(pid, exit code or negative signal) of the children that ended since the last call."""
        raise NotImplementedError

    def members(self, command: Command, roots: set[int]) -> list[int]:
        """Pids of what is left of a command's tree. `roots` are the unreaped first processes of all commands."""
        raise NotImplementedError

    def kill_members(self, command: Command, pids: list[int]) -> None:
        """SIGKILL to all of `pids`, the command's process group first."""
        if command.pid:  # only while unreaped: after that the number may be somebody else's
            kill_group(command.pid)  # atomic against a fork in progress
        for pid in pids:
            kill(pid)

    def kill_everything(self, commands: Iterable[Command]) -> bool:
        """SIGKILL to all that is left of all commands. True when nothing was."""
        raise NotImplementedError


class SealedDevices:
    """A mount namespace beside our own in which device files are read-only: they can be used, but not changed.

    A sandbox binds /dev/null and its like from the host, and a command that runs as root there owns them. Nothing
    happens where we are not root, or may not do this; then whoever has no rights over the host's files has none there.
    """

    FILES = (b"null", b"zero", b"full", b"random", b"urandom", b"tty")
    CLONE_NEWNS = 0x20000
    MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 1, 32, 4096, 16384, 1 << 19

    def __init__(self) -> None:
        self.spaces: tuple[int, int] | None = None  # fds: the ordinary one, the one with sealed devices
        self.tried = False

    def enter(self) -> None:
        if not self.tried:
            self.tried = True
            if os.geteuid() == 0 and os.path.exists("/proc/self/ns/mnt"):
                self.make()
        if self.spaces is not None:
            self.libc.setns(self.spaces[1], self.CLONE_NEWNS)

    def leave(self) -> None:
        if self.spaces is not None:
            self.libc.setns(self.spaces[0], self.CLONE_NEWNS)

    def make(self) -> None:
        import ctypes

        self.libc = ctypes.CDLL(None, use_errno=True)
        ordinary = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        if self.libc.unshare(self.CLONE_NEWNS) != 0:
            os.close(ordinary)
            return
        mount = self.libc.mount
        mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
        failed = mount(None, b"/", None, self.MS_SLAVE | self.MS_REC, None)  # what the host mounts appears here too
        for name in self.FILES:
            path = b"/dev/" + name
            if os.path.exists(path):
                failed |= mount(path, path, None, self.MS_BIND, None)
                failed |= mount(None, path, None, self.MS_REMOUNT | self.MS_BIND | self.MS_RDONLY, None)
        self.spaces = ordinary, os.open("/proc/self/ns/mnt", os.O_RDONLY)
        self.leave()
        if failed:
            for fd in self.spaces:
                os.close(fd)
            self.spaces = None


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
