"""Which patches are written without a question, which need one, which are refused."""

from __future__ import annotations

import pytest

from engine.protocol.settings import ApprovalPolicy, GranularApproval
from engine.tools.patch_safety import OUTSIDE, READ_ONLY, assess_patch

ASKS = GranularApproval(sandbox_approval=True, rules=False, mcp_elicitations=False)
SILENT = GranularApproval(sandbox_approval=False, rules=True, mcp_elicitations=True)


@pytest.mark.parametrize(
    ("policy", "inside", "outside"),
    [
        ("untrusted", "ask", "ask"),
        ("on-failure", "write", "write"),
        ("on-request", "write", "ask"),
        ("never", "write", OUTSIDE),
        (ASKS, "write", "ask"),
        (SILENT, "write", OUTSIDE),
    ],
)
def test_the_table(policy: ApprovalPolicy, inside: str, outside: str) -> None:
    def can_write(path: str) -> bool:
        return path.startswith("/work/")

    def assess(*paths: str) -> str:
        return assess_patch(paths, approval_policy=policy, can_write=can_write, writable_roots=True)

    assert assess("/work/a", "/work/b") == inside
    assert assess("/work/a", "/etc/b") == outside


def test_a_read_only_policy_says_so() -> None:
    refused = assess_patch(["/a"], approval_policy="never", can_write=lambda path: False, writable_roots=False)
    assert refused == READ_ONLY
