"""The header in which a host vouches for the program that asks: `x-oai-attestation` (config.md 15)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import msgspec
import trio

__all__ = ["ATTESTATION_HEADER", "AskClient", "AttestationProvider", "RequestCancelled", "client_attestation"]

logger = logging.getLogger("engine")

ATTESTATION_HEADER: Final = "x-oai-attestation"
LIMIT: Final = 0.1  # seconds a client has to answer

AttestationProvider = Callable[[str], Awaitable[str | None]]
"""Asked before each request with the thread id (`""`: none); the value of the header, or `None` for no header."""

AskClient = Callable[[str], Awaitable[object]]
"""Asks a client for a token; what it answers. `trio.Cancelled` passes; any other exception is a failed request."""

Status = Literal[0, 1, 2, 3, 4]
OK: Final = 0
TIMEOUT: Final = 1
FAILED: Final = 2
CANCELLED: Final = 3
MALFORMED: Final = 4


class RequestCancelled(Exception):
    """The client cancelled the request."""


async def client_attestation(ask: AskClient | None, thread_id: str, *, limit: float = LIMIT) -> str | None:
    """The header of a host whose clients vouch: a token, or why there is none. No client that can: no header.

    `ask` raises `RequestCancelled` where the client says so.
    """
    if ask is None:
        await trio.lowlevel.checkpoint()
        return None
    status: Status = TIMEOUT
    token: object = None
    try:
        with trio.move_on_after(limit):
            token = await ask(thread_id)
            status = OK if isinstance(token, str) and token else MALFORMED
    except RequestCancelled:
        status = CANCELLED
    except Exception as exc:
        logger.info("a client could not vouch for a request: %s", exc)
        status = FAILED
    header: dict[str, object] = {"v": 1, "s": status}
    if status == OK:
        header["t"] = token
    return msgspec.json.encode(header).decode()
