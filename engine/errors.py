"""What can go wrong, one type per thing a caller can act on.

Every error says what failed, on what, and what to do about it. The tree, by whose doing it is:

- you: `ConfigError`, `InvalidRequest`, `UnknownProvider`, `MissingCredential`, `ScriptError`
- the world: `StoreError` and its children, `ModelError` and its children, `ProcessError`
- the life cycle: `SessionStartError`, `SessionCrashed`, `SessionClosed`, `EngineClosed`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from engine.telemetry.trace import StartupTrace

__all__ = [
    "ConfigError",
    "ConflictError",
    "ContextWindowExceeded",
    "EngineClosed",
    "EngineError",
    "InvalidRequest",
    "MissingCredential",
    "ModelError",
    "PatchError",
    "ProcessError",
    "ProtocolError",
    "ScriptError",
    "SessionClosed",
    "SessionCrashed",
    "SessionStartError",
    "StoreError",
    "StoreUnsupported",
    "ThreadNotFound",
    "ToolDefinitionError",
    "TurnFailed",
    "TurnInterrupted",
    "UnknownProvider",
]


class EngineError(Exception):
    """Root of every error this package raises on purpose."""


# --- you ---------------------------------------------------------------------------------------


class ConfigError(EngineError):
    """Configuration that can't be used: where it stands (file, line, column, key) and why (config.md 1.7)."""

    def __init__(
        self,
        message: str,
        *,
        file: PathLike[str] | str | None = None,
        line: int | None = None,
        column: int | None = None,
        key: str | None = None,
    ) -> None:
        self.message = message
        self.file = None if file is None else str(file)
        self.line = line
        self.column = column
        self.key = key
        super().__init__(self._text())

    def _text(self) -> str:
        where = self.file or ""
        if where and self.line is not None:
            where += f":{self.line}"
            if self.column is not None:
                where += f":{self.column}"
        parts = [where] if where else []
        if self.key and not self.message.startswith(self.key) and f"`{self.key}`" not in self.message:
            parts.append(f"`{self.key}`")
        return ": ".join([*parts, self.message])


class UnknownProvider(ConfigError):
    """`model_provider` names a provider that neither is built in nor stands in `[model_providers]`."""


class MissingCredential(EngineError):
    """The provider needs a key that is not there. `variable` is the environment variable to set, if one is known."""

    def __init__(self, message: str, *, variable: str | None = None) -> None:
        self.variable = variable
        super().__init__(message)


class InvalidRequest(EngineError):
    """The call itself makes no sense now: empty input, a cwd that is no directory, a wrong turn id."""


class ScriptError(EngineError):
    """A script of the scripted model is malformed, or has no answer left for another request."""


class ToolDefinitionError(EngineError):
    """A function can't become a tool: a parameter without a type, an unsupported type, a bad or taken name."""


class ProtocolError(EngineError):
    """Data that does not decode as the protocol says. `path` points into the value, e.g. `payload.content[0].text`."""

    def __init__(self, message: str, *, path: str = "") -> None:
        self.path = path
        super().__init__(f"{path}: {message}" if path else message)


class PatchError(EngineError):
    """A patch that does not parse, does not match, or could not be written; children in `engine.tools.apply_patch`."""


# --- the world ---------------------------------------------------------------------------------


class StoreError(EngineError):
    """The thread store failed (disk full, permission, damaged file). Nothing already written is lost."""


class ThreadNotFound(StoreError):
    """No thread with this id, path or name; `thread` is what was asked for."""

    def __init__(self, message: str, *, thread: str) -> None:
        self.thread = thread
        super().__init__(message)


class ConflictError(StoreError):
    """Somebody else holds the thread: it already has a live writer."""


class StoreUnsupported(StoreError):
    """This store can't do that operation at all."""


class ProcessError(EngineError):
    """An operating-system process could not be started or supervised."""


class ModelError(EngineError):
    """A model request failed for good. `info` is the wire form `codex_error_info` (session.md 4.11).

    `retryable` says whether the sampling layer may try again; `delay` is what the server asked for, in seconds.
    """

    def __init__(
        self,
        message: str,
        *,
        info: str | dict[str, object] = "other",
        retryable: bool = False,
        delay: float | None = None,
        status: int | None = None,
    ) -> None:
        self.message = message
        self.info = info
        self.retryable = retryable
        self.delay = delay
        self.status = status
        super().__init__(message)


class ContextWindowExceeded(ModelError):
    """The conversation no longer fits the model's context window."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(
            message
            or "Codex ran out of room in the model's context window. "
            "Start a new thread or clear earlier history before retrying.",
            info="context_window_exceeded",
        )


# --- the life cycle ----------------------------------------------------------------------------


class SessionStartError(EngineError):
    """A start failed at `stage`; nothing of it is left. `cause` came first in time, `also` are the others.

    `startup_trace` has the steps that ran, where the start got that far.
    """

    startup_trace: StartupTrace | None = None

    def __init__(self, stage: str, cause: Exception, also: Sequence[tuple[str, Exception]] = ()) -> None:
        self.stage = stage
        self.cause = cause
        self.also = tuple(also)
        super().__init__(f"Failed to initialize session: {cause}")


class SessionCrashed(EngineError):
    """A running session ended by an error of its own; the other sessions live on. The cause is chained."""


class SessionClosed(EngineError):
    """The session was closed; it takes no more input."""


class EngineClosed(EngineError):
    """The engine is closing or closed; it starts nothing any more."""


class TurnFailed(EngineError):
    """A turn ended with an `error` event. `info` is its `codex_error_info`."""

    def __init__(self, message: str, *, info: str | dict[str, object] | None = None) -> None:
        self.message = message
        self.info = info
        super().__init__(message)


class TurnInterrupted(EngineError):
    """A turn was interrupted or replaced before it completed; `reason` as in `turn_aborted`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the turn was aborted: {reason}")
