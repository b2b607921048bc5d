"""Tests of the grammar of bash: nothing in a script ends the process, and nodes show the script's own text."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.shell_grammar import node_text, parse_script

# Where the grammar asks C's tables for the class of a character.
BEFORE = ["echo {", "echo {1", "echo {1..", "[[ -", "[[ -a", "a?", "cat <<E\nx$", "$", "-", "{", "echo a{"]
TRIES = """
from engine.shell_grammar import parse_script
for before in {before}:
    for number in (*range(0x80, 0xD800, 7), *range(0xE000, 0x110000, {step})):
        parse_script(before + chr(number))
"""


def leaves(script: str) -> Iterator[str]:
    root = parse_script(script)
    assert root is not None
    todo = [root]
    while todo:
        node = todo.pop()
        todo += reversed(node.children)
        if not node.children:
            yield node_text(node)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_no_character_ends_the_process(locale: str) -> None:
    tries = TRIES.format(before=BEFORE, step=997)
    done = subprocess.run([sys.executable, "-c", tries], env={"LC_ALL": locale}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", ["naïve", "Ω", "一二", "a→b", "🎉", "x🎉y", "　", "\U0010ffff"])
def test_a_word_is_a_word_in_every_script(text: str) -> None:
    assert list(leaves(f"echo {text} -n '{text}' \"{text} x\"")) == [
        "echo",
        text,
        "-n",
        f"'{text}'",
        '"',
        f"{text} x",
        '"',
    ]


def test_a_document_keeps_its_text() -> None:
    document = "*** Begin Patch\n-🎉 $🎉 {🎉\n+一\n*** End Patch"
    assert document in "".join(leaves(f"apply_patch <<'EOF'\n{document}\nEOF\n"))


@given(st.text())
@example("echo {\U00031860")
def test_nodes_show_the_script(script: str) -> None:
    root = parse_script(script)
    if root is None:
        with pytest.raises(UnicodeEncodeError):
            script.encode()
        return
    source = script.encode()
    todo = [root]
    while todo:
        node = todo.pop()
        assert node.text == source[node.start_byte : node.end_byte]
        todo += node.children
