"""What `auth.json` holds, and what its tokens say about themselves; pure (config.md 15).

Another program reads and writes the same file, so what is not known here is kept as it is.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import attrs
import msgspec

from engine.auth.errors import LoginStoreError
from engine.protocol.wire import EMPTY, JsonObject
from engine.records import frozen

__all__ = ["AuthRecord", "Claims", "Mode", "Tokens", "decode_record", "encode_record", "token_claims"]

Mode = Literal["apikey", "chatgpt", "chatgptAuthTokens", "agentIdentity"]
MODES: Final[tuple[Mode, ...]] = ("apikey", "chatgpt", "chatgptAuthTokens", "agentIdentity")
_KEY: Final = "OPENAI_API_KEY"
_CLAIMS: Final = "https://api.openai.com/auth"  # the object in a token that holds account and plan
_PROFILE: Final = "https://api.openai.com/profile"


@frozen
class Tokens:
    """The tokens of a ChatGPT login; `extra` are fields that are not known here."""

    id_token: str = attrs.field(repr=False)
    access_token: str = attrs.field(repr=False)
    refresh_token: str = attrs.field(repr=False)
    account_id: str | None = None
    extra: JsonObject = attrs.field(factory=dict, repr=False)


@frozen(kw_only=True)
class AuthRecord:
    """A stored login. `last_refresh` is an RFC 3339 time as it was written."""

    auth_mode: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    tokens: Tokens | None = None
    last_refresh: str | None = None
    agent_identity: object = attrs.field(default=None, repr=False)
    extra: JsonObject = attrs.field(factory=dict, repr=False)

    @property
    def mode(self) -> Mode:
        """What kind of login it is; files of older writers do not say."""
        for known in MODES:
            if self.auth_mode == known:
                return known
        if self.api_key is not None:
            return "apikey"
        return "agentIdentity" if self.agent_identity is not None and self.tokens is None else "chatgpt"

    @property
    def account_id(self) -> str | None:
        """The account a ChatGPT login is for."""
        if self.tokens is None:
            return None
        return self.tokens.account_id or token_claims(self.tokens.id_token).account_id

    @property
    def refreshed_at(self) -> float | None:
        """`last_refresh` in Unix seconds, where it is a time."""
        try:
            return datetime.fromisoformat(self.last_refresh or "").timestamp()
        except (ValueError, OverflowError):
            return None


@frozen
class Claims:
    """What a JSON web token says; nothing is verified, because only its maker's server has to."""

    expires_at: float | None = None
    email: str | None = None
    plan: str | None = None
    account_id: str | None = None


@functools.lru_cache(maxsize=16)  # asked before every request
def token_claims(token: str) -> Claims:
    """The claims of a token; an opaque one says nothing."""
    parts = token.split(".")
    if len(parts) != 3:
        return Claims()
    try:
        text = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        told = msgspec.json.decode(text)
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return Claims()
    if not isinstance(told, dict):
        return Claims()
    about, profile = (value if isinstance(value := told.get(key), dict) else {} for key in (_CLAIMS, _PROFILE))
    expires = told.get("exp")
    return Claims(
        float(expires) if isinstance(expires, int | float) and not isinstance(expires, bool) else None,
        _text(told, "email") or _text(profile, "email"),
        _text(about, "chatgpt_plan_type"),
        _text(about, "chatgpt_account_id"),
    )


def decode_record(text: bytes, where: str) -> AuthRecord:
    """A stored login. Raises `LoginStoreError` that names `where` it stands."""
    try:
        content = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise LoginStoreError(f"{where} is not valid JSON; log in again, or remove it") from None
    if not isinstance(content, dict):
        raise LoginStoreError(f"{where} holds no JSON object; log in again, or remove it")
    known = ("auth_mode", _KEY, "tokens", "last_refresh", "agent_identity")
    return AuthRecord(
        auth_mode=_text(content, "auth_mode"),
        api_key=(_text(content, _KEY) or "").strip() or None,
        tokens=_tokens(content.get("tokens"), where),
        last_refresh=_text(content, "last_refresh"),
        agent_identity=content.get("agent_identity"),
        extra={name: value for name, value in content.items() if name not in known},
    )


def _tokens(value: object, where: str) -> Tokens | None:
    if value is None:
        return None
    table: Mapping[str, object] = value if isinstance(value, dict) else EMPTY
    identity, access, refresh = (_text(table, name) for name in ("id_token", "access_token", "refresh_token"))
    if identity is None or access is None or refresh is None:
        raise LoginStoreError(f"{where}: `tokens` lacks id_token, access_token or refresh_token; log in again")
    known = ("id_token", "access_token", "refresh_token", "account_id")
    extra = {name: part for name, part in table.items() if name not in known}
    return Tokens(identity, access, refresh, _text(table, "account_id"), extra)


def encode_record(record: AuthRecord) -> bytes:
    """The text of `auth.json`: `OPENAI_API_KEY` is always there, the rest where it has a value."""
    made: JsonObject = {}
    if record.auth_mode is not None:
        made["auth_mode"] = record.auth_mode
    made[_KEY] = record.api_key
    if (tokens := record.tokens) is not None:
        told: JsonObject = {
            "id_token": tokens.id_token,
            "access_token": tokens.access_token,
            "refresh_token": tokens.refresh_token,
        }
        if tokens.account_id is not None:
            told["account_id"] = tokens.account_id
        made["tokens"] = told | tokens.extra
    if record.last_refresh is not None:
        made["last_refresh"] = record.last_refresh
    if record.agent_identity is not None:
        made["agent_identity"] = record.agent_identity
    return json.dumps(made | record.extra, indent=2, ensure_ascii=False).encode()


def _text(table: Mapping[str, object], key: str) -> str | None:
    value = table.get(key)
    return value if isinstance(value, str) and value else None
