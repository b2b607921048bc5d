"""Generated TOML: tables for merging, and documents whose keys stand at known places."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from engine.config.layers import Path

__all__ = ["Document", "documents", "tables"]

names = st.sampled_from(["a", "b", "c", "d"])
scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=8),
)
values = st.recursive(
    st.one_of(scalars, st.lists(scalars, max_size=3)),
    lambda inner: st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
tables = st.dictionaries(names, values, max_size=4)


@dataclass
class Document:
    """A text, the table it says, and where each key and array element stands (line, column from 1)."""

    text: str = ""
    table: dict[str, Any] = field(default_factory=dict)
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def write(self, text: str) -> None:
        self.text += text

    def mark(self, path: Path) -> None:
        line = self.text.count("\n") + 1
        self.places.setdefault(path, (line, len(self.text) - (self.text.rfind("\n") + 1) + 1))


_bare = st.text(alphabet="abAB01_-", min_size=1, max_size=4)
_free = st.text(alphabet=st.sampled_from("ab .#=[]{}\"'\\\né🙂\t"), max_size=6)
_space = st.sampled_from(["", " ", "  ", "\t"])
_comment = st.sampled_from(["", " # plain", ' # "[x]" = {', "# ]"])


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """A document with headers, arrays of tables, dotted and quoted keys, every kind of string, comments anywhere."""
    made = Document()
    _pairs(draw, made, made.table, ())
    tables = draw(st.lists(_bare, unique=True, max_size=3))
    for name in tables:
        if name in made.table:
            continue
        if draw(st.booleans()):
            _array_of_tables(draw, made, name)
        else:
            _header(draw, made, name)
    return made


def _header(draw: st.DrawFn, made: Document, name: str) -> None:
    _noise(draw, made)
    made.write("[")
    made.write(draw(_space))
    made.mark((name,))
    made.write(name)
    made.table[name] = {}
    table = made.table[name]
    path: Path = (name,)
    if draw(st.booleans()):
        inner = draw(_free)
        made.write(draw(_space) + "." + draw(_space))
        path = (name, inner)
        made.mark(path)
        made.write(_quoted_key(draw, inner))
        table = made.table[name][inner] = {}
    made.write(draw(_space) + "]" + draw(_comment) + "\n")
    _pairs(draw, made, table, path)


def _array_of_tables(draw: st.DrawFn, made: Document, name: str) -> None:
    made.table[name] = []
    for index in range(draw(st.integers(1, 3))):
        _noise(draw, made)
        made.write("[[")
        made.mark((name,))
        made.mark((name, index))
        made.write(name + "]]" + draw(_comment) + "\n")
        made.table[name].append({})
        _pairs(draw, made, made.table[name][index], (name, index))


def _pairs(draw: st.DrawFn, made: Document, table: dict[str, Any], path: Path) -> None:
    for _ in range(draw(st.integers(0, 3))):
        _noise(draw, made)
        made.write(draw(_space))
        if _pair(draw, made, table, path, depth=0):
            made.write(draw(_space) + draw(_comment))
        made.write("\n")


def _pair(draw: st.DrawFn, made: Document, table: dict[str, Any], path: Path, depth: int) -> bool:
    """One `key = value`, or nothing at all where the drawn key is taken."""
    bare = draw(st.booleans())
    key = draw(_bare if bare else _free)
    if key in table:
        return False
    made.mark((*path, key))
    made.write(key if bare else _quoted_key(draw, key))
    if draw(st.integers(0, 4)) == 0:
        inner = draw(_bare)
        made.write(draw(_space) + "." + draw(_space))
        made.mark((*path, key, inner))
        made.write(inner + draw(_space) + "=" + draw(_space))
        table[key] = {inner: _value(draw, made, (*path, key, inner), depth)}
    else:
        made.write(draw(_space) + "=" + draw(_space))
        table[key] = _value(draw, made, (*path, key), depth)
    return True


def _value(draw: st.DrawFn, made: Document, path: Path, depth: int) -> Any:
    kind = draw(st.integers(0, 7 if depth < 2 else 5))
    match kind:
        case 0:
            number = draw(st.integers(-1000, 1000))
            made.write(str(number))
            return number
        case 1:
            made.write("true")
            return True
        case 2:
            text = draw(_free)
            made.write(json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f"))
            return text
        case 3:
            text = draw(_free).replace("'", "").replace("\n", "")
            made.write(f"'{text}'")
            return text
        case 4:
            text = draw(_free)
            body = text.replace("\\", "\\\\").replace('"""', '""\\"')
            made.write(f'"""{body}"""' if not body.startswith("\n") else f'"""\n{body}"""')
            return text
        case 5:
            text = draw(_free).replace("'", "")
            made.write(f"'''\n{text}'''")
            return text
        case 6:
            return _array(draw, made, path, depth)
        case _:
            return _inline_table(draw, made, path, depth)


def _array(draw: st.DrawFn, made: Document, path: Path, depth: int) -> list[Any]:
    items: list[Any] = []
    made.write("[")
    for index in range(draw(st.integers(0, 3))):
        made.write(draw(st.sampled_from(["", " ", "\n", "  # ], 1\n\t"])))
        made.mark((*path, index))
        items.append(_value(draw, made, (*path, index), depth + 1))
        made.write(draw(_space) + ",")
    made.write(draw(st.sampled_from(["", " ", "\n", " # end\n"])) + "]")
    return items


def _inline_table(draw: st.DrawFn, made: Document, path: Path, depth: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    made.write("{")
    for index in range(draw(st.integers(0, 2))):
        before = made.text
        made.write((", " if index and table else "") + draw(_space))
        if not _pair(draw, made, table, path, depth + 1):
            made.text = before
    made.write(draw(_space) + "}")
    return table


def _noise(draw: st.DrawFn, made: Document) -> None:
    made.write(draw(st.sampled_from(["", "\n", "# [no.table]\n", "  \n"])))


def _quoted_key(draw: st.DrawFn, key: str) -> str:
    if "'" not in key and "\n" not in key and draw(st.booleans()):
        return f"'{key}'"
    return json.dumps(key, ensure_ascii=False)
