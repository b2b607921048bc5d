"""What `auth.json` says, for any text."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.auth.errors import LoginStoreError
from engine.auth.record import AuthRecord, Claims, Tokens, decode_record, encode_record, token_claims
from tests.auth.logins import chatgpt, identity, jwt

TEXT = st.text(min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KNOWN = ("auth_mode", "OPENAI_API_KEY", "tokens", "last_refresh", "agent_identity")
EXTRA = st.dictionaries(
    TEXT.filter(lambda name: name not in KNOWN and name != "account_id" and "token" not in name), JSON
)
RECORDS = st.builds(
    AuthRecord,
    auth_mode=st.none() | TEXT,
    api_key=st.none() | TEXT.map(str.strip).filter(bool),
    tokens=st.none() | st.builds(Tokens, TEXT, TEXT, TEXT, st.none() | TEXT, EXTRA),
    last_refresh=st.none() | TEXT,
    agent_identity=JSON,
    extra=EXTRA,
)


@given(RECORDS)
def test_what_is_written_is_read_again(record: AuthRecord) -> None:
    text = encode_record(record)
    assert decode_record(text, "x") == record
    assert "OPENAI_API_KEY" in json.loads(text)


@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_text_is_a_login_or_an_error_that_names_the_file(text: bytes) -> None:
    said = ""
    try:
        found = decode_record(text, "the file")
    except LoginStoreError as exc:
        said = str(exc)
    else:
        said = "the file" * (found.mode in ("apikey", "chatgpt", "agentIdentity", "chatgptAuthTokens"))
    assert "the file" in said


@given(st.text(max_size=60) | JSON.map(lambda value: jwt(exp=value, email=value)))
def test_any_token_has_claims(token: str) -> None:
    assert isinstance(token_claims(token), Claims)


@given(JSON)
def test_any_payload_has_claims(value: Any) -> None:
    found = token_claims(jwt(**{"https://api.openai.com/auth": value, "https://api.openai.com/profile": value}))
    assert isinstance(found, Claims)


def test_claims() -> None:
    assert token_claims(identity("a", "m@x", "pro")) == Claims(None, "m@x", "pro", "a")
    assert token_claims(jwt(exp=5, **{"https://api.openai.com/profile": {"email": "p@x"}})) == Claims(5.0, "p@x")
    assert token_claims(jwt(exp=True)) == Claims()
    assert token_claims("opaque") == Claims()


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        ({"OPENAI_API_KEY": "k"}, "apikey"),
        ({"OPENAI_API_KEY": "k", "auth_mode": "chatgpt"}, "chatgpt"),
        ({"OPENAI_API_KEY": None}, "chatgpt"),
        ({"agent_identity": {"a": 1}}, "agentIdentity"),
        ({"auth_mode": "something new", "OPENAI_API_KEY": "k"}, "apikey"),
        ({"auth_mode": "chatgptAuthTokens"}, "chatgptAuthTokens"),
    ],
)
def test_kinds_of_logins(content: Any, mode: str) -> None:
    assert decode_record(json.dumps(content).encode(), "x").mode == mode


def test_the_account_stands_in_the_file_or_in_the_token() -> None:
    assert chatgpt(account="acc").account_id == "acc"
    record = chatgpt()
    assert record.tokens is not None
    assert attrs.evolve(record, tokens=attrs.evolve(record.tokens, account_id=None)).account_id == "acc"
    assert AuthRecord().account_id is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("2027-01-15T08:00:00Z", 1_800_000_000.0), ("yesterday", None), (None, None)]
)
def test_times(text: str | None, seconds: float | None) -> None:
    assert AuthRecord(last_refresh=text).refreshed_at == seconds


@pytest.mark.parametrize("tokens", [1, {}, {"id_token": "a", "access_token": "b"}])
def test_tokens_that_lack_something(tokens: Any) -> None:
    with pytest.raises(LoginStoreError, match="log in again"):
        decode_record(json.dumps({"tokens": tokens}).encode(), "x")


def test_secrets_are_not_shown() -> None:
    record = chatgpt("SECRET", "SECRET", api_key="SECRET", extra={"x": "SECRET"}, agent_identity="SECRET")
    assert "SECRET" not in repr(record)
