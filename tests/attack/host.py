"""What an attack must not change, and its state at a moment."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["snapshot"]

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_PARAMETERS = ("kernel/core_pattern", "kernel/modprobe", "kernel/hostname", "vm/swappiness", "vm/overcommit_memory")
_FILES = ("/etc/passwd", "/etc/hosts", "/etc/ld.so.cache")


def snapshot(place: Path, workspace: Path) -> Mapping[str, object]:
    """Everything in `place`, but what the workspace holds besides its metadata; and some of the machine."""
    found: dict[str, object] = {}
    ordinary = {name for name in os.listdir(workspace) if name not in (".git", ".agents", ".codex")}
    for path in _walk(place):
        inside = path.relative_to(workspace).parts if path.is_relative_to(workspace) else ()
        if not inside or inside[0] not in ordinary:
            found[str(path)] = _state(path)
    for name in _DEVICES:
        status = os.stat(f"/dev/{name}")
        found[f"/dev/{name}"] = (status.st_mode, status.st_uid, status.st_gid)
    for name in _PARAMETERS:
        parameter = Path("/proc/sys", name)
        found[name] = parameter.read_text() if parameter.exists() else None
    for name in _FILES:
        if os.path.exists(name):
            found[name] = _state(Path(name))
    found["/"] = sorted(os.listdir("/"))
    return found


def _walk(place: Path) -> Iterator[Path]:
    yield place
    for folder, folders, files in os.walk(place):
        for name in (*folders, *files):
            yield Path(folder, name)


def _state(path: Path) -> object:
    status = path.lstat()
    kept = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, _attributes(path))
    if stat.S_ISLNK(status.st_mode):
        return (*kept, os.readlink(path))
    if stat.S_ISREG(status.st_mode):
        return (*kept, status.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
    # Dates and links of folders change with what may be put into them.
    return (status.st_mode, status.st_uid, status.st_gid, _attributes(path))


def _attributes(path: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(os.listxattr(path, follow_symlinks=False)))
    except OSError:
        return ()
