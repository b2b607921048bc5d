"""Telling from a command's end whether its sandbox refused it something."""

from __future__ import annotations

import pytest

from engine.execution.sandbox.denial import is_denial


@pytest.mark.parametrize(
    ("code", "outputs", "denied"),
    [
        (1, ["", "touch: cannot touch 'x': Read-only file system"], True),
        (1, ["PERMISSION DENIED", ""], True),
        (1, ["", "connect: Operation not permitted"], True),
        (3, ["sandbox", ""], True),
        (1, ["", "bwrap: Can't mkdir"], False),
        (127, ["", "x: command not found"], False),
        (127, ["", "x: Permission denied"], True),
        (126, ["", ""], False),
        (2, ["", "usage"], False),
        (159, ["", ""], True),
        (137, ["", ""], False),
        (1, ["", "failed to write file x"], True),
        (1, ["", "", "landlock"], True),
        (0, ["Permission denied", "sandbox"], False),
    ],
)
def test_denials(code: int, outputs: list[str], denied: bool) -> None:
    assert is_denial(code, *outputs, sandboxed=True) == denied
    assert not is_denial(code, *outputs, sandboxed=False)
