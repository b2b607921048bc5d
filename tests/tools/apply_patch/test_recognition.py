"""Patches among commands: what is taken, what is refused, what is left to the shell (tools.md 2.5)."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tools.apply_patch import AddFile, Intercepted, ModelError, Ordinary, Patch, parse_patch, recognise

BODY = "*** Begin Patch\n*** Add File: made.txt\n+hi $HOME `x` \\n\n*** End Patch"
PATCH = parse_patch(BODY)
IMPLICIT = (
    "apply_patch verification failed: patch detected without explicit call to apply_patch. "
    'Rerun as ["apply_patch", "<patch>"]'
)


def heredoc(
    before: str = "", after: str = "", *, command: str = "apply_patch", word: str = "'EOF'", end: str = "EOF"
) -> str:
    return f"{before}{command} <<{word}{after}\n{BODY}\n{end}"


@pytest.mark.parametrize(
    "script",
    [
        heredoc(),
        heredoc(command="applypatch"),
        heredoc(word="EOF"),
        heredoc(word='"EOF"'),
        heredoc(word="\\EOF"),
        heredoc(word=" 'EOF'"),
        heredoc(word="'a b'", end="a b"),
        heredoc(word="PATCH", end="PATCH"),
        heredoc(word="-'EOF'"),
        heredoc(word="-EOF", end="\tEOF").replace("\n*", "\n\t*").replace("\n+", "\n\t\t+"),
        heredoc() + "\n\n",
        "\n\n  " + heredoc(),
        heredoc().replace("\n", "\r\n"),
        heredoc().replace("\nEOF", "\n\n\nEOF"),
        heredoc("A=1 "),
        heredoc("A=1 B='x y' "),
    ],
)
def test_intercepted(script: str) -> None:
    for argv in (["bash", "-lc", script], ["/usr/bin/zsh", "-c", script], ["sh", "-c", script]):
        recognition = recognise(argv)
        assert isinstance(recognition, Intercepted)
        assert (recognition.patch, recognition.workdir) == (PATCH, None)
        assert parse_patch(recognition.text) == PATCH


@pytest.mark.parametrize(
    ("argument", "workdir"),
    [
        ("sub", "sub"),
        ("sub/deep/..", "sub/deep/.."),
        ("/", "/"),
        ("12", "12"),
        ("a=b", "a=b"),
        ("'my dir'", "my dir"),
        ('"my dir"', "my dir"),
        ("'a\\ b*'", "a\\ b*"),
        ("my\\ dir", "my dir"),
        ("a\\*b\\\\", "a*b\\"),
        ('"a\\$b\\"c\\d*"', 'a$b"c\\d*'),
        ("''", ""),
    ],
)
def test_workdir_is_the_argument_as_the_shell_passes_it(argument: str, workdir: str) -> None:
    for script in (
        heredoc(f"cd {argument} && "),
        heredoc(f"cd {argument} &&\n"),
        heredoc(f"A=1 cd {argument} && B=2 "),
    ):
        assert recognise(["bash", "-c", script]) == Intercepted(PATCH, BODY, workdir)


@pytest.mark.parametrize(
    "script",
    [
        # more than the one statement
        heredoc(after=" ;"),
        heredoc(after=" &"),
        heredoc(after=" # c"),
        heredoc(after=" && echo"),
        heredoc(after=" || true"),
        heredoc(after=" | cat"),
        heredoc() + "\necho done",
        heredoc() + "\n# c",
        "# c\n" + heredoc(),
        "true\n" + heredoc(),
        heredoc("true && "),
        heredoc("! "),
        heredoc("time "),
        heredoc("env "),
        f"({heredoc()}\n)",
        f"{{ {heredoc()}\n}}",
        f"if true; then\n{heredoc()}\nfi",
        f"f() {{ {heredoc()}\n}}",
        heredoc("A=$(rm -rf x) "),
        # another cd
        heredoc("cd sub; "),
        heredoc("cd \n\\sub && "),  # another command on a line of its own
        heredoc("cd sub || "),
        heredoc("cd sub | "),
        heredoc("cd sub && cd deep && "),
        heredoc("cd && "),
        heredoc("cd a b && "),
        heredoc("cd -P && "),
        heredoc("cd - && "),
        heredoc("cd -- sub && "),
        heredoc("pushd sub && "),
        heredoc("cd sub >log && "),
        heredoc("cd $HOME && "),
        heredoc('cd "$HOME/x" && '),
        heredoc("cd $(pwd) && "),
        heredoc("cd `pwd` && "),
        heredoc("cd ~ && "),
        heredoc("cd s* && "),
        heredoc("cd {a,b} && "),
        heredoc("cd a'b' && "),
        heredoc("cd $'a' && "),
        # another command, other redirects
        heredoc(command="./apply_patch"),
        heredoc(command="'apply_patch'"),
        heredoc(command="apply-patch"),
        heredoc(command="apply_patch foo"),
        heredoc(command="cat"),
        heredoc(command="apply_patch <other"),
        heredoc(after=" >x"),
        heredoc(after=" 2>&1"),
        heredoc(after=" <<'B'") + "\nB",
        f"apply_patch 0<<'EOF'\n{BODY}\nEOF",
        f"<<'EOF' apply_patch\n{BODY}\nEOF",
        f"apply_patch <<<'{BODY}'",
        f"apply_patch '{BODY}'",
        f"apply_patch <<EOF\n{BODY}",
        f"echo '{BODY}'",
        f"cd sub && {BODY}",
        "*** Begin Patch\n*** Frob: x\n*** End Patch",
        "apply_patch",
        "apply_patch <<EOF \ud800\nEOF",
    ],
)
def test_ordinary(script: str) -> None:
    assert recognise(["bash", "-lc", script]) == Ordinary()


@pytest.mark.parametrize("argv", [["apply_patch", BODY], ["applypatch", BODY]])
def test_direct_call(argv: list[str]) -> None:
    assert recognise(argv) == Intercepted(PATCH, BODY, None)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["ls"],
        ["apply_patch"],
        ["apply_patch", BODY, "more"],
        ["/bin/apply_patch", BODY],
        ["bash", heredoc()],
        ["bash", "-x", heredoc()],
        ["bash", "-l", "-c", heredoc()],
        ["bash", "-c", heredoc(), "arg0"],
        ["fish", "-c", heredoc()],
        ["pwsh", "-NoProfile", heredoc()],
        ["cmd", "/k", heredoc()],
        ["echo", "-c", BODY],
    ],
)
def test_other_argv_is_ordinary(argv: list[str]) -> None:
    assert recognise(argv) == Ordinary()


@pytest.mark.parametrize(
    "argv",
    [
        ["pwsh", "-Command"],
        ["powershell.exe", "-NoProfile", "-Command"],
        ["C:\\Windows\\powershell.exe", "-command"],
        ["cmd", "/c"],
    ],
)
def test_other_shells_keep_their_backslashes(argv: list[str]) -> None:
    assert recognise([*argv, heredoc("cd a\\b && ")]) == Intercepted(PATCH, BODY, "a\\b")


@pytest.mark.parametrize("argv", [[BODY], ["bash", "-lc", f"\n  {BODY}\n"], ["sh", "-c", f"<<EOF\n{BODY}\nEOF"]])
def test_a_bare_patch_is_refused(argv: list[str]) -> None:
    assert recognise(argv) == ModelError(IMPLICIT)


def test_a_patch_that_does_not_parse_is_refused() -> None:
    last = "apply_patch verification failed: invalid patch: The last line of the patch must be '*** End Patch'"
    assert recognise(["bash", "-c", "apply_patch <<EOF\nEOF"]) == ModelError(last)
    assert recognise(["apply_patch", "*** Begin Patch"]) == ModelError(last)


def test_a_patch_may_contain_the_word_that_ends_it() -> None:
    body = "*** Begin Patch\n*** Add File: f\n+EOF\n EOF\n*** End Patch"
    recognition = recognise(["bash", "-c", f"apply_patch <<EOF\n{body.replace(' EOF', '+  EOF')}\nEOF"])
    assert isinstance(recognition, Intercepted)
    assert recognition.patch == Patch(None, (AddFile("f", "EOF\n  EOF\n"),))


SNIPPETS = st.sampled_from(
    [
        "apply_patch",
        " ",
        "\n",
        "<<",
        "<<-",
        "EOF",
        "'",
        '"',
        "\\",
        "cd",
        "&&",
        "$(",
        ")",
        "`",
        BODY,
        "\ud800",
        "\0",
        "A=",
        "(",
    ]
)


@given(st.lists(st.one_of(st.text(), st.builds("".join, st.lists(SNIPPETS, max_size=12))), max_size=3))
def test_any_argv_is_classified(argv: list[str]) -> None:
    for candidate in (argv, ["bash", "-lc", *argv], ["apply_patch", *argv]):
        assert isinstance(recognise(candidate), Intercepted | ModelError | Ordinary)


def test_ordinary_commands_load_no_parser() -> None:
    code = (
        "import sys\nfrom engine.tools.apply_patch import recognise\n"
        "recognise(['bash', '-lc', 'ls <<EOF\\nx\\nEOF'])\nrecognise(['git', 'status'])\n"
        "recognise(['bash', '-lc', 'apply_patch foo'])\n"
        "print(sorted(name for name in sys.modules if name.startswith(('tree_sitter', 'trio', 'asyncio'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
