"""The text of shell snapshots: the script that shows what a profile sets, the file made of it, how it is loaded. Pure.

tools.md 3.5. What a shell shows is read as sections with NUL bytes between them, which no shell text can hold; the
environment is read as `env -0` tells it, so that values with newlines stay whole.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from engine.execution.shells import ShellKind
from engine.records import frozen

__all__ = [
    "MARKER",
    "READABLE_SHELLS",
    "SNAPSHOT_BYTES",
    "loading_script",
    "profile_files",
    "read_snapshot",
    "single_quoted",
    "snapshot_script",
]

MARKER = "# Snapshot file"
SNAPSHOT_BYTES = 1024 * 1024  # what is kept of the output of a command; a longer one is cut, so it can't be used

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Those of the shell itself: where it is, what it ran last, how deep it is.
_NOT_EXPORTED = frozenset({"PWD", "OLDPWD", "SHLVL", "_"})


@frozen
class _Dialect:
    """How a kind of shell says it. `own` before a builtin keeps a function of the same name out."""

    profile: str  # what an interactive shell would read besides
    files: tuple[str, ...]  # what it reads of the user's home
    functions: str
    aliases: str
    own: str = "builtin "
    first: str = ""  # what the functions need to be read again


_DIALECTS: Mapping[ShellKind, _Dialect] = {
    ShellKind.BASH: _Dialect(
        profile='"${HOME-}/.bashrc"',
        files=(".bash_profile", ".bash_login", ".profile", ".bashrc"),
        functions="builtin declare -f; builtin declare -Fx",
        aliases="builtin alias -p",
        first="shopt -s extglob\n",
    ),
    ShellKind.ZSH: _Dialect(
        profile='"${ZDOTDIR:-${HOME-}}/.zshrc"',
        files=(".zshenv", ".zprofile", ".zshrc", ".zlogin"),
        functions="builtin functions",
        aliases="builtin alias -L",
    ),
    # A plain shell shows no functions, and its aliases not in a form that every one reads again.
    ShellKind.SH: _Dialect(profile='"${ENV-}"', files=(".profile",), functions=":", aliases=":", own=""),
}
READABLE_SHELLS: Collection[ShellKind] = _DIALECTS.keys()


def profile_files(kind: ShellKind, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The files of the user, there or not, that a login shell of this kind runs for a snapshot."""
    home = environment.get("HOME", "")
    folder = environment.get("ZDOTDIR") or home if kind is ShellKind.ZSH else home
    named = (environment.get("ENV", ""),) if kind is ShellKind.SH else ()
    found = (*named, *(posixpath.join(folder, name) for name in _DIALECTS[kind].files))
    return tuple(path for path in found if path.startswith("/"))


def snapshot_script(kind: ShellKind) -> str:
    """What a login shell runs to show what it has: the marker, then functions, options, aliases and environment."""
    dialect = _DIALECTS[kind]
    between = f"{dialect.own}printf '\\0'"
    return "\n".join(
        [
            # Read as one command: aliases that the profile defines don't change what follows.
            "{",
            f"if [ -r {dialect.profile} ]; then . {dialect.profile}; fi </dev/null >/dev/null 2>&1 || :",
            f"{dialect.own}printf '%s\\n' '{MARKER}'",
            f"{{ {dialect.functions}; }} || :",
            between,
            f"{dialect.own}set +o || :",
            between,
            f"{{ {dialect.aliases}; }} || :",
            between,
            "command env -0",
            "} 2>/dev/null",
        ]
    )


def read_snapshot(kind: ShellKind, shown: bytes) -> bytes:
    """The file, from what the script showed. Raises `ValueError` where that is incomplete."""
    dialect = _DIALECTS[kind]
    marked = re.search(rb"^" + re.escape(MARKER.encode()) + rb"\n", shown, re.MULTILINE)
    if marked is None:
        raise ValueError("the profile ends the shell before it can show what it has")
    functions, *rest = shown[marked.end() :].split(b"\0", 3)
    if len(rest) != 3 or (rest[2] and not rest[2].endswith(b"\0")):
        raise ValueError("the shell does not show all it has")
    options = [line for line in rest[0].split(b"\n") if line.startswith(b"set -o ")]
    exports = list(_exports(rest[2]))
    aliases = rest[1].strip(b"\n")
    return b"\n".join(
        [
            MARKER.encode(),
            b"unalias -a 2>/dev/null || true",
            dialect.first.encode() + functions.strip(b"\n"),
            b"# setopts %d" % len(options),
            *options,
            b"# aliases %d" % len(re.findall(rb"^alias ", aliases, re.MULTILINE)),
            aliases,
            b"# exports %d" % len(exports),
            *exports,
            b"",
        ]
    )


def _exports(environment: bytes) -> Iterator[bytes]:
    for entry in environment.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if not equals or not _NAME.fullmatch(text := name.decode(errors="replace")) or text in _NOT_EXPORTED:
            continue
        yield b"export " + name + b"='" + value.replace(b"'", b"'\"'\"'") + b"'"


def loading_script(kind: ShellKind, file: str, argv: Sequence[str], keep: Collection[str]) -> str:
    """The script that loads a snapshot and becomes `argv`, the script call of a login shell.

    The variables in `keep` are afterwards what they were before. Where the snapshot can't be read, as in a sandbox
    that hides it, `argv` runs as it is.
    """
    own = _DIALECTS[kind].own
    names = [name for name in keep if _NAME.fullmatch(name)]
    shell, _, *words = argv
    call = " ".join(map(single_quoted, words))
    lines = ["{", "__engine_flag=-lc", f"if [ -r {single_quoted(file)} ]; then"]
    for number, name in enumerate(names):
        lines.append(f"__engine_has_{number}=${{{name}+x}} __engine_was_{number}=${{{name}-}}")
    lines += [f". {single_quoted(file)} >/dev/null 2>&1 || :", "__engine_flag=-c"]
    for number, name in enumerate(names):
        lines.append(
            f'case $__engine_has_{number} in x) {own}export {name}="$__engine_was_{number}" ;; '
            f"*) {own}unset {name} ;; esac 2>/dev/null || :"
        )
    lines += ["fi", f'{own}exec {single_quoted(shell)} "$__engine_flag" {call}', "}"]
    return "\n".join(lines)


def single_quoted(text: str) -> str:
    """The text as one word of a shell."""
    return "'" + text.replace("'", "'\"'\"'") + "'"
