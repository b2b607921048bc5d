"""The environment of a command, as the policy wants it (tools.md 3.1, config.md 10). Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from engine.protocol.environment import ShellEnvironmentPolicy

__all__ = ["build_environment", "unified_exec_environment"]

THREAD_ID_VARIABLE = "CODEX_THREAD_ID"
_CORE_NAMES = frozenset(
    ["PATH", "SHELL", "TMPDIR", "TEMP", "TMP", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "USER"]
)
_DEFAULT_EXCLUDES = ("*KEY*", "*SECRET*", "*TOKEN*")
_UNIFIED_EXEC = {
    "NO_COLOR": "1",
    "TERM": "dumb",
    "LANG": "C.UTF-8",
    "LC_CTYPE": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "COLORTERM": "",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GH_PAGER": "cat",
    "CODEX_CI": "1",
}


def build_environment(
    policy: ShellEnvironmentPolicy, base: Mapping[str, str], thread_id: str | None = None
) -> dict[str, str]:
    """The whole environment of a command; `base` is the engine's own. Order of `base` first, then of `set`."""
    if policy.inherit == "none":
        env = {}
    elif policy.inherit == "core":
        env = {name: value for name, value in base.items() if name.upper() in _CORE_NAMES}
    else:
        env = dict(base)
    if not policy.ignore_default_excludes:
        env = _without(env, _DEFAULT_EXCLUDES)
    env = _without(env, policy.exclude)
    env.update(policy.set)
    if policy.include_only:
        keep = _matcher(policy.include_only)
        env = {name: value for name, value in env.items() if keep.fullmatch(name)}
    if thread_id is not None:
        env[THREAD_ID_VARIABLE] = thread_id
    return env


def unified_exec_environment(env: Mapping[str, str]) -> dict[str, str]:
    """`env` with what `exec_command` forces: no colours, no pagers, UTF-8, a dumb terminal."""
    return {**env, **_UNIFIED_EXEC}


def _without(env: Mapping[str, str], patterns: tuple[str, ...]) -> dict[str, str]:
    if not patterns:
        return dict(env)
    drop = _matcher(patterns)
    return {name: value for name, value in env.items() if not drop.fullmatch(name)}


@functools.lru_cache(maxsize=16)
def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for all; every turn asks with the same few patterns."""
    wildcards = {"*": ".*", "?": "."}
    # Runs of `*` mean one, and would make the expression slow.
    parts = [
        "".join(wildcards.get(letter) or re.escape(letter) for letter in re.sub(r"\*+", "*", pattern))
        for pattern in patterns
    ]
    return re.compile("|".join(parts), re.IGNORECASE | re.DOTALL)
