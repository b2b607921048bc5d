"""What a rollout says about the repository of its cwd: commit, branch, origin; read from `.git`, without a process.

Damaged or unusual repositories (reftable, includes) give what can be read of them, never an error.
"""

from __future__ import annotations

import os
import re

from engine.protocol.settings import GitInfo

__all__ = ["find_git_root", "read_git_info"]

_MAX_FILE = 16 * 1024 * 1024  # packed-refs of a very large repository
_MAX_SYMBOLIC_DEPTH = 5  # as git
_OBJECT_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


def find_git_root(cwd: str) -> str | None:
    """The nearest folder from `cwd` upwards that has a `.git` (a folder, or the pointer file of a worktree)."""
    folder = os.path.abspath(cwd)
    while True:
        if os.path.exists(os.path.join(folder, ".git")):
            return folder
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def read_git_info(cwd: str) -> GitInfo | None:
    """Facts about the repository that `cwd` is in; None outside of one. A few file reads, no process, never raises."""
    root = find_git_root(cwd)
    if root is None:
        return None
    git_dir = _git_dir(root)
    if git_dir is None:
        return GitInfo()
    # A worktree has its own HEAD; branches and configuration are the main repository's.
    common = git_dir
    if pointer := _read(os.path.join(git_dir, "commondir")).strip():
        common = os.path.join(git_dir, pointer)
    commit, branch = _head(git_dir, common)
    return GitInfo(
        commit_hash=commit,
        branch=_printable(branch),
        repository_url=_printable(_origin_url(_read(os.path.join(common, "config")))),
    )


def _git_dir(root: str) -> str | None:
    path = os.path.join(root, ".git")
    if os.path.isdir(path):
        return path
    marker, _, target = _read(path).partition(":")
    return os.path.join(root, target.strip()) if marker == "gitdir" and target.strip() else None


def _head(git_dir: str, common: str) -> tuple[str | None, str | None]:
    branch = None
    value = _read(os.path.join(git_dir, "HEAD")).strip()
    for _ in range(_MAX_SYMBOLIC_DEPTH):
        if not value.startswith("ref:"):
            break
        name = value[4:].strip()
        if not name.startswith("refs/") or ".." in name or "\0" in name or name.endswith("/.invalid"):
            return None, branch  # `.invalid` stands in HEAD when branches are in a reftable
        if branch is None and name.startswith("refs/heads/"):
            branch = name.removeprefix("refs/heads/")
        value = (_read(os.path.join(git_dir, name)) or _read(os.path.join(common, name))).strip()
        value = value or _packed(common, name)
    return (value if _OBJECT_ID.fullmatch(value) else None), branch


def _packed(common: str, name: str) -> str:
    for line in _read(os.path.join(common, "packed-refs")).splitlines():
        commit, _, ref = line.partition(" ")
        if ref == name:
            return commit
    return ""


def _origin_url(config: str) -> str | None:
    """`remote.origin.url` of a git configuration file."""
    in_origin = False
    for line in config.splitlines():
        line = line.strip()
        if header := re.match(r'\[\s*([\w.-]+)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\]', line):
            in_origin = header[1].lower() == "remote" and header[2] == "origin"
            line = line[header.end() :].strip()
        if in_origin and (entry := re.match(r"url\s*=\s*(.*)", line, re.IGNORECASE)):
            return _config_value(entry[1]) or None
    return None


def _config_value(text: str) -> str:
    """Quotes and escapes resolved, a comment cut off."""
    value, quoted, letters = "", False, iter(text)
    for letter in letters:
        if letter == "\\":
            following = next(letters, "")
            value += {"n": "\n", "t": "\t", "b": "\b"}.get(following, following)
        elif letter == '"':
            quoted = not quoted
        elif letter in "#;" and not quoted:
            break
        else:
            value += letter
    return value.strip()


def _printable(text: str | None) -> str | None:
    """Without the stand-ins for bytes that are no UTF-8: a rollout could not hold them."""
    return text and text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _read(path: str) -> str:
    """Text of a file; empty when it can't be read. Not of a FIFO or device, which could block."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            return file.read(_MAX_FILE).decode("utf-8", "surrogateescape")
    except (OSError, ValueError):
        return ""
