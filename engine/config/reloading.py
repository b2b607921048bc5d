"""The user's own layers read again for a session that runs (session.md 3.1, `reload_user_config`). Pure.

What the start resolved stays for the session's life: features, models, approvals. What is looked up in the layers when
it is needed follows the file: named permission profiles, what sandbox modes mean, and what a user brings along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs

from engine.config.layers import LayerStack
from engine.config.loading import check_layers
from engine.config.unsupported import unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.config.model import Config

__all__ = ["with_user_layers"]


def with_user_layers(config: Config, fresh: LayerStack) -> Config:
    """`config` with the user layers of `fresh` in the place of its own; all other layers stay as they are.

    Raises `ConfigError` where all of them together would be no configuration. One that came from a lock file is as
    before.
    """
    if config.lock is not None and config.lock.loaded is not None:
        return config
    kept = [layer for layer in config.layers if layer.name != "user"]
    users = [layer for layer in fresh.everything if layer.name == "user"]
    stack = LayerStack(sorted([*kept, *users], key=lambda layer: layer.precedence))
    check_layers(stack)
    source = attrs.evolve(config.permissions.source, stack=stack)
    features = cast("Mapping[str, object]", stack.get("features") or {})
    return attrs.evolve(
        config,
        permissions=attrs.evolve(config.permissions, source=source),
        unsupported=tuple(unsupported(stack.table, config.features, features)),
        layers=stack.everything,
        origins=stack.origins,
        raw=stack.table,
    )
