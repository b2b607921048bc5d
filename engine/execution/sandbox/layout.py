"""Which mounts make a policy true: the arrangement of tools.md 6.2 as data. Pure over a `Disk`.

Everything is mounted shallow to deep, so that what lies deepest around a path decides, as in permissions.md 4.2; at
one place what is refused covers what may be written, and that covers what is read-only. All places are without links,
because a mount follows them.

Whatever a command may write it may also rename, and replace by a link. So:

- nothing below a writable place can be protected through a link that lies in one; that is an error
- a writable place that is reached through such a link gives nothing that is not writable anyway
- folders between a writable place and something protected below it are *pinned*: mounted on themselves, they can't be
  renamed, which would take what they hold out of the next command's protection
- what is protected and missing gets a placeholder, or it could be created
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import attrs

from engine.execution.sandbox.disk import Disk
from engine.execution.sandbox.errors import SandboxPolicyError
from engine.execution.sandbox.resolving import Resolved, Resolver, ancestors_between, depth, is_below, parent
from engine.execution.sandbox.rules import FileSystemRules
from engine.permissions.roots import WritableRoot
from engine.protocol.profiles import PROTECTED_NAMES
from engine.records import frozen

__all__ = ["DeniedFile", "Layout", "Mount", "arrange"]

# In the order in which they cover one another at one place.
_READ, _PROTECTED, _WRITE, _DENIED = range(4)
Access = Literal["hidden", "read", "write"]
MountKind = Literal["read", "write", "hidden_folder", "hidden_file", "placeholder_folder", "placeholder_file"]
_PLACEHOLDERS: dict[bool, MountKind] = {True: "placeholder_folder", False: "placeholder_file"}
_HIDDEN: dict[bool, MountKind] = {True: "hidden_folder", False: "hidden_file"}


@frozen
class Mount:
    """Something that appears at `path`.

    - `read`, `write`: the host's `source`, which is `path` unless the policy names a link
    - `hidden_folder`, `hidden_file`: nothing; with `open_below` the folder can be passed through
    - `placeholder_folder`, `placeholder_file`: nothing, where nothing is; something empty has to be made there first

    `loose`: other commands may put something else there before it is mounted.
    """

    path: str
    kind: MountKind
    source: str = ""
    open_below: bool = False
    loose: bool = False


@frozen
class Layout:
    """`whole_disk`: begin with the whole disk read-only, else with an empty tree. Then `mounts`, in their order."""

    whole_disk: bool
    mounts: tuple[Mount, ...]

    @property
    def has_loose_mounts(self) -> bool:
        """Whether something writable has to be mounted from where commands may write."""
        return any(mount.loose for mount in self.mounts)

    def shows(self, path: str) -> bool:
        """Whether the normal `path` can be read, as far as the mounts tell: links are not followed."""
        shown = self.whole_disk
        for mount in self.mounts:  # the deepest comes last
            if path == mount.path or is_below(path, mount.path):
                shown = mount.kind in ("read", "write")
        return shown


@frozen
class DeniedFile:
    """A file that matches a glob of denied paths. `pinned`: its folder must keep its name for the glob to match."""

    path: str
    pinned: bool = False


@frozen
class _Item:
    """A place and what the policy says of it. `name` is how the policy names it."""

    rank: int
    place: Resolved
    name: str
    pinned: bool = True

    @property
    def order(self) -> tuple[int, int, str]:
        # What is readable appears by the name the policy uses, all else where links lead.
        path = self.name if self.rank == _READ else self.place.path
        return depth(path), self.rank, path


def arrange(
    rules: FileSystemRules,
    disk: Disk,
    *,
    denied_files: Iterable[DeniedFile] = (),
    protected: Sequence[str] = (),
) -> Layout:
    """The mounts for `rules` as the disk is now. Raises `SandboxPolicyError`.

    `denied_files` are what the globs of `rules` match. `protected` are further paths (without links) that must not be
    written, whatever the rules say.
    """
    return _Arrangement(rules, disk).arrange(denied_files, protected)


class _Arrangement:
    def __init__(self, rules: FileSystemRules, disk: Disk) -> None:
        self._rules = rules
        self._resolver = Resolver(disk)
        roots = [(root, self._resolver.resolve(root.root)) for root in rules.writable]
        self._roots = [(root, place) for root, place in roots if place.kind != "missing"]
        self._writable = {place.path for _, place in self._roots}
        self._own_roots = [(root, place) for root, place in self._roots if self._loose_link(place) is None]
        self._decided: dict[str, Access] = {"/": "read" if rules.full_read else "hidden"}
        self._mounts: dict[str, Mount] = {}
        self._pinned: set[str] = set()

    def arrange(self, denied_files: Iterable[DeniedFile], protected: Sequence[str]) -> Layout:
        self._refuse_loose_roots()
        denied = [*self._denied(), *self._denied_by_glob(denied_files)]
        items = [
            *(_Item(_READ, self._resolver.resolve(path), path) for path in self._rules.readable if path != "/"),
            *self._protected(protected),
            *(_Item(_WRITE, place, root.root) for root, place in self._own_roots),
            *denied,
        ]
        items.sort(key=lambda item: item.order)
        steps = {_READ: self._read, _PROTECTED: self._protect, _WRITE: self._write, _DENIED: self._deny}
        aliases: list[tuple[str, str]] = []
        for item in items:
            steps[item.rank](item)
            if item.rank == _READ and item.name != item.place.path and self._decided.get(item.name) == "read":
                aliases.append((item.name, item.place.path))
        for item in denied:
            self._deny_at_aliases(item, aliases)
        return Layout(self._rules.full_read or "/" in self._writable, self._in_order())

    # --- what the policy says, place by place ---

    def _refuse_loose_roots(self) -> None:
        """A place that is writable only because a link that commands may change leads there."""
        own = [place.path for _, place in self._own_roots]
        for root, place in self._roots:
            link = self._loose_link(place)
            if link is not None and not any(place.path == path or is_below(place.path, path) for path in own):
                raise SandboxPolicyError(
                    f"cannot give write access to {root.root} because it leads outside through writable symlink "
                    f"{link}; allow {place.path} itself if that is meant",
                    path=root.root,
                )

    def _protected(self, further: Sequence[str]) -> Iterable[_Item]:
        for root, place in self._roots:
            names = [f"{root.root.rstrip('/')}/{name}" for name in root.protected_metadata_names]
            for path in dict.fromkeys((*root.read_only_subpaths, *names)):
                yield _Item(_PROTECTED, self._firm(path, "read-only", [(root, place)]), path)
        for path in further:
            found = self._resolver.resolve(path)
            if found.kind != "missing":
                yield _Item(_PROTECTED, found, path)

    def _denied(self) -> Iterable[_Item]:
        for path in self._rules.unreadable:
            yield _Item(_DENIED, self._firm(path, "unreadable", self._own_roots), path)

    def _denied_by_glob(self, files: Iterable[DeniedFile]) -> Iterable[_Item]:
        for file in files:
            found = self._resolver.resolve(file.path)
            # A link that matches can't be covered itself; what it leads to is.
            if found.kind != "missing":
                yield _Item(_DENIED, found, file.path, pinned=file.pinned)

    def _firm(self, path: str, what: str, roots: Iterable[tuple[WritableRoot, Resolved]]) -> Resolved:
        """Where a path leads that has to be guarded; from a writable root on, no link may be in the way."""
        around = [(root.root, place.path) for root, place in roots if is_below(path, root.root)]
        if around:
            root, real = max(around, key=lambda names: len(names[0]))
            path = real.rstrip("/") + path[len(root.rstrip("/")) :]
        found = self._resolver.resolve(path)
        link = self._loose_link(found)
        if link is not None:
            raise SandboxPolicyError(
                f"cannot enforce sandbox {what} path {path} because it crosses writable symlink {link}", path=path
            )
        return found

    def _loose_link(self, place: Resolved) -> str | None:
        """A link on the way that commands could replace by another one."""
        for link in place.links:
            folder = parent(link)
            if any(folder == root or is_below(folder, root) for root in self._writable):
                return link
        return None

    # --- and what has to be mounted for it; shallow places come first ---

    def _access(self, path: str) -> Access:
        """What may be done at a path, as decided so far."""
        while path not in self._decided:
            path = parent(path)
        return self._decided[path]

    def _above(self, path: str) -> Access:
        return self._access(parent(path)) if path != "/" else "hidden"

    def _read(self, item: _Item) -> None:
        if item.place.kind == "missing" or self._loose_link(item.place) is not None:
            return
        for path in (item.name, item.place.path):
            if self._above(path) == "hidden" and self._decided.get(path) is None:
                self._mount(Mount(path, "read", item.place.path), "read")
                return  # the name the policy uses is enough
            if path in self._decided:
                return

    def _protect(self, item: _Item) -> None:
        self._guard(item, Mount(item.place.path, "read", item.place.path))

    def _write(self, item: _Item) -> None:
        path = item.place.path
        if self._above(path) != "write" or self._decided.get(path, "write") != "write":
            self._mount(Mount(path, "write", path), "write")

    def _deny(self, item: _Item) -> None:
        path = item.place.path
        if self._access(path) != "hidden":
            self._guard(item, Mount(path, _HIDDEN[item.place.kind == "directory"]), readable_too=True)

    def _guard(self, item: _Item, mount: Mount, *, readable_too: bool = False) -> None:
        """Take something away from a writable place (or also from a readable one), be it there or missing."""
        place = item.place
        if place.missing is not None:
            # Where nothing can be written, nobody can create it.
            if self._access(place.missing) == "write":
                folders = {f"{root.rstrip('/')}/{name}" for root in self._writable for name in PROTECTED_NAMES}
                kind = _PLACEHOLDERS[place.missing in folders]
                self._mount(Mount(place.missing, kind), "read")
        elif place.obstacle is not None:
            if self._access(place.obstacle) == "write" and place.obstacle not in self._writable:
                self._pinned.add(place.obstacle)
                self._pin_above(place.obstacle)
        elif place.kind != "missing" and (readable_too or self._access(place.path) == "write"):
            self._mount(mount, "hidden" if readable_too else "read", pinned=item.pinned)

    def _deny_at_aliases(self, item: _Item, aliases: Sequence[tuple[str, str]]) -> None:
        """What is denied stays so under the other names that readable links have for it."""
        for name, real in aliases:
            if item.place.kind != "missing" and is_below(item.place.path, real):
                path = name + item.place.path[len(real) :]
                self._mount(Mount(path, _HIDDEN[item.place.kind == "directory"]), "hidden")

    def _mount(self, mount: Mount, access: Access, *, pinned: bool = True) -> None:
        if pinned:
            self._pin_above(mount.path)
        self._decided[mount.path] = access
        self._mounts[mount.path] = mount  # what was there would be covered

    def _pin_above(self, path: str) -> None:
        above = parent(path)
        while above not in self._decided:
            above = parent(above)
        if self._decided[above] == "write":
            self._pinned.update(ancestors_between(path, above))

    def _in_order(self) -> tuple[Mount, ...]:
        found = dict(self._mounts)
        for path in self._pinned:
            found.setdefault(path, Mount(path, "write", path))
        paths = sorted(found, key=lambda path: (depth(path), path))
        for path in paths:
            mount = found[path]
            if mount.kind == "write" and any(is_below(path, root) for root in self._writable):
                found[path] = attrs.evolve(mount, loose=True)
        passed = {above for path in paths for above in (*ancestors_between(path, "/"), "/") if path != "/"}
        return tuple(
            attrs.evolve(found[path], open_below=True)
            if path in passed and found[path].kind == "hidden_folder"
            else found[path]
            for path in paths
        )
