"""What a session says about its configuration when it starts, in the order in which it is said (session.md 2.4, C3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.config.constraints import Required
from engine.config.features import FeatureSet, unstable_warning
from engine.config.permissions import ConfiguredPermissions
from engine.config.projects import ignored_keys_warning
from engine.config.unsupported import Unsupported
from engine.config.values import Values

__all__ = ["startup_warnings"]


def startup_warnings(
    values: Values,
    features: FeatureSet,
    permissions: ConfiguredPermissions,
    required: Required,
    ignored: Iterable[Unsupported],
    config_path: str,
) -> Iterator[str]:
    """The warnings of a resolved configuration; `config_path` is the user's file, `ignored` what has no effect."""
    feature_table = values.table("features")
    for layer in values.stack.layers:
        if layer.ignored:
            yield ignored_keys_warning(layer)
    yield from permissions.warnings
    yield from required.warnings
    yield from (thing.warning for thing in ignored if thing.announced)
    if not values.flag("suppress_unstable_features_warning", False):
        unstable = unstable_warning(feature_table, features.enabled, config_path)
        if unstable:
            yield unstable
