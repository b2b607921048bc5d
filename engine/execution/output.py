"""What a command wrote: bounded buffers, cutting into deltas, decoding, joining two streams (tools.md 3.2, 3.3)."""

from __future__ import annotations

__all__ = ["HeadBuffer", "HeadTailBuffer", "Utf8Chunker", "aggregate", "decode_lossy", "estimate_tokens"]

OUTPUT_CAP = 1024 * 1024  # bytes kept of one stream or terminal
DELTA_CAP = 8192  # bytes of one delta event
MAX_DELTAS = 10_000  # events per stream; output is read on without them


class HeadBuffer:
    """Keeps the first `capacity` bytes."""

    def __init__(self, capacity: int = OUTPUT_CAP) -> None:
        self._capacity = capacity
        self._data = bytearray()

    def append(self, data: bytes) -> None:
        self._data += data[: self._capacity - len(self._data)]

    def value(self) -> bytes:
        return bytes(self._data)


class HeadTailBuffer:
    """Keeps the first and the last `capacity // 2` bytes; what is between them is dropped."""

    def __init__(self, capacity: int = OUTPUT_CAP) -> None:
        self._head_capacity = capacity // 2
        self._tail_capacity = capacity - capacity // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0  # bytes since the last drain, dropped ones included

    def append(self, data: bytes) -> None:
        self.total += len(data)
        if room := self._head_capacity - len(self._head):
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * self._tail_capacity:  # cut seldom, so that each byte moves about once
            del self._tail[: -self._tail_capacity]

    def value(self) -> bytes:
        return bytes(self._head + self._tail[-self._tail_capacity :])

    @property
    def omitted(self) -> int:
        """Bytes dropped since the last drain."""
        return self.total - len(self._head) - min(len(self._tail), self._tail_capacity)

    def drain(self, *, whole_characters: bool = False) -> bytes:
        """Take everything out. With `whole_characters` a UTF-8 sequence that is still coming in stays for later."""
        value = self.value()
        keep = value[complete_length(value) :] if whole_characters else b""
        self._head.clear()
        self._tail.clear()
        self.total = 0
        if keep:
            self.append(keep)
        return value[: len(value) - len(keep)]


class Utf8Chunker:
    """Cuts a stream of bytes into chunks of at most `limit`, never inside a UTF-8 sequence. Nothing is lost."""

    def __init__(self, limit: int = DELTA_CAP) -> None:
        self._limit = max(limit, 4)
        self._pending = b""

    def feed(self, data: bytes) -> list[bytes]:
        data = self._pending + data
        chunks = []
        start = 0
        while start < len(data):
            piece = data[start : start + self._limit]
            length = complete_length(piece)
            if length == 0:
                break
            chunks.append(piece[:length])
            start += length
        self._pending = data[start:]
        return chunks

    def flush(self) -> list[bytes]:
        """The bytes of a sequence that never came to its end."""
        pending, self._pending = self._pending, b""
        return [pending] if pending else []


def complete_length(data: bytes) -> int:
    """Length of `data` without a UTF-8 sequence at its end that is valid so far and not complete."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if 0x80 <= byte < 0xC0:
            continue
        needed = 2 if 0xC2 <= byte < 0xE0 else 3 if 0xE0 <= byte < 0xF0 else 4 if 0xF0 <= byte < 0xF5 else 1
        return len(data) - back if needed > back else len(data)
    return len(data)


def decode_lossy(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def aggregate(stdout: bytes, stderr: bytes, cap: int = OUTPUT_CAP) -> bytes:
    """stdout then stderr; over `cap` stdout gets a third, stderr the rest, and what stderr does not use goes back."""
    if len(stdout) + len(stderr) <= cap:
        return stdout + stderr
    from_stderr = min(len(stderr), cap - min(len(stdout), cap // 3))
    return stdout[: cap - from_stderr] + stderr[:from_stderr]


def estimate_tokens(size: int) -> int:
    """Tokens of a text of `size` bytes of UTF-8 (tools.md 1.9)."""
    return -(-size // 4)
