"""Landlock alone, where user namespaces are forbidden: what it can enforce, and how (tools.md 6.5).

Landlock only ever gives access to whole trees, so a policy that takes something away below what it gives is refused
here. Changes of modes, owners and dates, which it does not see, and the network are left to system-call filters. All of
it is set by a short Python program (`_stage.py`) that then becomes the command.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from engine.execution.sandbox.errors import SandboxUnavailable
from engine.execution.sandbox.layout import Layout
from engine.execution.sandbox.resolving import is_below
from engine.execution.sandbox.seccomp import Machine, metadata_filter, network_filter
from engine.records import frozen

__all__ = [
    "LandlockSupport",
    "Rule",
    "encode_stage",
    "landlock_rules",
    "landlock_support",
    "stage_source",
]

_CREATE_RULESET = 444  # the number of the system call on every machine
_VERSION_FLAG = 1

OLDEST_ABI = 3  # before it, files could be truncated
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
READ = _EXECUTE | _READ_FILE | _READ_DIR
_DEVICES = ("/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero")
_NETWORK_BIND, _NETWORK_CONNECT = 1 << 0, 1 << 1
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1


@frozen
class LandlockSupport:
    """The version of the interface, 0 where there is none; then `problem` says why."""

    abi: int
    problem: str | None = None

    @property
    def all_access(self) -> int:
        """Every kind of access to files that this version knows."""
        return (1 << {3: 15, 4: 15}.get(self.abi, 16)) - 1

    def weaknesses(self) -> tuple[str, ...]:
        """What commands can do here that they could not do under bubblewrap."""
        found = [
            "paths that may not be read can be seen to exist",
            "the processes of the machine can be listed",
            "the network, UDP included, is kept away by system-call filters alone: it is the host's own behind them",
        ]
        if self.abi < 6:
            found.append("signals can be sent to other processes of the same user")
        return tuple(found)


@frozen
class Rule:
    """Access to a path (without links) and all below it, as bits."""

    path: str
    access: int


def landlock_support() -> LandlockSupport:
    """What the running kernel offers."""
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    if abi < 0:
        number = ctypes.get_errno()
        if number == errno.EOPNOTSUPP:
            return LandlockSupport(0, "it is switched off (the kernel parameter `lsm=` has to name landlock)")
        return LandlockSupport(0, "the kernel does not have it" if number == errno.ENOSYS else os.strerror(number))
    if abi < OLDEST_ABI:
        return LandlockSupport(0, f"version {abi} of the kernel's interface can't keep files from being truncated")
    return LandlockSupport(abi)


def landlock_rules(layout: Layout, support: LandlockSupport) -> tuple[Rule, ...]:
    """The rules that come to the same as a layout. Raises `SandboxUnavailable`, with what can't be expressed."""
    if support.abi == 0:
        raise SandboxUnavailable(f"Landlock can't be used: {support.problem}")
    writable = [mount.path for mount in layout.mounts if mount.kind == "write"]
    rules = [Rule("/", READ)] if layout.whole_disk else [Rule("/proc", READ)]
    for mount in layout.mounts:
        if mount.loose:
            continue  # the writable place around it gives as much; a link put in its way would give something else
        if mount.kind == "write":
            rules.append(Rule(mount.source, support.all_access))
        elif mount.kind == "read" and not any(is_below(mount.path, path) for path in writable):
            rules.append(Rule(mount.source, READ))
        else:
            what = "unreadable" if mount.kind.startswith("hidden") else "read-only"
            raise SandboxUnavailable(
                f"Landlock can't keep {mount.path} {what} below what it gives access to, and bubblewrap, which can, "
                "does not work here"
            )
    device_access = (READ | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV) & support.all_access & ~_READ_DIR
    return (*rules, *(Rule(device, device_access) for device in _DEVICES))


def encode_stage(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    rules: Sequence[Rule] | None,
    network: bool,
    support: LandlockSupport,
    machine: Machine,
) -> bytes:
    """What the stage reads from its file descriptor. `rules` None: every file may be used."""
    restricted = rules is not None
    handled = (
        support.all_access if restricted else 0,
        _NETWORK_BIND | _NETWORK_CONNECT if not network and support.abi >= 4 else 0,
        (0 if network else _SCOPE_ABSTRACT_SOCKETS) | _SCOPE_SIGNALS if restricted and support.abi >= 6 else 0,
    )
    filters = [] if network else [network_filter("restricted", machine)]
    if restricted:
        filters.append(metadata_filter(machine))
    fields: list[bytes | str] = [
        *map(str, handled),
        str(8 if support.abi < 4 else 16 if support.abi < 6 else 24),
        str(len(filters)),
        *(program.hex() for program in filters),
        str(len(rules or ())),
    ]
    for rule in rules or ():
        fields += (str(rule.access), rule.path)
    fields += (str(len(argv)), *argv, *(f"{name}={value}" for name, value in env.items()))
    return b"\0".join(os.fsencode(field) for field in fields)


@cache
def stage_source() -> str:
    """The stage's program. Read once: a command could change the file."""
    return (Path(__file__).parent / "_stage.py").read_text(encoding="utf-8")
