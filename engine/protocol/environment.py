"""`shell_environment_policy`: which variables a command sees (config.md 10, tools.md 3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import attrs

from engine.records import frozen

__all__ = ["ShellEnvironmentPolicy"]


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@frozen
class ShellEnvironmentPolicy:
    """Applied in the order of the fields. Patterns are case-insensitive wildcards (`*`, `?`) on names.

    Beware: secrets pass by default; `ignore_default_excludes=False` drops `*KEY*`, `*SECRET*` and `*TOKEN*`.
    `include_only` filters what `set` added, too. `experimental_use_profile` is kept and has no effect.
    """

    inherit: Literal["all", "core", "none"] = "all"
    ignore_default_excludes: bool = True
    exclude: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    set: Mapping[str, str] = attrs.field(factory=dict)
    include_only: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    experimental_use_profile: bool = False
