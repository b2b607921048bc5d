"""AGENTS.md: what the user and the project tell every model, found on the disk and joined to one text (config.md 9).

The user's file stands in the home. A project has at most one in each directory from its root to the cwd, whether it is
trusted or not; they share one limit of bytes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence

from engine.config.sightings import Sightings, WatchingView
from engine.config.trust import directories_of_project
from engine.permissions.view import View
from engine.records import frozen

__all__ = ["AgentsMd", "Instructions"]

logger = logging.getLogger("engine")

OVERRIDE, STANDARD = "AGENTS.override.md", "AGENTS.md"
SEPARATOR = "\n\n--- project-doc ---\n\n"
CHILD_NOTE = (
    "More AGENTS.md files may stand in directories below this one. Each holds for the directory it stands in and for "
    "everything below. Before you change a file, look for those between the working directory and that file; where two "
    "disagree, the one nearer to the file counts, and what the user says in the conversation counts more than any."
)


@frozen
class Instructions:
    """The text, None where there is none, and the files it was taken from, in order."""

    text: str | None = None
    sources: tuple[str, ...] = ()


@frozen(kw_only=True)
class AgentsMd:
    """How to look. `limit` is in bytes, for all files of a project together; 0 leaves them out.

    `fallbacks` are names that count where a directory has neither of the usual two.
    """

    home: str
    limit: int
    fallbacks: Sequence[str]
    markers: Sequence[str]
    child_note: bool

    def read(self, cwd: str, view: View, sightings: Sightings) -> Instructions:
        """The instructions for a session in `cwd`. Blocks for a few file reads. Never raises.

        A project file that is there and can't be read drops those of the whole project, with a line in the log.
        """
        parts: list[str] = []
        own, sources = self._of_user(sightings)
        if own is not None:
            parts.append(own)
        try:
            text, found = self._of_project(cwd, WatchingView(view, sightings), sightings)
        except OSError as exc:
            logger.warning("the project's instructions are left out: %s can't be read: %s", exc.filename, exc.strerror)
        else:
            sources += found
            if text is not None:
                parts.append(text)
        joined = SEPARATOR.join(parts)
        if self.child_note:
            joined = f"{joined}\n\n{CHILD_NOTE}" if joined else CHILD_NOTE
        return Instructions(joined or None, tuple(sources))

    def _of_user(self, sightings: Sightings) -> tuple[str | None, list[str]]:
        """The first file of the home with something in it."""
        for name in (OVERRIDE, STANDARD):
            path = os.path.join(self.home, name)
            sightings.contents(path)
            try:
                text = _read(path).decode("utf-8", "replace").strip()
            except OSError:
                continue
            if text:
                return text, [path]
        return None, []

    def _of_project(self, cwd: str, view: WatchingView, sightings: Sightings) -> tuple[str | None, list[str]]:
        texts: list[str] = []
        sources: list[str] = []
        left = self.limit
        for path in self._files(cwd, view) if left > 0 else ():
            sources.append(path)
            sightings.contents(path)
            try:
                data = _read(path, left)
            except FileNotFoundError:
                continue
            text = data.decode("utf-8", "replace")
            if text.strip():
                texts.append(text)
                left -= len(data)
        return ("\n\n".join(texts) if texts else None), sources

    def _files(self, cwd: str, view: WatchingView) -> Iterator[str]:
        """The file of each directory: the first that exists, be it empty."""
        names = dict.fromkeys((OVERRIDE, STANDARD, *self.fallbacks))
        for directory in directories_of_project(view.resolve(cwd) or cwd, self.markers, view):
            for path in (os.path.join(directory, name) for name in names):
                if view.is_file(path):
                    yield path
                    break


def _read(path: str, limit: int = -1) -> bytes:
    if limit == 0:
        return b""
    with open(path, "rb") as file:
        return file.read(limit)
