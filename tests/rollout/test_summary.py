"""What listings show, from the first and the last lines of a rollout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.events import AgentMessage, UserMessage
from engine.protocol.profiles import ReadOnly
from engine.protocol.rollout_items import EventLine, SessionMeta, TurnContext
from engine.rollout.lines import encode_rollout_line
from engine.rollout.summary import latest_turn_context, preview_of, read_head
from tests.rollout.test_loading import lines, meta
from tests.rollout.test_scan import anything

FILLER = EventLine(AgentMessage("x"))


def context(cwd: str) -> TurnContext:
    return TurnContext(cwd=cwd, approval_policy="never", sandbox_policy=ReadOnly(), model="m", summary="auto")


@pytest.mark.parametrize(
    ("message", "preview"),
    [
        (UserMessage("  hello\n"), "hello"),
        (UserMessage("context\n## My request for Codex:\n fix it "), "fix it"),
        (UserMessage("context\n## My request for Codex:\n "), None),
        (UserMessage("", images=("data:,",)), "[Image]"),
        (UserMessage(" ", local_images=("/x.png",)), "[Image]"),
        (UserMessage(""), None),
    ],
)
def test_a_preview_is_the_request(message: UserMessage, preview: str | None) -> None:
    assert preview_of(message) == preview


def test_the_head_is_ten_lines_and_more_while_nobody_said_anything() -> None:
    said = EventLine(UserMessage("hello"))
    for fillers in (0, 8, 9, 208):
        head = read_head(lines(meta("t"), *[FILLER] * fillers, said), whole=True)
        assert isinstance(head.meta, SessionMeta)
        assert head.preview == "hello"
        assert head.complete
    silent = read_head(lines(meta("t"), *[FILLER] * 209, said), whole=False)
    assert (silent.preview, silent.complete) == (None, True)


def test_a_head_that_ends_early_is_complete_when_it_has_all() -> None:
    said = EventLine(UserMessage("hello"))
    assert read_head(lines(meta("t"), said), whole=False).complete
    assert not read_head(lines(meta("t"), FILLER), whole=False).complete
    assert read_head(lines(meta("t"), FILLER), whole=True).complete
    assert read_head(lines(FILLER), whole=True).meta is None
    assert read_head(lines(meta("one"), meta("two"), said), whole=True).meta == meta("one")


def test_the_latest_context_is_the_last_that_can_be_read() -> None:
    data = lines(meta("t"), context("/a"), FILLER, context("/b"), FILLER)
    latest = latest_turn_context(data, whole=True)
    assert latest is not None
    assert latest.cwd == "/b"
    torn = data + encode_rollout_line(context("/c"), "x")[:-5]
    assert latest_turn_context(torn, whole=True) == latest
    assert latest_turn_context(lines(meta("t")), whole=True) is None
    rest = data[data.index(b'"turn_context"') :]
    assert latest_turn_context(rest, whole=False) == latest
    [first] = [line for line in data.splitlines(keepends=True) if b'"/a"' in line]
    assert latest_turn_context(first, whole=False) is None  # may lack its beginning, however good it looks


@given(anything, st.booleans())
def test_any_bytes_have_a_head_and_an_end(data: bytes, whole: bool) -> None:
    read_head(data, whole=whole)
    latest_turn_context(data, whole=whole)
