"""The process that starts engines and kills them, as proofs talk to it: an order per line, an answer, both in JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, final

__all__ = ["Killer"]

ROOT = Path(__file__).parents[2]


@final
class Killer:
    """Runs a module of this folder, which says `ready` and then answers orders."""

    def __init__(self, module: str, user_home: Path) -> None:
        """`user_home`: not the user's own, whose profile would be killed half-way, too."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(user_home)},
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def do(self, **order: object) -> dict[str, Any]:
        """What came of an order. Nothing of it runs any more."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert answer["orphans"] == [], "processes outlived the engine that started them"
        return answer

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()
