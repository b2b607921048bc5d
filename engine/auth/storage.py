"""Where logins are kept: `auth.json`, the system's keyring, or the memory of the process (config.md 15).

Everything here blocks, and is meant for a worker thread; `LoginStore` does that, with a deadline on the keyring, which
may wait for a bus that never answers.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar, cast, final

import trio

from engine.auth.errors import LoginStoreError
from engine.auth.record import AuthRecord, decode_record, encode_record

__all__ = ["AuthFile", "Keyring", "LoginStore", "StorageMode", "keyring_account", "library_keyring"]

logger = logging.getLogger("engine")

T = TypeVar("T")
StorageMode = Literal["file", "keyring", "auto", "ephemeral"]
SERVICE: Final = "Codex Auth"
# Long enough for a keychain that asks its user for a password, short enough for a bus where nobody answers.
KEYRING_DEADLINE: Final = 10.0  # seconds


class Keyring(Protocol):
    """What is used of the `keyring` package. Each call may block and raises whatever its backend raises."""

    def get_password(self, service: str, username: str) -> str | None:
        """The secret, or `None` where there is none."""
        ...

    def set_password(self, service: str, username: str, password: str) -> None:
        """Stores a secret."""
        ...

    def delete_password(self, service: str, username: str) -> None:
        """Removes a secret; raises where there is none."""
        ...


def library_keyring() -> Keyring:
    """The keyring of this system. Imports the package. Raises `LoginStoreError` where it is not installed."""
    try:
        keyring = importlib.import_module("keyring")  # an extra: checkers need not find it
    except ImportError:
        raise LoginStoreError(
            "the package `keyring` is not installed: install `session-engine[keyring]`, "
            'or set `cli_auth_credentials_store = "file"`'
        ) from None
    return cast("Keyring", keyring)


def keyring_account(home: Path) -> str:
    """The account name under which the logins of a home are kept; blocks for a moment."""
    return "cli|" + hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()[:16]


@final
class AuthFile:
    """`auth.json` in a home; only its owner may read it."""

    def __init__(self, home: Path) -> None:
        self.path = home / "auth.json"

    def identity(self) -> object:
        """Changes whenever the file does; cheap enough for the loop."""
        try:
            found = os.stat(self.path)
        except OSError as exc:
            return exc.errno
        return (found.st_ino, found.st_size, found.st_mtime_ns)

    def load(self) -> AuthRecord | None:
        """The login in it. Raises `LoginStoreError`."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise LoginStoreError(f"{self.path} can't be read: {exc.strerror}") from exc
        return decode_record(text, str(self.path))

    def save(self, record: AuthRecord) -> None:
        """Replaces the login. A crash in between leaves the old one. Raises `LoginStoreError`."""
        target = os.path.realpath(self.path)  # a link stays a link
        temporary: str | None = None
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".auth-")  # mode 0600
            with os.fdopen(handle, "wb") as file:
                file.write(encode_record(record))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
            temporary = None
        except OSError as exc:
            raise LoginStoreError(f"{self.path} can't be written: {exc.strerror}") from exc
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)

    def delete(self) -> bool:
        """Removes it; whether it was there. Raises `LoginStoreError`."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise LoginStoreError(f"{self.path} can't be removed: {exc.strerror}") from exc
        return True


@final
class LoginStore:
    """The one place where logins of a home are kept, as `mode` says. Its methods run their blocking part in a thread.

    `auto` is the keyring where it works, else the file. A keyring that did not answer in time is not asked again.
    """

    def __init__(
        self,
        home: Path,
        mode: StorageMode = "file",
        *,
        keyring: Callable[[], Keyring] = library_keyring,
        deadline: float = KEYRING_DEADLINE,
    ) -> None:
        self.mode: StorageMode = mode
        self._home = home
        self._file = AuthFile(home)
        self._open_keyring = keyring
        self._deadline = deadline
        self._hangs = False
        self._memory: AuthRecord | None = None

    def identity(self) -> object:
        """Changes when somebody else may have changed the stored login, as far as that can be told without waiting."""
        return self._file.identity() if self.mode in ("file", "auto") else None

    async def load(self) -> AuthRecord | None:
        """The stored login. Raises `LoginStoreError`."""
        if self.mode == "ephemeral":
            await trio.lowlevel.checkpoint()
            return self._memory
        if self.mode in ("keyring", "auto"):
            try:
                found = await self._ask(self._load_secret)
            except LoginStoreError as exc:
                if self.mode == "keyring":
                    raise
                logger.info("the keyring can't be used, so logins are kept in a file: %s", exc)
            else:
                if found is not None or self.mode == "keyring":
                    return found
        return await trio.to_thread.run_sync(self._file.load, abandon_on_cancel=True)

    async def save(self, record: AuthRecord) -> None:
        """Stores the login in place of the old one. Raises `LoginStoreError`. Cancelled: it is stored or not, whole."""
        if self.mode == "ephemeral":
            await trio.lowlevel.checkpoint()
            self._memory = record
            return
        if self.mode in ("keyring", "auto"):
            try:
                await self._ask(self._save_secret, record)
            except LoginStoreError as exc:
                if self.mode == "keyring":
                    raise
                logger.info("the keyring can't be used, so the login is kept in a file: %s", exc)
            else:
                await trio.to_thread.run_sync(self._file.delete)
                return
        await trio.to_thread.run_sync(self._file.save, record)

    async def delete(self) -> bool:
        """Removes the login from everywhere; whether there was one. Raises `LoginStoreError`."""
        there = self._memory is not None
        self._memory = None
        if self.mode in ("keyring", "auto"):
            try:
                there |= await self._ask(self._delete_secret)
            except LoginStoreError:
                if self.mode == "keyring":
                    raise
        return await trio.to_thread.run_sync(self._file.delete) or there

    async def _ask(self, function: Callable[..., T], *arguments: object) -> T:
        """Runs a part that uses the keyring in a thread that is left to itself where it takes too long."""
        if not self._hangs:
            with trio.move_on_after(self._deadline):
                return await trio.to_thread.run_sync(function, *arguments, abandon_on_cancel=True)
            self._hangs = True
        raise LoginStoreError(f"the keyring did not answer within {self._deadline:g} s")

    def _load_secret(self) -> AuthRecord | None:
        account = keyring_account(self._home)
        found = _guarded("read", lambda keyring: keyring.get_password(SERVICE, account), self._open_keyring)
        return None if found is None else decode_record(found.encode(), f"the keyring entry `{SERVICE}`")

    def _save_secret(self, record: AuthRecord) -> None:
        account, text = keyring_account(self._home), encode_record(record).decode()
        _guarded("written", lambda keyring: keyring.set_password(SERVICE, account, text), self._open_keyring)

    def _delete_secret(self) -> bool:
        account = keyring_account(self._home)

        def delete(keyring: Keyring) -> bool:
            if keyring.get_password(SERVICE, account) is None:
                return False
            keyring.delete_password(SERVICE, account)
            return True

        return _guarded("removed", delete, self._open_keyring)


def _guarded(what: str, call: Callable[[Keyring], T], open_keyring: Callable[[], Keyring]) -> T:
    """Backends raise what they like."""
    try:
        return call(open_keyring())
    except LoginStoreError:
        raise
    except Exception as exc:
        raise LoginStoreError(
            f"the keyring entry `{SERVICE}` can't be {what}: {str(exc) or type(exc).__name__}"
        ) from exc
