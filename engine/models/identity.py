"""How the engine names itself to model servers: `originator` and `user-agent` (session.md 4.6)."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from typing import Final

__all__ = ["DEFAULT_ORIGINATOR", "ORIGINATOR_VARIABLE", "is_header_name", "is_header_value", "originator", "user_agent"]

DEFAULT_ORIGINATOR: Final = "codex_cli_rs"
ORIGINATOR_VARIABLE: Final = "CODEX_INTERNAL_ORIGINATOR_OVERRIDE"

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")


def is_header_name(text: str) -> bool:
    """Whether `text` is an HTTP field name."""
    return _NAME.fullmatch(text) is not None


def is_header_value(text: str) -> bool:
    """Whether `text` may be an HTTP field value: visible ASCII, spaces, tabs."""
    return _VALUE.fullmatch(text) is not None


def originator(env: Mapping[str, str], default: str = DEFAULT_ORIGINATOR) -> str:
    """The program on whose behalf requests are made; the environment wins where it holds a valid header value."""
    override = env.get(ORIGINATOR_VARIABLE, "").strip()
    return override if override and is_header_value(override) else default


def user_agent(name: str, version: str, env: Mapping[str, str], suffix: str | None = None) -> str:
    """`{originator}/{version} ({os} {ver}; {arch}) {terminal}[ ({suffix})]`, with what no header may hold replaced."""
    text = f"{name}/{version} ({_system()}) {_terminal(env)}"
    if suffix:
        text += f" ({suffix})"
    return re.sub(r"[^\x20-\x7e]", "_", text)


@functools.cache
def _system() -> str:
    """Asked once: it goes into every request, and a call of the system costs more than the rest of the text."""
    # `platform` would start processes on some systems.
    system = os.uname()
    return f"{system.sysname} {system.release}; {system.machine}"


def _terminal(env: Mapping[str, str]) -> str:
    program = env.get("TERM_PROGRAM", "").strip()
    if program:
        version = env.get("TERM_PROGRAM_VERSION", "").strip()
        return f"{program}/{version}" if version else program
    return env.get("TERM", "").strip() or "unknown"
