"""A whole engine that runs as an unprivileged user, and its model."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomlkit

from tests.execution.sandbox.conftest import place as place
from tests.execution.sandbox.conftest import workspace as workspace
from tests.execution.sandbox.running import NOBODY

from .conftest import ESCAPED
from .host import snapshot
from .test_files import TRICKS

PATIENCE = 120


@pytest.fixture
def prefix(place: Path) -> list[str]:
    """What starts a program as that user, to whom all of the place belongs then."""
    program = shutil.which("setpriv")
    if os.geteuid() != 0 or program is None:
        pytest.skip("only root can become another user, with setpriv")
    for folder, folders, files in os.walk(place):
        for name in (".", *folders, *files):
            os.lchown(os.path.join(folder, name), NOBODY, NOBODY)
    return [program, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]


def test_no_trick_gets_out(prefix: list[str], place: Path, workspace: Path) -> None:
    home = place.with_name(f"{place.name}-home")
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "CODEX_HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *_packages()]),
    }
    try:
        engine = _interpreter(prefix, workspace, environment)
        script = home / "script.toml"
        script.write_text(_script())
        before = snapshot(place, workspace)
        words = ["exec", "--json", "--skip-git-repo-check", "--sandbox", "workspace-write"]
        words += ["--model-provider", "scripted", "--script", str(script), "go"]
        done = subprocess.run(
            [*engine, *words],
            cwd=workspace,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        ran = [
            line for line in done.stdout.splitlines() if '"item.completed"' in line and '"command_execution"' in line
        ]
        assert len(ran) == len(TRICKS)
        assert all('"status":"declined"' not in line for line in ran)
        assert ESCAPED not in done.stdout
        assert snapshot(place, workspace) == before
    finally:
        shutil.rmtree(home)


def _packages() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]


def _interpreter(prefix: list[str], workspace: Path, environment: dict[str, str]) -> list[str]:
    """The engine as that user runs it: by this Python, or by the system's where this one is in a folder of root's."""
    words = ["-P", "-m", "engine", "sandbox", "-c", "sandbox_mode=workspace-write", "--", "true"]
    problem = ""
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        if os.path.exists(python):
            tried = subprocess.run(
                [*prefix, python, *words],
                cwd=workspace,
                env=environment,
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
            if tried.returncode == 0:
                return [*prefix, python, *words[:3]]
            problem = tried.stderr.decode()[-300:]
    pytest.skip(f"that user can't run the engine here: {problem}")


def _script() -> str:
    """One call after the other, then an answer."""
    document = tomlkit.document()
    hidden = [base64.b64encode(f"exec 2>&1 </dev/null; {trick}\ntrue".encode()).decode() for trick in TRICKS.values()]
    calls = [{"steps": [{"shell": f"echo {script} | base64 -d | sh"}]} for script in hidden]
    document["turns"] = [{"responses": [*calls, {"steps": [{"text": "done"}]}]}]
    return tomlkit.dumps(document)
