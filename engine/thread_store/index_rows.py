"""The tables of the thread index, and threads as rows of them (rollout.md 7). SQL only; knows no files.

The file is this engine's own and only a cache: `SCHEMA` may change at any time, then everything is built anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from engine.protocol.ids import ThreadId
from engine.protocol.settings import GitInfo
from engine.protocol.wire import JsonObject
from engine.thread_store.interface import ListThreads, SpawnEdge, StoredThread
from engine.thread_store.listing import Cursor, sort_value
from engine.thread_store.sources import INTERNAL, expand_kinds, source_kind
from engine.thread_store.summaries import FileState

if TYPE_CHECKING:
    import sqlite3

__all__ = [
    "VERSION",
    "IndexedThread",
    "forget_file",
    "known_files",
    "page_query",
    "prepare",
    "put_edge",
    "put_folder",
    "put_other",
    "put_thread",
    "read_edges",
    "read_page",
    "read_thread",
    "read_tools",
]

VERSION: Final = 3

SCHEMA: Final = """
CREATE TABLE threads (
    thread_id TEXT PRIMARY KEY, path TEXT NOT NULL UNIQUE, folder TEXT NOT NULL, archived INTEGER NOT NULL,
    created_at REAL NOT NULL, updated_at REAL NOT NULL, created_at_ms INTEGER NOT NULL, updated_at_ms INTEGER NOT NULL,
    source TEXT NOT NULL, source_kind TEXT NOT NULL, thread_source TEXT, originator TEXT NOT NULL,
    cli_version TEXT NOT NULL, forked_from_id TEXT, agent_nickname TEXT, agent_role TEXT, agent_path TEXT,
    model_provider TEXT, model TEXT, reasoning_effort TEXT, cwd TEXT NOT NULL, latest_cwd TEXT NOT NULL,
    approval_policy TEXT, sandbox_policy TEXT, tokens_used INTEGER NOT NULL,
    first_user_message TEXT, preview TEXT, title TEXT, name TEXT,
    git_sha TEXT, git_branch TEXT, git_origin_url TEXT, memory_mode TEXT NOT NULL,
    device INTEGER NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    thorough INTEGER NOT NULL, mark BLOB NOT NULL
);
CREATE INDEX threads_by_creation ON threads (archived, created_at_ms, thread_id) WHERE preview IS NOT NULL;
CREATE INDEX threads_by_update ON threads (archived, updated_at_ms, thread_id) WHERE preview IS NOT NULL;
CREATE INDEX threads_by_folder ON threads (folder);
CREATE TABLE other_files (
    path TEXT PRIMARY KEY, folder TEXT NOT NULL,
    device INTEGER NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL
);
CREATE INDEX other_files_by_folder ON other_files (folder);
CREATE TABLE thread_dynamic_tools (
    thread_id TEXT NOT NULL, position INTEGER NOT NULL, name TEXT, description TEXT, input_schema TEXT,
    defer_loading INTEGER NOT NULL, namespace TEXT, tool TEXT NOT NULL, PRIMARY KEY (thread_id, position)
);
CREATE TABLE thread_spawn_edges (
    child_thread_id TEXT PRIMARY KEY, parent_thread_id TEXT NOT NULL, status TEXT NOT NULL
);
CREATE INDEX thread_spawn_edges_by_parent ON thread_spawn_edges (parent_thread_id);
CREATE TABLE checkpoints (
    path TEXT PRIMARY KEY, device INTEGER NOT NULL, inode INTEGER NOT NULL, offset INTEGER NOT NULL,
    count INTEGER NOT NULL, mark BLOB NOT NULL
);
CREATE TABLE turn_files (
    path TEXT PRIMARY KEY, device INTEGER NOT NULL, inode INTEGER NOT NULL, offset INTEGER NOT NULL,
    mark BLOB NOT NULL, state TEXT NOT NULL
);
CREATE TABLE turns (
    path TEXT NOT NULL, number INTEGER NOT NULL, turn_id TEXT, start INTEGER NOT NULL, end INTEGER,
    user INTEGER NOT NULL DEFAULT 0, strays TEXT NOT NULL DEFAULT '[]', PRIMARY KEY (path, number)
) WITHOUT ROWID;
CREATE TABLE folders (path TEXT PRIMARY KEY, mtime_ns INTEGER NOT NULL);
CREATE TABLE state (key TEXT PRIMARY KEY, value NOT NULL);
"""


@attrs.frozen(kw_only=True)
class IndexedThread:
    """A thread with what belongs to it, and the state of the file it was read from, which ends with `mark`.

    `thorough`: no change of its metadata was missed. `None` for the tools or the edge leaves what is there.
    """

    thread: StoredThread
    state: FileState
    mark: bytes
    thorough: bool = True
    dynamic_tools: tuple[JsonObject, ...] | None = None
    edge: SpawnEdge | None = None


def prepare(connection: sqlite3.Connection) -> None:
    """Makes the tables, and drops those of another version."""
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        [version] = connection.execute("PRAGMA user_version").fetchone()
        if version != VERSION:  # nobody else was faster
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (name,) in tables:
                connection.execute(f'DROP TABLE "{name}"')
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


_COLUMNS: Final = (
    "thread_id",
    "path",
    "folder",
    "archived",
    "created_at",
    "updated_at",
    "created_at_ms",
    "updated_at_ms",
    "source",
    "source_kind",
    "thread_source",
    "originator",
    "cli_version",
    "forked_from_id",
    "agent_nickname",
    "agent_role",
    "agent_path",
    "model_provider",
    "model",
    "reasoning_effort",
    "cwd",
    "latest_cwd",
    "approval_policy",
    "sandbox_policy",
    "tokens_used",
    "first_user_message",
    "preview",
    "title",
    "name",
    "git_sha",
    "git_branch",
    "git_origin_url",
    "memory_mode",
    "device",
    "inode",
    "size",
    "mtime_ns",
    "thorough",
    "mark",
)
_PUT: Final = f"INSERT OR REPLACE INTO threads ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM threads"

Row = Sequence[object]


def put_thread(connection: sqlite3.Connection, indexed: IndexedThread, folder: str) -> None:
    """Puts a thread with its tools and its edge in place of what was known of it, or of another one in its file."""
    thread, state = indexed.thread, indexed.state
    git = thread.git or GitInfo()
    connection.execute(
        _PUT,
        (
            thread.thread_id,
            thread.path,
            folder,
            int(thread.archived),
            thread.created_at,
            thread.updated_at,
            sort_value(thread, "created_at"),
            sort_value(thread, "updated_at"),
            json.dumps(thread.source),
            source_kind(thread.source),
            thread.thread_source,
            thread.originator,
            thread.cli_version,
            thread.forked_from_id,
            thread.agent_nickname,
            thread.agent_role,
            thread.agent_path,
            thread.model_provider,
            thread.model,
            thread.reasoning_effort,
            thread.cwd,
            thread.latest_cwd,
            _json_text(thread.approval_policy),
            _json_text(thread.sandbox_policy),
            thread.tokens_used,
            thread.first_user_message,
            thread.preview,
            thread.title,
            thread.name,
            git.commit_hash,
            git.branch,
            git.repository_url,
            thread.memory_mode,
            state.device,
            state.inode,
            state.size,
            state.mtime_ns,
            int(indexed.thorough),
            indexed.mark,
        ),
    )
    connection.execute("DELETE FROM other_files WHERE path = ?", (thread.path,))
    if indexed.dynamic_tools is not None:
        connection.execute("DELETE FROM thread_dynamic_tools WHERE thread_id = ?", (thread.thread_id,))
    for position, tool in enumerate(indexed.dynamic_tools or ()):
        connection.execute(
            "INSERT INTO thread_dynamic_tools VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                thread.thread_id,
                position,
                _text(tool.get("name")),
                _text(tool.get("description")),
                _json_text(tool.get("inputSchema", tool.get("input_schema"))),
                int(tool.get("deferLoading", tool.get("defer_loading")) is True),
                _text(tool.get("namespace")),
                json.dumps(tool),
            ),
        )
    if indexed.edge is not None:
        put_edge(connection, indexed.edge)
    elif indexed.thorough and indexed.dynamic_tools is not None:  # everything was read, and there is none
        connection.execute("DELETE FROM thread_spawn_edges WHERE child_thread_id = ?", (thread.thread_id,))


def put_edge(connection: sqlite3.Connection, edge: SpawnEdge) -> None:
    """A thread has one parent; the last word counts."""
    connection.execute(
        "INSERT OR REPLACE INTO thread_spawn_edges (child_thread_id, parent_thread_id, status) VALUES (?, ?, ?)",
        (edge.child, edge.parent, edge.status),
    )


def read_edges(connection: sqlite3.Connection, parent: ThreadId) -> list[SpawnEdge]:
    """The edges to the children of a thread, by child id."""
    rows = connection.execute(
        # Whatever is left of a child that is gone does not count.
        "SELECT child_thread_id, status FROM thread_spawn_edges JOIN threads ON thread_id = child_thread_id"
        " WHERE parent_thread_id = ? ORDER BY child_thread_id",
        (parent,),
    )
    return [
        SpawnEdge(parent=parent, child=ThreadId(child), status="closed" if status == "closed" else "open")
        for child, status in rows
    ]


def read_tools(connection: sqlite3.Connection, thread_id: ThreadId) -> tuple[JsonObject, ...]:
    """The dynamic tools of a thread, in order."""
    rows = connection.execute(
        "SELECT tool FROM thread_dynamic_tools WHERE thread_id = ? ORDER BY position", (thread_id,)
    )
    return tuple(json.loads(tool) for (tool,) in rows)


def read_thread(
    connection: sqlite3.Connection, *, thread_id: ThreadId | None = None, path: str | None = None
) -> IndexedThread | None:
    """What is known of a thread, by id or by path, without its tools and edge."""
    column = "thread_id" if path is None else "path"
    row = connection.execute(f"{_SELECT} WHERE {column} = ?", (path or thread_id,)).fetchone()
    return None if row is None else from_row(row)


def read_page(connection: sqlite3.Connection, query: ListThreads) -> list[IndexedThread]:
    """The threads of a page and one more. Raises `InvalidRequest` for a bad cursor."""
    return [from_row(row) for row in connection.execute(*page_query(query))]


def put_other(connection: sqlite3.Connection, path: str, folder: str, state: FileState) -> None:
    """A file that looks like a rollout and is no thread, or not the one that counts; it is not read again."""
    connection.execute("DELETE FROM threads WHERE path = ?", (path,))
    connection.execute(
        "INSERT OR REPLACE INTO other_files VALUES (?, ?, ?, ?, ?, ?)",
        (path, folder, state.device, state.inode, state.size, state.mtime_ns),
    )


def forget_file(connection: sqlite3.Connection, path: str) -> None:
    """Nothing is known of a file any more."""
    for table in ("threads", "other_files", "checkpoints", "turn_files", "turns"):
        connection.execute(f"DELETE FROM {table} WHERE path = ?", (path,))


def put_folder(connection: sqlite3.Connection, folder: str, mtime_ns: int) -> None:
    """Every rollout that was in a folder at that time is known."""
    connection.execute("INSERT OR REPLACE INTO folders VALUES (?, ?)", (folder, mtime_ns))


def known_files(connection: sqlite3.Connection, folder: str | None = None) -> dict[str, tuple[FileState, bool]]:
    """The files that were looked at, in which state, and whether thoroughly; below one folder or anywhere."""
    where, values = ("", ()) if folder is None else (" WHERE folder = ?", (folder,))
    found: dict[str, tuple[FileState, bool]] = {}
    for table, thorough in (("threads", "thorough"), ("other_files", "1")):
        rows = connection.execute(f"SELECT path, device, inode, size, mtime_ns, {thorough} FROM {table}{where}", values)
        for path, device, inode, size, mtime_ns, deep in rows:
            found[path] = (FileState(device, inode, size, mtime_ns), bool(deep))
    return found


def page_query(query: ListThreads) -> tuple[str, list[object]]:
    """The statement for a page and one more, with its values. Raises `InvalidRequest` for a bad cursor."""
    key = "created_at_ms" if query.sort_key == "created_at" else "updated_at_ms"
    descending = query.direction == "desc"
    where = ["preview IS NOT NULL", "archived = ?", "source_kind <> ?"]
    values: list[object] = [int(query.archived), INTERNAL]
    kinds = sorted(expand_kinds(query.source_kinds)) if query.source_kinds else ()
    for column, wanted in (
        ("source_kind", kinds),
        ("model_provider", query.model_providers),
        ("cwd", query.cwds),
        ("originator", query.originators),
    ):
        if wanted:
            where.append(f"{column} IN ({_marks(wanted)})")
            values.extend(wanted)
    if query.excluded:
        where.append(f"thread_id NOT IN ({_marks(query.excluded)})")
        values.extend(query.excluded)
    if query.search:
        where.append("(instr(coalesce(title, ''), ?) > 0 OR instr(coalesce(name, ''), ?) > 0)")
        values.extend((query.search, query.search))
    if query.cursor is not None:
        cursor = Cursor.parse(query.cursor, query.direction)
        sign = ("<" if descending else ">") + ("=" if cursor.inclusive else "")
        where.append(f"({key}, thread_id) {sign} (?, ?)")
        values.extend(cursor.place)
    order = "DESC" if descending else "ASC"
    values.append(max(1, query.limit) + 1)
    return f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY {key} {order}, thread_id {order} LIMIT ?", values


def from_row(row: Row) -> IndexedThread:
    """A row of `threads`."""
    found = dict(zip(_COLUMNS, row, strict=True))
    sha, branch, url = (found.pop(name) for name in ("git_sha", "git_branch", "git_origin_url"))
    state = FileState(*(found.pop(name) for name in ("device", "inode", "size", "mtime_ns")))  # type: ignore[arg-type]
    for name in ("folder", "created_at_ms", "updated_at_ms", "source_kind"):
        del found[name]
    for name in ("source", "approval_policy", "sandbox_policy"):
        text = found[name]
        found[name] = json.loads(text) if isinstance(text, str) else None
    found["archived"] = bool(found["archived"])
    found["git"] = None if sha is branch is url is None else GitInfo(sha, branch, url)  # type: ignore[arg-type]
    thorough, mark = bool(found.pop("thorough")), found.pop("mark")
    assert isinstance(mark, bytes)
    return IndexedThread(thread=StoredThread(**found), state=state, mark=mark, thorough=thorough)  # type: ignore[arg-type]


def _marks(values: Iterable[object]) -> str:
    return ", ".join("?" for _ in values)


def _json_text(value: object) -> str | None:
    return None if value is None else json.dumps(value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
