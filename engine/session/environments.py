"""Where a session's commands run: the environments an engine knows, and those that a thread or a turn selects.

Today that is this machine, or nothing. A `RemoteEnvironment` can be registered and selected by its id; what would run
in it is refused with a clear error, until this engine can do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Final, Protocol, final

from engine.errors import InvalidRequest
from engine.records import frozen

__all__ = [
    "LOCAL",
    "Environment",
    "EnvironmentManager",
    "EnvironmentSelection",
    "EnvironmentUnsupported",
    "LocalEnvironment",
    "RemoteEnvironment",
    "TurnEnvironment",
    "following",
    "placed",
]

LOCAL: Final = "local"


class EnvironmentUnsupported(InvalidRequest):
    """An environment that this engine knows and can't work in yet."""


class Environment(Protocol):
    """A place where commands can run."""

    @property
    def id(self) -> str:
        """What selections and the model call it."""
        ...

    def check_usable(self) -> None:
        """Raises `EnvironmentUnsupported` where nothing can be run in it."""
        ...


@frozen
class LocalEnvironment:
    """This machine."""

    id: str = LOCAL

    def check_usable(self) -> None:
        """It always is."""


@frozen
class RemoteEnvironment:
    """Another machine, reached through an exec server at `url`."""

    id: str
    url: str

    def check_usable(self) -> None:
        """Raises `EnvironmentUnsupported`: nothing can be run there yet."""
        raise EnvironmentUnsupported(
            f"the environment `{self.id}` ({self.url}) is remote, and this version of the engine runs commands only on "
            f"this machine; select `{LOCAL}`, or none"
        )


@frozen
class EnvironmentSelection:
    """An environment to use, by its id. The `cwd` of the first one is the session's, so it may be left out."""

    id: str
    cwd: PathLike[str] | str | None = None


@frozen
class TurnEnvironment:
    """An environment of a turn, and the absolute directory in it where commands start."""

    id: str
    cwd: str


@final
class EnvironmentManager:
    """The environments of one engine, by id."""

    def __init__(self, environments: Sequence[Environment] = ()) -> None:
        """Knows this machine, and `environments` besides. Raises `InvalidRequest` where two have one id."""
        known: list[Environment] = [LocalEnvironment(), *environments]
        self._known = {environment.id: environment for environment in known}
        if len(self._known) < len(known):
            raise InvalidRequest("two environments have the same id")

    @property
    def default(self) -> tuple[EnvironmentSelection, ...]:
        """What a thread works in where nobody selects anything."""
        return (EnvironmentSelection(LOCAL),)

    def select(self, selections: Sequence[EnvironmentSelection]) -> tuple[EnvironmentSelection, ...]:
        """The same selections, checked. Raises `InvalidRequest`; `EnvironmentUnsupported` is one of those."""
        seen: set[str] = set()
        for selection in selections:
            if selection.id in seen:
                raise InvalidRequest(f"duplicate turn environment id `{selection.id}`")
            seen.add(selection.id)
            known = self._known.get(selection.id)
            if known is None:
                raise InvalidRequest(f"unknown turn environment id `{selection.id}`")
            known.check_usable()
        return tuple(selections)


def following(selections: Sequence[EnvironmentSelection], cwd: str) -> tuple[EnvironmentSelection, ...]:
    """The same selections, for a session in `cwd` that may move: the first has no cwd of its own any more.

    Raises `InvalidRequest` where it had another one.
    """
    placed(selections, cwd)
    return tuple(
        EnvironmentSelection(selection.id) if at == 0 else selection for at, selection in enumerate(selections)
    )


def placed(selections: Sequence[EnvironmentSelection], cwd: str) -> tuple[TurnEnvironment, ...]:
    """The environments of a turn in `cwd`, which the first one follows. Raises `InvalidRequest` where it does not."""
    made: list[TurnEnvironment] = []
    for selection in selections:
        wanted = None if selection.cwd is None else fspath(selection.cwd)
        if not made and wanted not in (None, cwd):
            raise InvalidRequest(
                f"the environment `{selection.id}` is the session's first one: its cwd is the session's ({cwd}); to "
                "change it, set `cwd`"
            )
        made.append(TurnEnvironment(selection.id, wanted or cwd))
    return tuple(made)
