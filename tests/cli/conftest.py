"""Fixtures of the command-line tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.running import Cli, make_repository


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """A command line in a fresh repository with the test's own home."""
    project = make_repository(tmp_path / "project")
    monkeypatch.chdir(project)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Cli(Path(os.environ["CODEX_HOME"]), project, monkeypatch, capfdbinary)
