"""Makes rollouts of any size as real programs leave them: turns with calls and outputs, usage, compactions."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import BinaryIO

__all__ = ["MB", "Turns", "sample", "store_rollout"]

MB = 1_000_000
COMPACTION = 80_000  # bytes of a replacement history, about 20,000 tokens
MODEL = "mock-model"
WINDOW = 258_400
VARIETY = 40  # different turns; they repeat after that

_PROSE = (
    "the turn reads back each line of a file and writes what it found to the log before it goes on "
    "src/parser/state.py:118 def test_runs_once(self) -> None: return {'ok': True} <div class=\"row\"> \\d+\\s* "
    "error[E0308]: mismatched types Traceback (most recent call last) 200 OK \x1b[32mpassed\x1b[0m 0x7f3a"
)
_WORDS = _PROSE.split(" ")
_FOREIGN = ["naïve", "—", "über", "│", "日本語"]  # in one text of ten


class Turns:
    """Lines of turns, made from a seed: the same for every run."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._stock = [self._turn(number) for number in range(VARIETY)]
        self._given = 0

    def meta(self, thread_id: str, cwd: str) -> bytes:
        """The first line."""
        return self._line(
            "session_meta",
            {
                "id": thread_id,
                "timestamp": "2026-01-01T00:00:00.000Z",
                "cwd": cwd,
                "originator": "bench",
                "cli_version": "0.131.0",
                "source": "exec",
                "model_provider": "mock",
                "base_instructions": {"text": self._text(8_000)},
            },
        )

    def turn(self) -> bytes:
        """The lines of the next turn, 10 to 60 KB."""
        self._given += 1
        return self._stock[self._given % VARIETY]

    def compaction(self) -> bytes:
        """The lines of a compaction with a replacement history of 80 KB."""
        summary = "Summary of the conversation so far:\n" + self._text(4_000)
        kept = [self._message("user", self._text(4_000)) for _ in range(COMPACTION // 4_000 - 1)]
        history = [*kept, self._message("user", summary)]
        return b"".join(
            (
                self._event("task_started", turn_id="compaction", model_context_window=WINDOW),
                self._line("compacted", {"message": summary, "replacement_history": history}),
                self._usage(),
                self._event("context_compacted"),
                self._event("task_complete", turn_id="compaction", last_agent_message=None),
            )
        )

    def _turn(self, number: int) -> bytes:
        turn_id = f"turn-{number}"
        asked, said = self._text(400), self._text(900)
        lines = [
            self._event("task_started", turn_id=turn_id, model_context_window=WINDOW),
            self._line("turn_context", {"turn_id": turn_id, **_CONTEXT}),
            self._line("response_item", self._message("user", asked)),
            self._event("user_message", message=asked, images=[], local_images=[], text_elements=[]),
        ]
        for call in range(self._random.randint(2, 10)):
            call_id = f"call_{number}_{call}"
            summary = [{"type": "summary_text", "text": self._text(150)}]
            sealed = "gAAAA" + self._random.randbytes(self._random.randint(200, 900)).hex()
            arguments = json.dumps({"cmd": "sed -n '1,200p' " + self._text(40)})
            output = "Exit code: 0\nOutput:\n" + self._lines(self._random.choice((200, 1_500, 4_000, 12_000)))
            lines += [
                self._item("reasoning", summary=summary, content=None, encrypted_content=sealed),
                self._item("function_call", name="exec_command", arguments=arguments, call_id=call_id),
                self._item("function_call_output", call_id=call_id, output=output),
                self._usage(),
            ]
        lines += [
            self._event("agent_message", message=said, phase="final_answer", memory_citation=None),
            self._line("response_item", {**self._message("assistant", said), "phase": "final_answer"}),
            self._event("task_complete", turn_id=turn_id, last_agent_message=said),
        ]
        return b"".join(lines)

    def _text(self, size: int) -> str:
        words = self._random.choices(_WORDS, k=size // 6)
        if self._random.random() < 0.1:
            words[0] = self._random.choice(_FOREIGN)
        return " ".join(words)[:size]

    def _lines(self, size: int) -> str:
        made = [" " * 4 * self._random.randint(0, 3) + self._text(self._random.randint(12, 90))]
        while sum(map(len, made)) < size:
            made.append(" " * 4 * self._random.randint(0, 3) + self._text(self._random.randint(12, 90)))
        return "\n".join(made)

    @staticmethod
    def _message(role: str, text: str) -> dict[str, object]:
        kind = "output_text" if role == "assistant" else "input_text"
        return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}

    def _usage(self) -> bytes:
        usage = {name: self._random.randint(10, 90_000) for name in _USAGE}
        info = {"total_token_usage": usage, "last_token_usage": usage, "model_context_window": WINDOW}
        return self._event("token_count", info=info, rate_limits=None)

    def _event(self, kind: str, **fields: object) -> bytes:
        return self._line("event_msg", {"type": kind, **fields})

    def _item(self, kind: str, **fields: object) -> bytes:
        return self._line("response_item", {"type": kind, **fields})

    def _line(self, kind: str, payload: dict[str, object]) -> bytes:
        stamp = f"2026-01-01T00:{self._random.randint(0, 59):02d}:{self._random.randint(0, 59):02d}.123Z"
        value = {"timestamp": stamp, "type": kind, "payload": payload}
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


_USAGE = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens", "total_tokens")
_CONTEXT = {
    "cwd": "/",
    "approval_policy": "never",
    "sandbox_policy": {"type": "danger-full-access"},
    "model": MODEL,
    "summary": "auto",
    "effort": "medium",
}


def sample(size: int) -> bytes:
    """About `size` bytes of turns, compacted every ten megabytes."""
    turns = Turns()
    made = [turns.meta("01900000-0000-7000-8000-000000000000", "/")]
    written = compacted = 0
    while written < size:
        made.append(turns.turn())
        written += len(made[-1])
        if written - compacted > 10 * MB:
            made.append(turns.compaction())
            compacted = written
    return b"".join(made)


def store_rollout(home: Path, thread_id: str, size: int, *, cwd: Path, compactions: int = 0, live: int = 0) -> Path:
    """A stored thread of about `size` bytes: compacted so often, the last time `live` bytes before its end."""
    folder = home / "sessions" / "2026" / "01" / "01"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rollout-2026-01-01T00-00-00-{thread_id}.jsonl"
    turns = Turns()
    with path.open("wb") as file:
        written = file.write(turns.meta(thread_id, str(cwd)))
        for number in range(1, compactions + 1):
            until = (size - live) * number // compactions - 2 * COMPACTION
            written = _fill(file, turns, written, until)
            written += file.write(turns.compaction())
        _fill(file, turns, written, max(size, written + live) if compactions else size)
    return path


def _fill(file: BinaryIO, turns: Turns, written: int, until: int) -> int:
    while written < until:
        written += file.write(turns.turn())
    return written
