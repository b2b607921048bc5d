"""What an administrator requires of a configuration, and the checks of values against it (config.md 2).

Requirements act on resolved values, never on the merged table. What is required but not enforced by this engine yet is
listed, so that it can be said. How a file says it: `engine.config.requirements_file`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import attrs

from engine.permissions.constrained import ConstraintError, InvalidValue
from engine.permissions.requirements import PermissionRequirements
from engine.protocol.settings import ApprovalPolicy, GranularApproval
from engine.records import frozen

if TYPE_CHECKING:
    from engine.config.sightings import Sightings
    from engine.config.source import TomlFile

__all__ = [
    "FILE",
    "NO_REQUIREMENTS",
    "AppRequirement",
    "McpIdentity",
    "Requirements",
    "approval_name",
    "fallback_warning",
    "read_requirements",
]

T = TypeVar("T")
Table = Mapping[str, object]

FILE = "requirements.toml"

_APPROVAL_NAMES: Mapping[str, str] = {
    "untrusted": "UnlessTrusted",
    "on-failure": "OnFailure",
    "on-request": "OnRequest",
    "never": "Never",
}
_SEARCH_NAMES: Mapping[str, str] = {"disabled": "Disabled", "cached": "Cached", "live": "Live"}


class McpIdentity(NamedTuple):
    """What an MCP server must be: one that is started by exactly this command, or reached at exactly this address."""

    command: str | None = None
    url: str | None = None

    def fits(self, server: Table) -> bool:
        """Whether a server's table is of that one."""
        if self.url is not None:
            return "command" not in server and server.get("url") == self.url
        return self.command is not None and server.get("command") == self.command


class AppRequirement(NamedTuple):
    """What may be done with an app: `enabled` False forbids it; `tools` has approval modes by name."""

    enabled: bool | None = None
    tools: Mapping[str, str] = {}

    def table(self) -> dict[str, object]:
        """As the file says it."""
        enabled = {} if self.enabled is None else {"enabled": self.enabled}
        tools = {name: {"approval_mode": mode} for name, mode in self.tools.items()}
        return {**enabled, **({"tools": tools} if tools else {})}


@frozen(kw_only=True)
class Requirements:
    """What may be chosen. None allows everything; the first of a list is what stands in for a refused value.

    - `residency`: where requests must be processed; `features` are pinned
    - `mcp_servers`: the servers that may be used, by name; `plugins`: the same for servers of plugins, by plugin
    - `hooks`: the table of managed hooks as it is written, paths absolute; `managed_hooks_only`: no others run
    - `network`: the table of the managed network; `guardian_policy`: for automatic reviews
    - `rules`: the table of rules for commands as it is written (`engine.exec_policy` reads it)
    - `sources` says per field who requires it, where that is not `source`; `notices` are about requirements themselves
    - `not_enforced`: keys that nothing here can enforce yet; `unknown_keys` are ignored
    """

    approval_policies: tuple[ApprovalPolicy, ...] | None = None
    approvals_reviewers: tuple[str, ...] | None = None
    web_search_modes: tuple[str, ...] | None = None
    permissions: PermissionRequirements = PermissionRequirements()
    residency: str | None = None
    features: Mapping[str, bool] = attrs.field(factory=dict)
    mcp_servers: Mapping[str, McpIdentity] | None = None
    plugins: Mapping[str, Mapping[str, McpIdentity]] | None = None
    apps: Mapping[str, AppRequirement] = attrs.field(factory=dict)
    hooks: Table | None = None
    managed_hooks_only: bool = False
    network: Table | None = None
    guardian_policy: str | None = None
    rules: object = None
    source: str = "<unspecified>"
    sources: Mapping[str, str] = attrs.field(factory=dict)
    notices: tuple[str, ...] = ()
    not_enforced: tuple[str, ...] = ()
    unknown_keys: tuple[str, ...] = ()

    def check_approval_policy(self, policy: ApprovalPolicy) -> None:
        """Raises `InvalidValue`."""
        _check("approval_policy", policy, self.approval_policies, approval_name, self.source_of("approval_policy"))

    def check_approvals_reviewer(self, reviewer: str) -> None:
        """Raises `InvalidValue`."""
        source = self.source_of("approvals_reviewer")
        _check("approvals_reviewer", reviewer, self.approvals_reviewers, _reviewer_name, source)

    def check_web_search(self, mode: str) -> None:
        """Raises `InvalidValue`."""
        _check("web_search_mode", mode, self.web_search_modes, _search_name, self.source)

    def check_feature(self, key: str, wanted: bool, *, path: str = "") -> None:
        """Raises `InvalidValue` for a feature that is pinned to the other value; `path` comes before its name."""
        if self.features.get(key, wanted) != wanted:
            allowed = ", ".join(f"{name}={_flag(value)}" for name, value in sorted(self.features.items()))
            raise InvalidValue("features", f"{path}{key}={_flag(wanted)}", f"[{allowed}]", self.source_of("features"))

    def refused_server(self, name: str, server: Table) -> str | None:
        """Why an MCP server of the configuration may not be used; None where it may."""
        if self.mcp_servers is None:
            return None
        identity = self.mcp_servers.get(name)
        return None if identity is not None and identity.fits(server) else f"requirements ({self.source})"

    def table(self) -> dict[str, object]:
        """What is required, as the file says it: keys in its order, names canonical, paths absolute."""
        modes, denied = self.permissions.sandbox_classes, self.permissions.deny_read
        policies = self.approval_policies
        told: dict[str, object] = {
            "allowed_approval_policies": None if policies is None else [_policy_value(policy) for policy in policies],
            "allowed_approvals_reviewers": None if self.approvals_reviewers is None else [*self.approvals_reviewers],
            "allowed_sandbox_modes": None if modes is None else [*modes],
            "allowed_web_search_modes": None if self.web_search_modes is None else [*self.web_search_modes],
            "allow_managed_hooks_only": self.managed_hooks_only or None,
            "features": dict(self.features) or None,
            "hooks": None if self.hooks is None else dict(self.hooks),
            "mcp_servers": None if self.mcp_servers is None else _identities(self.mcp_servers),
            "plugins": None
            if self.plugins is None
            else {name: {"mcp_servers": _identities(servers)} for name, servers in self.plugins.items()},
            "apps": {name: app.table() for name, app in self.apps.items()} or None,
            "rules": self.rules,
            "enforce_residency": self.residency,
            "experimental_network": None if self.network is None else dict(self.network),
            "permissions": {"filesystem": {"deny_read": [*denied]}} if denied else None,
            "guardian_policy_config": self.guardian_policy,
        }
        return {key: value for key, value in told.items() if value is not None}

    def source_of(self, field: str) -> str:
        """Who requires it."""
        return self.sources.get(field, self.source)

    @property
    def required_web_search(self) -> str:
        """What stands in for a refused mode."""
        allowed = self.web_search_modes or ("disabled",)
        return next(mode for mode in ("cached", "live", "disabled") if mode in allowed)

    def warnings(self) -> tuple[str, ...]:
        """What to say at a start."""
        return (
            *self.notices,
            *(
                f"the requirement `{key}` of {self.source} is not enforced yet by this engine"
                for key in self.not_enforced
            ),
        )


