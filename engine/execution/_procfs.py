"""What Linux tells of processes in /proc, and killing them.

Also runs in the supervisor process, where every module costs start-up time: nothing but cheap built-in ones here.
"""

from __future__ import annotations

import os

SIGKILL = 9
NO_ENVIRONMENT = b"\0"  # what `environment_of` gives for a kernel thread, or while a process is between two programs


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
