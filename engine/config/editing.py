"""Changing a configuration file by edits: what the table becomes, and the text with comments and order kept.

Pure: texts and tables in, texts and tables out. Writing is in `engine.config.writing` (config.md 16).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from engine.config.key_paths import parse_key_path
from engine.config.merge import Table, merge
from engine.config.overrides import plain
from engine.records import frozen

if TYPE_CHECKING:
    from tomlkit.container import Container
    from tomlkit.items import Item

__all__ = ["ConfigEdit", "edited_table", "edited_text"]


@frozen
class ConfigEdit:
    """One change: `value` at `key_path` (`a.b`, `a."with.dots".c`); None takes the key away, be it there or not.

    `upsert` merges a table into the table that is there; everything else, and `replace`, puts the value in its place.
    """

    key_path: str
    value: object
    merge_strategy: Literal["replace", "upsert"] = "replace"

    @property
    def path(self) -> tuple[str, ...]:
        """The segments of `key_path`. Raises `KeyPathError`."""
        return parse_key_path(self.key_path)


def edited_table(table: Mapping[str, object], edits: Iterable[ConfigEdit]) -> Table:
    """The table after the edits, in order; `table` stays as it is. Raises `KeyPathError`.

    Missing parents are made; one that is no table is replaced by a table.
    """
    made = merge({}, table)
    for edit in edits:
        made = _set(made, edit.path, _value_at(made, edit))
    return made


def edited_text(text: str, edits: Sequence[ConfigEdit]) -> str:
    """The document after the edits: only what they change is written anew. Raises `KeyPathError`, and `ValueError` for
    a value that TOML has no notation for.

    `text` must be valid TOML.
    """
    if text and not text.endswith("\n"):
        text += "\n"
    table: Table = tomllib.loads(text)
    for edit in edits:
        path, value = edit.path, _value_at(table, edit)
        wanted = _set(table, path, value)
        if wanted == table:
            continue
        text = _one_edit(text, path, value, wanted)
        table = wanted
    return text


def _value_at(table: Table, edit: ConfigEdit) -> object:
    """What will stand at the path of an edit; None for nothing."""
    value = plain(edit.value)
    if edit.merge_strategy == "upsert" and isinstance(value, dict):
        found: object = table
        for part in edit.path:
            found = found.get(part) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return merge(cast(Table, found), cast(Table, value))
    return value


def _set(table: Table, path: tuple[str, ...], value: object) -> Table:
    """A copy of `table` with `value` at `path`."""
    made = dict(table)
    first, *rest = path
    below = made.get(first)
    if not rest:
        if value is None:
            made.pop(first, None)
        else:
            made[first] = value
    elif isinstance(below, dict) or value is not None:
        made[first] = _set(below if isinstance(below, dict) else {}, tuple(rest), value)
    return made


# --- documents ---------------------------------------------------------------------------------------


def _one_edit(text: str, path: tuple[str, ...], value: object, wanted: Table) -> str:
    """`text` with one edit. What the library can't do in place is done by writing a whole top-level key anew."""
    for attempt in (_in_place, _with_new_key, _anywhere, _with_new_table, _anew):
        try:
            made = attempt(text, path, value, wanted)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            continue  # the library gives up on some documents in ways of its own; the next attempt asks less of it
        if not text.startswith("\n"):
            made = made.lstrip("\n")
        if _reads_as(made, wanted):
            return made
    raise ValueError(f"the value of `{'.'.join(path)}` can't be written to a TOML file")


def _reads_as(text: str, wanted: Table) -> bool:
    try:
        return tomllib.loads(text) == wanted
    except ValueError:
        return False


def _in_place(text: str, path: tuple[str, ...], value: object, wanted: Table) -> str:
    """Changes or removes what is there, and makes tables that are not."""
    import tomlkit

    document = tomlkit.parse(text)
    parent = cast("MutableMapping[str, Any]", document)
    for depth, name in enumerate(path[:-1], start=1):
        if name not in parent:
            parent[name] = _item(_set({}, path[depth:], value))
            return tomlkit.dumps(document)
        parent = parent[name]
    name = path[-1]
    if value is None:
        del parent[name]
    elif isinstance(value, dict):
        if isinstance(parent.get(name), dict):
            _settle(parent[name], value)
        else:
            parent[name] = _item(value)
    elif name in parent or isinstance(parent, tomlkit.items.InlineTable):
        parent[name] = value
    else:
        raise ValueError("a new key has a better place")
    return tomlkit.dumps(document)


def _settle(table: object, wanted: Mapping[str, object]) -> None:
    """Makes a table of the document equal to `wanted` key by key, so that what stays keeps its comments."""
    assert isinstance(table, dict)
    for name in [name for name in table if name not in wanted]:
        del table[name]
    for name, value in wanted.items():
        below = table.get(name)
        if isinstance(value, Mapping) and isinstance(below, dict):
            _settle(below, value)
        elif name not in table or below != value:
            table[name] = value


def _with_new_key(text: str, path: tuple[str, ...], value: object, wanted: Table) -> str:
    """Puts a new key behind the last one of its table, before comments that belong to what follows."""
    import tomlkit
    from tomlkit.items import AoT, SingleKey
    from tomlkit.items import Table as TableItem

    document = tomlkit.parse(text)
    container: Container = document
    for name in path[:-1]:
        below = container[name]
        if not isinstance(below, TableItem):
            raise ValueError("no plain table")
        container = below.value
    body = container.body
    plain_keys = [
        at for at, (key, item) in enumerate(body) if key is not None and not isinstance(item, TableItem | AoT)
    ]
    body.insert(plain_keys[-1] + 1 if plain_keys else 0, (SingleKey(path[-1]), tomlkit.item(value)))
    return tomlkit.dumps(document)


def _anywhere(text: str, path: tuple[str, ...], value: object, wanted: Table) -> str:
    """Leaves it to the library where a new key goes; for tables that are written as dotted keys."""
    import tomlkit

    document = tomlkit.parse(text)
    parent = cast("MutableMapping[str, Any]", document)
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = _item(value)
    return tomlkit.dumps(document)


def _with_new_table(text: str, path: tuple[str, ...], value: object, wanted: Table) -> str:
    """Puts a table behind everything, below one that is written as dotted keys."""
    import tomlkit

    tail = tomlkit.document()
    tail[path[0]] = _item(_set({}, path[1:], value))
    return f"{text}\n{tomlkit.dumps(tail)}"


def _anew(text: str, path: tuple[str, ...], value: object, wanted: Table) -> str:
    """Takes the top-level key away and writes it at the end."""
    import tomlkit

    document = tomlkit.parse(text)
    top = path[0]
    if top in document:
        document.remove(top)
    if top in wanted:
        document[top] = _item(wanted[top])
    return tomlkit.dumps(document)


def _item(value: object) -> Item:
    """A value as an item; tables that only hold tables get no header of their own."""
    import tomlkit

    if not isinstance(value, dict):
        return tomlkit.item(value)
    only_tables = bool(value) and all(isinstance(part, dict) for part in value.values())
    made = tomlkit.table(is_super_table=only_tables)
    for key, part in value.items():
        made[key] = _item(part)
    return made
