"""What a request needs to be let in: the token that goes with it, and what can be done after a 401 (session.md 4.8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, final

import attrs

from engine.records import frozen

__all__ = ["ANONYMOUS", "NO_RECOVERY", "Authorizer", "Recovery", "RequestAuth"]


@frozen
class RequestAuth:
    """What identifies one request. `backend`: a ChatGPT-type login, which is served by another host.

    `account_id` goes with such a login where it names one.
    """

    token: str | None = attrs.field(default=None, repr=False)
    account_id: str | None = None
    backend: bool = False

    def headers(self) -> Mapping[str, str]:
        """The headers it adds to a request, names in lower case."""
        if self.token is None:
            return {}
        found = {"authorization": f"Bearer {self.token}"}
        if self.account_id is not None:
            found["chatgpt-account-id"] = self.account_id
        return found


ANONYMOUS = RequestAuth()


class Recovery(Protocol):
    """What is left to try after a 401; one object per request that is repeated."""

    async def next(self) -> bool:
        """Does the next step. True: something changed, repeat the request; false: nothing more can be done.

        Raises `EngineError` where the login is lost for good.
        """
        ...


class Authorizer(Protocol):
    """The identity behind a provider. One object serves all requests to it at the same time."""

    async def current(self) -> RequestAuth:
        """What to send now. Raises `MissingCredential` where there is nothing and the provider needs something."""
        ...

    def recovery(self, refused: RequestAuth) -> Recovery:
        """A fresh sequence of steps for one request that was refused with this identity."""
        ...


@final
class _NoRecovery:
    """Nothing to try: the server's answer stands."""

    async def next(self) -> bool:
        return False


NO_RECOVERY: Recovery = _NoRecovery()
