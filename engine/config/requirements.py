"""What an administrator requires: `requirements.toml` of the system folder (config.md 2).

Requirements act on resolved values, never on the merged table. What is required but not enforced by this engine yet is
listed, so that it can be said.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import attrs

from engine.config.features import FEATURE_ALIASES, FEATURES
from engine.config.kinds import Report
from engine.config.schema import APPROVAL_POLICY
from engine.config.sightings import Sightings
from engine.config.source import TomlFile, read_toml
from engine.errors import ConfigError
from engine.permissions.constrained import ConstraintError, EmptyField, InvalidValue
from engine.permissions.requirements import PermissionRequirements, RequirementClass, variant_name
from engine.protocol.paths import absolute_path
from engine.protocol.settings import ApprovalPolicy, GranularApproval
from engine.records import frozen

__all__ = ["NO_REQUIREMENTS", "Requirements", "parse_requirements", "read_requirements", "with_managed"]

T = TypeVar("T")
Table = Mapping[str, object]

FILE = "requirements.toml"

_APPROVAL_NAMES: Mapping[str, str] = {
    "untrusted": "UnlessTrusted",
    "on-failure": "OnFailure",
    "on-request": "OnRequest",
    "never": "Never",
}
_REVIEWERS: Mapping[str, str] = {
    "user": "user",
    "guardian_subagent": "guardian_subagent",
    "auto_review": "guardian_subagent",
}
_SANDBOXES = ("read-only", "workspace-write", "danger-full-access", "external-sandbox")
_SEARCH_NAMES: Mapping[str, str] = {"disabled": "Disabled", "cached": "Cached", "live": "Live"}
_REQUIRED_FEATURES: Mapping[str, str] = {"auto_review": "guardian_approval"}
_NOT_YET = (
    "allow_managed_hooks_only",
    "hooks",
    "mcp_servers",
    "plugins",
    "apps",
    "experimental_network",
    "guardian_policy_config",
)


@frozen(kw_only=True)
class Requirements:
    """What may be chosen. None allows everything; the first of a list is what stands in for a refused value.

    `residency` is where requests must be processed. `features` are pinned. `sources` says per field who requires it,
    where that is not `source`. `rules` is the table of rules for commands as it is written (`engine.exec_policy` reads
    it), None without one. `notices` are about the requirements themselves.
    """

    approval_policies: tuple[ApprovalPolicy, ...] | None = None
    approvals_reviewers: tuple[str, ...] | None = None
    web_search_modes: tuple[str, ...] | None = None
    permissions: PermissionRequirements = PermissionRequirements()
    residency: str | None = None
    features: Mapping[str, bool] = attrs.field(factory=dict)
    rules: object = None
    source: str = "<unspecified>"
    sources: Mapping[str, str] = attrs.field(factory=dict)
    notices: tuple[str, ...] = ()
    not_enforced: tuple[str, ...] = ()

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
        file = read_toml(path)
    except ConfigError as error:
        raise _unreadable(path, error.message, error.line, error.column, error.key) from error
    found = NO_REQUIREMENTS if file is None else parse_requirements(file, home)
    return found if managed is None else with_managed(found, managed)


def with_managed(found: Requirements, managed: TomlFile) -> Requirements:
    """What `managed_config.toml` sets is all that may be chosen, where the requirements say nothing of it."""
    sources = dict(found.sources)
    policies, reviewers, permissions = found.approval_policies, found.approvals_reviewers, found.permissions
    policy, reviewer, mode = map(managed.table.get, ("approval_policy", "approvals_reviewer", "sandbox_mode"))
    if policies is None and policy is not None:
        report = Report()
        APPROVAL_POLICY.check(policy, (), report)
        if not report.problems:  # a wrong one is the error of its layer
            policies = (_policy(policy),)
            sources["approval_policy"] = managed.path
    if reviewers is None and isinstance(reviewer, str) and reviewer in _REVIEWERS:
        reviewers = ("user",) if reviewer == "user" else ("guardian_subagent", "user")
        sources["approvals_reviewer"] = managed.path
    if permissions.sandbox_classes is None and mode in _SANDBOXES:
        classes = tuple(dict.fromkeys(("read-only", cast(RequirementClass, mode))))
        permissions = attrs.evolve(permissions, sandbox_classes=classes, sandbox_source=managed.path)
    return attrs.evolve(
        found,
        approval_policies=policies,
        approvals_reviewers=reviewers,
        permissions=permissions,
        sources=sources,
    )


def parse_requirements(file: TomlFile, home: str | None, hostname: Callable[[], str] | None = None) -> Requirements:
    """The requirements of a document. `hostname` is asked where they depend on it. Raises `ConfigError`."""
    reading = _Reading(file)
    table = file.table
    approvals = reading.strings_or_tables("allowed_approval_policies")
    reviewers = reading.choices("allowed_approvals_reviewers", tuple(_REVIEWERS))
    searches = reading.choices("allowed_web_search_modes", tuple(_SEARCH_NAMES))
    features, notices = reading.features()
    return Requirements(
        approval_policies=approvals,
        approvals_reviewers=None if reviewers is None else tuple(_REVIEWERS[name] for name in reviewers),
        web_search_modes=None if searches is None else tuple(dict.fromkeys((*searches, "disabled"))),
        permissions=PermissionRequirements(
            sandbox_classes=reading.sandbox_classes(functools.cache(hostname or _hostname)),
            sandbox_source=file.path,
            deny_read=reading.deny_read(home),
            deny_read_source=file.path,
        ),
        residency=reading.choice("enforce_residency", ("us",)),
        features=features,
        rules=table.get("rules"),
        source=file.path,
        notices=notices,
        not_enforced=tuple(key for key in _NOT_YET if table.get(key)),
    )


class _Reading:
    """One document; errors name the place."""

    def __init__(self, file: TomlFile) -> None:
        self.file = file

    def choices(self, key: str, known: tuple[str, ...], table: Table | None = None) -> tuple[str, ...] | None:
        listed = self._list(key, self.file.table if table is None else table)
        if listed is None:
            return None
        for value in listed:
            if value not in known:
                raise self.error(f"unknown variant `{value}`, expected one of {', '.join(known)}", key)
        return tuple(cast("list[str]", listed))

    def choice(self, key: str, known: tuple[str, ...]) -> str | None:
        """One of a few strings."""
        value = self.file.table.get(key)
        if value is not None and value not in known:
            raise self.error(f"unknown variant `{value}`, expected {', '.join(f'`{name}`' for name in known)}", key)
        return value

    def strings_or_tables(self, key: str) -> tuple[ApprovalPolicy, ...] | None:
        listed = self._list(key, self.file.table)
        if listed is None:
            return None
        if not listed:
            raise self.constraint(EmptyField(key), key)
        made: list[ApprovalPolicy] = []
        for value in listed:
            report = Report()
            APPROVAL_POLICY.check(value, (key,), report)
            for problem in report.problems:
                raise self.error(problem.message, key)
            made.append(_policy(value))
        return tuple(made)

    def features(self) -> tuple[Mapping[str, bool], tuple[str, ...]]:
        """Pinned features, and what to say about the names they were given."""
        pins: dict[str, bool] = {}
        notices: list[str] = []
        for table_name in ("features", "feature_requirements"):
            table = self.file.table.get(table_name, {})
            if not isinstance(table, dict) or not all(isinstance(value, bool) for value in table.values()):
                raise self.error("expected a table of booleans", table_name)
            for name in sorted(table):
                key = _REQUIRED_FEATURES.get(name, FEATURE_ALIASES.get(name, name))
                which = f"`features` requirement `{name}` from {self.file.path}"
                if key not in FEATURES:
                    notices.append(f"Ignoring unknown {which}")
                    continue
                if key != name:
                    notices.append(f"Using legacy {which}; prefer canonical feature key `{key}`")
                pins[key] = table[name]
        return pins, tuple(notices)

    def sandbox_classes(self, hostname: Callable[[], str]) -> tuple[RequirementClass, ...] | None:
        key = "allowed_sandbox_modes"
        found = self.choices(key, _SANDBOXES)
        for rule in cast("list[Table]", self._list("remote_sandbox_config", self.file.table) or []):
            if not isinstance(rule, Mapping):
                raise self.error("expected an array of tables", "remote_sandbox_config")
            patterns = self._list("hostname_patterns", rule) or []
            if any(isinstance(pattern, str) and _host_matches(pattern, hostname()) for pattern in patterns):
                found = self.choices(key, _SANDBOXES, rule)
                break
        if found is not None and "read-only" not in found:
            names = f"[{', '.join(map(variant_name, found))}]"
            required = "must include 'read-only' to allow any PermissionProfile"
            raise self.constraint(InvalidValue(key, names, required, self.file.path), key)
        return cast("tuple[RequirementClass, ...] | None", found)

    def deny_read(self, home: str | None) -> tuple[str, ...]:
        table = self.file.table
        for key in ("permissions", "filesystem"):
            below = table.get(key)
            if below is None:
                return ()
            if not isinstance(below, dict):
                raise self.error("expected a table", key)
            table = below
        listed = self._list("deny_read", table) or []
        if not all(isinstance(text, str) and text for text in listed):
            raise self.error("expected an array of paths", "permissions")
        base = os.path.dirname(self.file.path)
        return tuple(dict.fromkeys(absolute_path(text, base, home) for text in cast("list[str]", listed)))

    def _list(self, key: str, table: Table) -> list[object] | None:
        value = table.get(key)
        if value is not None and not isinstance(value, list):
            raise self.error("expected an array", key)
        return value

    def error(self, message: str, key: str) -> ConfigError:
        line, column = self.file.locate((key,)) or (None, None)
        return _unreadable(self.file.path, f"`{key}`: {message}", line, column, key)

    def constraint(self, error: ConstraintError, key: str) -> ConfigError:
        line, column = self.file.locate((key,)) or (None, None)
        return ConfigError(str(error), file=self.file.path, line=line, column=column, key=key)


def _policy(value: object) -> ApprovalPolicy:
    """A checked value as a policy."""
    return GranularApproval(**value["granular"]) if isinstance(value, Mapping) else cast(str, value)


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _unreadable(path: str, detail: str, line: int | None, column: int | None, key: str | None) -> ConfigError:
    where = "" if line is None else f" (line {line}, column {column})"
    made = ConfigError(f"Error parsing requirements file {path}: {detail}{where}")
    made.file, made.line, made.column, made.key = path, line, column, key
    return made


def _host_matches(pattern: str, host: str) -> bool:
    """Wildcards `*` and `?`, whatever the case; a trailing dot does not count."""
    parts = re.split(r"([*?])", pattern.rstrip(".").lower())
    regex = "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)
    return re.fullmatch(regex, host.rstrip(".").lower(), re.DOTALL) is not None


def _hostname() -> str:
    """The full name of the host where it resolves, else what the kernel calls it."""
    import socket

    kernel = os.uname().nodename
    full = socket.getfqdn(kernel)
    return full if "." in full else kernel
