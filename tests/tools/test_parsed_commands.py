"""What commands are told to do, and that telling it never fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.wire import JsonObject
from engine.tools.parsed_commands import parse_command


def read(cmd: str, path: str, name: str | None = None) -> JsonObject:
    return {"type": "read", "cmd": cmd, "name": name or path.rpartition("/")[2], "path": path}


def lists(cmd: str, path: str | None = None) -> JsonObject:
    return {"type": "list_files", "cmd": cmd, "path": path}


def search(cmd: str, query: str, path: str | None = None) -> JsonObject:
    return {"type": "search", "cmd": cmd, "query": query, "path": path}


KNOWN: list[tuple[str, list[JsonObject]]] = [
    ("cat src/a.py", [read("cat src/a.py", "src/a.py")]),
    ("cat -n a b", [read("cat -n a b", "a"), read("cat -n a b", "b")]),
    ("cat 'a b'/c.txt", [read("cat 'a b/c.txt'", "a b/c.txt")]),
    ('cat "a \\"b\\".txt"', [read("""cat 'a "b".txt'""", 'a "b".txt')]),
    ("cat a\\ b", [read("cat 'a b'", "a b")]),
    ("nl -ba f | sed -n '1,5p'", [read("nl -ba f", "f")]),
    ("sed -n 1,20p x.py", [read("sed -n 1,20p x.py", "x.py")]),
    ("sed -n '5p' x.py", [read("sed -n 5p x.py", "x.py")]),
    ("head f", [read("head f", "f")]),
    ("head -5 f", [read("head -5 f", "f")]),
    ("head -n 5 f", [read("head -n 5 f", "f")]),
    ("tail -n +5 f", [read("tail -n +5 f", "f")]),
    ("cat f | head -n 5 | sort -rn | wc -l", [read("cat f", "f")]),
    ("ls", [lists("ls")]),
    ("ls -la src tests", [lists("ls -la src tests", "src"), lists("ls -la src tests", "tests")]),
    ("ls -w 80 src", [lists("ls -w 80 src", "src")]),
    ("find . -name '*.py'", [lists("find . -name '*.py'", ".")]),
    ("find", [lists("find")]),
    ("rg --files", [lists("rg --files")]),
    ("rg --files -g '*.py' src", [lists("rg --files -g '*.py' src", "src")]),
    ("rg -n 'foo|bar' src", [search("rg -n 'foo|bar' src", "foo|bar", "src")]),
    ("rg -e foo -g '*.py' src", [search("rg -e foo -g '*.py' src", "foo", "src")]),
    ("rg --files-with-matches foo", [search("rg --files-with-matches foo", "foo")]),
    ("rg -- -x", [search("rg -- -x", "-x")]),
    ("grep -rn foo .", [search("grep -rn foo .", "foo", ".")]),
    ("grep -rnA 3 foo f", [search("grep -rnA 3 foo f", "foo", "f")]),
    ("grep -A3 foo f", [search("grep -A3 foo f", "foo", "f")]),
    ("grep -ne foo f g", [search("grep -ne foo f g", "foo", "f"), search("grep -ne foo f g", "foo", "g")]),
    ("grep '|' f", [search("grep '|' f", "|", "f")]),
    ("cat f | grep x", [read("cat f", "f"), search("grep x", "x")]),
    ("cd a && cat b && ls", [read("cat b", "a/b"), lists("ls", "a")]),
    ("cd a; cd b\nrg x", [search("rg x", "x", "a/b")]),
    ("cd /x && cat /y/z", [read("cat /y/z", "/y/z")]),
    ("cat a; cat a", [read("cat a", "a")]),
]


@pytest.mark.parametrize(("script", "actions"), KNOWN, ids=[script for script, _ in KNOWN])
def test_known_forms(script: str, actions: list[JsonObject]) -> None:
    assert parse_command(["/bin/bash", "-lc", script]) == tuple(actions)


@pytest.mark.parametrize(
    "script",
    [
        "",
        "echo one; echo two",
        "cat",
        "cat -",
        "cat x > y",
        "cat x >> y",
        "cat < x",
        "cat $X",
        "cat `x`",
        "cat $(x)",
        "cat *.py",
        "cat ~/x",
        "cat x & ls",
        "cat x || ls",
        "cat x |& head",
        "cat x # why",
        "cat 'x",
        "cat x && rm -rf y",
        "A=1 cat x",
        "! cat x",
        "for f in x; do cat x; done",
        "sed -i s/a/b/ x",
        "sed -n 1,5w/out x",
        "sed -n 1,5p -i x",
        "find . -delete",
        "find . -exec rm {} +",
        "rg --pre sh x",
        "rg --pre=sh x",
        "grep -f patterns x",
        "rg",
        "cat a | sort -o b",
        "cat a | sort -ro b",
        "cat a | uniq - b",
        "cat a | tee b",
        "| cat a",
        "cat a | | head",
        "cd a",
        "cd a b && ls",
        "cd - && ls",
        "cat a <<EOF\nx\nEOF",
    ],
)
def test_everything_else_is_unknown_as_a_whole(script: str) -> None:
    assert parse_command(["bash", "-c", script]) == ({"type": "unknown", "cmd": script},)


def test_plain_argv_is_one_command_and_no_script() -> None:
    assert parse_command(["cat", "a;b"]) == (read("cat 'a;b'", "a;b"),)
    assert parse_command(["make", "a b"]) == ({"type": "unknown", "cmd": "make 'a b'"},)
    assert parse_command(["bash", "-x", "ls"]) == ({"type": "unknown", "cmd": "bash -x ls"},)
    assert parse_command(["/usr/bin/ls"]) == (lists("/usr/bin/ls"),)
    assert parse_command([]) == ({"type": "unknown", "cmd": ""},)


_WORDS = st.sampled_from(
    [
        *(
            "cat",
            "sed",
            "head",
            "tail",
            "ls",
            "find",
            "rg",
            "grep",
            "cd",
            "sort",
            "-n",
            "-e",
            "--",
            "-",
            "--files",
            "-A",
        ),
        *("|", "||", "&&", ";", "\n", "'", '"', "\\", "$", "1,5p", "a", "''", "a/b", "~", "--x=y", "-f", "-exec"),
    ]
)
_SCRIPTS = st.lists(_WORDS).map(" ".join) | st.text()


@given(argv=st.lists(st.text() | _WORDS) | _SCRIPTS.map(lambda script: ["bash", "-lc", script]))
def test_any_command_line_has_actions_of_the_wires_form(argv: list[str]) -> None:
    actions = parse_command(argv)
    assert actions
    fields = {
        "read": {"type", "cmd", "name", "path"},
        "list_files": {"type", "cmd", "path"},
        "search": {"type", "cmd", "query", "path"},
        "unknown": {"type", "cmd"},
    }
    for action in actions:
        kind = action["type"]
        assert isinstance(kind, str)
        assert action.keys() == fields[kind]
        assert isinstance(action["cmd"], str)
        if kind == "read":
            assert action["name"]
            assert action["path"]
    assert len(actions) == 1 or all(action["type"] != "unknown" for action in actions)


def test_a_long_script_costs_little() -> None:
    script = "cat " + "a" * 1_000_000 + " >"
    assert parse_command(["bash", "-c", script])[0]["type"] == "unknown"
    script = "cat " + "'a'" * 300_000
    assert parse_command(["bash", "-c", script])[0]["type"] == "read"
