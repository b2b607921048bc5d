"""Frames and requests between host and supervisor: identity over any way in which the bytes arrive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.execution._procfs import state_of
from engine.execution._request import Request
from engine.execution._supervisor_main import encode_frame, take_frames

frames = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=40)), max_size=5)
text = st.binary(max_size=20).map(lambda data: data.replace(b"\0", b""))


@given(frames, st.integers(1, 30))
def test_frames_arrive_whole_however_they_are_cut(sent: list[tuple[int, int, bytes]], size: int) -> None:
    data = b"".join(encode_frame(*frame) for frame in sent)
    buffer = bytearray()
    received = []
    for start in range(0, len(data), size):
        buffer += data[start : start + size]
        received += take_frames(buffer)
    assert received == sent
    assert not buffer


@given(
    st.lists(st.sampled_from([b"0", b"1", b"2", b"1+2", b"3", b"255"]), max_size=3),
    text,
    text,
    st.lists(text, max_size=5),
    st.lists(text, max_size=5),
    st.lists(text, max_size=3),
    st.tuples(st.booleans(), st.booleans()),
)
def test_requests_survive_the_way(
    targets: list[bytes],
    tty: bytes,
    cwd: bytes,
    argv: list[bytes],
    env: list[bytes],
    kept: list[bytes],
    flags: tuple[bool, bool],
) -> None:
    request = Request(targets, tty, cwd, argv, env, kept, *flags)
    decoded = Request.decode(request.encode())
    for name in Request.__slots__:
        assert getattr(decoded, name) == getattr(request, name)


def test_a_process_that_is_gone_has_no_parent() -> None:
    assert state_of(2**22 + 1) == (b"Z", 0, 0)
