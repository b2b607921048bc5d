"""What can be asked of a running session, in order (session.md 3.1); each is answered once through its reply."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from engine.protocol.ids import SubmissionId, TurnId, new_submission_id
from engine.protocol.inputs import UserInput
from engine.records import frozen
from engine.session.settings import SettingsUpdate

if TYPE_CHECKING:
    from engine.config.layers import LayerStack

__all__ = [
    "CANT_STEER_COMPACTION",
    "Compact",
    "Interrupt",
    "Op",
    "ReloadConfig",
    "Reply",
    "Rollback",
    "RunShell",
    "Shutdown",
    "Submission",
    "UpdateSettings",
    "UserTurn",
]

CANT_STEER_COMPACTION = "cannot steer a compact turn"

T = TypeVar("T")


class Reply(Generic[T]):
    """A value or an error that arrives once. Waiting may be cancelled; the answer is then nobody's."""

    __slots__ = ("_arrived", "_error", "_value")

    def __init__(self) -> None:
        self._arrived = trio.Event()
        self._value: T | None = None
        self._error: Exception | None = None

    def answer(self, value: T) -> None:
        """Gives the value; later answers are ignored."""
        if not self._arrived.is_set():
            self._value = value
            self._arrived.set()

    def fail(self, error: Exception) -> None:
        """Gives an error instead."""
        if not self._arrived.is_set():
            self._error = error
            self._arrived.set()

    @property
    def value(self) -> T | None:
        """The value, if it is there."""
        return self._value

    def arrived(self) -> bool:
        """Whether it was answered."""
        return self._arrived.is_set()

    async def wait(self) -> T:
        """The value. Raises the error where there is one."""
        await self._arrived.wait()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # answered, so this is a T


@frozen
class UserTurn:
    """Input for the active turn, else for a new one."""

    input: tuple[UserInput, ...]
    update: SettingsUpdate | None = None


@frozen
class UpdateSettings:
    """New settings for later turns."""

    update: SettingsUpdate


@frozen
class ReloadConfig:
    """Take the user's configuration layers from `fresh`; what the start resolved stays."""

    fresh: LayerStack


@frozen
class RunShell:
    """A command of the user's own (`!command`)."""

    command: str


@frozen
class Compact:
    """Replace the history by what matters of it."""


@frozen
class Rollback:
    """Take the last `turns` turns of the user out of the history."""

    turns: int


@frozen
class Interrupt:
    """Stop the active turn; with `turn_id`, only if it is that one."""

    turn_id: TurnId | None = None


@frozen
class Shutdown:
    """End the session."""


Op = UserTurn | UpdateSettings | ReloadConfig | RunShell | Compact | Rollback | Interrupt | Shutdown


@frozen(eq=False)
class Submission:
    """An operation with its id, its reply, and the context variables of whoever submitted it."""

    op: Op
    id: SubmissionId = attrs.field(factory=new_submission_id)
    reply: Reply[object] = attrs.field(factory=Reply)
    context: contextvars.Context = attrs.field(factory=contextvars.copy_context)
