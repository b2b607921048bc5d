"""Tables `[mcp_servers.<name>]`: one transport each, and only its keys (extensibility.md 1); which may be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from engine.config.kinds import BOOL, FLOAT, STR, ByType, Choice, Kind, ListOf, MapOf, Report, Table, Whole
from engine.config.layers import Path

__all__ = ["ConfiguredServer", "McpServer", "configured_servers"]


class ConfiguredServer(NamedTuple):
    """A server of the configuration. `disabled` says why it is not used: by whom, or that the configuration says so."""

    name: str
    table: Mapping[str, object]
    disabled: str | None = None


def configured_servers(
    tables: Mapping[str, Mapping[str, object]], refused: Callable[[str, Mapping[str, object]], str | None]
) -> tuple[ConfiguredServer, ...]:
    """All servers by name; `refused` says which an administrator does not allow, and why."""
    made = []
    for name in sorted(tables):
        off = "disabled in the configuration" if tables[name].get("enabled") is False else None
        made.append(ConfiguredServer(name, tables[name], refused(name, tables[name]) or off))
    return tuple(made)


_APPROVAL = Choice(("auto", "prompt", "approve"))
_STRINGS = ListOf(STR)

_KEYS = Table(
    {
        "name": STR,
        "command": STR,
        "args": _STRINGS,
        "env": MapOf(STR),
        "env_vars": ListOf(
            ByType({str: STR, dict: Table({"name": STR, "source": STR}, required=("name",))}, "a name or a table")
        ),
        "cwd": STR,
        "url": STR,
        "bearer_token": STR,
        "bearer_token_env_var": STR,
        "http_headers": MapOf(STR),
        "env_http_headers": MapOf(STR),
        "oauth": Table({"client_id": STR}),
        "oauth_resource": STR,
        "scopes": _STRINGS,
        "experimental_environment": STR,
        "enabled": BOOL,
        "required": BOOL,
        "supports_parallel_tool_calls": BOOL,
        "startup_timeout_sec": FLOAT,
        "startup_timeout_ms": Whole(),
        "tool_timeout_sec": FLOAT,
        "enabled_tools": _STRINGS,
        "disabled_tools": _STRINGS,
        "default_tools_approval_mode": _APPROVAL,
        "tools": MapOf(Table({"approval_mode": _APPROVAL})),
    }
)

_NOT_STDIO = (
    "url",
    "bearer_token_env_var",
    "bearer_token",
    "http_headers",
    "env_http_headers",
    "oauth",
    "oauth_resource",
)
_NOT_HTTP = ("args", "env", "env_vars", "cwd", "bearer_token")


class McpServer(Kind):
    """One server's table."""

    def check(self, value: object, path: Path, report: Report) -> None:
        _KEYS.check(value, path, report)
        if not isinstance(value, Mapping):
            return
        if "command" not in value and "url" not in value:
            report.fail(path, "invalid transport")
            return
        transport = "stdio" if "command" in value else "streamable_http"
        for key in _NOT_STDIO if transport == "stdio" else _NOT_HTTP:
            if key in value:
                report.fail((*path, key), f"{key} is not supported for {transport}")
        variables = value.get("env_vars")
        for index, entry in enumerate(variables if isinstance(variables, list) else ()):
            source = entry.get("source", "local") if isinstance(entry, dict) else "local"
            if isinstance(source, str) and source not in ("local", "remote"):
                report.fail(
                    (*path, "env_vars", index), f"unsupported env_vars source `{source}`; expected `local` or `remote`"
                )
