"""The installation id: kept, canonical, agreed on."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import StoreError
from engine.thread_store.installation import resolve_installation_id


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_missing_id_is_made_and_stays(tmp_path: Path) -> None:
    home = tmp_path / "not" / "there"
    made = resolve_installation_id(home)
    assert uuid.UUID(made).version == 4
    assert (home / "installation_id").read_text() == made  # no line end
    assert mode(home / "installation_id") == 0o644
    assert resolve_installation_id(home) == made


def test_another_spelling_is_read_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "installation_id"
    path.write_text(" 6FA459EA-EE8A-4CA4-894E-DB77E160355E\n")
    path.chmod(0o600)
    assert resolve_installation_id(tmp_path) == "6fa459ea-ee8a-4ca4-894e-db77e160355e"
    assert path.read_text() == " 6FA459EA-EE8A-4CA4-894E-DB77E160355E\n"
    assert mode(path) == 0o644


@given(st.binary(max_size=80))
def test_anything_else_is_replaced(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    home = tmp_path_factory.mktemp("home")
    path = home / "installation_id"
    path.write_bytes(content)
    made = resolve_installation_id(home)
    assert str(uuid.UUID(made)) == made
    if path.read_bytes() != content:
        assert path.read_text() == made
    assert resolve_installation_id(home) == made


def test_the_umask_does_not_matter(tmp_path: Path) -> None:
    code = "import os, sys; os.umask(0o077)\n"
    code += "from engine.thread_store.installation import resolve_installation_id\nresolve_installation_id(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert mode(tmp_path / "installation_id") == 0o644


def test_processes_that_race_agree(tmp_path: Path) -> None:
    code = "import sys; from engine.thread_store.installation import resolve_installation_id\n"
    code += "sys.stdin.read(1); print(resolve_installation_id(sys.argv[1]))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    assert len({process.communicate()[0] for process in processes}) == 1
    assert [process.returncode for process in processes] == [0] * 4


def test_a_home_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="installation id"):
        resolve_installation_id(tmp_path / "file")
    (tmp_path / "installation_id").mkdir()
    with pytest.raises(StoreError, match="installation id"):
        resolve_installation_id(tmp_path)


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    resolve_installation_id(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    resolve_installation_id(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
