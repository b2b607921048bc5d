"""Whether a patch may be written without a question, needs one, or is refused (tools.md 2.6). Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from engine.protocol.settings import ApprovalPolicy, GranularApproval

__all__ = ["OUTSIDE", "READ_ONLY", "assess_patch"]

OUTSIDE = "patch rejected: writing outside of the project; rejected by user approval settings"
READ_ONLY = "patch rejected: writing is blocked by read-only sandbox; rejected by user approval settings"


def assess_patch(
    paths: Sequence[str],
    *,
    approval_policy: ApprovalPolicy,
    can_write: Callable[[str], bool],
    writable_roots: bool,
) -> Literal["write", "ask"] | str:
    """`write`, `ask`, or the text of the refusal. `paths` are all that the patch touches, moves included.

    `writable_roots`: whether the policy lets anything be written at all. Patches are held to the policy by this
    process, so there is always something that enforces it.
    """
    if approval_policy == "untrusted":
        return "ask"
    if approval_policy == "on-failure" or all(map(can_write, paths)):
        return "write"
    prompts = approval_policy.sandbox_approval if isinstance(approval_policy, GranularApproval) else True
    if approval_policy == "never" or not prompts:
        return OUTSIDE if writable_roots else READ_ONLY
    return "ask"
