"""Shows on stderr how far a run is: a bar on a terminal, a line per scenario elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

__all__ = ["Progress"]


class Progress:
    """Draws only when told to, between samples: a thread that redraws would be in the figures."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False)

    @contextmanager
    def stage(self, name: str, steps: int) -> Iterator[None]:
        """A part of the run with so many steps."""
        if not self._console.is_terminal:
            self.note(f"{name} ...")
        self._task = self._bars.add_task(name, total=steps)
        self._bars.refresh()
        try:
            yield
        finally:
            self._bars.remove_task(self._task)
            self._task = None

    def step(self) -> None:
        """One step of the stage is done."""
        if self._task is not None:
            self._bars.update(self._task, advance=1, refresh=True)