NO_REQUIREMENTS = Requirements()


def _check(field: str, candidate: T, allowed: tuple[T, ...] | None, name: Callable[[T], str], source: str) -> None:
    if allowed is not None and candidate not in allowed:
        raise InvalidValue(field, name(candidate), f"[{', '.join(map(name, allowed))}]", source)


def fallback_warning(field: str, required: str, error: ConstraintError) -> str:
    """What a start says of a configured value that is not allowed."""
    return (
        f"Configured value for `{field}` is disallowed by requirements; falling back to required value {required}. "
        f"Details: {error}"
    )


def approval_name(policy: ApprovalPolicy) -> str:
    """A policy as messages about requirements name it."""
    return "Granular" if isinstance(policy, GranularApproval) else _APPROVAL_NAMES.get(policy, policy)


def _reviewer_name(reviewer: str) -> str:
    return "User" if reviewer == "user" else "GuardianSubagent"


def _search_name(mode: str) -> str:
    return _SEARCH_NAMES.get(mode, mode)


def read_requirements(
    folder: str, home: str | None, *, managed: TomlFile | None = None, sightings: Sightings | None = None
) -> Requirements:
    """The requirements of a system folder; none where it has no file. `managed` fills what they leave open.

    Blocks for a file read. Raises `ConfigError`: nothing runs without them.
    """
    path = os.path.join(folder, FILE)
    if sightings is not None:
        sightings.contents(path)
    try:
        os.stat(path)
        there = True
    except (FileNotFoundError, NotADirectoryError):
        there = False
    except OSError:
        there = True  # whatever is wrong with it is to be said
    if managed is None and not there:
        return NO_REQUIREMENTS
    from engine.config.requirements_file import requirements_of_file, with_managed

    found = requirements_of_file(path, home)
    return found if managed is None else with_managed(found, managed)


def _policy_value(policy: ApprovalPolicy) -> object:
    return {"granular": attrs.asdict(policy)} if isinstance(policy, GranularApproval) else policy


def _identities(servers: Mapping[str, McpIdentity]) -> dict[str, object]:
    return {
        name: {"identity": {key: value for key, value in identity._asdict().items() if value is not None}}
        for name, identity in servers.items()
    }


def _flag(value: bool) -> str:
    return "true" if value else "false"
