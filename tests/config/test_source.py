"""Reading one TOML file: text, table, and errors with their place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.source import parse_toml, read_toml
from engine.errors import ConfigError
from tests.config.documents import Document, documents


def failure(file: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_toml(str(file))
    return caught.value


def test_a_missing_file_is_no_file(tmp_path: Path) -> None:
    assert read_toml(str(tmp_path / "config.toml")) is None
    (tmp_path / "file").write_text("")
    assert read_toml(str(tmp_path / "file" / "config.toml")) is None


def test_a_mark_at_the_start_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes("\ufeffa = 1\r\nb = 'é'\r\n".encode())
    made = read_toml(str(file))
    assert made is not None
    assert made.table == {"a": 1, "b": "é"}
    assert made.locate(("b",)) == (2, 1)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("model = \n", (1, 9)),
        ("a = 1\r\nmodel = = 'x'\r\n", (2, 9)),
        ("a = 1\na = 2\n", (2, 6)),
        ("a = [1,\n", (2, 1)),
        ("a = 'x", (1, 7)),
        ("x y = 1", (1, 3)),
    ],
)
def test_a_syntax_error_has_line_and_column(tmp_path: Path, text: str, place: tuple[int, int]) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(text.encode())
    error = failure(file)
    assert (error.file, error.line, error.column) == (str(file), *place)
    assert str(error).startswith(f"{file}:{place[0]}:{place[1]}: invalid TOML: ")
    assert "(at " not in str(error)


def test_what_is_no_readable_text_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.mkdir()
    assert str(failure(file)) == f"{file}: is a directory, not a file"
    file.rmdir()
    os.mkfifo(file)
    assert str(failure(file)) == f"{file}: is not a regular file"
    file.unlink()
    file.write_bytes(b"a = 1\nb = '\xc3\xa9\xff'\n")
    error = failure(file)
    assert str(error) == f"{file}:2:7: is not UTF-8: byte 0xff"
    file.unlink()
    file.symlink_to(file)
    assert failure(file).file == str(file)
    assert "can't be read" in str(failure(file))
    assert "is no path" in str(failure(Path("a\0b")))


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.toml"
    file.write_text("a = 1")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")  # as root, a mode of 0 refuses nothing

    monkeypatch.setattr("builtins.open", refuse)
    error = failure(file)
    monkeypatch.undo()
    assert str(error) == f"{file}: can't be read: Permission denied"


@pytest.mark.parametrize("text", ["a = " + "[" * 50_000, "a = " + "9" * 5000])
def test_what_the_parser_itself_can_not_take(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_toml(text, "c.toml")
    assert str(caught.value).startswith("c.toml")


@given(st.text(alphabet="ab=.[]{}\"'#\n ,\\1-é", max_size=40))
def test_any_text_gives_a_table_or_a_place(text: str) -> None:
    failed: ConfigError | None = None
    try:
        parse_toml(text, "c.toml")
    except ConfigError as exc:
        failed = exc
    if failed is not None:
        assert failed.file == "c.toml"
        assert failed.line is not None
        assert failed.line <= text.count("\n") + 1
        assert failed.column is not None


@given(documents())
def test_locating_falls_back_to_what_is_around(document: Document) -> None:
    made = parse_toml(document.text, "c.toml")
    assert made.table == document.table
    for path, place in document.places.items():
        assert made.locate(path) == place
        assert made.locate((*path, "no such key", 3)) == place
    assert made.locate(("no such key",)) is None
