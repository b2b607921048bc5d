"""What can go wrong with a login, by what its user can do about it (config.md 15)."""

from __future__ import annotations

from typing import Literal

from engine.errors import EngineError

__all__ = ["LoginError", "LoginStoreError", "RefreshFailed", "TokenCommandFailed"]


class LoginError(EngineError):
    """A login can't be used, stored or refreshed."""


class LoginStoreError(LoginError):
    """Logins could not be read or written: the file, the keyring. The message says which and why."""


class RefreshFailed(LoginError):
    """The tokens of a login could not be renewed. `permanent`: trying again is of no use, somebody has to log in.

    `reason` is `other` for what passes by itself, too.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool,
        reason: Literal["expired", "reused", "invalidated", "account", "other"] = "other",
    ) -> None:
        self.permanent = permanent
        self.reason = reason
        super().__init__(message)


class TokenCommandFailed(LoginError):
    """The command that prints a provider's token did not (`model_providers.<id>.auth`)."""
