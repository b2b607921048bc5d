"""Appends a rule that a user agreed to, to a rules file (tools.md 5.4).

Writers of other processes may do the same: an advisory lock (`flock`) puts them in a row, and a line that is there
already is not written again. Blocks; call it in a worker thread.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from engine.exec_policy.errors import AmendmentError
from engine.exec_policy.hosts import normalize_host
from engine.exec_policy.rules import PROTOCOLS, Decision, NetworkProtocol

__all__ = ["append_network_rule", "append_prefix_rule", "default_rules_file", "network_rule_line", "prefix_rule_line"]

_LOCK_SECONDS = 5.0
_LOCK_PAUSE_SECONDS = 0.02
_SAVED_DECISIONS = {"allow": "allow", "prompt": "prompt", "forbidden": "deny"}


def default_rules_file(home: str | os.PathLike[str]) -> Path:
    """The file that amendments go to."""
    return Path(home, "rules", "default.rules")


def append_prefix_rule(file: str | os.PathLike[str], prefix: Sequence[str], decision: Decision = "allow") -> bool:
    """Adds `prefix_rule(pattern=[...], decision="...")`; False if the line was there already.

    Makes the folder of the file if only that is missing. Waits at most five seconds for another writer. Raises
    `AmendmentError`, with the file unchanged.
    """
    if not prefix:
        raise AmendmentError("a rule needs at least one word", file=file)
    return _append(file, prefix_rule_line(prefix, decision))


def append_network_rule(
    file: str | os.PathLike[str],
    host: str,
    protocol: NetworkProtocol,
    decision: Decision,
    justification: str | None = None,
) -> bool:
    """Adds `network_rule(host="...", ...)`, as `append_prefix_rule` does. The host must be one that rules can name."""
    try:
        normal = normalize_host(host)
    except ValueError as exc:
        raise AmendmentError(f"no rule can be made for the host {_literal(host)}: {exc}", file=file) from None
    if protocol not in PROTOCOLS or (justification is not None and not justification.strip()):
        raise AmendmentError(f"no rule can be made for protocol {protocol!r} and reason {justification!r}", file=file)
    return _append(file, network_rule_line(normal, protocol, decision, justification))


def prefix_rule_line(prefix: Sequence[str], decision: Decision) -> str:
    """The line of a rule, without its newline."""
    pattern = ", ".join(map(_literal, prefix))
    return f'prefix_rule(pattern=[{pattern}], decision="{decision}")'


def network_rule_line(
    host: str, protocol: NetworkProtocol, decision: Decision, justification: str | None = None
) -> str:
    """The line of a network rule, without its newline."""
    reason = "" if justification is None else f", justification={_literal(justification)}"
    saved = _SAVED_DECISIONS[decision]
    return f'network_rule(host={_literal(host)}, protocol="{protocol}", decision="{saved}"{reason})'


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _append(file: str | os.PathLike[str], line: str) -> bool:
    try:
        wanted = line.encode()
    except UnicodeEncodeError:
        raise AmendmentError("a word of the rule is not text and can't be saved", file=file) from None
    try:
        return _append_locked(os.fspath(file), wanted)
    except OSError as exc:
        raise AmendmentError(f"the rule could not be saved: {exc.strerror or exc}", file=file) from exc


def _append_locked(file: str, line: bytes) -> bool:
    folder = os.path.dirname(file)
    try:
        os.mkdir(folder)
    except FileExistsError:
        pass
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        descriptor = _open(file)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AmendmentError("is not a regular file", file=file)
            _lock(descriptor, file, deadline)
            if _is_still(file, descriptor):
                return _append_if_new(descriptor, line)
        finally:
            os.close(descriptor)  # and with it the lock
        if time.monotonic() > deadline:
            raise AmendmentError("another program keeps replacing it", file=file)


def _open(file: str) -> int:
    # A link would be followed to a place that rules are not read from; a pipe would keep us waiting.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(file, flags, 0o644)
    except OSError as exc:
        if exc.errno != errno.ELOOP:
            raise
        raise AmendmentError("is a symbolic link; rules are read from regular files only", file=file) from None


def _is_still(file: str, descriptor: int) -> bool:
    """Whether nobody put another file in the place of the open one while we waited for the lock, as editors do."""
    try:
        return os.path.samestat(os.lstat(file), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock(descriptor: int, file: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise AmendmentError("another program has it locked", file=file) from None
            time.sleep(_LOCK_PAUSE_SECONDS)


def _append_if_new(descriptor: int, line: bytes) -> bool:
    size = os.fstat(descriptor).st_size
    content = _read_all(descriptor, size)
    if line in content.split(b"\n"):
        return False
    missing = b"\n" if content and not content.endswith(b"\n") else b""
    addition = missing + line + b"\n"
    try:
        written = os.write(descriptor, addition)
        if written < len(addition):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.ftruncate(descriptor, size)  # half a rule would break the file
        raise
    return True


def _read_all(descriptor: int, size: int) -> bytes:
    pieces: list[bytes] = []
    at = 0
    while at < size:
        piece = os.pread(descriptor, size - at, at)
        if not piece:
            break
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)
