"""Patches of a hostile model: the engine writes them itself, outside of every sandbox."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.models.scripts import patch, response
from engine.protocol.settings import ApprovalPolicy
from tests.execution.sandbox.conftest import place as place
from tests.execution.sandbox.conftest import workspace as workspace

from .conftest import PRELUDE
from .sessions import HostileModel, add_file, run
from .test_races import SWAPPER
from .test_session_commands import _sandbox_works as _sandbox_works
from .test_session_commands import hostile as hostile

LINKS = """
ln -s ../outside folder
ln -s ../outside/file link
ln -s .git metadata
ln -s /proc/self/root root
mkdir deep && ln -s ../../outside deep/out
"""


def change(header: str, body: str) -> str:
    return f"*** Begin Patch\n*** {header}\n{body}\n*** End Patch"


@pytest.mark.parametrize("policy", ["never", "on-request", "on-failure", "untrusted"])
async def test_no_patch_gets_out(hostile: HostileModel, place: Path, policy: ApprovalPolicy) -> None:
    added = [
        *(
            "../outside/new",
            f"{place}/outside/new",
            "src/../../outside/new",
            "folder/new",
            "deep/out/new",
            "folder/a/b",
        ),
        *(".git/hooks/post-checkout", "metadata/new", ".codex/config.toml", ".agents/x", "src/../.git/new", "./.git/x"),
        *(f"root{place}/outside/new", f"/proc/self/root{place}/outside/new", f"/proc/self/cwd/{place}/outside/new"),
        *(f"{hostile.home}/config.toml", f"{hostile.home}/rules/default.rules", f"/{place}/outside/new"),
        *("link", "../outside/file", f"{place}/outside/file", "/dev/null/x", "/proc/self/environ"),
    ]
    changed = [
        change("Update File: ../outside/file", "@@\n-outside\n+x"),
        change("Update File: link", "@@\n-outside\n+x"),
        change("Update File: .git/config", "@@\n-[core]\n+[x]"),
        change("Update File: metadata/config", "@@\n-[core]\n+[x]"),
        change("Delete File: ../outside/file", ""),
        change("Delete File: folder/file", ""),
        change("Delete File: .git/config", ""),
        change("Update File: src/main.py\n*** Move to: ../outside/new", "@@\n-print()\n+x"),
        change("Update File: src/main.py\n*** Move to: .git/hooks/pre-commit", "@@\n-print()\n+x"),
        change("Update File: src/main.py\n*** Move to: folder/new", "@@\n-print()\n+x"),
    ]
    outputs = await hostile.attack(
        run(LINKS),
        *map(add_file, added),
        *(response(patch(text)) for text in changed),
        *(run(f"apply_patch <<'EOF'\n{text}\nEOF") for text in changed),
        run(f"cd ../outside && apply_patch <<'EOF'\n{change('Add File: new', '+x')}\nEOF"),
        run(f"cd {place}/outside && apply_patch '{change('Add File: new', '+x')}'"),
        run(f"apply_patch <<'EOF'\n{change('Add File: new', '+x')}\nEOF", workdir=f"{place}/outside"),
        approval_policy=policy,
    )
    assert len(outputs) == 1 + len(added) + 2 * len(changed) + 3
    assert not [output for output in outputs if "Success. Updated" in output]
    assert (hostile.workspace / "src" / "main.py").read_text() == "print()\n"
    assert bool(hostile.asked) == (policy != "never")


async def test_a_patch_takes_several_files_all_or_none_of_which_are_outside(hostile: HostileModel, place: Path) -> None:
    text = "*** Begin Patch\n*** Add File: inside\n+x\n*** Add File: ../outside/new\n+x\n*** End Patch"
    await hostile.attack(response(patch(text)))
    assert not (hostile.workspace / "inside").exists()


async def test_folders_that_are_swapped_for_links_while_patches_are_written(hostile: HostileModel, place: Path) -> None:
    """A command of the same session exchanges a folder and a link to the outside all the time."""
    quiet = f"python3 -I -S - >/dev/null 2>&1 <<'EOF'\n{PRELUDE}{SWAPPER}\nEOF"
    patches = [add_file(f"src/deep/{number}") for number in range(60)]
    outputs = await hostile.attack(run("mkdir -p src/deep"), run(quiet, yield_time_ms=700), *patches)
    assert len(outputs) == 62
    assert os.listdir(place / "outside") == ["file"]
    assert any("Success. Updated" in output for output in outputs[2:])
