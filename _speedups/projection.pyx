# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Policy arithmetic, compiled. Twin of `engine/permissions/_projection_py.py`; `engine.permissions.projection` says what
it does.

A compiled policy is a trie over path components in C arrays. What holds at a node holds for everything below it that no
entry speaks of, so a question is one walk along the text of a path: no splitting, no normalising, no objects. Not
declared safe without the GIL: `explain` fills its answers in lazily.
"""

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from engine.permissions.decision import Decision, LegacyScan
from engine.protocol.paths import absolute_path, is_under, join
from engine.protocol.profiles import (
    PROJECT_ROOTS_PREFIX,
    PROTECTED_NAMES,
    FileSystemEntry,
    GlobPath,
    LiteralPath,
    SpecialPath,
)

cdef extern from "Python.h":
    bint PyUnicode_Check(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int PyUnicode_KIND(object text)
    void *PyUnicode_DATA(object text)
    Py_UCS4 PyUnicode_READ(int kind, void *data, Py_ssize_t at)

IMPLEMENTATION = "c"

cdef enum:
    _READ = 0
    _WRITE = 1
    _NONE = 2

cdef tuple _NAMES = ("read", "write", "none")
cdef dict _RANKS = {"read": _READ, "write": _WRITE, "none": _NONE}
cdef tuple _PROTECTED = PROTECTED_NAMES
cdef str _PREFIX = PROJECT_ROOTS_PREFIX
cdef Py_ssize_t _PREFIX_LENGTH = len(PROJECT_ROOTS_PREFIX)


# --- entries -------------------------------------------------------------------------------------


def materialize(entries, roots):
    cdef list made = []
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
        elif type(path) is GlobPath and path.pattern.startswith(_PREFIX):
            rest = path.pattern[_PREFIX_LENGTH:]
            for root in roots:
                made.append(FileSystemEntry(GlobPath(join(root, rest)), entry.access))
            continue
        made.append(entry)
    return tuple(made)


def merge_entries(entries, more, *, bint denied_only=False):
    cdef list wanted, made
    cdef set seen
    wanted = [entry for entry in more if entry.access == "none"] if denied_only else list(more)
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


cdef tuple _key(entry):
    path = entry.path
    if type(path) is SpecialPath:
        value = path.value
        return (entry.access, value.kind, value.path, value.subpath)
    if type(path) is LiteralPath:
        return (entry.access, None, path.path, None)
    assert type(path) is GlobPath
    return (entry.access, None, None, path.pattern)


def legacy_scan(entries, cwd):
    cdef bint workspace = False, root_write = False, tmpdir = False, slash_tmp = False
    cdef dict roots = {}
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


# --- compiled policies ---------------------------------------------------------------------------


cdef struct Node:
    unsigned int hash
    int parent
    Py_ssize_t text       # where the component's characters begin in the policy's text
    Py_ssize_t length
    int depth
    int rank              # of the strongest access here; -1 where no entry speaks of this or anything above
    int entry
    int write_depth       # of the nearest node at or above this with a write entry; -1 without one
    int metadata          # which protected folder this belongs to, of the first writable root in list order; -1 for none
    int metadata_row
    int metadata_depth
    bint has_write
    bint can_write


cdef struct Position:
    int node
    Py_ssize_t beyond     # how many components below the node, which nothing speaks of


cdef inline unsigned int _start(int parent) noexcept nogil:
    return 2166136261U ^ (<unsigned int>parent * 2654435761U)


cdef inline unsigned int _step(unsigned int hash, Py_UCS4 char) noexcept nogil:
    return (hash ^ <unsigned int>char) * 16777619U


cdef class CompiledPolicy:
    """A policy resolved for one directory, made for many questions; see `engine.permissions.projection`."""

    cdef Node *_nodes
    cdef int _count, _room
    cdef Py_UCS4 *_text
    cdef Py_ssize_t _text_length, _text_room
    cdef int *_table
    cdef unsigned int _mask
    cdef bint _open, _has_home
    cdef Position _cwd, _home
    cdef tuple _rows
    cdef list _decisions

    def __cinit__(self, rows, *, cwd, home=None, bint open=False, bint full_write=False):
        cdef int position, node, metadata, rank, name
        self._rows = tuple(rows)
        self._open = open
        self._grow_table(64)
        self._add_node(-1, 0, 0, 0)
        for position, (path, access, entry) in enumerate(self._rows):
            node = self._insert(path)
            rank = _RANKS[access]
            if rank > self._nodes[node].rank:
                self._nodes[node].rank = rank
                self._nodes[node].entry = entry
            if rank == _WRITE:
                self._nodes[node].has_write = True
                for name in range(3):
                    metadata = self._child(node, _PROTECTED[name], 0, len(_PROTECTED[name]))
                    if self._nodes[metadata].metadata_row < 0:
                        self._nodes[metadata].metadata = name
                        self._nodes[metadata].metadata_row = position
                        self._nodes[metadata].metadata_depth = self._nodes[metadata].depth
        for node in range(self._count):
            self._inherit(node, full_write)
        self._decisions = [None] * self._count
        self._cwd = self._walk(_text(cwd), 0, Position(0, 0))
        self._has_home = home is not None
        if self._has_home:
            self._home = self._walk(absolute_path(_text(home), cwd), 0, Position(0, 0))

    def __dealloc__(self):
        free(self._nodes)
        free(self._text)
        free(self._table)

    def can_read(self, path):
        """Whether the policy lets this be read."""
        cdef int rank
        if self._open:
            return True
        rank = self._nodes[self._find(path)].rank
        return rank == _READ or rank == _WRITE

    def can_write(self, path):
        """Whether the policy lets this be written, metadata of writable roots taken into account."""
        return True if self._open else self._nodes[self._find(path)].can_write

    def access(self, path):
        """The access of the deepest entry around the path; metadata is not taken into account."""
        cdef int rank
        if self._open:
            return "write"
        rank = self._nodes[self._find(path)].rank
        return "none" if rank < 0 else _NAMES[rank]

    def forbidden_metadata(self, path):
        """The protected folder a write would run into, or None."""
        cdef int node
        if self._open:
            return None
        node = self._find(path)
        if self._nodes[node].can_write or not self._is_protected(node):
            return None
        return _PROTECTED[self._nodes[node].metadata]

    def explain(self, path):
        """What may be done with the path, and which entry decides it."""
        cdef int node
        if self._open:
            return _OPEN
        node = self._find(path)
        decision = self._decisions[node]
        if decision is None:
            decision = self._decisions[node] = self._decision(node)
        return decision

    cdef object _decision(self, int at):
        cdef Node node = self._nodes[at]
        cdef bint is_protected = self._is_protected(at) and not node.can_write
        reason = "entry" if node.rank >= 0 else "no_entry"
        entry = node.entry if node.rank >= 0 else None
        if is_protected and node.rank == _WRITE:
            reason, entry = "metadata", self._rows[node.metadata_row][2]
        return Decision(
            access="none" if node.rank < 0 else _NAMES[node.rank],
            can_read=node.rank == _READ or node.rank == _WRITE,
            can_write=node.can_write,
            reason=reason,
            entry=entry,
            forbidden_metadata=_PROTECTED[node.metadata] if is_protected else None,
        )

    # --- the trie ----------------------------------------------------------------------------

    cdef int _find(self, path) except -1:
        cdef Py_ssize_t length
        cdef Py_UCS4 first
        cdef int kind
        cdef void *data
        if not PyUnicode_Check(path):
            _text(path)
        length = PyUnicode_GET_LENGTH(path)
        if length:
            kind, data = PyUnicode_KIND(path), PyUnicode_DATA(path)
            first = PyUnicode_READ(kind, data, 0)
            if first == c"/":
                return self._walk(path, 0, Position(0, 0)).node
            if first == c"~" and self._has_home and (length == 1 or PyUnicode_READ(kind, data, 1) == c"/"):
                return self._walk(path, 1, self._home).node
        return self._walk(path, 0, self._cwd).node

    cdef Position _walk(self, path, Py_ssize_t at, Position start) noexcept:
        """From `start` along the components of `path` from offset `at` on."""
        cdef Py_ssize_t length = PyUnicode_GET_LENGTH(path), beyond = start.beyond, first, size
        cdef int kind = PyUnicode_KIND(path), node = start.node, child
        cdef void *data = PyUnicode_DATA(path)
        cdef unsigned int hash
        cdef Py_UCS4 char
        while at < length:
            first = at
            hash = _start(node)
            while at < length:
                char = PyUnicode_READ(kind, data, at)
                if char == c"/":
                    break
                hash = _step(hash, char)
                at += 1
            size = at - first
            at += 1
            if size == 0:
                continue
            if size <= 2 and PyUnicode_READ(kind, data, first) == c".":
                if size == 1:
                    continue
                if PyUnicode_READ(kind, data, first + 1) == c".":
                    if beyond:
                        beyond -= 1
                    elif node:
                        node = self._nodes[node].parent
                    continue
            if beyond:
                beyond += 1
                continue
            child = self._lookup(node, hash, kind, data, first, size)
            if child < 0:
                beyond = 1
            else:
                node = child
        return Position(node, beyond)

    cdef int _lookup(
        self, int parent, unsigned int hash, int kind, void *data, Py_ssize_t first, Py_ssize_t size
    ) noexcept:
        cdef unsigned int slot = hash & self._mask
        cdef Node *node
        cdef Py_UCS4 *text
        cdef Py_ssize_t at
        cdef int found = self._table[slot]
        while found >= 0:
            node = &self._nodes[found]
            if node.hash == hash and node.parent == parent and node.length == size:
                text = self._text + node.text
                for at in range(size):
                    if text[at] != PyUnicode_READ(kind, data, first + at):
                        break
                else:
                    return found
            slot = (slot + 1) & self._mask
            found = self._table[slot]
        return -1

    cdef int _insert(self, path) except -1:
        """The node of a normal path; missing ones are made."""
        cdef Py_ssize_t length, at = 0, first
        cdef int kind, node = 0
        cdef void *data
        _text(path)
        length, kind, data = PyUnicode_GET_LENGTH(path), PyUnicode_KIND(path), PyUnicode_DATA(path)
        while at < length:
            first = at
            while at < length and PyUnicode_READ(kind, data, at) != c"/":
                at += 1
            if at > first:
                node = self._child(node, path, first, at - first)
            at += 1
        return node

    cdef int _child(self, int parent, text, Py_ssize_t first, Py_ssize_t size) except -1:
        cdef int kind = PyUnicode_KIND(text), found
        cdef void *data = PyUnicode_DATA(text)
        cdef unsigned int hash = _start(parent), slot
        cdef Py_ssize_t at, room
        cdef void *grown
        for at in range(size):
            hash = _step(hash, PyUnicode_READ(kind, data, first + at))
        found = self._lookup(parent, hash, kind, data, first, size)
        if found >= 0:
            return found
        if self._text_length + size > self._text_room:
            room = max(1024, 2 * (self._text_length + size))
            grown = realloc(self._text, room * sizeof(Py_UCS4))
            if grown == NULL:
                raise MemoryError
            self._text, self._text_room = <Py_UCS4 *>grown, room
        for at in range(size):
            self._text[self._text_length + at] = PyUnicode_READ(kind, data, first + at)
        found = self._add_node(parent, hash, self._text_length, size)
        self._text_length += size
        return found

    cdef int _add_node(self, int parent, unsigned int hash, Py_ssize_t text, Py_ssize_t length) except -1:
        cdef Node *node
        cdef void *grown
        cdef int room, made = self._count
        cdef unsigned int slot
        if made == self._room:
            room = max(64, 2 * self._room)
            grown = realloc(self._nodes, room * sizeof(Node))
            if grown == NULL:
                raise MemoryError
            self._nodes, self._room = <Node *>grown, room
        node = &self._nodes[made]
        node.hash, node.parent, node.text, node.length = hash, parent, text, length
        node.depth = 0 if parent < 0 else self._nodes[parent].depth + 1
        node.rank = node.entry = node.write_depth = node.metadata = node.metadata_row = -1
        node.metadata_depth = 0
        node.has_write = node.can_write = False
        self._count = made + 1
        if parent < 0:
            return made  # the root is nobody's child
        if 2 * <unsigned int>self._count > self._mask:
            self._grow_table(2 * (self._mask + 1))
        else:
            slot = hash & self._mask
            while self._table[slot] >= 0:
                slot = (slot + 1) & self._mask
            self._table[slot] = made
        return made

    cdef int _grow_table(self, unsigned int size) except -1:
        """A table of `size` slots, a power of two, with all nodes in it."""
        cdef unsigned int slot
        cdef int node
        cdef int *table = <int *>malloc(size * sizeof(int))
        if table == NULL:
            raise MemoryError
        memset(table, 0xFF, size * sizeof(int))  # -1 everywhere
        for node in range(1, self._count):
            slot = self._nodes[node].hash & (size - 1)
            while table[slot] >= 0:
                slot = (slot + 1) & (size - 1)
            table[slot] = node
        free(self._table)
        self._table, self._mask = table, size - 1
        return 0

    cdef void _inherit(self, int at, bint full_write) noexcept:
        """Fills in what a node has from those above it, which come first."""
        cdef Node *node = &self._nodes[at]
        cdef Node *parent
        if node.has_write:
            node.write_depth = node.depth
        if node.parent >= 0:
            parent = &self._nodes[node.parent]
            if node.rank < 0:
                node.rank, node.entry = parent.rank, parent.entry
            if not node.has_write:
                node.write_depth = parent.write_depth
            if parent.metadata_row >= 0 and (node.metadata_row < 0 or parent.metadata_row < node.metadata_row):
                node.metadata, node.metadata_row = parent.metadata, parent.metadata_row
                node.metadata_depth = parent.metadata_depth
        node.can_write = node.rank == _WRITE and (full_write or not self._is_protected(at))

    cdef bint _is_protected(self, int at) noexcept:
        """Whether metadata of a writable root begins at or above the node and no explicit write entry reopens it."""
        cdef Node *node = &self._nodes[at]
        return node.metadata_row >= 0 and node.write_depth < node.metadata_depth

    # --- root lists, permissions.md 4.5 ------------------------------------------------------

    def readable_roots(self, effective):
        """Effective paths of what may be read, in list order."""
        cdef dict made = {}
        for path, access, _ in self._rows:
            if access != "none" and self.can_read(path):
                made[effective(path)] = None
        return tuple(made)

    def unreadable_roots(self, effective):
        """Effective paths of what may not be read, in list order; never the root."""
        cdef dict made = {}
        for path, access, _ in self._rows:
            if access == "none" and path != "/" and not self.can_read(path):
                made[effective(path)] = None
        return tuple(made)

    def writable_roots(self, effective, protected):
        """`(root, read-only subpaths, protected names)` of what may be written, in list order.

        `protected` gives the default read-only subpaths of a root.
        """
        cdef dict raws = {}, carved = {}, below, places
        cdef list spellings, made = []
        cdef set mentioned
        for path, access, _ in self._rows:
            if access == "write":
                if self.can_write(path):
                    spellings = raws.setdefault(effective(path), [])
                    if path not in spellings:
                        spellings.append(path)
            elif not self.can_write(path):
                carved[path] = None
        if not raws:
            return ()
        mentioned = {row[0] for row in self._rows}
        for root, spellings in raws.items():
            places = dict.fromkeys((root, *spellings))
            names = tuple(
                [name for name in _PROTECTED if not any([self.can_write(join(place, name)) for place in places])]
            )
            below = dict.fromkeys([path for path in protected(root) if path not in mentioned])
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


cdef object _text(path):
    if not isinstance(path, str):
        raise TypeError(f"path: expected str, got {type(path).__name__}")
    return path


cdef object _carved_from(root, list spellings, path):
    """Where a path without write access lies below a writable root, as it is written."""
    if root == "/" or path == root:
        return None
    if is_under(path, root):
        return path
    for spelling in spellings:
        if path != spelling and is_under(path, spelling):
            return root + path[0 if spelling == "/" else len(spelling):]
    return None
