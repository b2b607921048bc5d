"""The list of names without its damaged lines: no name that can be read is lost, also of those that come meanwhile."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConflictError
from engine.thread_store.names import ThreadNames, append_name
from engine.thread_store.names_repairing import damaged_names, repair_names
from engine.thread_store.setting_aside import set_aside
from engine.thread_store.verifying import verify_home

pytestmark = pytest.mark.damages_home


def entry(thread: str, name: str) -> bytes:
    return json.dumps({"id": thread, "thread_name": name, "updated_at": "2025-01-01T00:00:00Z"}).encode()


def names(home: Path) -> dict[str, str]:
    found = ThreadNames(home)
    found.refresh()
    return {str(thread): name for thread, name in found.all().items()}


def write(home: Path, *lines: bytes) -> Path:
    path = home / "session_index.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def test_damage_is_wrong_and_is_repaired(tmp_path: Path) -> None:
    later = b'{"id": "z", "thread_name": "of a later version", "more": [1]}'
    glued = entry("c", "glued") + entry("d", "to this")
    torn, invalid, nothing = entry("e", "torn")[:-9], entry("f", "bad \xff").replace(b"\\u00ff", b"\xff"), b"\0" * 9
    behind = nothing + entry("b", "behind nothing")
    path = write(tmp_path, entry("a", "first"), torn, later, glued, behind, invalid, b"[]")
    before = path.read_bytes()
    assert names(tmp_path) == {"a": "first", "z": "of a later version"}
    report = verify_home(tmp_path)
    assert not report.clean
    assert [text.split(" of ")[0] for text in report.names] == ["line 2", "line 4", "line 5", "line 6", "line 7"]
    done = repair_names(tmp_path)
    assert done is not None
    assert (done.path, done.lines, done.recovered, done.lost) == (str(path), 6, 4, 2)
    assert Path(done.aside).read_bytes() == before
    assert names(tmp_path) == {
        "a": "first",
        "z": "of a later version",
        "c": "glued",
        "d": "to this",
        "b": "behind nothing",
        "f": "bad \ufffd",
    }
    assert path.read_bytes().startswith(entry("a", "first") + b"\n" + later + b"\n")
    assert verify_home(tmp_path).clean
    assert repair_names(tmp_path) is None
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, Path(done.aside).name])


def test_without_damage_nothing_is_done(tmp_path: Path) -> None:
    assert repair_names(tmp_path) is None
    assert list(damaged_names(tmp_path)) == []
    path = write(tmp_path, entry("a", "first"), b"", entry("b", "second"))
    assert repair_names(tmp_path) is None
    assert path.stat().st_nlink == 1


def test_a_name_given_while_it_is_repaired_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, entry("a", "first"), b"{")
    late = os.open(path, os.O_WRONLY | os.O_APPEND)

    def rename(old: str, new: str) -> None:
        os.replace(old, new)
        os.write(late, entry("b", "late") + b"\n")

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", rename)
        assert repair_names(tmp_path) is not None
    os.close(late)
    assert names(tmp_path) == {"a": "first", "b": "late"}


def test_a_list_that_changes_at_the_same_moment_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, entry("a", "first"), b"{")

    def copystat(old: str, new: str) -> None:
        append_name(tmp_path, "b", "second", "2025-01-01T00:00:00Z")  # type: ignore[arg-type]

    monkeypatch.setattr("shutil.copystat", copystat)
    with pytest.raises(ConflictError, match="try again"):
        repair_names(tmp_path)
    assert names(tmp_path) == {"a": "first", "b": "second"}
    assert os.listdir(tmp_path) == [path.name]


def test_what_is_no_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "session_index.jsonl").mkdir()
    [text] = damaged_names(tmp_path)
    assert "can't be read" in text


lines = st.one_of(
    st.builds(entry, st.sampled_from("abc"), st.text(max_size=8)),
    st.binary(max_size=12),
    st.sampled_from(
        [b"", b"{}", b"{", b'{"id":"a"}', b'{"id":"a","thread_name":7}', b"\xef\xbb\xbf" + entry("d", "x")]
    ),
)


@given(st.lists(lines, max_size=8))
def test_every_name_is_read_again(tmp_path_factory: pytest.TempPathFactory, some: list[bytes]) -> None:
    home = tmp_path_factory.mktemp("home")
    write(home, *some)
    before = names(home)
    done = repair_names(home)
    assert list(damaged_names(home)) == []
    after = names(home)
    if done is None or not done.recovered:
        assert after == before
    assert before.keys() <= after.keys()


def test_copies_of_the_same_second_have_names_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path, b"{")
    assert len({set_aside(str(path)) for _ in range(5)}) == 5
