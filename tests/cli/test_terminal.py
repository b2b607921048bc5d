"""Nothing that a model or a command says may steer the user's terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli.terminal import Palette, colour_wanted, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x1b[0m b", "ared b"),
        ("\x1b]0;title\x07x\x1b]8;;http://h\x1b\\y", "xy"),
        ("50%\r100%\r\nend", "50%\n100%\nend"),
        ("tab\there\nbell\x07\x08", "tab\there\nbell"),
        ("\x9b31mx", "31mx"),
        ("grün ✓", "grün ✓"),
    ],
)
def test_escape_sequences_are_taken_out(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text())
def test_no_control_character_survives(text: str) -> None:
    assert not {char for char in plain(text) if (ord(char) < 32 or 127 <= ord(char) < 160) and char not in "\n\t"}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_when_colour_is_used() -> None:
    assert colour_wanted("auto", _Terminal(), {})
    assert not colour_wanted("auto", io.StringIO(), {})
    assert not colour_wanted("auto", _Terminal(), {"NO_COLOR": "1"})
    assert not colour_wanted("auto", _Terminal(), {"TERM": "dumb"})
    assert colour_wanted("always", io.StringIO(), {"NO_COLOR": "1"})
    assert not colour_wanted("never", _Terminal(), {})


def test_a_palette_that_is_off_changes_nothing() -> None:
    off, on = Palette(False), Palette(True)
    assert off.red("x") == "x"
    assert on.red("x") == "\x1b[31mx\x1b[0m"
    assert on.dim("") == ""
