"""What a session says about its configuration when it starts, in the order in which it is said (session.md 2.4, C3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.config.constraints import Required
from engine.config.features import FeatureSet, unstable_warning
from engine.config.permissions import ConfiguredPermissions
from engine.config.projects import ignored_keys_warning
from engine.config.unsupported import Unsupported
from engine.config.values import Values

__all__ = ["startup_warnings", "unstable_notice"]


def startup_warnings(
    values: Values, permissions: ConfiguredPermissions, required: Required, ignored: Iterable[Unsupported]
) -> Iterator[str]:
    """The warnings of a resolved configuration; `ignored` is what has no effect."""
    for layer in values.stack.layers:
        if layer.ignored:
            yield ignored_keys_warning(layer)
    yield from permissions.warnings
    yield from required.warnings
    yield from (thing.warning for thing in ignored if thing.announced)


def unstable_notice(values: Values, features: FeatureSet, config_path: str) -> str | None:
    """What follows all other warnings, where features under development are on; `config_path` is the user's file."""
    if values.flag("suppress_unstable_features_warning", False):
        return None
    return unstable_warning(values.table("features"), features.enabled, config_path)
