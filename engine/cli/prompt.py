"""Where the prompt comes from: the argument, stdin, or both (app_server.md 6.2). Pure over bytes."""

from __future__ import annotations

import codecs
from typing import Literal

from engine.errors import InvalidRequest
from engine.records import frozen

__all__ = ["PromptError", "PromptPlan", "decode_stdin", "plan_prompt"]

MISSING = "No prompt provided. Either specify one as an argument or pipe the prompt into stdin."
BLANK = "No prompt provided via stdin."


class PromptError(InvalidRequest):
    """There is no usable prompt; the text goes to stderr as it is."""


@frozen
class PromptPlan:
    """What to do about the prompt: whether to read stdin, and what to say on stderr before.

    `kind`: `argument` (stdin is not touched), `append` (the argument, then what is piped in) or `stdin`.
    """

    kind: Literal["argument", "append", "stdin"]
    argument: str = ""
    notice: str | None = None

    @property
    def reads_stdin(self) -> bool:
        """Whether `finish` needs what stdin holds."""
        return self.kind != "argument"

    def finish(self, data: bytes = b"") -> str:
        """The prompt, given all bytes of stdin. Raises `PromptError`."""
        if self.kind == "argument":
            return self.argument
        text = decode_stdin(data)
        if self.kind == "stdin":
            if not text.strip():
                raise PromptError(BLANK)
            return text
        if not text.strip():
            return self.argument
        end = "" if text.endswith("\n") else "\n"
        return f"{self.argument}\n\n<stdin>\n{text}{end}</stdin>"


def plan_prompt(argument: str | None, *, stdin_is_terminal: bool, resumes: bool = False) -> PromptPlan:
    """How to get the prompt. A resumed session with an argument leaves stdin alone. Raises `PromptError`."""
    if argument == "-":
        return PromptPlan("stdin")
    if argument is None:
        if stdin_is_terminal:
            raise PromptError(MISSING)
        return PromptPlan("stdin", notice="Reading prompt from stdin...")
    if stdin_is_terminal or resumes:
        return PromptPlan("argument", argument)
    return PromptPlan("append", argument, notice="Reading additional input from stdin...")


def decode_stdin(data: bytes) -> str:
    """Text of stdin: UTF-8 (a byte order mark is dropped) or UTF-16 with a byte order mark. Raises `PromptError`."""
    for mark, name in ((codecs.BOM_UTF32_LE, "UTF-32LE"), (codecs.BOM_UTF32_BE, "UTF-32BE")):
        if data.startswith(mark):
            raise _unreadable(f"the input is {name}; convert it to UTF-8 and try again")
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding)
            except UnicodeDecodeError as exc:
                where = exc.start + len(mark)
                raise _unreadable(f"the input is not valid {encoding[:-3].upper()} (at byte {where})") from exc
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as exc:
        where = exc.start + (3 if data.startswith(codecs.BOM_UTF8) else 0)
        raise _unreadable(f"the input is not valid UTF-8 (at byte {where}); convert it and try again") from exc


def _unreadable(why: str) -> PromptError:
    return PromptError(f"Failed to read prompt from stdin: {why}")
