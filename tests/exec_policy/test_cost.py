"""The interpreter and the grammar are loaded when they are needed, not before."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import engine.exec_policy.in_force, engine.exec_policy.requirement, engine.session.core
from engine.exec_policy.loading import load_folders
from engine.exec_policy.policy import EMPTY_POLICY
assert not load_folders(["/nowhere"]).problems
print([name for name in ("starlark", "tree_sitter", "tree_sitter_bash") if name in sys.modules])
"""


def test_nothing_heavy_is_imported_without_a_rules_file_and_a_command() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, check=True)
    assert found.stdout == "[]\n"
