"""Values as an administrator allows them at the start of a session (config.md 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from engine.config.features import FeatureSet
from engine.config.requirements import Requirements, approval_name, fallback_warning
from engine.config.trust import Trust
from engine.errors import ConfigError
from engine.permissions.constrained import ConstraintError
from engine.protocol.settings import ApprovalPolicy, GranularApproval

__all__ = ["Required"]


class Required:
    """Values as an administrator allows them. An explicit one that is refused leaves a warning, a default none."""

    def __init__(self, requirements: Requirements) -> None:
        self._requirements = requirements
        self.warnings: list[str] = list(requirements.warnings())

    def approval_policy(self, value: object, trust: Trust | None) -> ApprovalPolicy:
        """The policy, by trust where none is given."""
        required = self._requirements.approval_policies
        if isinstance(value, Mapping):
            policy: ApprovalPolicy = GranularApproval(**value["granular"])
        elif value is not None:
            policy = cast(str, value)
        else:
            policy = "untrusted" if trust is not None and trust.level == "untrusted" else "on-request"
        try:
            self._requirements.check_approval_policy(policy)
        except ConstraintError as error:
            assert required
            self._refused("approval_policy", approval_name(required[0]), error, explicit=value is not None)
            return required[0]
        return policy

    def approvals_reviewer(self, value: object) -> str:
        """The reviewer, by default the user."""
        reviewer = "user" if value in (None, "user") else "guardian_subagent"
        try:
            self._requirements.check_approvals_reviewer(reviewer)
        except ConstraintError as error:
            allowed = self._requirements.approvals_reviewers or ("user",)
            self._refused("approvals_reviewer", allowed[0], error, explicit=value is not None)
            return allowed[0]
        return reviewer

    def web_search(self, explicit: str | None, mode: str) -> str:
        """The mode; `explicit` is what was asked for."""
        try:
            self._requirements.check_web_search(mode)
        except ConstraintError as error:
            allowed = self._requirements.required_web_search
            self._refused("web_search_mode", allowed.capitalize(), error, explicit=explicit is not None)
            return allowed
        return mode

    def features(self, features: FeatureSet) -> FeatureSet:
        """The same features. Raises `ConfigError` where one implies another that is pinned off."""
        for key in self._requirements.features:
            try:
                self._requirements.check_feature(key, features.enabled[key])
            except ConstraintError as error:
                raise ConfigError(str(error), key="features") from error
        return features

    def _refused(self, field: str, required: str, error: ConstraintError, *, explicit: bool) -> None:
        if explicit:
            self.warnings.append(fallback_warning(field, required, error))
