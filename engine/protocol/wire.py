"""What every wire class is made of: field kinds, unknown fields and unknown variants that survive a round trip.

A wire class is a frozen attrs class below `Wire`. Fields it does not know are kept in `extra` and written back.
A class of a tagged union has its tag in the class variable `type`; a tag nobody knows becomes `UnknownVariant`.
How a field is written is said where it is declared: always (a plain field), `optional()` (left out when `None`),
`defaulted()` (left out at its default), `unwritten()` (read, never written).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, cast

import attrs

from engine.records import frozen

__all__ = ["EMPTY", "JsonObject", "UnknownVariant", "Wire", "defaulted", "optional", "unwritten"]

JsonObject = dict[str, object]

EMPTY: Mapping[str, object] = MappingProxyType({})

OMIT_DEFAULT = "engine.omit_default"
UNWRITTEN = "engine.unwritten"

T = TypeVar("T")


def optional() -> Any:
    """A field that is `None` when absent and left out when `None`."""
    return attrs.field(default=None, metadata={OMIT_DEFAULT: True})


def defaulted(default: T | None = None, *, factory: Callable[[], T] | None = None) -> T:
    """A field that is left out of the wire while it has its default."""
    if factory is not None:
        return attrs.field(factory=factory, metadata={OMIT_DEFAULT: True})
    return cast(T, attrs.field(default=default, metadata={OMIT_DEFAULT: True}))


def unwritten() -> Any:
    """A field that is read (and carried in memory) but never written."""
    return attrs.field(default=None, metadata={UNWRITTEN: True})


@frozen
class Wire:
    """Base of everything that crosses a wire. `extra` holds fields this version does not know."""

    extra: Mapping[str, object] = attrs.field(default=EMPTY, kw_only=True, repr=False)


@frozen
class UnknownVariant:
    """A member of a tagged union whose tag this version does not know; `raw` is written back as it came."""

    raw: JsonObject
    tag_name: ClassVar[str] = "type"

    @property
    def type(self) -> str:
        """The unknown tag, or `""` where the value has none."""
        tag = self.raw.get("type")
        return tag if isinstance(tag, str) else ""
