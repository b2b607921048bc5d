"""The service tier of a session where nobody chose one: what its login's plan includes (session.md 2.2, A13)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from engine.session.settings import Unset

if TYPE_CHECKING:
    from engine.config.providers import ProviderInfo
    from engine.models.opening import ModelPool
    from engine.session.configuration import SessionConfiguration

__all__ = ["FAST_PLANS", "with_account_tier"]

# As tokens name them: enterprises, businesses, teams.
FAST_PLANS = frozenset(
    ("enterprise", "hc", "business", "enterprise_cbp_usage_based", "team", "self_serve_business_usage_based")
)


async def with_account_tier(
    configuration: SessionConfiguration, provider: ProviderInfo, models: ModelPool, *chosen: str | Unset | None
) -> SessionConfiguration:
    """The configuration with the tier `priority` where the login's plan includes it and nobody said anything of tiers.

    `chosen` is what the start says; a tier of `None` is an answer, too. Neither for somebody who opted out
    (`notice.fast_default_opt_out`), nor without the feature `fast_mode`, nor where the provider takes no such login.
    """
    config = configuration.config
    if (
        configuration.service_tier is not None
        or not provider.requires_openai_auth
        or config.fast_default_opt_out
        or not config.features["fast_mode"]
        or not all(isinstance(tier, Unset) for tier in chosen)
    ):
        return configuration
    plan = await models.account_plan()
    if plan is None or plan.lower() not in FAST_PLANS:
        return configuration
    return attrs.evolve(configuration, service_tier="priority")
