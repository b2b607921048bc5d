"""Following symbolic links name by name, keeping what was met on the way. Pure over a `Disk`."""

from __future__ import annotations

from engine.execution.sandbox.disk import Disk, Kind
from engine.records import frozen

__all__ = ["Resolved", "Resolver", "ancestors_between", "depth", "is_below", "parent"]

_LONGEST_CHAIN = 40  # links on the way to one path, as the kernel has it


@frozen
class Resolved:
    """Where a path leads.

    - `path`: without links; what is missing is appended as it was written
    - `missing`: the first missing component, as a path without links; None also where a file stands in the way
    - `obstacle`: the file in whose place a folder would have to be
    - `links`: the places (without links) of the links that were followed
    """

    path: str
    kind: Kind
    missing: str | None = None
    obstacle: str | None = None
    links: tuple[str, ...] = ()


class Resolver:
    """Remembers what it found."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._found: dict[str, Resolved] = {}

    def resolve(self, path: str) -> Resolved:
        """Where the normal absolute `path` leads."""
        found = self._found.get(path)
        if found is None:
            found = self._found[path] = self._walk(path)
        return found

    def _walk(self, path: str) -> Resolved:
        waiting = _names(path)[::-1]
        at: str = "/"
        kind: Kind = "directory"
        links: list[str] = []
        while waiting:
            name = waiting.pop()
            if name == "..":  # of a link's text
                at = parent(at)
                continue
            here = f"/{name}" if at == "/" else f"{at}/{name}"
            if kind not in ("directory", "missing"):
                rest = "/".join([here, *reversed(waiting)])
                return Resolved(rest, "missing", obstacle=at, links=tuple(links))
            kind = self._disk.kind(here)
            if kind == "missing":
                rest = "/".join([here, *reversed(waiting)])
                return Resolved(rest, "missing", missing=here, links=tuple(links))
            if kind == "link":
                links.append(here)
                target = self._disk.link_target(here)
                if not target or len(links) > _LONGEST_CHAIN:
                    return Resolved(here, "missing", links=tuple(links))  # it leads nowhere
                if target[0] == "/":
                    at = "/"
                waiting += _names(target)[::-1]
                kind = "directory"
                continue
            at = here
        return Resolved(at, kind, links=tuple(links))


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def parent(path: str) -> str:
    """The folder above a normal path; the root is above itself."""
    return path.rpartition("/")[0] or "/"


def depth(path: str) -> int:
    """How many names a normal path has."""
    return path.count("/") if path != "/" else 0


def is_below(path: str, place: str) -> bool:
    """Whether the normal `path` lies strictly below `place`."""
    return path != place and path.startswith(place if place == "/" else place + "/")


def ancestors_between(path: str, top: str) -> list[str]:
    """What lies strictly between the normal `path` and `top` above it, deepest first."""
    found = []
    path = parent(path)
    while is_below(path, top):
        found.append(path)
        path = parent(path)
    return found
