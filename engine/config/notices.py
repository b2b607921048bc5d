"""What a session says about its configuration when it starts, in the order in which it is said (session.md 2.4, C3)."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.constraints import Required
from engine.config.features import FeatureSet, unstable_warning
from engine.config.permissions import ConfiguredPermissions
from engine.config.projects import ignored_keys_warning
from engine.config.unsupported import unsupported_warnings
from engine.config.values import Values
from engine.protocol.settings import ApprovalPolicy

__all__ = ["startup_warnings"]

ON_FAILURE = (
    "`on-failure` approval policy is deprecated and will be removed in a future release. Use `on-request` for "
    "interactive approvals or `never` for non-interactive runs."
)


def startup_warnings(
    values: Values,
    features: FeatureSet,
    permissions: ConfiguredPermissions,
    required: Required,
    approval: ApprovalPolicy,
    config_path: str,
) -> Iterator[str]:
    """The warnings of a resolved configuration; `config_path` is the user's file."""
    feature_table = values.table("features")
    effective = {**values.stack.table, **values.profile, **values.session}
    for layer in values.stack.layers:
        if layer.ignored:
            yield ignored_keys_warning(layer)
    yield from permissions.warnings
    yield from required.warnings
    yield from unsupported_warnings(effective, features.enabled, feature_table)
    if not values.flag("suppress_unstable_features_warning", False):
        unstable = unstable_warning(feature_table, features.enabled, config_path)
        if unstable:
            yield unstable
    if approval == "on-failure":
        yield ON_FAILURE
