"""What the plan of the login means for a session that starts: its service tier (session.md 2.2, A13), and requirements
that would have to come from a server (config.md 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from engine.session.settings import Unset

if TYPE_CHECKING:
    from engine.config.providers import ProviderInfo
    from engine.models.opening import ModelPool
    from engine.session.configuration import SessionConfiguration

__all__ = ["CLOUD_PLANS", "FAST_PLANS", "with_account_plan"]

# As tokens name them: enterprises, businesses, teams.
FAST_PLANS = frozenset(
    ("enterprise", "hc", "business", "enterprise_cbp_usage_based", "team", "self_serve_business_usage_based")
)
# Whose administrators can set requirements in the cloud.
CLOUD_PLANS = frozenset(("enterprise", "hc", "business", "enterprise_cbp_usage_based", "edu", "education"))
CLOUD_IGNORED = (
    "An administrator can set requirements in the cloud for logins with the plan `{plan}`. This engine does not fetch "
    "them: only those of this machine hold."
)


async def with_account_plan(
    configuration: SessionConfiguration, provider: ProviderInfo, models: ModelPool, *chosen: str | Unset | None
) -> SessionConfiguration:
    """The configuration with the tier `priority` where the login's plan includes it and nobody said anything of tiers,
    and with a warning where an administrator may have required what is not known here.

    `chosen` is what the start says of the tier; `None` is an answer, too. No tier for somebody who opted out
    (`notice.fast_default_opt_out`), nor without the feature `fast_mode`. Nothing for providers without such a login.
    """
    if not provider.requires_openai_auth:
        return configuration
    plan = await models.account_plan()
    if plan is None:
        return configuration
    if plan.lower() in CLOUD_PLANS:
        warnings = (*configuration.warnings, CLOUD_IGNORED.format(plan=plan))
        configuration = attrs.evolve(configuration, warnings=warnings)
    config = configuration.config
    if (
        configuration.service_tier is None
        and plan.lower() in FAST_PLANS
        and config.features["fast_mode"]
        and not config.fast_default_opt_out
        and all(isinstance(tier, Unset) for tier in chosen)
    ):
        return attrs.evolve(configuration, service_tier="priority")
    return configuration
