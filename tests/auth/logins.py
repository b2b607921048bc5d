"""Logins, token servers and keyrings that the tests of auth share."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from engine.auth.manager import AuthManager, open_auth
from engine.auth.record import AuthRecord, Tokens
from engine.auth.refreshing import TOKEN_URL_VARIABLE
from engine.auth.storage import LoginStore
from engine.http import HttpClients

NOW = 1_800_000_000.0
DAY = 24 * 3600.0


def jwt(**claims: Any) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}.sig"


def identity(account: str = "acc", email: str = "me@example.com", plan: str = "plus") -> str:
    told = {"chatgpt_account_id": account, "chatgpt_plan_type": plan}
    return jwt(email=email, **{"https://api.openai.com/auth": told})


def chatgpt(access: str = "old", refresh: str = "r1", account: str | None = "acc", **more: Any) -> AuthRecord:
    tokens = Tokens(identity(account or "acc"), access, refresh, account)
    return AuthRecord(**{"auth_mode": "chatgpt", "tokens": tokens, "last_refresh": "2027-01-10T00:00:00Z", **more})


@attrs.define
class TokenServer:
    """What a token endpoint was asked; `answer` says what it answers."""

    url: str = ""
    requests: list[dict[str, Any]] = attrs.field(factory=list)
    answer: tuple[int, object] = (200, {"access_token": "new", "refresh_token": "r2", "id_token": identity()})
    gate: trio.Event | None = None
    arrived: trio.Event = attrs.field(factory=trio.Event)
    on_request: Callable[[], object] = lambda: None


@asynccontextmanager
async def token_server() -> AsyncIterator[TokenServer]:
    server = TokenServer()

    async def connection(stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some(65536)
            head, _, body = data.partition(b"\r\n\r\n")
            (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
            while len(body) < int(length.split(b":")[1]):
                body += await stream.receive_some(65536)
            server.requests.append(json.loads(body))
            server.on_request()
            server.arrived.set()
            if server.gate is not None:
                await server.gate.wait()
            status, content = server.answer
            told = content if isinstance(content, bytes) else json.dumps(content).encode()
            lines = f"HTTP/1.1 {status} X\r\ncontent-length: {len(told)}\r\nconnection: close\r\n\r\n"
            await stream.send_all(lines.encode() + told)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, connection, 0)
        server.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/oauth/token?x=secret"
        yield server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def managed(
    home: Path, server: TokenServer | None = None, *, env: Mapping[str, str] | None = None, **more: Any
) -> AsyncIterator[AuthManager]:
    variables = dict(env or {})
    if server is not None:
        variables[TOKEN_URL_VARIABLE] = server.url
    store = more.pop("store", None) or LoginStore(home)
    async with HttpClients(variables) as http:
        async with open_auth(store, http, env=variables, **{"now": lambda: NOW, **more}) as manager:
            yield manager


class FakeKeyring:
    """A keyring in a dictionary; `broken` is what its methods raise."""

    def __init__(self, broken: Exception | None = None) -> None:
        self.secrets: dict[tuple[str, str], str] = {}
        self.broken = broken
        self.calls: list[str] = []

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.broken is not None:
            raise self.broken

    def get_password(self, service: str, username: str) -> str | None:
        self._called("get")
        return self.secrets.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._called("set")
        self.secrets[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._called("delete")
        del self.secrets[service, username]
