"""The text of shell snapshots, held against real shells: what goes in comes out again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.execution.shells import ShellKind
from engine.execution.snapshot_text import loading_script, profile_files, read_snapshot, single_quoted, snapshot_script

KINDS = [kind for kind in (ShellKind.BASH, ShellKind.SH, ShellKind.ZSH) if shutil.which(kind.value)]
PATH = "/usr/local/bin:/usr/bin:/bin"

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)


def run(kind: ShellKind, flag: str, script: str, env: Mapping[str, str], *, home: Path) -> bytes:
    """The output of a script in a real shell."""
    program = shutil.which(kind.value)
    assert program is not None
    everything = {"PATH": PATH, "HOME": str(home), **env}
    return subprocess.run(
        [program, flag, script], env=everything, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True
    ).stdout


def shown_environment(output: bytes) -> dict[str, str]:
    """What `env -0` has told."""
    entries = (entry.decode().partition("=") for entry in output.split(b"\0") if entry)
    return {name: value for name, _, value in entries}


def shown(environment: bytes, functions: bytes = b"", options: bytes = b"", aliases: bytes = b"") -> bytes:
    """What the script of a shell shows."""
    return b"# Snapshot file\n" + b"\0".join([functions, options, aliases, environment])


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_profile_sets_is_set_by_the_snapshot(kind: ShellKind, tmp_path: Path) -> None:
    (tmp_path / ".profile").write_text("echo noise\nexport GREETING='it'\"'\"'s\n two lines'\nset -u\n")
    output = run(kind, "-lc", snapshot_script(kind), {}, home=tmp_path)
    assert output.startswith(b"noise\n")
    text = read_snapshot(kind, output)
    assert text.startswith(b"# Snapshot file\nunalias -a")
    assert b"set -o nounset\n" in text
    file = tmp_path / "snapshot.sh"
    file.write_bytes(text)
    env = shown_environment(run(kind, "-c", f". {single_quoted(str(file))}; env -0", {}, home=tmp_path))
    assert env["GREETING"] == "it's\n two lines"


def test_functions_options_and_aliases_of_bash_are_in_it(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text(
        "shopt -s extglob\nalias ll='ls -l'\nshown() { echo \"$1\"; }\n"
        "inner() { case $1 in +([0-9])) echo number;; esac; }\nexport -f shown\n"
        "set -o noclobber\nprintf() { echo mine; }\nalias builtin=false\n"
    )
    output = run(ShellKind.BASH, "-lc", snapshot_script(ShellKind.BASH), {}, home=tmp_path)
    text = read_snapshot(ShellKind.BASH, output)
    assert b"alias ll='ls -l'\n" in text
    assert b"set -o noclobber\n" in text
    assert b"inner ()" in text
    assert b"# aliases 2\n" in text
    file = tmp_path / "snapshot.sh"
    file.write_bytes(text)
    script = loading_script(ShellKind.BASH, str(file), ["/bin/bash", "-lc", "shown 42"], [])
    assert run(ShellKind.BASH, "-c", script, {}, home=tmp_path) == b"42\n"


@given(st.dictionaries(NAMES.map("V_{}".format), VALUES))
def test_every_variable_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]) -> None:
    told = "".join(f"{name}={value}\0" for name, value in env.items()).encode()
    text = read_snapshot(ShellKind.SH, shown(told))
    file = tmp_path_factory.mktemp("snapshot") / "file.sh"
    file.write_bytes(text)
    output = run(ShellKind.SH, "-c", f"set -e; . {single_quoted(str(file))}; env -0", {}, home=file.parent)
    found = shown_environment(output)
    assert {name: value for name, value in found.items() if name in env} == env
    assert b"# exports %d\n" % len(env) in text


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "SHLVL", "_", "BASH_FUNC_f%%", "1st", "with-dash", ""])
def test_what_is_the_shells_own_or_no_name_is_not_exported(name: str) -> None:
    text = read_snapshot(ShellKind.BASH, shown(f"{name}=x\0A=b\0".encode()))
    assert text.endswith(b"# exports 1\nexport A='b'\n")


@pytest.mark.parametrize(
    "output",
    [b"", b"nothing of it", b"x # Snapshot file\n\0\0\0A=b\0", b"# Snapshot file\nf() {", shown(b"A=cut")],
)
def test_what_is_incomplete_is_refused(output: bytes) -> None:
    with pytest.raises(ValueError, match=r"^the (profile|shell) "):
        read_snapshot(ShellKind.BASH, output)


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])))
def test_a_quoted_text_is_one_word(text: str) -> None:
    script = f"printf '%s' {single_quoted(text)}"
    assert subprocess.run(["/bin/sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout.decode() == text


@pytest.mark.parametrize("kind", KINDS)
def test_loading_keeps_what_it_is_told_and_passes_words_on(kind: ShellKind, tmp_path: Path) -> None:
    file = tmp_path / "it's a file.sh"
    file.write_text("export FORCED=profile GONE=profile ADDED=profile\nset -eu\nalias exec=false\necho noise\n")
    program = str(shutil.which(kind.value))
    argv = [program, "-lc", 'printf "%s\\n" "$FORCED" "${GONE-none}" "$ADDED" "$0" "$1"', "zero", "it's one"]
    script = loading_script(kind, str(file), argv, ["FORCED", "GONE", "no name"])
    output = run(kind, "-c", script, {"FORCED": "kept"}, home=tmp_path)
    assert output.decode().splitlines() == ["kept", "none", "profile", "zero", "it's one"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_file_the_login_shell_runs(kind: ShellKind, tmp_path: Path) -> None:
    (tmp_path / ".profile").write_text("export FROM=profile\n")
    (tmp_path / ".zprofile").write_text("export FROM=profile\n")
    argv = [str(shutil.which(kind.value)), "-lc", "echo $FROM"]
    script = loading_script(kind, str(tmp_path / "missing"), argv, ["FROM"])
    assert run(kind, "-c", script, {}, home=tmp_path) == b"profile\n"


def test_the_files_of_a_profile_are_told() -> None:
    home = {"HOME": "/home/me"}
    assert "/home/me/.bashrc" in profile_files(ShellKind.BASH, home)
    assert profile_files(ShellKind.SH, {**home, "ENV": "/etc/env"}) == ("/etc/env", "/home/me/.profile")
    assert "/z/.zshrc" in profile_files(ShellKind.ZSH, {**home, "ZDOTDIR": "/z"})
    assert profile_files(ShellKind.BASH, {}) == ()
