"""What scripts consist of. A script that counts as plain is one in which a real shell sees just these words."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.exec_policy.scripts import canonical_command, plain_commands, read_script, segments, shell_script

# No word of these is expanded: what a glob or a tilde means depends on the disk.
BLANKS = ["  ", " ", "\t", "\\\n", "\n", "\r"]
WORDS = ["a", "show", "-o", "=", "'x y'", '"x y"', "''", '""', '"\\$"', "\\ ", "\\a", "\\\\", ","]
OTHERS = [";", "&&", "||", "|", "#", "&", "(", ")", "{", "}", "$X", "`", ">", "'", '"']
PIECES = st.sampled_from([*BLANKS, *BLANKS, *WORDS, *OTHERS])


@given(st.lists(PIECES, max_size=9).map("".join))
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_shell_sees_the_words_of_a_plain_script(tmp_path: Path, tail: str) -> None:
    script = f"show {tail}"
    plain = read_script(script).plain
    if plain is None or any(word.braces for words in plain for word in words):
        return
    if any(words[0].value != "show" for words in plain) or "||" in script:
        return  # a shell runs no other program here, and nothing behind `||`
    show = tmp_path / "show"
    log = tmp_path / "log"
    show.write_text(
        f"#!/bin/sh\nprintf '%s\\0' show \"$@\" >'{tmp_path}/call'.$$\ncat '{tmp_path}/call'.$$ >>'{log}'\n"
    )
    show.chmod(0o755)
    log.write_text("")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["/bin/bash", "-c", script], env=env, stdin=subprocess.DEVNULL, check=True, capture_output=True)
    expected = sorted("".join(f"{word.value}\0" for word in words) for words in plain)
    seen = log.read_text()
    assert len(seen) == sum(map(len, expected))
    if len(plain) == 1:  # those of a pipe come in any order
        assert [seen] == expected


@given(st.text(max_size=40))
def test_any_text_is_read(script: str) -> None:
    reading = read_script(script)
    if reading.plain is not None:
        assert len(reading.plain) == len(reading.commands)
    assert segments(["bash", "-lc", script]).commands


NOT_PLAIN = [
    *("ls > x", "'ls'", "ls &", "echo $HOME", "echo $(id)", "echo `id`", "(ls)", "{ ls; }", "A=b ls", "! ls", "ls # c"),
    *("if true; then ls; fi", "f() { ls; }", "ls |& cat", "cat <(ls)", 'echo "$X"', "ls <<E\nE\n"),
    *("ls \n\\rm -rf x", "ls a \n\n\\make", "ls\n\\\nmake", "ls\n&& pwd", "l\\\ns"),
]


@pytest.mark.parametrize(
    ("script", "commands"),
    [
        ("ls", [["ls"]]),
        ("ls | wc -l && echo 'a b'; pwd\nid", [["ls"], ["wc", "-l"], ["echo", "a b"], ["pwd"], ["id"]]),
        ('rg -g"*.py" x', [["rg", "-g*.py", "x"]]),
        ("echo a\\ b", [["echo", "a\\ b"]]),
        *((script, None) for script in NOT_PLAIN),
    ],
)
def test_plain_scripts_are_commands(script: str, commands: list[list[str]] | None) -> None:
    found = plain_commands(["/usr/bin/zsh", "-c", script])
    assert (None if found is None else [list(words) for words in found]) == commands


@pytest.mark.parametrize(
    "argv", [["bash", "-lc"], ["bash", "-x", "ls"], ["fish", "-c", "ls"], ["bash", "-c", "ls", "x"]]
)
def test_other_calls_are_no_scripts(argv: list[str]) -> None:
    assert shell_script(argv) is None
    assert plain_commands(argv) is None
    assert segments(argv).commands == (tuple(argv),)


def test_a_command_with_a_document_stands_for_its_script() -> None:
    found = segments(["bash", "-lc", "python3 <<'EOF'\nprint(1)\nEOF\n"])
    assert (found.commands, found.heredoc) == ((("python3",),), True)
    for script in (
        "cat <<E >x\nE\n",
        "cat <<E\n$(id)\nE\n",
        "cat <<E\nE\nid\n",
        "cat <<A <<B\nA\nB\n",
        "cat\n\\\nid <<E\nE\n",
    ):
        assert not segments(["bash", "-lc", script]).heredoc


def test_the_same_command_in_another_shell_is_the_same_to_approvals() -> None:
    assert canonical_command(["/bin/bash", "-lc", "git push"]) == canonical_command(["zsh", "-c", "git  push"])
    assert canonical_command(["bash", "-lc", "a; b"]) == ("__codex_shell_script__", "-lc", "a; b")
    assert canonical_command(["git", "push"]) == ("git", "push")


def test_a_script_too_long_is_not_looked_at() -> None:
    assert read_script("echo " + "x" * 70_000).unread
    assert read_script("(" * 3000).unread
    assert read_script("echo \ud800").unread
    assert read_script("echo \ud800").plain is None
