"""The disk as a policy allows it, for patches that this process writes itself (tools.md 2.6, 2.7).

A path counts twice: as it is written and as links make of it. Files are reached from the root folder by folder without
following a link, so that a link that is put in place between the look and the write opens nothing. All calls block.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from engine.permissions.access import resolve_entries
from engine.permissions.decision import Row
from engine.permissions.projection import CompiledPolicy
from engine.permissions.read_denial import read_deny_matcher
from engine.permissions.view import View
from engine.permissions.whole_disk import has_full_disk_write
from engine.protocol.profiles import FileSystemSandboxPolicy
from engine.tools.apply_patch.errors import NotAFile
from engine.tools.apply_patch.filesystem import FileKind, PathStatus, RealFileSystem

if TYPE_CHECKING:
    from engine.protocol.profiles import AdditionalPermissionProfile
    from engine.tools.turn_permissions import TurnPermissions

__all__ = ["GuardedFileSystem", "guarded_files"]


def guarded_files(
    permissions: TurnPermissions, additional: AdditionalPermissionProfile | None = None
) -> GuardedFileSystem | None:
    """The disk as the turn may touch it, with what one call may touch besides; None where nothing is restricted."""
    policy = permissions.file_system(additional)
    if policy.kind != "restricted":
        return None
    return GuardedFileSystem(policy, permissions.cwd, permissions.view)


class GuardedFileSystem:
    """The machine's files under a restricted policy that holds in `cwd`. What it refuses is a `PermissionError`."""

    def __init__(self, policy: FileSystemSandboxPolicy, cwd: str, view: View) -> None:
        rows = list(resolve_entries(policy, cwd, view))
        whole = has_full_disk_write(policy)
        self._written = CompiledPolicy(rows, cwd=cwd, home=view.home, full_write=whole)
        real = os.path.realpath(cwd)
        self._real = CompiledPolicy(list(_real_rows(rows)), cwd=real, home=view.home, full_write=whole)
        denied = read_deny_matcher(policy, cwd, view)
        # Denied places are in the rows, with what deeper entries open in them.
        self._globs = (
            attrs.evolve(denied, places=()) if denied is not None and (denied.globs or denied.is_broken) else None
        )
        self._files = RealFileSystem()

    def refused(self, paths: Iterable[str]) -> list[str]:
        """Those of the paths that can't be written, by their own place or by where links lead."""
        return [path for path in paths if not self._may_write(path, os.path.realpath(path))]

    def status(self, path: str) -> PathStatus:
        if not self.may_read(path):
            return PathStatus(FileKind.ABSENT)
        return self._files.status(path)

    def read_bytes(self, path: str) -> bytes:
        real = os.path.realpath(path)
        if not self._may_read(path, real):
            raise _refusal(path)
        with _folder(posixpath.dirname(real)) as folder:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
            with os.fdopen(os.open(posixpath.basename(real), flags, dir_fd=folder), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise NotAFile(path)
                return file.read()

    def write_bytes(self, path: str, data: bytes) -> None:
        real = self._writable(path, os.path.realpath(path))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        with _folder(posixpath.dirname(real)) as folder:
            descriptor = os.open(posixpath.basename(real), flags, 0o666, dir_fd=folder)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)

    def make_parents(self, path: str) -> None:
        parent = posixpath.dirname(path)
        real = self._writable(parent, os.path.realpath(parent))
        there = real
        while not os.path.lexists(there):
            there = posixpath.dirname(there)
        with _folder(there) as folder:
            made = os.dup(folder)
            try:
                for name in posixpath.relpath(real, there).split("/") if real != there else ():
                    try:
                        os.mkdir(name, dir_fd=made)
                    except FileExistsError:
                        pass
                    below = os.open(name, _LOOK, dir_fd=made)
                    os.close(made)
                    made = below
            finally:
                os.close(made)

    def remove_file(self, path: str) -> None:
        folder_path = os.path.realpath(posixpath.dirname(path))
        name = posixpath.basename(path)
        self._writable(path, posixpath.join(folder_path, name))
        with _folder(folder_path) as folder:
            os.unlink(name, dir_fd=folder)

    def may_read(self, path: str) -> bool:
        """Whether what the path leads to may be read; nothing about whether it is there."""
        return self._may_read(path, os.path.realpath(path))

    def _may_read(self, path: str, real: str) -> bool:
        return self._written.can_read(path) and self._real.can_read(real) and not self._matches_denied(path, real)

    def _may_write(self, path: str, real: str) -> bool:
        return self._written.can_write(path) and self._real.can_write(real) and not self._matches_denied(path, real)

    def _matches_denied(self, path: str, real: str) -> bool:
        """Whether a denied glob matches: the globs themselves, so files count that came after the turn began, too."""
        return self._globs is not None and (self._globs.is_read_denied(path) or self._globs.is_read_denied(real))

    def _writable(self, path: str, real: str) -> str:
        if not self._may_write(path, real):
            raise _refusal(path)
        return real


_LOOK = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def _folder(real: str) -> Iterator[int]:
    """A descriptor of a folder whose path has no links in it; one that has them by now is refused."""
    descriptor = os.open("/", _LOOK)
    try:
        for name in real.strip("/").split("/") if real != "/" else ():
            try:
                below = os.open(name, _LOOK, dir_fd=descriptor)
            except OSError as exc:
                if exc.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(name, descriptor):
                    raise _refusal(real) from exc
                raise OSError(exc.errno, os.strerror(exc.errno or 0), real) from exc
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _real_rows(rows: list[Row]) -> Iterator[Row]:
    """The rows at the places links lead to.

    Below a writable place links are whoever's may write there, so they are not followed: a writable folder in it that
    became a link makes nothing else writable. What may not be written or read counts at both places.
    """
    writable = sorted((path for path, access, _ in rows if access == "write"), key=len)
    for path, access, position in rows:
        around = next((place for place in writable if place != path and _is_below(path, place)), None)
        if around is None:
            yield os.path.realpath(path), access, position
            continue
        unfollowed = posixpath.join(os.path.realpath(around), posixpath.relpath(path, around))
        yield unfollowed, access, position
        if access != "write" and (followed := os.path.realpath(path)) != unfollowed:
            yield followed, access, position


def _is_below(path: str, place: str) -> bool:
    return path.startswith(place if place.endswith("/") else place + "/")


def _refusal(path: str) -> PermissionError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
