"""Runs the command line in this process, or as a real one where signals, terminals and pipes are the subject."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from engine.cli.main import main

__all__ = ["Cli", "Done", "make_repository", "provider_toml", "start_process"]


@attrs.frozen
class Done:
    """What a run left."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Stdout as JSON lines."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def types(self) -> list[str]:
        """The types of the JSON lines."""
        return [line["type"] for line in self.lines]


class _Stdin(io.TextIOWrapper):
    def __init__(self, data: bytes, terminal: bool) -> None:
        super().__init__(io.BytesIO(data))
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@attrs.define
class Cli:
    """A home, a repository to stand in, and a way to run the command there."""

    home: Path
    project: Path
    monkeypatch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[bytes]

    def configure(self, toml: str) -> None:
        """Writes `config.toml`."""
        (self.home / "config.toml").write_text(toml)

    def script(self, toml: str) -> list[str]:
        """Flags that make the scripted model answer from `toml`."""
        file = self.home / "script.toml"
        file.write_text(toml)
        return ["--model-provider", "scripted", "--script", str(file)]

    def run(self, *words: str, stdin: bytes | None = None) -> Done:
        """Runs `engine` with these words; without `stdin` a person sits at the terminal."""
        self.monkeypatch.setattr(sys, "stdin", _Stdin(stdin or b"", stdin is None))
        self.capture.readouterr()
        code = main(words)
        done = self.capture.readouterr()
        return Done(code, done.out.decode(), done.err.decode())

    def exec(self, *words: str, stdin: bytes | None = None) -> Done:
        """Runs `engine exec`."""
        return self.run("exec", *words, stdin=stdin)

    def sessions(self) -> list[Path]:
        """The recorded session files, oldest first."""
        return sorted(self.home.rglob("rollout-*.jsonl"))


def make_repository(folder: Path) -> Path:
    """Makes `folder` look like a checkout."""
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    return folder


def provider_toml(port: int, **more: object) -> str:
    """A configuration whose provider is a mock on `port`."""
    settings = {"request_max_retries": 0, "stream_max_retries": 0, **more}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    return "\n".join(
        [
            'model = "mock-model"',
            'model_provider = "mock"',
            "[model_providers.mock]",
            'name = "mock"',
            f'base_url = "http://127.0.0.1:{port}/v1"',
            *lines,
            "",
        ]
    )


def start_process(
    words: Sequence[str], cwd: Path, environment: Mapping[str, str], **streams: Any
) -> subprocess.Popen[bytes]:
    """A real `engine` process."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "engine", *words], cwd=cwd, env={**os.environ, **environment}, **streams
    )
