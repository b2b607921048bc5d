"""Policy arithmetic in pure Python: materialisation, deny-preserving merges, the legacy scan, and compiled policies.

Twin of `_speedups/projection.pyx`: the same names, the same results and the same errors. What each does is documented
in `engine.permissions.projection`, which chooses between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, final

from engine.permissions.decision import Decision, LegacyScan, RootFacts, Row
from engine.protocol.paths import absolute_path, is_under, join
from engine.protocol.profiles import (
    PROJECT_ROOTS_PREFIX,
    PROTECTED_NAMES,
    Access,
    FileSystemEntry,
    GlobPath,
    LiteralPath,
    SpecialPath,
)

__all__ = ["IMPLEMENTATION", "CompiledPolicy", "legacy_scan", "materialize", "merge_entries"]

IMPLEMENTATION: Literal["c", "python"] = "python"

_NAMES: tuple[Access, ...] = ("read", "write", "none")
_RANKS = {"read": 0, "write": 1, "none": 2}
_WRITE = 1
_NONE = 2


def materialize(entries: Sequence[FileSystemEntry], roots: Sequence[str]) -> tuple[FileSystemEntry, ...]:
    made: list[FileSystemEntry] = []
    for entry in entries:
        path = entry.path
        if type(path) is SpecialPath:
            value = path.value
            if value.kind == "project_roots":
                below = value.subpath
                for root in roots:
                    place = root if below is None else join(root, below)
                    made.append(FileSystemEntry(LiteralPath(place), entry.access))
                continue
        elif type(path) is GlobPath and path.pattern.startswith(PROJECT_ROOTS_PREFIX):
            rest = path.pattern[len(PROJECT_ROOTS_PREFIX) :]
            for root in roots:
                made.append(FileSystemEntry(GlobPath(join(root, rest)), entry.access))
            continue
        made.append(entry)
    return tuple(made)


def merge_entries(
    entries: Sequence[FileSystemEntry], more: Sequence[FileSystemEntry], *, denied_only: bool = False
) -> tuple[FileSystemEntry, ...]:
    wanted = [entry for entry in more if entry.access == "none"] if denied_only else more
    if not wanted:
        return tuple(entries)
    made = list(entries)
    seen = {_key(entry) for entry in made}
    for entry in wanted:
        key = _key(entry)
        if key not in seen:
            seen.add(key)
            made.append(entry)
    return tuple(made)


def _key(entry: FileSystemEntry) -> tuple[str, str | None, str | None, str | None]:
    path = entry.path
    if type(path) is SpecialPath:
        value = path.value
        return (entry.access, value.kind, value.path, value.subpath)
    if type(path) is LiteralPath:
        return (entry.access, None, path.path, None)
    assert type(path) is GlobPath
    return (entry.access, None, None, path.pattern)


def legacy_scan(entries: Sequence[FileSystemEntry], cwd: str) -> LegacyScan:
    workspace = root_write = tmpdir = slash_tmp = False
    roots: dict[str, None] = {}
    for entry in entries:
        if entry.access != "write":
            continue
        path = entry.path
        if type(path) is LiteralPath:
            if path.path == cwd:
                workspace = True
            else:
                roots[path.path] = None
        elif type(path) is SpecialPath:
            value = path.value
            kind = value.kind
            if kind == "project_roots":
                if value.subpath is None:
                    workspace = True
                else:
                    roots[join(cwd, value.subpath)] = None
            elif kind == "root":
                root_write = True
            elif kind == "tmpdir":
                tmpdir = True
            elif kind == "slash_tmp":
                slash_tmp = True
    return LegacyScan(workspace, tuple(roots), root_write, tmpdir, slash_tmp)


class _Node:
    """A directory that entries speak of, or one on the way to it; what holds here holds for all below it."""

    __slots__ = (
        "can_write",
        "children",
        "decision",
        "depth",
        "entry",
        "has_write",
        "metadata",
        "metadata_depth",
        "metadata_row",
        "parent",
        "rank",
        "write_depth",
    )

    def __init__(self, parent: _Node | None) -> None:
        self.children: dict[str, _Node] = {}
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.rank = -1
        self.entry = -1
        self.has_write = False
        self.write_depth = -1
        # The first writable root in list order to whose metadata this belongs, and where that metadata begins.
        self.metadata: str | None = None
        self.metadata_row = -1
        self.metadata_depth = 0
        self.can_write = False
        self.decision: Decision | None = None


@final
class CompiledPolicy:
    """A policy resolved for one directory, made for many questions; see `engine.permissions.projection`."""

    __slots__ = ("_cwd", "_home", "_open", "_root", "_rows")

    def __init__(
        self, rows: Sequence[Row], *, cwd: str, home: str | None = None, open: bool = False, full_write: bool = False
    ) -> None:
        self._rows = tuple(rows)
        self._open = open
        self._root = _Node(None)
        nodes = [self._root]
        for position, (path, access, entry) in enumerate(self._rows):
            node = self._root
            for part in _text(path).split("/"):
                if part:
                    node = _child(node, part, nodes)
            rank = _RANKS[access]
            if rank > node.rank:
                node.rank, node.entry = rank, entry
            if rank == _WRITE:
                node.has_write = True
                for name in PROTECTED_NAMES:
                    metadata = _child(node, name, nodes)
                    if metadata.metadata_row < 0:
                        metadata.metadata, metadata.metadata_row = name, position
                        metadata.metadata_depth = metadata.depth
        for node in nodes:
            _inherit(node, full_write)
        self._cwd = self._walk(_text(cwd), self._root, 0)
        self._home = None if home is None else self._walk(absolute_path(_text(home), cwd), self._root, 0)

    def can_read(self, path: str) -> bool:
        """Whether the policy lets this be read."""
        return self._open or 0 <= self._find(path).rank < _NONE

    def can_write(self, path: str) -> bool:
        """Whether the policy lets this be written, metadata of writable roots taken into account."""
        return self._open or self._find(path).can_write

    def access(self, path: str) -> Access:
        """The access of the deepest entry around the path; metadata is not taken into account."""
        if self._open:
            return "write"
        rank = self._find(path).rank
        return "none" if rank < 0 else _NAMES[rank]

    def forbidden_metadata(self, path: str) -> str | None:
        """The protected folder a write would run into, or None."""
        if self._open:
            return None
        node = self._find(path)
        return node.metadata if _is_protected(node) and not node.can_write else None

    def explain(self, path: str) -> Decision:
        """What may be done with the path, and which entry decides it."""
        if self._open:
            return _OPEN
        node = self._find(path)
        if node.decision is None:
            node.decision = self._decision(node)
        return node.decision

    def _decision(self, node: _Node) -> Decision:
        protected = _is_protected(node) and not node.can_write
        reason: Literal["entry", "no_entry", "metadata"] = "entry" if node.rank >= 0 else "no_entry"
        entry = node.entry if node.rank >= 0 else None
        if protected and node.rank == _WRITE:
            reason, entry = "metadata", self._rows[node.metadata_row][2]
        return Decision(
            access="none" if node.rank < 0 else _NAMES[node.rank],
            can_read=0 <= node.rank < _NONE,
            can_write=node.can_write,
            reason=reason,
            entry=entry,
            forbidden_metadata=node.metadata if protected else None,
        )

    def _find(self, path: str) -> _Node:
        _text(path)
        if path[:1] == "/":
            return self._walk(path, self._root, 0)[0]
        if path[:1] == "~" and self._home is not None and (path == "~" or path[1] == "/"):
            return self._walk(path[1:], *self._home)[0]
        return self._walk(path, *self._cwd)[0]

    def _walk(self, path: str, node: _Node, beyond: int) -> tuple[_Node, int]:
        """From `beyond` components below `node`, which nothing speaks of, along `path`."""
        for part in path.split("/"):
            if beyond:
                if part and part != ".":
                    beyond += -1 if part == ".." else 1
                continue
            child = node.children.get(part)
            if child is not None:
                node = child
            elif part == "..":
                node = node.parent or node
            elif part and part != ".":
                beyond = 1
        return node, beyond

    # --- root lists, permissions.md 4.5 --------------------------------------------------------

    def readable_roots(self, effective: Callable[[str], str]) -> tuple[str, ...]:
        """Effective paths of what may be read, in list order."""
        return tuple(
            dict.fromkeys(effective(path) for path, access, _ in self._rows if access != "none" and self.can_read(path))
        )

    def unreadable_roots(self, effective: Callable[[str], str]) -> tuple[str, ...]:
        """Effective paths of what may not be read, in list order; never the root."""
        return tuple(
            dict.fromkeys(
                effective(path)
                for path, access, _ in self._rows
                if access == "none" and path != "/" and not self.can_read(path)
            )
        )

    def writable_roots(
        self, effective: Callable[[str], str], protected: Callable[[str], Sequence[str]]
    ) -> tuple[RootFacts, ...]:
        """`(root, read-only subpaths, protected names)` of what may be written, in list order.

        `protected` gives the default read-only subpaths of a root.
        """
        raws: dict[str, list[str]] = {}
        for path, access, _ in self._rows:
            if access == "write" and self.can_write(path):
                spellings = raws.setdefault(effective(path), [])
                if path not in spellings:
                    spellings.append(path)
        if not raws:
            return ()
        mentioned = {path for path, _, _ in self._rows}
        carved = dict.fromkeys(path for path, access, _ in self._rows if access != "write" and not self.can_write(path))
        made: list[RootFacts] = []
        for root, spellings in raws.items():
            places = dict.fromkeys((root, *spellings))
            names = tuple(
                name for name in PROTECTED_NAMES if not any(self.can_write(join(place, name)) for place in places)
            )
            below = dict.fromkeys(path for path in protected(root) if path not in mentioned)
            for path in carved:
                found = _carved_from(root, spellings, path)
                if found is None:
                    found = effective(path)
                    if found == root or not is_under(found, root):
                        continue
                below[found] = None
            made.append((root, tuple(below), names))
        return tuple(made)


_OPEN = Decision(access="write", can_read=True, can_write=True, reason="open", entry=None, forbidden_metadata=None)


def _text(path: str) -> str:
    if not isinstance(path, str):
        raise TypeError(f"path: expected str, got {type(path).__name__}")
    return path


def _carved_from(root: str, spellings: Sequence[str], path: str) -> str | None:
    """Where a path without write access lies below a writable root, as it is written."""
    if root == "/" or path == root:
        return None
    if is_under(path, root):
        return path
    for spelling in spellings:
        if path != spelling and is_under(path, spelling):
            return root + path[0 if spelling == "/" else len(spelling) :]
    return None


def _child(node: _Node, name: str, nodes: list[_Node]) -> _Node:
    child = node.children.get(name)
    if child is None:
        child = node.children[name] = _Node(node)
        nodes.append(child)
    return child


def _inherit(node: _Node, full_write: bool) -> None:
    """Fills in what a node has from those above it, which come first."""
    parent = node.parent
    if node.has_write:
        node.write_depth = node.depth
    if parent is not None:
        if node.rank < 0:
            node.rank, node.entry = parent.rank, parent.entry
        if not node.has_write:
            node.write_depth = parent.write_depth
        if parent.metadata_row >= 0 and (node.metadata_row < 0 or parent.metadata_row < node.metadata_row):
            node.metadata, node.metadata_row = parent.metadata, parent.metadata_row
            node.metadata_depth = parent.metadata_depth
    node.can_write = node.rank == _WRITE and (full_write or not _is_protected(node))


def _is_protected(node: _Node) -> bool:
    """Whether metadata of a writable root begins at or above the node and no explicit write entry reopens it."""
    return node.metadata_row >= 0 and node.write_depth < node.metadata_depth
