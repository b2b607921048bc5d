"""Opening places that somebody may be replacing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.execution.sandbox.errors import SandboxPolicyError
from engine.execution.sandbox.steady import open_steady


@pytest.mark.parametrize("name", ["a/b", "a/file"])
def test_what_is_there_is_opened(place: Path, name: str) -> None:
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "file").touch()
    fd = open_steady(str(place / name))
    try:
        assert os.fstat(fd).st_ino == (place / name).stat().st_ino
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", ["link", "link/b", "a/link", "missing", "a/file/x"])
def test_links_and_what_is_missing_are_errors(place: Path, name: str) -> None:
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "file").touch()
    (place / "link").symlink_to("a")
    (place / "a" / "link").symlink_to("b")
    with pytest.raises(SandboxPolicyError, match="changed while the command was being started"):
        open_steady(str(place / name))
