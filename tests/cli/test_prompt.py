"""Every form in which a prompt can come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli.prompt import PromptError, PromptPlan, decode_stdin, plan_prompt

ADDITIONAL = "Reading additional input from stdin..."
READING = "Reading prompt from stdin..."


def test_what_is_read_and_said() -> None:
    assert plan_prompt("p", stdin_is_terminal=True) == PromptPlan("argument", "p")
    assert plan_prompt("p", stdin_is_terminal=False) == PromptPlan("append", "p", ADDITIONAL)
    assert plan_prompt(None, stdin_is_terminal=False) == PromptPlan("stdin", notice=READING)
    assert plan_prompt("-", stdin_is_terminal=False) == PromptPlan("stdin")
    assert plan_prompt("-", stdin_is_terminal=True) == PromptPlan("stdin")
    assert plan_prompt("p", stdin_is_terminal=False, resumes=True) == PromptPlan("argument", "p")
    assert plan_prompt(None, stdin_is_terminal=False, resumes=True) == PromptPlan("stdin", notice=READING)


def test_a_terminal_and_no_prompt() -> None:
    with pytest.raises(PromptError) as caught:
        plan_prompt(None, stdin_is_terminal=True)
    assert str(caught.value) == ("No prompt provided. Either specify one as an argument or pipe the prompt into stdin.")


@pytest.mark.parametrize("blank", [b"", b"   ", b"\n\t\n", b"\xef\xbb\xbf "])
def test_blank_stdin_is_no_prompt(blank: bytes) -> None:
    with pytest.raises(PromptError, match=r"^No prompt provided via stdin\.$"):
        plan_prompt(None, stdin_is_terminal=False).finish(blank)


@pytest.mark.parametrize(
    ("piped", "prompt"),
    [
        (b"", "p"),
        (b" \n", "p"),
        (b"text", "p\n\n<stdin>\ntext\n</stdin>"),
        (b"text\n", "p\n\n<stdin>\ntext\n</stdin>"),
        (b" text\n\n", "p\n\n<stdin>\n text\n\n</stdin>"),
    ],
)
def test_piped_text_is_appended_to_an_argument(piped: bytes, prompt: str) -> None:
    assert plan_prompt("p", stdin_is_terminal=False).finish(piped) == prompt


@given(st.text(st.characters(codec="utf-8")).filter(lambda text: text.strip() and not text.startswith("\ufeff")))
def test_stdin_is_taken_whole_in_each_encoding(text: str) -> None:
    plan = PromptPlan("stdin")
    assert plan.finish(text.encode()) == text
    assert plan.finish(b"\xef\xbb\xbf" + text.encode()) == text
    assert plan.finish(b"\xfe\xff" + text.encode("utf-16-be")) == text
    if text.startswith("\0"):  # that makes it the mark of UTF-32
        with pytest.raises(PromptError, match="UTF-32LE"):
            plan.finish(b"\xff\xfe" + text.encode("utf-16-le"))
    else:
        assert plan.finish(b"\xff\xfe" + text.encode("utf-16-le")) == text


@pytest.mark.parametrize(
    "data",
    ["x".encode("utf-32"), b"\x00\x00\xfe\xffxxxx", b"ok \xff", b"\xef\xbb\xbf\xff", b"\xff\xfex", b"\xfe\xff\xd8\x00"],
)
def test_what_is_no_text(data: bytes) -> None:
    with pytest.raises(PromptError, match=r"^Failed to read prompt from stdin: the input is "):
        decode_stdin(data)


@given(st.binary())
def test_any_bytes_give_text_or_a_prompt_error(data: bytes) -> None:
    try:
        decode_stdin(data)
    except PromptError:
        pass


def test_a_megabyte_is_fine() -> None:
    data = b"x" * 1_000_000
    assert len(PromptPlan("stdin").finish(data)) == 1_000_000
