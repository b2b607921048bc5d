"""Places outside of the temporary folders, and what runs commands there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.execution.sandbox.launcher import Sandbox
from engine.execution.supervisor import Supervisor, open_supervisor

from .running import Runner, require_sandbox, workspace_write


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder without links in its path and outside of `/tmp`, which policies treat in their own way."""
    parent = next(folder for folder in ("/var/tmp", os.path.expanduser("~"), os.getcwd()) if os.access(folder, os.W_OK))
    made = tempfile.mkdtemp(prefix="sandbox-", dir=os.path.realpath(parent))
    os.chmod(made, 0o755)
    yield Path(made)
    for folder, folders, _ in os.walk(made):
        for name in folders:
            path = os.path.join(folder, name)
            if not os.path.islink(path) and not os.access(path, os.R_OK | os.X_OK):
                os.chmod(path, 0o700)  # what overlays leave can't be entered
    shutil.rmtree(made)


@pytest.fixture
def workspace(place: Path) -> Path:
    """A repository, with something beside it that is none of the commands' business."""
    made = place / "ws"
    (made / ".git").mkdir(parents=True)
    (made / ".git" / "config").write_text("[core]\n")
    (made / "src").mkdir()
    (made / "src" / "main.py").write_text("print()\n")
    (place / "outside").mkdir()
    (place / "outside" / "file").write_text("outside")
    return made


@pytest.fixture
async def processes() -> AsyncIterator[Supervisor]:
    async with open_supervisor() as supervisor:
        yield supervisor


@pytest.fixture
async def runner(processes: Supervisor, workspace: Path) -> Runner:
    """Commands of the default kind in the workspace."""
    sandbox = Sandbox(processes)
    await require_sandbox(sandbox)
    return Runner(processes, sandbox, workspace, workspace_write(workspace))


@pytest.fixture
def user(request: pytest.FixtureRequest, place: Path, workspace: Path) -> int | None:
    """Who runs the commands; everything there belongs to that user, as if that user's engine had made it."""
    chosen: int | None = request.param
    if chosen is not None and os.geteuid() == 0:
        for folder, folders, files in os.walk(place):
            for name in (".", *folders, *files):
                os.lchown(os.path.join(folder, name), chosen, chosen)
    return chosen
