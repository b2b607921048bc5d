"""Permission fields of clients: both spellings, relative paths, and what can't be combined."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from engine.errors import InvalidRequest
from engine.permissions.app_server import (
    StartFields,
    TurnFields,
    decode_policy,
    decode_start_fields,
    decode_turn_fields,
    encode_policy,
)
from engine.permissions.memory_view import MemoryView
from engine.protocol.profiles import ReadOnly, SandboxPolicy, WorkspaceWrite
from tests.permissions.policies import legacy_policies
from tests.protocol.wire_values import json_values

VIEW = MemoryView(home="/home/u", cwd="/start")


@given(legacy_policies)
def test_policies_come_back_as_they_were(policy: SandboxPolicy) -> None:
    assert decode_policy(encode_policy(policy)) == policy


def test_every_field_is_written() -> None:
    assert encode_policy(ReadOnly()) == {"type": "readOnly", "networkAccess": False}
    assert encode_policy(WorkspaceWrite()) == {
        "type": "workspaceWrite",
        "writableRoots": [],
        "networkAccess": False,
        "excludeTmpdirEnvVar": False,
        "excludeSlashTmp": False,
    }


@given(json_values)
def test_nothing_but_invalid_requests(value: object) -> None:
    for read in (
        lambda: decode_policy(value),
        lambda: decode_turn_fields({"sandboxPolicy": value, "cwd": value, "runtimeWorkspaceRoots": value}, "/", VIEW),
        lambda: decode_start_fields({"sandbox": value, "permissions": value}, VIEW),
    ):
        try:
            read()
        except InvalidRequest:
            pass


def test_starts() -> None:
    assert decode_start_fields({}, VIEW) == StartFields(cwd="/start")
    made = decode_start_fields(
        {"cwd": "sub", "permissions": "dev", "runtimeWorkspaceRoots": [".", "../x", "~/y", "/z/", "/z"]}, VIEW
    )
    assert made == StartFields(
        cwd="/start/sub", permissions="dev", workspace_roots=("/start/sub", "/start/x", "/home/u/y", "/z")
    )
    assert decode_start_fields({"sandbox": "read-only"}, VIEW).sandbox == "read-only"


def test_turns() -> None:
    assert decode_turn_fields({}, "/w", VIEW) == TurnFields()
    made = decode_turn_fields(
        {"cwd": "../q", "runtimeWorkspaceRoots": ["."], "sandboxPolicy": {"type": "readOnly"}}, "/w/a", VIEW
    )
    assert made == TurnFields(cwd="/w/q", workspace_roots=("/w/q",), sandbox_policy=ReadOnly())
    assert decode_turn_fields({"runtimeWorkspaceRoots": ["x"]}, "/w", VIEW).workspace_roots == ("/w/x",)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"permissions": "x", "sandbox": "read-only"}, "`permissions` cannot be combined with `sandbox`"),
        ({"sandbox": "readOnly"}, "`sandbox`: expected one of"),
        ({"cwd": 1}, "`cwd`: expected a string"),
        ({"runtimeWorkspaceRoots": "x"}, "`runtimeWorkspaceRoots`: expected an array of strings"),
    ],
)
def test_wrong_starts(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        decode_start_fields(params, VIEW)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"permissions": "x", "sandboxPolicy": {"type": "readOnly"}},
            "`permissions` cannot be combined with `sandboxPolicy`",
        ),
        ({"sandboxPolicy": {"type": "read-only"}}, "invalid sandbox policy"),
        ({"sandboxPolicy": {"type": "workspaceWrite", "writableRoots": ["rel"]}}, "must be an absolute path"),
    ],
)
def test_wrong_turns(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        decode_turn_fields(params, "/", VIEW)
