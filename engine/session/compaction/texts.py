"""What a model is told about compaction: the request for a summary, and the words that introduce one."""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = [
    "ACCURACY_WARNING",
    "NO_ROOM_WARNING",
    "NO_SUMMARY",
    "SUMMARIZE",
    "SUMMARY_PREFIX",
    "is_summary",
    "summary_text",
]

SUMMARIZE: Final = """\
Stop working on the task here and write a handover note. Another model will go on from your note and from the last \
messages of the user; it sees nothing else of this conversation.

Put into it:
- what the user wants, with every requirement, limit and preference that still holds
- what has been done and decided so far, and why
- exact names that will be needed again: files, functions, commands, identifiers, error texts
- what is not finished or not verified, and the next steps in order

Be brief and exact, and invent nothing. Answer with the note alone.
"""

SUMMARY_PREFIX: Final = (
    "The earlier part of this conversation was replaced by the handover note below, written by the model that worked "
    "on it so far. Build on it instead of doing its work again; files and tools are as that work has left them."
)

# The words by which the other program begins its summaries: 399 characters of ASCII, known by their digest.
OTHER_PREFIX_LENGTH: Final = 399
OTHER_PREFIX_SHA256: Final = "e9b088e794a6bb9082ac053fcc760bd818d7e720ee4bcdc72c6e480de7b7cb0e"

NO_SUMMARY: Final = "(no summary available)"

ACCURACY_WARNING: Final = (
    "Heads up: Long threads and multiple compactions can cause the model to be less accurate. "
    "Start a new thread when possible to keep threads small and targeted."
)

NO_ROOM_WARNING: Final = (
    "The conversation is too long even for a request to summarize it. It goes on with the latest messages of the user "
    "alone; the whole conversation stays in the stored thread."
)


def summary_text(said: str | None) -> str:
    """The summary message for what a model said."""
    return f"{SUMMARY_PREFIX}\n{said or NO_SUMMARY}"


def is_summary(text: str) -> bool:
    """Whether a user message is the summary of an earlier compaction, also of the other program's."""
    if text.startswith(SUMMARY_PREFIX + "\n"):
        return True
    if text[OTHER_PREFIX_LENGTH : OTHER_PREFIX_LENGTH + 1] != "\n":
        return False
    return hashlib.sha256(text[:OTHER_PREFIX_LENGTH].encode(errors="replace")).hexdigest() == OTHER_PREFIX_SHA256
