"""A progress bar on a terminal, for work that takes long; nothing anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, final

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["ProgressBar", "progress_bar"]

DELAY = 0.4  # seconds of work before anything is shown


@final
class ProgressBar:
    """Shows how far something is, once it has taken a while."""

    def __init__(self, what: str, stream: TextIO) -> None:
        self._what = what
        self._stream = stream
        self._wanted = stream.isatty()
        self._begin = time.monotonic()
        self._shown: Progress | None = None
        self._task: TaskID | None = None

    def tell(self, done: int, total: int) -> None:
        """`done` of `total`, in bytes."""
        if self._shown is None:
            if not self._wanted or time.monotonic() - self._begin < DELAY:
                return
            self._open()
        assert self._shown is not None
        assert self._task is not None
        self._shown.update(self._task, completed=done, total=total)

    def close(self) -> None:
        """Takes the bar away."""
        if self._shown is not None:
            self._shown.stop()
        self._wanted, self._shown = False, None

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._shown = Progress(*columns, console=Console(file=self._stream), transient=True)
        self._task = self._shown.add_task(self._what, total=None)
        self._shown.start()


@contextmanager
def progress_bar(what: str, stream: TextIO) -> Iterator[ProgressBar]:
    """A bar for the length of a block, taken away at its end."""
    bar = ProgressBar(what, stream)
    try:
        yield bar
    finally:
        bar.close()
