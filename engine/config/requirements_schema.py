"""Every key of `requirements.toml` with its kind (config.md 2)."""

from __future__ import annotations

from collections.abc import Mapping

from engine.config.kinds import ANY, BOOL, PATH, STR, TABLE, Choice, Kind, ListOf, MapOf, Report, Table
from engine.config.layers import Path
from engine.config.schema import APPROVAL_POLICY

__all__ = ["REQUIREMENTS", "REVIEWERS", "SANDBOXES", "SEARCH_MODES"]

REVIEWERS: Mapping[str, str] = {
    "user": "user",
    "guardian_subagent": "guardian_subagent",
    "auto_review": "guardian_subagent",
}
SANDBOXES = ("read-only", "workspace-write", "danger-full-access", "external-sandbox")
SEARCH_MODES = ("disabled", "cached", "live")


class _Text(Kind):
    """A string with something in it."""

    def check(self, value: object, path: Path, report: Report) -> None:
        if not isinstance(value, str) or not value:
            self.mismatch(value, path, report, "a path")


class _Identity(Kind):
    """What an MCP server must be: `{command}` or `{url}`."""

    def check(self, value: object, path: Path, report: Report) -> None:
        known = Table({"command": STR, "url": STR})
        known.check(value, path, report)
        if isinstance(value, Mapping) and len({"command", "url"} & set(value)) != 1:
            report.fail(path, "expected either `command` or `url`")


class _Network(Kind):
    """The managed network; its older lists can't stand beside the newer tables."""

    def check(self, value: object, path: Path, report: Report) -> None:
        TABLE.check(value, path, report)
        if isinstance(value, Mapping):
            for older, newer in (
                ("allowed_domains", "domains"),
                ("denied_domains", "domains"),
                ("allow_unix_sockets", "unix_sockets"),
            ):
                if older in value and newer in value:
                    report.fail((*path, older), f"`{older}` can't be combined with `{newer}`")


_MODES = ListOf(Choice(SANDBOXES))
_SERVER = Table({"identity": _Identity()}, required=("identity",))

REQUIREMENTS = Table(
    {
        "allowed_approval_policies": ListOf(APPROVAL_POLICY),
        "allowed_approvals_reviewers": ListOf(Choice(tuple(REVIEWERS))),
        "allowed_sandbox_modes": _MODES,
        "remote_sandbox_config": ListOf(
            Table(
                {"hostname_patterns": ListOf(STR), "allowed_sandbox_modes": _MODES},
                required=("hostname_patterns", "allowed_sandbox_modes"),
            )
        ),
        "allowed_web_search_modes": ListOf(Choice(SEARCH_MODES)),
        "allow_managed_hooks_only": BOOL,
        "features": MapOf(BOOL),
        "feature_requirements": MapOf(BOOL),
        "hooks": Table({"managed_dir": PATH, "windows_managed_dir": PATH}, rest=ANY),
        "mcp_servers": MapOf(_SERVER),
        "plugins": MapOf(Table({"mcp_servers": MapOf(_SERVER)})),
        "apps": MapOf(
            Table({"enabled": BOOL, "tools": MapOf(Table({"approval_mode": Choice(("auto", "prompt", "approve"))}))})
        ),
        "rules": ANY,
        "enforce_residency": Choice(("us",)),
        "experimental_network": _Network(),
        "permissions": Table({"filesystem": Table({"deny_read": ListOf(_Text())})}),
        "guardian_policy_config": STR,
    }
)
