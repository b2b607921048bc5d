"""One spelling for each host, and what is no host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.exec_policy.hosts import normalize_host


@pytest.mark.parametrize(
    ("text", "host"),
    [
        (" Example.COM. ", "example.com"),
        ("example.com:443", "example.com"),
        ("[::1]:8080", "::1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("::1", "::1"),
        ("10.0.0.1:80", "10.0.0.1"),
    ],
)
def test_spellings_of_a_host_are_one(text: str, host: str) -> None:
    assert normalize_host(text) == host


@pytest.mark.parametrize(
    "text", ["", " ", ".", "http://x", "x/y", "x?y", "x#y", "*.example.com", "a b", "[::1", "[::1]x", "[]", ":80"]
)
def test_what_is_no_single_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        normalize_host(text)


@given(st.text(max_size=20))
def test_any_text_is_a_host_in_lower_case_or_none(text: str) -> None:
    try:
        host = normalize_host(text)
    except ValueError:
        return
    assert host == host.lower()
    assert host == host.strip().rstrip(".")
    assert "/" not in host
