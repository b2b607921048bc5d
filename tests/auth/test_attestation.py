"""What the header says about a client that vouches, or does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from engine.auth.attestation import RequestCancelled, client_attestation


async def asked(answer: Any) -> Any:
    async def ask(thread_id: str) -> object:
        assert thread_id == "T"
        if isinstance(answer, Exception):
            raise answer
        if answer == "slow":
            await trio.sleep_forever()
        return answer

    header = await client_attestation(ask, "T")
    assert header is not None
    return json.loads(header)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("token", {"v": 1, "s": 0, "t": "token"}),
        ("slow", {"v": 1, "s": 1}),
        (ValueError("x"), {"v": 1, "s": 2}),
        (RequestCancelled(), {"v": 1, "s": 3}),
        ("", {"v": 1, "s": 4}),
        (5, {"v": 1, "s": 4}),
        (None, {"v": 1, "s": 4}),
    ],
)
async def test_what_is_said(answer: Any, wanted: Any, autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    assert await asked(answer) == wanted
    assert trio.current_time() - began == pytest.approx(0.1 if answer == "slow" else 0)


async def test_no_client_no_header() -> None:
    assert await client_attestation(None, "T") is None
