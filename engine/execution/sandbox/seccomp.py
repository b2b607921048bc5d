"""System-call filters as BPF programs, assembled here (tools.md 6.3). Pure.

A filter allows by default. What it refuses fails with EPERM; a program for another instruction set than the machine's
own is killed at its first call, because its calls have other numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Literal

import attrs

from engine.records import frozen

__all__ = ["MACHINES", "Machine", "NetworkFilter", "metadata_filter", "network_filter"]

NetworkFilter = Literal["restricted", "proxy_routed"]

AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
SOCK_STREAM, SOCK_SEQPACKET = 1, 5
_SOCKET_TYPE_MASK = 0xF  # the other bits are SOCK_CLOEXEC and SOCK_NONBLOCK
_X32_BIT = 0x4000_0000  # x86-64 calls with 32-bit pointers are a second table of numbers
# Setting a file's flags works on one that is open for reading: FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR.
_FLAG_REQUESTS = (0x4008_6602, 0x401C_5820)

_EPERM, _ENOSYS = 1, 38
_RET_ALLOW, _RET_ERRNO, _RET_KILL_PROCESS = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_LOAD, _AND, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

# Refused always: reading or changing other processes, the ring through which calls could be made unseen, and the keys
# of the session that the engine runs in, which no namespace hides.
_ALWAYS = (
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "add_key",
    "request_key",
    "keyctl",
)
_NETWORK = (
    "connect",
    "accept",
    "accept4",
    "bind",
    "listen",
    "getpeername",
    "getsockname",
    "shutdown",
    "sendto",
    "sendmmsg",
    "recvmmsg",
    "getsockopt",
    "setsockopt",
)
_METADATA = (
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "utime",
    "utimes",
    "futimesat",
    "utimensat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "setxattrat",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "removexattrat",
    "file_setattr",
)


@frozen(eq=False)
class Machine:
    """What a filter must know of an instruction set: its audit number and the numbers of its system calls."""

    audit_arch: int
    numbers: Mapping[str, int] = attrs.field(repr=False)
    has_x32: bool = False


_COMMON = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "fchmodat2": 452,
    "setxattrat": 463,
    "removexattrat": 466,
    "file_setattr": 469,
}
# By the name that `uname -m` gives.
MACHINES: Mapping[str, Machine] = {
    "x86_64": Machine(
        0xC000_003E,
        {
            **_COMMON,
            "ioctl": 16,
            "socket": 41,
            "connect": 42,
            "accept": 43,
            "sendto": 44,
            "shutdown": 48,
            "bind": 49,
            "listen": 50,
            "getsockname": 51,
            "getpeername": 52,
            "socketpair": 53,
            "setsockopt": 54,
            "getsockopt": 55,
            "chmod": 90,
            "fchmod": 91,
            "chown": 92,
            "fchown": 93,
            "lchown": 94,
            "ptrace": 101,
            "utime": 132,
            "setxattr": 188,
            "lsetxattr": 189,
            "fsetxattr": 190,
            "removexattr": 197,
            "lremovexattr": 198,
            "fremovexattr": 199,
            "utimes": 235,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "fchownat": 260,
            "futimesat": 261,
            "fchmodat": 268,
            "utimensat": 280,
            "accept4": 288,
            "recvmmsg": 299,
            "sendmmsg": 307,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
        },
        has_x32=True,
    ),
    "aarch64": Machine(
        0xC000_00B7,
        {
            **_COMMON,
            "setxattr": 5,
            "lsetxattr": 6,
            "fsetxattr": 7,
            "removexattr": 14,
            "lremovexattr": 15,
            "fremovexattr": 16,
            "ioctl": 29,
            "fchmod": 52,
            "fchmodat": 53,
            "fchownat": 54,
            "fchown": 55,
            "utimensat": 88,
            "ptrace": 117,
            "socket": 198,
            "socketpair": 199,
            "bind": 200,
            "listen": 201,
            "accept": 202,
            "connect": 203,
            "getsockname": 204,
            "getpeername": 205,
            "sendto": 206,
            "setsockopt": 208,
            "getsockopt": 209,
            "shutdown": 210,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "accept4": 242,
            "recvmmsg": 243,
            "sendmmsg": 269,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
        },
    ),
}


@cache
def network_filter(kind: NetworkFilter, machine: Machine) -> bytes:
    """The filter of commands without network (`restricted`), or with none but a proxy (`proxy_routed`).

    `restricted` leaves unix sockets of the kinds that need a connection, which can't be made: a datagram could be sent
    to any socket file of the host.
    """
    if kind == "proxy_routed":
        blocks = [
            _refuse(machine, _ALWAYS),
            _only(machine, "socket", {0: (AF_INET, AF_INET6)}),
            _never(machine, "socketpair", 0, AF_UNIX),
        ]
    else:
        kinds = {0: (AF_UNIX,), 1: (SOCK_STREAM, SOCK_SEQPACKET)}
        blocks = [
            _refuse(machine, (*_ALWAYS, *_NETWORK)),
            _only(machine, "socket", kinds),
            _only(machine, "socketpair", kinds),
        ]
    return _program(machine, blocks)


@cache
def metadata_filter(machine: Machine) -> bytes:
    """Refuses to change modes, owners, dates, attributes and flags of files, which Landlock leaves alone."""
    requests = [_never(machine, "ioctl", 1, request) for request in _FLAG_REQUESTS]
    return _program(machine, [_refuse(machine, _METADATA), *requests])


# --- the assembler -----------------------------------------------------------------------------
# A block starts with the call's number loaded. It falls through with the number loaded, or returns.


def _instruction(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, k)


def _refusal(number: int = _EPERM) -> bytes:
    return _instruction(_RETURN, _RET_ERRNO | number)


def _refuse(machine: Machine, names: Iterable[str]) -> bytes:
    """Calls that are refused whatever their arguments are. Those a machine never had have no number there."""
    numbers = sorted({machine.numbers[name] for name in names if name in machine.numbers})
    tests = [_instruction(_JUMP_EQUAL, number, 0, 1) + _refusal() for number in numbers]
    return b"".join(tests)


def _only(machine: Machine, name: str, allowed: Mapping[int, tuple[int, ...]]) -> bytes:
    """A call for which the arguments named by their places must have one of the listed values."""
    checks = b""
    for place, values in allowed.items():
        checks += _load_argument(place)
        if place == 1:
            checks += _instruction(_AND, _SOCKET_TYPE_MASK)
        for left, value in zip(range(len(values), 0, -1), values, strict=True):
            checks += _instruction(_JUMP_EQUAL, value, left, 0)  # over the other values and the refusal
        checks += _refusal()
    return _for_call(machine, name, checks)


def _never(machine: Machine, name: str, place: int, value: int) -> bytes:
    """A call that is refused when an argument has this value."""
    return _for_call(machine, name, _load_argument(place) + _instruction(_JUMP_EQUAL, value, 0, 1) + _refusal())


def _for_call(machine: Machine, name: str, checks: bytes) -> bytes:
    checks += _instruction(_LOAD, _NUMBER)
    return _instruction(_JUMP_EQUAL, machine.numbers[name], 0, len(checks) // 8) + checks


def _load_argument(place: int) -> bytes:
    """The lower half, which is all the kernel looks at where it takes an `int`; both machines are little-endian."""
    return _instruction(_LOAD, _ARGUMENTS + 8 * place)


def _program(machine: Machine, blocks: Iterable[bytes]) -> bytes:
    start = [
        _instruction(_LOAD, _ARCH),
        _instruction(_JUMP_EQUAL, machine.audit_arch, 1, 0),
        _instruction(_RETURN, _RET_KILL_PROCESS),
        _instruction(_LOAD, _NUMBER),
    ]
    if machine.has_x32:
        start += [_instruction(_JUMP_AT_LEAST, _X32_BIT, 0, 1), _refusal(_ENOSYS)]
    return b"".join([*start, *blocks, _instruction(_RETURN, _RET_ALLOW)])
