"""How the engine names itself."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from engine.models.identity import is_header_name, is_header_value, originator, user_agent


def test_the_originator_can_be_overridden_with_a_valid_value() -> None:
    assert originator({}) == "codex_cli_rs"
    assert originator({}, "my_host") == "my_host"
    assert originator({"CODEX_INTERNAL_ORIGINATOR_OVERRIDE": "codex_sdk_ts"}) == "codex_sdk_ts"
    assert originator({"CODEX_INTERNAL_ORIGINATOR_OVERRIDE": "bad\nvalue"}, "x") == "x"
    assert originator({"CODEX_INTERNAL_ORIGINATOR_OVERRIDE": ""}, "x") == "x"


def test_the_user_agent_has_the_known_shape() -> None:
    text = user_agent("codex_exec", "1.2", {"TERM_PROGRAM": "wez term", "TERM_PROGRAM_VERSION": "3"}, "sdk; 1")
    assert re.fullmatch(r"codex_exec/1\.2 \(\S+ \S+; \w+\) wez term/3 \(sdk; 1\)", text)
    assert user_agent("a", "1", {"TERM": "xterm"}).endswith(" xterm")
    assert user_agent("a", "1", {}).endswith(" unknown")


@given(st.text(), st.text(), st.dictionaries(st.sampled_from(["TERM", "TERM_PROGRAM"]), st.text()))
def test_the_user_agent_is_always_a_header_value(name: str, suffix: str, env: dict[str, str]) -> None:
    assert is_header_value(user_agent(name, "1", env, suffix))


def test_what_a_header_may_be() -> None:
    assert is_header_name("x-a_B1")
    assert not any(map(is_header_name, ["", "a b", "a:", "é", "a\n"]))
    assert is_header_value("a b\t~")
    assert not any(map(is_header_value, ["a\n", "é", "\x7f", "\x00"]))
