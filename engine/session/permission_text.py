"""What the model is told about what it may touch, and when and how it may ask for more (session.md 4.2). Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engine.permissions.access import resolve_entries
from engine.permissions.profiles import enforcement_of, file_system_of, network_of
from engine.permissions.whole_disk import has_full_disk_read, has_full_disk_write
from engine.protocol.profiles import FileSystemSandboxPolicy, GlobPath, NetworkAccess, PermissionProfile
from engine.protocol.settings import ApprovalPolicy, GranularApproval

if TYPE_CHECKING:
    from engine.exec_policy.rules import PrefixRule
    from engine.permissions.view import View

__all__ = ["asks_by_parameters", "permission_text"]

MOST_PLACES = 50  # of one kind; a policy with more is told by its number
MOST_PREFIXES = 100
MOST_PREFIX_CHARS = 5000  # of all prefixes together

_HOW_TO_ASK = (
    "When a command that matters fails because of the sandbox, or is sure to, run it again with `sandbox_permissions` "
    "set to `require_escalated` and a short question to the user in `justification`. Do not ask in a message first, "
    "and do not look for ways around the sandbox. A `prefix_rule` with the leading words of the command lets the user "
    "allow similar commands from now on: keep it narrow."
)
_NO_NEED = (
    "Nothing holds commands back, so no call needs `sandbox_permissions`; the user is asked before dangerous commands."
)
_NO_PARAMETERS = "Calls that set `sandbox_permissions` are refused."
_ADDITIONAL = (
    "If a few more places or the network are all it needs, prefer `with_additional_permissions`: the command then "
    "stays in the sandbox."
)
_TOOL = "The tool `request_permissions` asks for permissions that all later commands and patches have."
_KINDS = (
    ("sandbox_approval", "commands and patches that the sandbox stops, and dangerous commands"),
    ("rules", "commands that a rule wants to be asked about"),
    ("skill_approval", "scripts of skills"),
    ("request_permissions", "the tool `request_permissions`"),
    ("mcp_elicitations", "questions of MCP servers"),
)


def permission_text(
    profile: PermissionProfile,
    approval_policy: ApprovalPolicy,
    *,
    cwd: str,
    view: View,
    features: Mapping[str, bool],
    allowed: Sequence[PrefixRule] = (),
) -> str:
    """The block about permissions. `profile` is without symbols; `allowed` are the rules that allow commands."""
    restricted = file_system_of(profile).kind == "restricted"
    parts = [_sandbox(profile, cwd, view), _approval(approval_policy, features, restricted=restricted)]
    if asks_by_parameters(approval_policy) and allowed:
        parts.append(_prefixes(allowed))
    body = "\n".join(parts)
    return f"<permissions instructions>\n{body}\n</permissions instructions>"


def asks_by_parameters(policy: ApprovalPolicy) -> bool:
    """Whether the policy is one of those under which allowed prefixes are worth knowing."""
    return policy == "on-request" or isinstance(policy, GranularApproval)


def _sandbox(profile: PermissionProfile, cwd: str, view: View) -> str:
    policy = file_system_of(profile)
    network = _network(network_of(profile))
    if enforcement_of(profile) == "external":
        return (
            "Sandbox mode: `danger-full-access`. Somebody else isolates this machine; commands run as they are. "
            + network
        )
    if policy.kind != "restricted" or has_full_disk_write(policy):
        kept = "" if policy.kind != "restricted" else _denied(policy, cwd, view)
        return (
            "Sandbox mode: `danger-full-access`. Every file the user may change can be changed." + kept + " " + network
        )
    rows = resolve_entries(policy, cwd, view)
    writable = sorted({path for path, access, _ in rows if access == "write"})
    if has_full_disk_read(policy):
        readable = "Every file can be read"
    else:
        readable = f"Can be read: {_list(sorted({path for path, access, _ in rows if access == 'read'}))}"
    if not writable:
        mode = f"Sandbox mode: `read-only`. {readable}; nothing can be changed."
    else:
        mode = (
            f"Sandbox mode: `workspace-write`. {readable}. Can be changed, with all below: {_list(writable)}; `.git`, "
            "`.agents` and `.codex` directly below these stay as they are."
        )
    return mode + _denied(policy, cwd, view) + " " + network


def _denied(policy: FileSystemSandboxPolicy, cwd: str, view: View) -> str:
    paths = {path for path, access, _ in resolve_entries(policy, cwd, view) if access == "none"}
    globs = {
        entry.path.pattern for entry in policy.entries if entry.access == "none" and isinstance(entry.path, GlobPath)
    }
    denied = sorted(paths | globs)
    return f" Neither read nor changed can be: {_list(denied)}." if denied else ""


def _list(places: Sequence[str]) -> str:
    shown = ", ".join(f"`{place}`" for place in places[:MOST_PLACES])
    return shown if len(places) <= MOST_PLACES else f"{shown} and {len(places) - MOST_PLACES} more"


def _network(access: NetworkAccess) -> str:
    return "Network access is enabled." if access == "enabled" else "Network access is restricted."


def _approval(policy: ApprovalPolicy, features: Mapping[str, bool], *, restricted: bool) -> str:
    if isinstance(policy, GranularApproval):
        reach = [text for flag, text in _KINDS if getattr(policy, flag)]
        refused = [text for flag, text in _KINDS if not getattr(policy, flag)]
        lines = ["Approval policy: `granular`."]
        if reach:
            lines.append(f"The user is asked about: {'; '.join(reach)}.")
        if refused:
            lines.append(f"Refused without a question: {'; '.join(refused)}.")
        return " ".join([*lines, _NO_PARAMETERS])
    match policy:
        case "never":
            return (
                "Approval policy: `never`. Nobody can be asked: work with what is allowed, or say what is missing. "
                + _NO_PARAMETERS
            )
        case "untrusted":
            return (
                "Approval policy: `untrusted`. The user is asked before each command that is not known to only read; "
                "just call the tool. " + _NO_PARAMETERS
            )
        case "on-failure":
            return (
                "Approval policy: `on-failure`. When the sandbox stops a command, the user is asked whether to run it "
                "without; just call the tool. " + _NO_PARAMETERS
            )
        case "on-request":
            return f"Approval policy: `on-request`. {_how(features) if restricted else _NO_NEED}"
    return f"Approval policy: `{policy}`."


def _how(features: Mapping[str, bool]) -> str:
    parts = [_HOW_TO_ASK]
    if features.get("exec_permission_approvals", False):
        parts.append(_ADDITIONAL)
    if features.get("request_permissions_tool", False):
        parts.append(_TOOL)
    return " ".join(parts)


def _prefixes(rules: Sequence[PrefixRule]) -> str:
    lines = list(dict.fromkeys(_prefix(rule) for rule in sorted(rules, key=_order)))
    shown: list[str] = []
    room = MOST_PREFIX_CHARS
    for line in lines[:MOST_PREFIXES]:
        room -= len(line)
        if room < 0:
            break
        shown.append(line)
    more = [f"- and {len(lines) - len(shown)} more"] if len(shown) < len(lines) else []
    head = "Commands that begin with these words run outside of the sandbox, without a question:"
    return "\n".join([head, *shown, *more])


def _order(rule: PrefixRule) -> tuple[int, str]:
    """Short ones first, as they allow the most."""
    return len(rule.rest), _prefix(rule)


def _prefix(rule: PrefixRule) -> str:
    words = [rule.program, *(group[0] if len(group) == 1 else list(group) for group in rule.rest)]
    return f"- {json.dumps(words, ensure_ascii=False)}"
