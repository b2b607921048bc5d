"""Reading `requirements.toml` of the system folder, and what `managed_config.toml` requires (config.md 2)."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping
from typing import cast

import attrs

from engine.config.features import FEATURE_ALIASES, FEATURES
from engine.config.kinds import Report
from engine.config.layers import dotted
from engine.config.requirements import NO_REQUIREMENTS, AppRequirement, McpIdentity, Requirements
from engine.config.requirements_schema import REQUIREMENTS, REVIEWERS, SANDBOXES
from engine.config.schema import APPROVAL_POLICY
from engine.config.source import TomlFile, read_toml
from engine.errors import ConfigError
from engine.permissions.constrained import ConstraintError, EmptyField, InvalidValue
from engine.permissions.requirements import PermissionRequirements, RequirementClass, variant_name
from engine.protocol.paths import absolute_path
from engine.protocol.settings import ApprovalPolicy, GranularApproval

__all__ = ["parse_requirements", "requirements_of_file", "with_managed"]

Table = Mapping[str, object]

_REQUIRED_FEATURES: Mapping[str, str] = {"auto_review": "guardian_approval"}
# What would have to run, or to hold back what runs. Servers, plugins, apps and hooks of others do not run yet, so that
# what forbids them holds.
_NOT_YET = ("hooks", "experimental_network", "guardian_policy_config")


def requirements_of_file(path: str, home: str | None) -> Requirements:
    """The requirements of a file, none where it is missing. Blocks for a file read. Raises `ConfigError`."""
    try:
        file = read_toml(path)
    except ConfigError as error:
        raise _unreadable(path, error.message, error.line, error.column, error.key) from error
    return NO_REQUIREMENTS if file is None else parse_requirements(file, home)


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
    if reviewers is None and isinstance(reviewer, str) and reviewer in REVIEWERS:
        reviewers = ("user",) if reviewer == "user" else ("guardian_subagent", "user")
        sources["approvals_reviewer"] = managed.path
    if permissions.sandbox_classes is None and mode in SANDBOXES:
        classes = tuple(dict.fromkeys(("read-only", cast(RequirementClass, mode))))
        permissions = attrs.evolve(permissions, sandbox_classes=classes, sandbox_source=managed.path)
        sources["sandbox_mode"] = managed.path
    return attrs.evolve(
        found,
        approval_policies=policies,
        approvals_reviewers=reviewers,
        permissions=permissions,
        sources=sources,
    )


def parse_requirements(file: TomlFile, home: str | None, hostname: Callable[[], str] | None = None) -> Requirements:
    """The requirements of a document. `hostname` is asked where they depend on it. Raises `ConfigError`."""
    unknown = _check(file)
    table = file.table
    approvals = _list(table, "allowed_approval_policies")
    if approvals == []:
        raise _constraint(file, EmptyField("allowed_approval_policies"), "allowed_approval_policies")
    reviewers = _list(table, "allowed_approvals_reviewers")
    searches = _list(table, "allowed_web_search_modes")
    features, notices = _features(file)
    return Requirements(
        approval_policies=None if approvals is None else tuple(map(_policy, approvals)),
        approvals_reviewers=None if reviewers is None else tuple(REVIEWERS[str(name)] for name in reviewers),
        web_search_modes=None if searches is None else tuple(dict.fromkeys((*map(str, searches), "disabled"))),
        permissions=PermissionRequirements(
            sandbox_classes=_sandbox_classes(file, functools.cache(hostname or _hostname)),
            sandbox_source=file.path,
            deny_read=_deny_read(file, home),
            deny_read_source=file.path,
        ),
        residency=cast("str | None", table.get("enforce_residency")),
        features=features,
        mcp_servers=None if "mcp_servers" not in table else _servers(table),
        plugins=None
        if "plugins" not in table
        else {name: _servers(plugin) for name, plugin in _table(table, "plugins").items()},
        apps={name: _app(cast(Table, app)) for name, app in _table(table, "apps").items()},
        hooks=_hooks(file, home),
        managed_hooks_only=table.get("allow_managed_hooks_only") is True,
        network=cast("Table | None", table.get("experimental_network")),
        guardian_policy=str(table.get("guardian_policy_config", "")).strip() or None,
        rules=table.get("rules"),
        source=file.path,
        notices=notices,
        unknown_keys=unknown,
        not_enforced=tuple(key for key in _NOT_YET if _asks(table.get(key))),
    )


def _check(file: TomlFile) -> tuple[str, ...]:
    """The keys nobody knows; they have no effect. Raises `ConfigError` for the first wrong value."""
    report = Report()
    REQUIREMENTS.check(file.table, (), report)
    for problem in report.problems:
        line, column = file.locate(problem.path) or (None, None)
        key = dotted(problem.path)
        raise _unreadable(file.path, f"`{key}`: {problem.message}", line, column, key)
    return tuple(map(dotted, report.unknown))


def _asks(value: object) -> bool:
    """Whether something is asked for, and not just its absence."""
    return bool(value.strip() if isinstance(value, str) else value)


def _features(file: TomlFile) -> tuple[Mapping[str, bool], tuple[str, ...]]:
    """Pinned features, and what to say about the names they were given."""
    pins: dict[str, bool] = {}
    notices: list[str] = []
    for table_name in ("features", "feature_requirements"):
        table = _table(file.table, table_name)
        for name in sorted(table):
            key = _REQUIRED_FEATURES.get(name, FEATURE_ALIASES.get(name, name))
            which = f"`features` requirement `{name}` from {file.path}"
            if key not in FEATURES:
                notices.append(f"Ignoring unknown {which}")
                continue
            if key != name:
                notices.append(f"Using legacy {which}; prefer canonical feature key `{key}`")
            pins[key] = table[name] is True
    return pins, tuple(notices)


def _sandbox_classes(file: TomlFile, hostname: Callable[[], str]) -> tuple[RequirementClass, ...] | None:
    key = "allowed_sandbox_modes"
    found = _list(file.table, key)
    for rule in cast("list[Table]", _list(file.table, "remote_sandbox_config") or []):
        if any(_host_matches(str(pattern), hostname()) for pattern in _list(rule, "hostname_patterns") or []):
            found = _list(rule, key)
            break
    if found is not None and "read-only" not in found:
        names = f"[{', '.join(variant_name(cast(RequirementClass, name)) for name in found)}]"
        required = "must include 'read-only' to allow any PermissionProfile"
        raise _constraint(file, InvalidValue(key, names, required, file.path), key)
    return None if found is None else tuple(cast("list[RequirementClass]", found))


def _deny_read(file: TomlFile, home: str | None) -> tuple[str, ...]:
    """Absolute, relative ones from the folder of the file."""
    listed = _list(_table(_table(file.table, "permissions"), "filesystem"), "deny_read") or []
    base = os.path.dirname(file.path)
    return tuple(dict.fromkeys(absolute_path(str(text), base, home) for text in listed))


def _hooks(file: TomlFile, home: str | None) -> Table | None:
    if "hooks" not in file.table:
        return None
    base = os.path.dirname(file.path)
    found = REQUIREMENTS.keys["hooks"].rebase(file.table["hooks"], lambda text: absolute_path(text, base, home))
    return cast(Table, found)


def _servers(table: object) -> Mapping[str, McpIdentity]:
    servers = cast("Mapping[str, Mapping[str, Mapping[str, str]]]", _table(cast(Table, table), "mcp_servers"))
    return {name: McpIdentity(**server["identity"]) for name, server in servers.items()}


def _app(table: Table) -> AppRequirement:
    tools = cast("Mapping[str, Mapping[str, str]]", _table(table, "tools"))
    modes = {name: tool["approval_mode"] for name, tool in tools.items() if "approval_mode" in tool}
    return AppRequirement(cast("bool | None", table.get("enabled")), modes)


def _table(table: Table, key: str) -> Table:
    return cast(Table, table.get(key) or {})


def _list(table: Table, key: str) -> list[object] | None:
    return cast("list[object] | None", table.get(key))


def _constraint(file: TomlFile, error: ConstraintError, key: str) -> ConfigError:
    line, column = file.locate((key,)) or (None, None)
    return ConfigError(str(error), file=file.path, line=line, column=column, key=key)


def _policy(value: object) -> ApprovalPolicy:
    """A checked value as a policy."""
    return GranularApproval(**value["granular"]) if isinstance(value, Mapping) else cast(str, value)


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
