"""The demo of `make run`: it repairs the project, resumes in a new process, and touches nothing of the user's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.models.script_files import load_script

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_demo_works_and_stays_in_its_folder(tmp_path: Path) -> None:
    home, folder = tmp_path / "user", tmp_path / "demo"
    home.mkdir()
    if main(["doctor", "-C", "/"]) != 0:
        pytest.skip("nothing can hold commands here")
    environment = {name: value for name, value in os.environ.items() if name != "CODEX_HOME"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "run_demo.py"), "--folder", str(folder)],
        capture_output=True,
        text=True,
        env={**environment, "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("Fixed: `total` in basket.py")
    assert second.startswith("I changed basket.py.")
    for shown in (
        *("# engine ", "workspace-write", "startup", "exit 1 in", "+    if amount >= DISCOUNT_FROM:", "exit 0 in"),
        *("tokens used", "rollout", "resume --last"),
    ):
        assert shown in done.stderr
    assert list(home.iterdir()) == []
    assert len(list(folder.rglob("rollout-*.jsonl"))) == 1
    assert "(1 - DISCOUNT)" in (folder / "project" / "basket.py").read_text()
    assert "(1 - DISCOUNT)" not in (EXAMPLES / "broken_project" / "basket.py").read_text()


def test_the_script_of_the_demo_is_valid() -> None:
    assert len(load_script(EXAMPLES / "demo.toml").responses) == 6
